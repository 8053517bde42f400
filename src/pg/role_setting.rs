//! The setting `role` in a token session: what a login was given bounds it, whatever memberships say.
//!
//! | the role that is asked for | in a token session |
//! |---|---|
//! | `none` | passes |
//! | one that this login was given, or that its user was a member of by a grant of somebody else's | passes |
//! | one that such a role is a member of, by grants that are not ours | passes |
//! | any other | refused |
//!
//! Core's own check comes after it. Membership is a fact of the whole cluster, while a login is for one database and one
//! address, with one token: what another login made this user a member of is not this one's.

use super::catalog;
use super::guc;
use super::server;
use once_cell::sync::OnceCell;
use pgrx::{pg_guard, pg_sys};
use std::ffi::{CStr, CString};
use std::os::raw::{c_char, c_void};

/// The roles that a token session may take on, by oid, with all that they are members of.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    pub(crate) roles: Vec<u32>,
    /// Whether this extension made the first a member of the second.
    pub(crate) is_ours: fn(u32, u32) -> bool,
}

static BOUNDS: OnceCell<Bounds> = OnceCell::new();
static CORE_CHECK: OnceCell<server::GucStringCheckHook> = OnceCell::new();

/// Wraps the check hook of `role`; in `_PG_init`.
pub(crate) fn guard() {
    // SAFETY: _PG_init of a preloaded library: the record belongs to core's table for the life of the process.
    unsafe {
        if let Some(record) = guc::string_setting(c"role")
            && CORE_CHECK.set((*record).check_hook).is_ok()
        {
            (*record).check_hook = Some(within_bounds);
        }
    }
}

/// Bounds the role for the rest of this session.
pub(crate) fn bound(bounds: Bounds) {
    let _ = BOUNDS.set(bounds);
}

/// Makes this session start in `role`, unless the client chooses one itself: core applies `cmdline_options` before the
/// settings of the startup packet and, among them, the first option first (postinit.c, process_startup_options).
pub(crate) fn start_in(role: &str) {
    // pg_split_opts: white space, which the locale may see in bytes beyond ASCII, ends an option; a backslash makes the
    // next byte an ordinary one.
    let mut options = b"-c role=".to_vec();
    for byte in role.bytes() {
        if !byte.is_ascii_alphanumeric() {
            options.push(b'\\');
        }
        options.push(byte);
    }
    // SAFETY: MyProcPort is this backend's, its strings live in TopMemoryContext as long as the process.
    unsafe {
        let port = server::MyProcPort;
        if port.is_null() {
            return;
        }
        let own = (*port).cmdline_options;
        if !own.is_null() {
            options.push(b' ');
            options.extend(CStr::from_ptr(own).to_bytes());
        }
        let all = CString::new(options).unwrap_or_default();
        (*port).cmdline_options = pg_sys::MemoryContextStrdup(pg_sys::TopMemoryContext, all.as_ptr());
    }
}

/// Whether the roles of this session are bounded.
pub(super) fn is_bounded() -> bool {
    // SAFETY: miscinit.c; in a session.
    BOUNDS.get().is_some() && !unsafe { pg_sys::GetSessionUserIsSuperuser() }
}

/// Whether this session may not take on the role of this name.
pub(super) fn is_beyond(name: &CStr) -> bool {
    is_bounded() && BOUNDS.get().is_some_and(|bounds| !bounds.hold(name))
}

#[pg_guard]
unsafe extern "C-unwind" fn within_bounds(
    new: *mut *mut c_char,
    extra: *mut *mut c_void,
    source: server::GucSource::Type,
) -> bool {
    // SAFETY: guc.c gives a C string. A parallel worker takes over what its leader was allowed (variable.c, check_role);
    // outside of a transaction core's own hook refuses.
    unsafe {
        if let Some(bounds) = BOUNDS.get()
            && !pg_sys::InitializingParallelWorker
            && pg_sys::IsTransactionState()
            && !pg_sys::GetSessionUserIsSuperuser()
        {
            let name = CStr::from_ptr(*new);
            if name != c"none" && !bounds.hold(name) {
                complain(name);
                return false;
            }
        }
    }
    match CORE_CHECK.get() {
        // SAFETY: core's own hook with core's own arguments.
        Some(Some(core)) => unsafe { core(new, extra, source) },
        _ => true,
    }
}

impl Bounds {
    /// Whether the role may be taken on. One that does not exist may: core says so itself.
    fn hold(&self, name: &CStr) -> bool {
        // SAFETY: acl.c; in a transaction.
        let role = unsafe { pg_sys::get_role_oid(name.as_ptr(), true) };
        if role == pg_sys::InvalidOid {
            return true;
        }
        // SAFETY: miscinit.c: set before any setting is checked.
        let own = unsafe { pg_sys::GetSessionUserId() };
        if role == own {
            return true;
        }
        let mut seen = self.roles.clone();
        let mut next = 0;
        while let Some(&member) = seen.get(next) {
            next += 1;
            if member == role.to_u32() {
                return true;
            }
            for parent in catalog::roles_of(member) {
                if !seen.contains(&parent) && !(self.is_ours)(member, parent) {
                    seen.push(parent);
                }
            }
        }
        false
    }
}

/// Says why, as core's own hook does (guc.h, GUC_check_errmsg).
unsafe fn complain(name: &CStr) {
    let message = format!("permission denied to set role \"{}\"", name.to_string_lossy());
    let text = |text: &str| {
        let text = CString::new(text).unwrap_or_default();
        // SAFETY: guc.c keeps these strings in ErrorContext and forgets them with it.
        unsafe { pg_sys::MemoryContextStrdup(pg_sys::ErrorContext, text.as_ptr()) }
    };
    // SAFETY: the variables of guc.c that the macros of guc.h set.
    unsafe {
        pg_sys::GUC_check_errcode(pg_sys::errcodes::PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE as i32);
        pg_sys::GUC_check_errmsg_string = text(&message);
        pg_sys::GUC_check_errdetail_string = text("The OIDC token of this session does not give the role.");
    }
}
