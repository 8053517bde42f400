//! Settings that need more of core than pgrx offers: sealed session settings, and check hooks of core's own.

use super::{port, report, server};
use once_cell::sync::OnceCell;
use pg_oidc_core::refusal::Refusal;
use pgrx::{pg_guard, pg_sys};
use std::cell::UnsafeCell;
use std::ffi::{CStr, CString};
use std::os::raw::{c_char, c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};

/// The value of one string setting, written by core alone.
pub(crate) struct Slot(UnsafeCell<*mut c_char>);

// SAFETY: a backend has one thread that runs Postgres code, and core alone writes the pointer (guc.c).
unsafe impl Sync for Slot {}

impl Slot {
    pub(crate) const fn new() -> Self {
        Slot(UnsafeCell::new(std::ptr::null_mut()))
    }

    /// The value now, or None where it is empty or the setting was never defined.
    pub(crate) fn get(&self) -> Option<String> {
        // SAFETY: guc.c keeps the pointer at null or at a C string; it is copied before anything else runs.
        let text = unsafe {
            let value = *self.0.get();
            if value.is_null() { return None } else { CStr::from_ptr(value) }
        };
        (!text.is_empty()).then(|| text.to_string_lossy().into_owned())
    }
}

/// Defines a setting that a session can read and that only this library, in this process, can set.
///
/// PGC_SU_BACKEND with a check hook that knows only the sources DEFAULT and OVERRIDE: neither SET, nor startup
/// options of a superuser, nor ALTER SYSTEM, ALTER ROLE or GRANT SET ON PARAMETER come from there (guc.h).
pub(crate) fn define_sealed(name: &'static CStr, about: &'static CStr, slot: &'static Slot) {
    let flags = pg_sys::GUC_NO_SHOW_ALL | pg_sys::GUC_NOT_IN_SAMPLE | pg_sys::GUC_DISALLOW_IN_FILE;
    // SAFETY: called in _PG_init; the strings and the slot are static.
    unsafe {
        pg_sys::DefineCustomStringVariable(
            name.as_ptr(),
            about.as_ptr(),
            std::ptr::null(),
            slot.0.get(),
            c"".as_ptr(),
            pg_sys::GucContext::PGC_SU_BACKEND,
            flags as c_int,
            Some(only_from_here),
            None,
            None,
        );
    }
}

/// Sets a sealed setting for the rest of this session.
///
/// # Errors
/// A value with a NUL, which core cannot hold.
pub(crate) fn set_sealed(name: &'static CStr, value: &str) -> Result<(), std::ffi::NulError> {
    let value = CString::new(value)?;
    // SAFETY: guc.h; the strings outlive the call, which copies them. PGC_INTERNAL as the context is refused by
    // core for such a setting, PGC_SU_BACKEND is not while the backend starts.
    unsafe {
        pg_sys::SetConfigOption(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SU_BACKEND,
            pg_sys::GucSource::PGC_S_OVERRIDE,
        );
    }
    Ok(())
}

unsafe extern "C-unwind" fn only_from_here(
    _: *mut *mut c_char,
    _: *mut *mut c_void,
    source: pg_sys::GucSource::Type,
) -> bool {
    source == pg_sys::GucSource::PGC_S_DEFAULT || source == pg_sys::GucSource::PGC_S_OVERRIDE
}

/// Reserves the prefix `pg_oidc.`: a misspelt setting is refused instead of silently kept.
pub(crate) fn reserve_prefix() {
    // SAFETY: guc.h (15+), called after every setting of ours is defined.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"pg_oidc".as_ptr()) }
}

/// The HBA file that the server has chosen by itself, or None before it has.
pub(crate) fn native_hba_file() -> Option<String> {
    // SAFETY: hba_file's variable: null or a C string (guc.c). Preload runs after SelectConfigFiles.
    unsafe {
        let path = pg_sys::HbaFileName;
        (!path.is_null()).then(|| CStr::from_ptr(path).to_string_lossy().into_owned())
    }
}

static GUARDED_HBA_FILE: OnceCell<CString> = OnceCell::new();

/// Makes `path` the server's HBA file, for this start and every reload.
///
/// The setting alone would do, were it not that a postgresql.conf which sets hba_file too (Debian's does) made
/// every reload log that it cannot be changed; so whatever is read is replaced by `path` before core compares.
pub(crate) fn guard_hba_file(path: &str) -> Result<(), std::ffi::NulError> {
    let path = GUARDED_HBA_FILE.get_or_try_init(|| CString::new(path))?;
    // SAFETY: _PG_init of a preloaded library, before the postmaster loads its HBA file; `path` is static. The
    // record belongs to core's table for the life of the process; nothing else had a hook there (guc.c).
    unsafe {
        pg_sys::SetConfigOption(
            c"hba_file".as_ptr(),
            path.as_ptr(),
            pg_sys::GucContext::PGC_POSTMASTER,
            pg_sys::GucSource::PGC_S_OVERRIDE,
        );
        if let Some(record) = string_setting(c"hba_file") {
            (*record).check_hook = Some(keep_guarded_file);
        }
    }
    Ok(())
}

