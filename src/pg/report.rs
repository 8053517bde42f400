//! What goes to the server log, and the one place from which a refusal goes to the client.
//!
//! In the hook there is no exception stack: core promotes an ERROR to FATAL and sends its text, file, line and
//! routine to a client that nobody has authenticated yet (elog.c, `send_message_to_frontend`). So reasons are
//! written with `LOG_SERVER_ONLY` first, and every refusal is then raised here, by one call at one place.

use super::port::Connection;
use super::startup;
use pg_oidc_core::refusal::Refusal;
use pgrx::pg_sys;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;
use pgrx::pg_sys::panic::ErrorReportable as _;
use std::ffi::{CStr, CString};

/// Where the client is told that an error was raised: the same for every refusal, whatever its cause.
const PLACE: (&CStr, i32, &CStr) = (c"pg_oidc", 1, c"authenticate");

/// What a refused client may know. The cause stays in the server log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outward {
    /// The constant line of every refusal.
    Refused,
    /// The password was not even asked for: the connection is not encrypted.
    TlsRequired,
    /// The server is not ready to judge; the same token may be good in a moment (SQLSTATE 57P03).
    Retry,
}

/// Writes one line to the server log and never to the client.
pub(crate) fn log(message: &str) {
    server_log(pg_sys::LOG_SERVER_ONLY as i32, message, None, None);
}

/// As [`log`], with what is to be done.
#[cfg(feature = "pg18")]
pub(super) fn log_with_hint(message: &str, hint: &str) {
    server_log(pg_sys::LOG_SERVER_ONLY as i32, message, None, Some(hint));
}

/// Writes the reason of a refusal to the server log. Names that came from a client are written with escapes
/// (`{:?}`): no newline reaches the log.
pub(crate) fn log_refusal(connection: &Connection, refusal: &Refusal) {
    log(&format!(
        "OIDC login refused: reason={} user={:?} database={:?} client={:?} detail={:?}",
        refusal.code(),
        connection.user,
        connection.database,
        connection.host,
        refusal.detail(),
    ));
}

/// Writes a warning with detail and hint to the server log.
pub(crate) fn warning(message: &str, detail: Option<&str>, hint: Option<&str>) {
    server_log(pg_sys::WARNING as i32, message, detail, hint);
}

/// Raises an ERROR as core's own functions do.
#[cfg(feature = "fail_points")]
pub(crate) fn error(message: &str) {
    server_log(pgrx::PgLogLevel::ERROR as i32, message, None, None);
}

/// Ends the process: the server does not start, and says why. For `_PG_init` only.
pub(crate) fn refuse_to_start(message: &str, detail: Option<&str>, hint: Option<&str>) -> ! {
    server_log(pg_sys::FATAL as i32, message, detail, hint);
    std::process::exit(1)
}

/// Refuses the login: the constant line to the client, then the end of this backend.
///
/// Rust frames are not unwound, so whatever must be wiped or dropped is dropped before this is called.
pub(crate) fn refuse(connection: &Connection, outward: Outward) -> ! {
    // At the OAUTHBEARER door core's own words, which all others hear there (auth.c, auth_failed).
    let method = if connection.bearer { "OAuth bearer" } else { "OIDC" };
    let (sqlstate, message) = match outward {
        Outward::Refused => (
            pg_sys::errcodes::PgSqlErrorCode::ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION,
            format!("{method} authentication failed for user \"{}\"", connection.user),
        ),
        Outward::TlsRequired => (
            pg_sys::errcodes::PgSqlErrorCode::ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION,
            "tokens are accepted only over TLS".to_owned(),
        ),
        Outward::Retry => (
            pg_sys::errcodes::PgSqlErrorCode::ERRCODE_CANNOT_CONNECT_NOW,
            "OIDC authentication is not ready, try again".to_owned(),
        ),
    };
    let message = text(&message);
    // SAFETY: elog.c: errstart .. errfinish in one process, no PG_exception_stack is needed for FATAL, which
    // never returns and never jumps: errfinish runs proc_exit itself.
    unsafe {
        if super::server::errstart(pg_sys::FATAL as i32, std::ptr::null()) {
            super::server::errcode(sqlstate as i32);
            super::server::errmsg_internal(c"%s".as_ptr(), message.as_ptr());
            super::server::errfinish(PLACE.0.as_ptr(), PLACE.1, PLACE.2.as_ptr());
        }
    }
    startup::exit(1)
}

/// Ends this backend in silence, as core does when a client goes away while it is asked for a password.
pub(crate) fn leave() -> ! {
    startup::exit(0) // core's own status in auth_failed()
}

/// Raises an ERROR with detail and hint in the session that runs this SQL.
pub(crate) fn raise(
    code: pg_sys::errcodes::PgSqlErrorCode,
    message: &str,
    detail: Option<&str>,
    hint: Option<&str>,
) -> ! {
    let mut report = pgrx::pg_sys::panic::ErrorReport::new(code, message.to_owned(), "pg_oidc");
    if let Some(detail) = detail {
        report = report.set_detail(detail.to_owned());
    }
    if let Some(hint) = hint {
        report = report.set_hint(hint.to_owned());
    }
    Err::<(), _>(report).unwrap_or_report();
    unreachable!("an ERROR was raised")
}

fn server_log(level: i32, message: &str, detail: Option<&str>, hint: Option<&str>) {
    let (message, detail, hint) = (text(message), detail.map(text), hint.map(text));
    // SAFETY: elog.c: errstart .. errfinish in order, with C strings that outlive the calls. errfinish checks for
    // interrupts, which may raise: the guard turns that into a Rust panic instead of a jump over Rust frames.
    unsafe {
        pg_guard_ffi_boundary(|| {
            if super::server::errstart(level, std::ptr::null()) {
                super::server::errmsg_internal(c"%s".as_ptr(), message.as_ptr());
                if let Some(detail) = &detail {
                    super::server::errdetail_internal(c"%s".as_ptr(), detail.as_ptr());
                }
                if let Some(hint) = &hint {
                    super::server::errhint(c"%s".as_ptr(), hint.as_ptr());
                }
                super::server::errfinish(PLACE.0.as_ptr(), PLACE.1, c"report".as_ptr());
            }
        });
    }
}

/// A C string of `message`; a NUL, which no caller has, would end it early.
fn text(message: &str) -> CString {
    CString::new(message.replace('\0', "?")).unwrap_or_default()
}
