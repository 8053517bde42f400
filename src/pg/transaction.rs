//! What happens when a transaction that changed the policy ends.

use once_cell::sync::OnceCell;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;
use pgrx::{pg_guard, pg_sys};
use std::cell::Cell;
use std::ffi::{CStr, c_void};
use std::os::raw::c_int;

thread_local! {
    /// This transaction changed the policy. A change that a subtransaction took back still counts: too often is safe.
    static CHANGED: Cell<bool> = const { Cell::new(false) };
    /// `oidc.policy_state` was touched in this transaction, and no subtransaction ended badly since.
    static TOUCHED: Cell<bool> = const { Cell::new(false) };
    static LISTENING: Cell<bool> = const { Cell::new(false) };
}

static CONCERNED: OnceCell<fn() -> bool> = OnceCell::new();
static AFTER_COMMIT: OnceCell<fn()> = OnceCell::new();
static PREVIOUS_ACCESS: OnceCell<pg_sys::object_access_hook_type> = OnceCell::new();

/// What is done after each commit of a transaction that changed the policy. Set once, in `_PG_init`.
pub(crate) fn after_commit(run: fn()) {
    let _ = AFTER_COMMIT.set(run);
}

/// Notes that this transaction changes the policy.
pub(crate) fn note_change() {
    listen();
    CHANGED.set(true);
}

/// Whether the caller is the first of this transaction to touch the policy's generation.
pub(crate) fn first_touch() -> bool {
    listen();
    !TOUCHED.replace(true)
}

fn listen() {
    if !LISTENING.replace(true) {
        // SAFETY: xact.c; once a process, and the functions live as long as it.
        unsafe {
            pg_sys::RegisterXactCallback(Some(transaction_ends), std::ptr::null_mut());
            pg_sys::RegisterSubXactCallback(Some(subtransaction_ends), std::ptr::null_mut());
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn transaction_ends(event: pg_sys::XactEvent::Type, _arg: *mut c_void) {
    use pg_sys::XactEvent::*;
    match event {
        XACT_EVENT_PRE_PREPARE if CHANGED.get() => {
            // COMMIT PREPARED runs in another session, where nothing would tell that the policy changed.
            super::report::raise(
                pgrx::PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                "cannot prepare a transaction that changed the OIDC policy",
                None,
                Some("Commit it with COMMIT instead."),
            );
        }
        // CommitTransaction calls this after ProcArrayEndTransaction: whoever takes a snapshot from now on sees
        // the change, and COMMIT has not yet returned to the client.
        XACT_EVENT_COMMIT => {
            TOUCHED.set(false);
            if CHANGED.replace(false)
                && let Some(run) = AFTER_COMMIT.get()
            {
                run();
            }
        }
        XACT_EVENT_ABORT => {
            TOUCHED.set(false);
            CHANGED.set(false);
        }
        _ => {}
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn subtransaction_ends(
    event: pg_sys::SubXactEvent::Type,
    _mine: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    _arg: *mut c_void,
) {
    if event == pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB {
        TOUCHED.set(false);
    }
}

/// Watches DROP and ALTER of the tables in schema `oidc`, which fire no trigger, in databases where `here` gives true.
pub(crate) fn watch_tables(here: fn() -> bool) {
    let _ = CONCERNED.set(here);
    // SAFETY: _PG_init; the previous hook is kept and called first.
    unsafe {
        if PREVIOUS_ACCESS.set(pg_sys::object_access_hook).is_ok() {
            pg_sys::object_access_hook = Some(object_access);
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn object_access(
    access: pg_sys::ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    sub: c_int,
    arg: *mut c_void,
) {
    if let Some(Some(previous)) = PREVIOUS_ACCESS.get() {
        // SAFETY: another library's hook with core's own arguments.
        unsafe { pg_guard_ffi_boundary(|| previous(access, class, object, sub, arg)) }
    }
    use pg_sys::ObjectAccessType::{OAT_DROP, OAT_POST_ALTER, OAT_POST_CREATE};
    if access == OAT_POST_CREATE && class == pg_sys::TriggerRelationId {
        super::foreign_trigger::refuse(object);
    }
    if access != OAT_DROP && access != OAT_POST_ALTER {
        return;
    }
    // A trigger of ours that is disabled and enabled again is reported as that trigger alone (trigger.c), and what
    // was changed meanwhile fired nothing: every change of a trigger counts.
    let ours =
        class == pg_sys::TriggerRelationId || class == pg_sys::RelationRelationId && in_our_schema(object);
    if ours && CONCERNED.get().is_some_and(|here| here()) {
        note_change();
    }
}

fn in_our_schema(relation: pg_sys::Oid) -> bool {
    // SAFETY: lsyscache.c: InvalidOid or null where the relation is not (or no more) to be seen.
    unsafe {
        let schema = pg_sys::get_namespace_name(pg_sys::get_rel_namespace(relation));
        !schema.is_null() && CStr::from_ptr(schema) == c"oidc"
    }
}
