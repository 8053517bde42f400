//! This library as a validator of bearer tokens, for core's `oauth` method (oauth.h, auth-oauth.c).
//!
//! Core loads the library that the HBA line names in the backend that the client waits for, asks it for its callbacks
//! and hands the token to one of them. Whatever comes of it, the callback returns true: false makes core write a
//! WARNING of its own. A refusal is `authorized` left at false, and core's one line to the client.

use super::port::{self, Line};
use super::{hooks, report, server};
use pg_oidc_core::oauth_line::OauthLine;
use pgrx::{pg_guard, pg_sys};
use std::ffi::{CStr, CString};
use std::os::raw::c_char;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether core has asked for the callbacks in this process: one process serves one client, by one HBA line.
static ASKED: AtomicBool = AtomicBool::new(false);

static CALLBACKS: server::OAuthValidatorCallbacks = server::OAuthValidatorCallbacks {
    magic: server::PG_OAUTH_VALIDATOR_MAGIC,
    startup_cb: None,
    shutdown_cb: None,
    validate_cb: Some(validate),
};

/// What core looks up by this name in a library that an `oauth` line names.
#[unsafe(no_mangle)]
pub(crate) extern "C-unwind" fn _PG_oauth_validator_module_init() -> *const server::OAuthValidatorCallbacks {
    ASKED.store(true, Ordering::Relaxed);
    &raw const CALLBACKS
}

/// Whether the token of this process's client is judged here, whatever path the HBA line names the library by.
pub(super) fn is_ours() -> bool {
    ASKED.load(Ordering::Relaxed)
}

#[pg_guard]
unsafe extern "C-unwind" fn validate(
    _state: *const server::ValidatorModuleState,
    token: *const c_char,
    _role: *const c_char,
    result: *mut server::ValidatorModuleResult,
) -> bool {
    // SAFETY: auth-oauth.c gives a C string that it wipes itself, and a result that is all zero: refused.
    let token = unsafe { CStr::from_ptr(token) }.to_bytes();
    let Some(identity) = judge(token).and_then(|identity| CString::new(identity).ok()) else { return true };
    // SAFETY: as above; core frees the string with pfree.
    unsafe {
        (*result).authn_id = pg_sys::pstrdup(identity.as_ptr());
        (*result).authorized = true;
    }
    true
}

/// The identity that the token admits.
fn judge(token: &[u8]) -> Option<String> {
    let Some(door) = hooks::door() else {
        report::log_with_hint(
            "pg_oidc must be loaded via shared_preload_libraries to validate tokens",
            "Add \"pg_oidc\" to \"shared_preload_libraries\" and restart the server.",
        );
        return None;
    };
    let (connection, Line::Bearer) = port::current()? else { return None };
    let line = line();
    // SAFETY: miscadmin.h; a counter of this process.
    let held = unsafe { pg_sys::InterruptHoldoffCount };
    hooks::safely(door, &connection, || (door.validate)(&connection, &line, token)).unwrap_or_else(|| {
        // SAFETY: core goes on to wait for the client here instead of aborting the transaction, so this does what
        // AbortTransaction does first (xact.c): an ERROR leaves locks held, and a place in a queue. The counter is set
        // to 0 by an ERROR and counted down by locks that are let go after it (elog.c, errfinish): below 0, nothing
        // would ever interrupt that wait.
        unsafe {
            pg_sys::LWLockReleaseAll();
            pg_sys::ConditionVariableCancelSleep();
            pg_sys::InterruptHoldoffCount = held;
        }
        None
    })
}

/// What the HBA line asks of the token. (hba.c has both options on every such line.)
fn line() -> OauthLine {
    let option = |text: *mut c_char| {
        if text.is_null() {
            return String::new();
        }
        // SAFETY: a C string of hba.c's, which lives as long as the line.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    };
    // SAFETY: MyProcPort and its line are those of the client whose token came; see `port::current`.
    unsafe {
        let hba = (*server::MyProcPort).hba;
        OauthLine { issuer: option((*hba).oauth_issuer), scope: option((*hba).oauth_scope) }
    }
}
