//! Telling core who was authenticated, as its own methods do (auth.c, `set_authn_id`, which is static before 18).

use super::{port, report, server};
use pgrx::pg_sys;
use std::ffi::{CString, c_char};

/// Makes `identity` what core knows of who this client is: from 16 on `system_user` reads `password:<identity>`, and is
/// passed on to parallel workers. What was put there before stays.
///
/// Where `log_connections` asks for it, says so in the server log, in core's words. Before InitPostgres returns.
pub(crate) fn set(identity: &str) {
    let Ok(name) = CString::new(identity) else { return };
    // SAFETY: MyProcPort is set in BackendInitialize and null in every process that has no client; the string lives as
    // long as the process, as core asks.
    unsafe {
        let port = server::MyProcPort;
        if port.is_null() {
            return;
        }
        if known(port).is_null() {
            put(port, pg_sys::MemoryContextStrdup(pg_sys::TopMemoryContext, name.as_ptr()));
        }
        if log_wanted() {
            let (file, line) = port::hba_place(port);
            report::log(&format!(
                "connection authenticated: identity={identity:?} method=oidc ({}:{line})",
                file.escape_debug()
            ));
        }
    }
}

/// Who the client is by now, or null.
#[cfg(feature = "pg15")]
unsafe fn known(port: *mut server::Port) -> *const c_char {
    // SAFETY: the caller gives this process's port.
    unsafe { (*port).authn_id }
}
#[cfg(not(feature = "pg15"))]
unsafe fn known(_: *mut server::Port) -> *const c_char {
    // SAFETY: libpq-be.h; of this process alone.
    unsafe { server::MyClientConnectionInfo.authn_id }
}

#[cfg(feature = "pg15")]
unsafe fn put(port: *mut server::Port, name: *const c_char) {
    // SAFETY: as in `known`.
    unsafe { (*port).authn_id = name }
}
#[cfg(not(feature = "pg15"))]
unsafe fn put(_: *mut server::Port, name: *const c_char) {
    // SAFETY: as in `known`; InitPostgres reads both after authentication (InitializeSystemUser).
    unsafe {
        server::MyClientConnectionInfo.authn_id = name;
        server::MyClientConnectionInfo.auth_method = server::UserAuth::uaPassword;
    }
}

#[cfg(not(feature = "pg18"))]
fn log_wanted() -> bool {
    // SAFETY: postmaster.c; a setting.
    unsafe { pg_sys::Log_connections }
}
#[cfg(feature = "pg18")]
fn log_wanted() -> bool {
    // SAFETY: backend_startup.h; flags that the setting is made of.
    unsafe { server::log_connections & server::LogConnectionOption::LOG_CONNECTION_AUTHENTICATION != 0 }
}
