//! Asking for the password and reading the answer.
//!
//! Core's `recv_password_packet` (auth.c) is static, so it is done again here with the same rules: message type
//! `p`, at most 65,535 bytes, one NUL and that at the end, not empty; a client that goes away is no error.

use super::server;
use pgrx::pg_sys;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;
use std::ffi::CStr;

/// core's PG_MAX_AUTH_TOKEN_LENGTH (auth.c): the longest password message.
const ANSWER_BYTES: i32 = 65_535;
const PASSWORD_MESSAGE: i32 = b'p' as i32;
const EOF: i32 = -1;

/// The password that a client sent: wiped when dropped.
pub(crate) struct Secret {
    buffer: pg_sys::StringInfoData,
    len: usize,
}

/// How a client answered the question for its password.
pub(crate) enum Answer {
    Secret(Secret),
    Empty,
    Malformed,
    /// The client closed the connection.
    Gone,
}

impl Secret {
    /// The bytes that the client sent, without the closing NUL.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `data` is a palloc'd buffer of at least len + 1 bytes (stringinfo.h), owned by self.
        unsafe { std::slice::from_raw_parts(self.buffer.data.cast::<u8>(), self.len) }
    }

    /// The same with the closing NUL, as core takes passwords.
    pub(super) fn text(&self) -> &CStr {
        // SAFETY: as in `bytes`; `judge` saw one NUL, at `len`, before it made an `Answer::Secret` of this.
        unsafe { CStr::from_ptr(self.buffer.data) }
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        // SAFETY: `data` has `maxlen` bytes (stringinfo.h), all of them ours. explicit_bzero is never optimised away.
        // The buffer is left to its memory context: pfree in a drop during a panic is not worth its risk.
        unsafe { libc::explicit_bzero(self.buffer.data.cast(), self.buffer.maxlen.max(0) as usize) }
    }
}

/// Asks the client of `port` for its password in clear text and reads the answer.
///
/// `authentication_timeout` ends the read (postinit.c, PerformAuthentication); the wait is core's own.
///
/// # Safety
/// `port` is the pointer that core gave to the ClientAuthentication hook, with no message half read.
pub(crate) unsafe fn ask_password(port: *mut server::Port) -> Answer {
    // SAFETY: initStringInfo makes `data` valid before pq_getmessage fills it.
    let mut buffer = unsafe {
        let mut buffer: pg_sys::StringInfoData = std::mem::zeroed();
        pg_sys::initStringInfo(&raw mut buffer);
        buffer
    };
    let filled = &raw mut buffer;
    // SAFETY: the order of calls is that of auth.c, CheckPasswordAuth and recv_password_packet. Only raw bindings run
    // inside the boundary, with nothing to drop: an ERROR becomes a panic outside of it. (What `pg_sys` binds has its
    // own boundary, and a panic out of a nested one would abort the process.)
    let (kind, gone) = unsafe {
        pg_guard_ffi_boundary(|| {
            server::sendAuthRequest(port, server::AUTH_REQ_PASSWORD, std::ptr::null(), 0);
            server::pq_startmsgread();
            let kind = server::pq_getbyte();
            (
                kind,
                kind == EOF || kind == PASSWORD_MESSAGE && server::pq_getmessage(filled, ANSWER_BYTES) != 0,
            )
        })
    };
    let secret = Secret { buffer, len: (buffer.len.max(0) as usize).saturating_sub(1) };
    if gone {
        return Answer::Gone; // a wrong length too: core has logged it, not the bytes
    }
    if kind != PASSWORD_MESSAGE {
        return Answer::Malformed;
    }
    judge(secret)
}

/// Exactly one NUL, at the end (auth.c compares strlen + 1 with the message's length), and something before it.
fn judge(secret: Secret) -> Answer {
    let terminated = secret.buffer.len > 0
        // SAFETY: `len` of `buffer` is over 0, so that the byte at its last place was read from the wire.
        && unsafe { *secret.buffer.data.add(secret.len) } == 0;
    if !terminated || secret.bytes().contains(&0) {
        return Answer::Malformed;
    }
    if secret.len == 0 {
        return Answer::Empty;
    }
    Answer::Secret(secret)
}
