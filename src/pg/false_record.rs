//! A record of core's that is not true on a token line.
//!
//! 17 and 18 log `connection authenticated: user="…" method=trust` under log_connections before the
//! ClientAuthentication hook runs (auth.c, ClientAuthentication), so for every token that is refused afterwards too.
//! On the lines of the guarded file that one record is dropped.

use super::port;
use once_cell::sync::OnceCell;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;
use pgrx::{pg_guard, pg_sys};
use std::ffi::CStr;
use std::os::raw::c_int;

/// How auth.c writes the record, before translation.
const RECORD: &CStr = c"connection authenticated: user=\"%s\" method=%s (%s:%d)";

static PREVIOUS: OnceCell<pg_sys::emit_log_hook_type> = OnceCell::new();

/// Has the record dropped in every process forked from now on. For `_PG_init`, with a guarded file.
pub(super) fn drop_it() {
    // SAFETY: _PG_init under shared_preload_libraries: one process, one thread; the previous hook is kept.
    unsafe {
        if PREVIOUS.set(pg_sys::emit_log_hook).is_ok() {
            pg_sys::emit_log_hook = Some(look);
        }
    }
}

/// Called for each record that goes to the log (elog.c, EmitErrorReport). The previous hook comes after this, so that
/// it is told too what is not to be written.
#[pg_guard]
unsafe extern "C-unwind" fn look(record: *mut pg_sys::ErrorData) {
    // SAFETY: elog.c gives its own record; message_id is null or the literal of the call that raised it.
    unsafe {
        if (*record).elevel == pg_sys::LOG as c_int
            && !(*record).message_id.is_null()
            && CStr::from_ptr((*record).message_id) == RECORD
            && port::current_line()
                .is_some_and(|line| matches!(line, port::Line::Token | port::Line::IncludedToken))
        {
            (*record).output_to_server = false; // the one change that elog.c lets this hook make
        }
    }
    if let Some(Some(previous)) = PREVIOUS.get() {
        // SAFETY: another library's hook with core's own argument; an error in it goes on from the guard of this one.
        unsafe { pg_guard_ffi_boundary(|| previous(record)) }
    }
}
