//! Where in its life this process is.

use pgrx::pg_sys;
use std::ffi::CStr;

/// Whether `_PG_init` may set up anything: preloaded by a postmaster, and no upgrade in progress.
///
/// Defining a postmaster setting later is FATAL and would kill CREATE EXTENSION and pg_restore (guc.c); in
/// `--single` and bootstrap mode IsPostmasterEnvironment is false (postmaster.c sets it first thing).
pub(crate) fn preloading() -> bool {
    // SAFETY: flags that core sets before it loads any library.
    unsafe {
        pg_sys::process_shared_preload_libraries_in_progress
            && pg_sys::IsPostmasterEnvironment
            && !pg_sys::IsBinaryUpgrade
    }
}

/// Whether nothing can be written here: recovery, or a standby.
pub(crate) fn is_standby() -> bool {
    // SAFETY: xlog.c; a flag in shared memory.
    unsafe { pg_sys::RecoveryInProgress() }
}

/// Whether this backend has not yet begun its session: whoever leaves now was turned away by core.
pub(crate) fn is_starting() -> bool {
    // SAFETY: miscadmin.h; a backend sets it to NormalProcessing when InitPostgres has returned (postgres.c,
    // PostgresMain).
    unsafe { pg_sys::Mode == pg_sys::ProcessingMode::InitProcessing }
}

/// The number that initdb gave this cluster; a standby has its primary's.
pub(crate) fn system_identifier() -> u64 {
    // SAFETY: xlog.c; from the control file, which is in memory before any backend is forked.
    unsafe { pg_sys::GetSystemIdentifier() }
}

/// Microseconds since 1970 by the wall clock, the unit and epoch of every time in the decision.
pub(crate) fn now() -> i64 {
    // SAFETY: gettimeofday in core's epoch (timestamp.h): 2000-01-01, 946,684,800 s after 1970.
    let since_2000 = unsafe { pg_sys::GetCurrentTimestamp() };
    since_2000.saturating_add(from_core_epoch(0))
}

/// A timestamptz of core's in microseconds since 1970.
pub(crate) fn from_core_epoch(timestamp: i64) -> i64 {
    timestamp.saturating_add(946_684_800_000_000)
}

/// A timestamptz in microseconds since 1970; the infinities are the extremes.
pub(crate) fn micros(timestamp: pgrx::datum::TimestampWithTimeZone) -> i64 {
    match i64::from(timestamp) {
        i64::MIN => i64::MIN,
        time => from_core_epoch(time),
    }
}

/// Microseconds since 1970 as a timestamptz of core's.
pub(crate) fn to_core_epoch(micros: i64) -> i64 {
    micros.saturating_sub(946_684_800_000_000)
}

/// `authentication_timeout` in milliseconds.
pub(crate) fn authentication_timeout_ms() -> i64 {
    // SAFETY: an int setting in seconds (postmaster.c).
    i64::from(unsafe { pg_sys::AuthenticationTimeout }) * 1000
}

/// The time now as core writes it, whatever DateStyle is.
pub(crate) fn timestamp_text() -> String {
    time_text(now())
}

/// As [`timestamp_text`], of a time in microseconds since 1970.
pub(crate) fn time_text(micros: i64) -> String {
    // SAFETY: timestamp.c: a static buffer, copied at once.
    unsafe { CStr::from_ptr(pg_sys::timestamptz_to_str(to_core_epoch(micros))) }
        .to_string_lossy()
        .into_owned()
}
