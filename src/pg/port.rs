//! What the connection is: who asks, for which database, over what, matched by which HBA line.

use super::{guc, server};
use pg_oidc_core::decision::Replication;
use pgrx::pg_sys;
use std::ffi::CStr;
use std::net::IpAddr;
use std::os::raw::c_char;

/// The connection that is being authenticated, copied out of core's `Port`.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    /// The requested user, already cut to 63 bytes by core.
    pub(crate) user: String,
    /// The requested database.
    pub(crate) database: String,
    /// The client's address as core prints it, or `[local]`.
    pub(crate) host: String,
    /// Encrypted by TLS (GSSAPI encryption does not count).
    pub(crate) tls: bool,
    /// Came by a Unix-domain socket.
    pub(crate) local: bool,
    /// The client's address; None where it came by a Unix-domain socket.
    pub(crate) address: Option<IpAddr>,
    pub(crate) replication: Replication,
    /// What the client calls itself, cut as core cuts it, in printable ASCII.
    pub(crate) application_name: String,
    /// The token comes by core's own `oauth` method (18), not as a password.
    pub(crate) bearer: bool,
    /// User and database are UTF-8, so that what is decided upon is what core logs in.
    pub(crate) readable: bool,
}

/// How the HBA line that core matched looks to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    /// `trust`: in the guarded file that means "token required".
    Token,
    /// `trust`, but from a file that the guarded file includes (16+): refused.
    IncludedToken,
    /// `oauth`, and core has this library judge the token (18).
    #[cfg(feature = "pg18")]
    Bearer,
    /// Any other method: core's own business. Without a guarded file `trust` is one.
    Other,
}

/// The connection behind `port`.
///
/// # Safety
/// `port` is the pointer that core gave to the ClientAuthentication hook.
pub(crate) unsafe fn connection(port: *mut server::Port) -> Connection {
    // SAFETY: core fills user_name and database_name in ProcessStartupPacket and remote_host in
    // BackendInitialize, all before authentication; strings live as long as the process.
    unsafe {
        let local = i32::from((*port).raddr.addr.ss_family) == libc::AF_UNIX;
        Connection {
            user: lossy((*port).user_name),
            database: lossy((*port).database_name),
            host: lossy((*port).remote_host),
            tls: (*port).ssl_in_use,
            local,
            address: address(&raw const (*port).raddr.addr),
            replication: match (pg_sys::am_walsender, pg_sys::am_db_walsender) {
                (false, _) => Replication::None,
                (true, false) => Replication::Physical,
                (true, true) => Replication::Database,
            },
            application_name: lossy((*port).application_name).chars().take(63).collect(),
            bearer: is_bearer(port),
            readable: is_utf8((*port).user_name) && is_utf8((*port).database_name),
        }
    }
}

/// The kind of HBA line that core matched for `port`.
///
/// # Safety
/// As [`connection()`], and before PostmasterContext is deleted (postgres.c, after InitPostgres): the line lives there.
pub(crate) unsafe fn line(port: *mut server::Port) -> Line {
    // SAFETY: hba_getauthmethod sets port->hba for every connection before any method runs.
    unsafe {
        let hba = (*port).hba;
        if hba.is_null() {
            return Line::Other;
        }
        #[cfg(feature = "pg18")]
        if (*hba).auth_method == server::UserAuth::uaOAuth && super::oauth::is_ours() {
            return Line::Bearer;
        }
        if (*hba).auth_method != server::UserAuth::uaTrust || !guc::is_guarded() {
            return Line::Other;
        }
        if included(hba) { Line::IncludedToken } else { Line::Token }
    }
}

/// The client that this backend serves and the line that core matched, or None in a process that serves none, and
/// before core has matched one.
///
/// Valid until InitPostgres returns; see [`line()`].
pub(crate) fn current() -> Option<(Connection, Line)> {
    // SAFETY: MyProcPort is set in BackendInitialize and null in every process that has no client.
    unsafe {
        let port = server::MyProcPort;
        if port.is_null() || (*port).hba.is_null() { None } else { Some((connection(port), line(port))) }
    }
}

#[cfg(feature = "pg18")]
unsafe fn is_bearer(port: *mut server::Port) -> bool {
    // SAFETY: as in `line`.
    unsafe { line(port) == Line::Bearer }
}
#[cfg(not(feature = "pg18"))]
unsafe fn is_bearer(_: *mut server::Port) -> bool {
    false
}

/// As [`current()`], only the line.
#[cfg(any(feature = "pg17", feature = "pg18"))]
pub(super) fn current_line() -> Option<Line> {
    // SAFETY: as in `current`.
    unsafe {
        let port = server::MyProcPort;
        if port.is_null() || (*port).hba.is_null() { None } else { Some(line(port)) }
    }
}

/// The file and the number of the HBA line that core matched for `port`.
///
/// # Safety
/// As [`line()`].
pub(super) unsafe fn hba_place(port: *mut server::Port) -> (String, i32) {
    // SAFETY: as in `line`.
    unsafe {
        let hba = (*port).hba;
        if hba.is_null() { (String::new(), 0) } else { (lossy(source_file(hba)), (*hba).linenumber) }
    }
}

#[cfg(feature = "pg15")]
unsafe fn source_file(_: *mut server::HbaLine) -> *const c_char {
    // SAFETY: hba_file's variable; all lines come from there.
    unsafe { server::HbaFileName }
}

#[cfg(not(feature = "pg15"))]
unsafe fn source_file(hba: *mut server::HbaLine) -> *const c_char {
    // SAFETY: as in `included`.
    unsafe { (*hba).sourcefile }
}

#[cfg(feature = "pg15")]
unsafe fn included(_: *mut server::HbaLine) -> bool {
    false // 15 has no include directives for HBA files
}

#[cfg(not(feature = "pg15"))]
unsafe fn included(hba: *mut server::HbaLine) -> bool {
    // SAFETY: hba.h (16+): sourcefile is set for every parsed line; HbaFileName is the guarded file.
    unsafe {
        let (source, guarded) = ((*hba).sourcefile, server::HbaFileName);
        source.is_null() || guarded.is_null() || CStr::from_ptr(source) != CStr::from_ptr(guarded)
    }
}

/// The address behind core's copy of the peer's `sockaddr_storage`.
///
/// # Safety
/// `peer` points to one that accept() has filled (pqcomm.c, StreamConnection).
unsafe fn address(peer: *const server::sockaddr_storage) -> Option<IpAddr> {
    // SAFETY: sockaddr_storage is large enough and aligned for every family; which one it is stands in it.
    unsafe {
        match i32::from((*peer).ss_family) {
            libc::AF_INET => {
                let four = &*peer.cast::<libc::sockaddr_in>();
                Some(IpAddr::from(four.sin_addr.s_addr.to_ne_bytes()))
            }
            libc::AF_INET6 => {
                let six = &*peer.cast::<libc::sockaddr_in6>();
                Some(IpAddr::from(six.sin6_addr.s6_addr))
            }
            _ => None,
        }
    }
}

unsafe fn is_utf8(text: *const c_char) -> bool {
    // SAFETY: the caller gives null or a C string of core's.
    text.is_null() || unsafe { CStr::from_ptr(text) }.to_str().is_ok()
}

/// For messages, and for decisions only where `is_utf8`.
unsafe fn lossy(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller gives a C string of core's.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