/// Whether the server's HBA file is the guarded one.
pub(super) fn is_guarded() -> bool {
    GUARDED_HBA_FILE.get().is_some()
}

unsafe extern "C-unwind" fn keep_guarded_file(
    new: *mut *mut c_char,
    _: *mut *mut c_void,
    _: server::GucSource::Type,
) -> bool {
    let Some(path) = GUARDED_HBA_FILE.get() else { return true };
    // SAFETY: guc.c gives a string from its own allocator and takes back one from it.
    unsafe {
        let copy = guc_copy(path);
        if copy.is_null() {
            return false;
        }
        guc_discard(*new);
        *new = copy;
    }
    true
}

/// 15 keeps strings in malloc's memory, 16 and later in guc_malloc's.
#[cfg(feature = "pg15")]
unsafe fn guc_copy(text: &CStr) -> *mut c_char {
    // SAFETY: a C string.
    unsafe { libc::strdup(text.as_ptr()) }
}
#[cfg(feature = "pg15")]
unsafe fn guc_discard(text: *mut c_char) {
    // SAFETY: from malloc, or null; not used again.
    unsafe { libc::free(text.cast()) }
}
#[cfg(not(feature = "pg15"))]
unsafe fn guc_copy(text: &CStr) -> *mut c_char {
    // SAFETY: a C string; at LOG it gives null where memory is short.
    unsafe { server::guc_strdup(pg_sys::LOG as c_int, text.as_ptr()) }
}
#[cfg(not(feature = "pg15"))]
unsafe fn guc_discard(text: *mut c_char) {
    // SAFETY: from guc_malloc; not used again.
    unsafe { server::guc_free(text.cast()) }
}

static DECIDED: AtomicBool = AtomicBool::new(false);
static LOOKED: AtomicBool = AtomicBool::new(false);
static CORE_CHECK: OnceCell<server::GucStringCheckHook> = OnceCell::new();

/// Notes that the door has admitted the client of this process.
pub(crate) fn note_decision() {
    DECIDED.store(true, Ordering::Relaxed);
}

/// The second lock: core sets `session_authorization` at every login (miscinit.c, InitializeSessionUserId), and a
/// guarded `trust` line, or an `oauth` line of ours, without a decision made in this very process ends there, whatever
/// other library skipped our ClientAuthentication hook.
pub(super) fn lock_session_authorization() {
    // SAFETY: as in `guard_hba_file`.
    unsafe {
        if let Some(record) = string_setting(c"session_authorization")
            && CORE_CHECK.set((*record).check_hook).is_ok()
        {
            (*record).check_hook = Some(only_after_decision);
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn only_after_decision(
    new: *mut *mut c_char,
    extra: *mut *mut c_void,
    source: server::GucSource::Type,
) -> bool {
    // The HBA line lives in PostmasterContext, which is gone once the session runs: it is looked at once, at the
    // first call in a process that serves a client, which is InitializeSessionUserId's.
    if source == server::GucSource::PGC_S_OVERRIDE
        && !LOOKED.load(Ordering::Relaxed)
        && let Some((connection, line)) = port::current()
    {
        LOOKED.store(true, Ordering::Relaxed);
        if line != port::Line::Other && !DECIDED.load(Ordering::Relaxed) {
            report::log_refusal(&connection, &Refusal::DoorBypassed);
            report::refuse(&connection, report::Outward::Refused);
        }
    }
    match CORE_CHECK.get() {
        // SAFETY: core's own hook with core's own arguments.
        Some(Some(core)) => unsafe { core(new, extra, source) },
        _ => true,
    }
}

#[cfg(feature = "pg15")]
pub(super) unsafe fn string_setting(name: &CStr) -> Option<*mut server::config_string> {
    // SAFETY: guc.c: an array of GetNumConfigOptions() pointers to records that start with config_generic.
    unsafe {
        let records = server::get_guc_variables();
        (0..server::GetNumConfigOptions() as usize)
            .map(|i| *records.add(i))
            .find(|record| CStr::from_ptr((**record).name) == name)
            .filter(|record| (**record).vartype == server::config_type::PGC_STRING)
            .map(|record| record.cast())
    }
}

#[cfg(not(feature = "pg15"))]
pub(super) unsafe fn string_setting(name: &CStr) -> Option<*mut server::config_string> {
    // SAFETY: guc_tables.h (16+): the record or null; nothing is created and nothing raised at this level.
    unsafe {
        let record = server::find_option(name.as_ptr(), false, true, pg_sys::LOG as c_int);
        (!record.is_null() && (*record).vartype == server::config_type::PGC_STRING).then(|| record.cast())
    }
}
