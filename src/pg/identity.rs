//! Who runs this statement, and from where.

use super::server;
use pgrx::{direct_function_call, pg_sys};
use std::ffi::{CStr, CString};
use std::os::raw::c_char;

/// Where the client of this session is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Its address; None for a Unix-domain socket.
    pub(crate) address: Option<String>,
    /// The connection is encrypted by TLS.
    pub(crate) tls: bool,
}

/// The current user's oid: the one whose rights count, that of the statement in a trigger that is not SECURITY DEFINER.
pub(crate) fn current_user() -> u32 {
    // SAFETY: miscinit.c; set in every session.
    unsafe { pg_sys::GetUserId() }.to_u32()
}

/// The name of the current user.
pub(crate) fn current_user_name() -> CString {
    // SAFETY: as in `current_user`.
    name(unsafe { pg_sys::GetUserId() })
}

/// The name of the session user.
pub(crate) fn session_user_name() -> CString {
    // SAFETY: miscinit.c; set in every session.
    name(unsafe { pg_sys::GetSessionUserId() })
}

fn name(role: pg_sys::Oid) -> CString {
    // SAFETY: miscinit.c: a palloc'd name, or null where the role is gone.
    unsafe { copied(pg_sys::GetUserNameFromId(role, true)) }
}

/// The session's `application_name`.
pub(crate) fn application_name() -> CString {
    // SAFETY: guc.c: a C string, or null before the settings are read.
    unsafe { copied(pg_sys::application_name) }
}

/// The client of this session; None in a process that serves none.
pub(crate) fn peer() -> Option<Peer> {
    // SAFETY: MyProcPort is set in BackendInitialize and null in every process that has no client. inet_client_addr()
    // takes no arguments and needs no expression (network.c).
    unsafe {
        let port = server::MyProcPort;
        if port.is_null() {
            return None;
        }
        let address = direct_function_call::<pgrx::Inet>(pg_sys::inet_client_addr, &[]);
        Some(Peer { address: address.map(|inet| inet.0), tls: (*port).ssl_in_use })
    }
}

unsafe fn copied(text: *const c_char) -> CString {
    if text.is_null() {
        return CString::default();
    }
    // SAFETY: the caller gives a C string of core's.
    unsafe { CStr::from_ptr(text) }.to_owned()
}
