//! Intervals, as core reads them.

use pgrx::{IntoDatum, PgTryBuilder, direct_function_call_as_datum, pg_sys};
use std::ffi::CString;
use std::panic::AssertUnwindSafe;

const DAY: i128 = 86_400_000_000;

/// The text as an interval, in microseconds: a month has 30 days, as in comparisons of intervals. None: it is none.
pub(crate) fn micros(text: &str) -> Option<i64> {
    let text = CString::new(text).ok()?;
    let read = PgTryBuilder::new(AssertUnwindSafe(|| {
        // SAFETY: timestamp.c: interval_in takes a C string, the oid of no element type and no modifier. It looks at
        // its text alone and holds nothing, so that an ERROR in it leaves nothing behind to be cleaned up.
        unsafe {
            let arguments =
                [Some(text.as_ptr().into()), Some(pg_sys::InvalidOid.into()), (-1_i32).into_datum()];
            direct_function_call_as_datum(pg_sys::interval_in, &arguments)
                .map(|datum| *datum.cast_mut_ptr::<pg_sys::Interval>())
        }
    }));
    let interval = read.catch_others(|_| None).execute()?;
    let days = i128::from(interval.day) + 30 * i128::from(interval.month);
    let micros = i128::from(interval.time) + days * DAY;
    Some(i64::try_from(micros).unwrap_or(if micros > 0 { i64::MAX } else { i64::MIN }))
}
