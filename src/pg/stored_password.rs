//! The password that a role has in `pg_authid`, judged by core.

use super::wire::Secret;
use pgrx::pg_sys;
use std::ffi::{CStr, CString, c_char};
use std::ptr;

const STATUS_OK: i32 = 0;

/// A SCRAM secret (scram-common.c) that no password has, with the usual number of iterations.
const NOBODYS: &CStr = c"SCRAM-SHA-256$4096:AAAAAAAAAAAAAAAAAAAAAA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// Whether `secret` is the stored password of `role`, and that is not past its `VALID UNTIL`: as core's method
/// `password` does it (auth.c, CheckPasswordAuth). Whether the role may log in is not looked at.
///
/// # Errors
/// Core's words on why not, for the server log; they may be translated and hold the name of the role.
pub(crate) fn check(role: &str, secret: &Secret) -> Result<(), String> {
    let role = CString::new(role).map_err(|_| String::new())?;
    let mut why = ptr::null::<c_char>();
    // SAFETY: crypt.h: a transaction is open in the hook; C strings that outlive the calls. What get_role_password gives
    // is a palloc'd copy of our own, or null; what it writes to the last argument is null or a C string (psprintf).
    unsafe {
        let stored = pg_sys::get_role_password(role.as_ptr(), &raw mut why);
        let right = if stored.is_null() {
            // Takes as long, so that the time does not tell which roles have a password.
            let mut ignored = ptr::null::<c_char>();
            pg_sys::plain_crypt_verify(
                role.as_ptr(),
                NOBODYS.as_ptr(),
                secret.text().as_ptr(),
                &raw mut ignored,
            );
            false
        } else {
            let status =
                pg_sys::plain_crypt_verify(role.as_ptr(), stored, secret.text().as_ptr(), &raw mut why);
            libc::explicit_bzero(stored.cast(), libc::strlen(stored));
            status == STATUS_OK
        };
        match right {
            true => Ok(()),
            false if why.is_null() => Err(String::new()),
            false => Err(CStr::from_ptr(why).to_string_lossy().into_owned()),
        }
    }
}
