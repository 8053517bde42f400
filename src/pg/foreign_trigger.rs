//! Triggers that others put on our tables.
//!
//! The right TRIGGER, which GRANT ALL includes, lets its holder do two things (trigger.c): have a function of their own
//! run as whoever writes the table next, superusers included, and replace a trigger that is there, ours too. So with the
//! library preloaded only a superuser may create a trigger on a table of the extension.

use super::{catalog, report};
use pgrx::{PgSqlErrorCode, pg_sys};
use std::ffi::CStr;

/// Refuses the trigger that was just created or replaced, unless it is a superuser's, internal, or on no table of ours.
pub(crate) fn refuse(trigger: pg_sys::Oid) {
    if catalog::superuser() {
        return;
    }
    let Some(relation) = relation_of(trigger) else { return };
    if is_ours(relation) {
        report::raise(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            "permission denied to create a trigger on a table of pg_oidc",
            Some("It would run as whoever changes the OIDC policy next. Only superusers may create one."),
            None,
        );
    }
}

/// The table of a trigger that somebody created; None for those that core makes for foreign keys.
fn relation_of(trigger: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: genam.c; everything that is opened is closed. SnapshotSelf, because the row was written by the command
    // that is still running (snapmgr.h).
    unsafe {
        let triggers = pg_sys::table_open(pg_sys::TriggerRelationId, pg_sys::AccessShareLock as i32);
        let mut key: pg_sys::ScanKeyData = std::mem::zeroed();
        pg_sys::ScanKeyInit(
            &raw mut key,
            pg_sys::Anum_pg_trigger_oid as i16,
            pg_sys::BTEqualStrategyNumber as u16,
            pg_sys::Oid::from(pg_sys::F_OIDEQ),
            trigger.into(),
        );
        let scan = pg_sys::systable_beginscan(
            triggers,
            pg_sys::Oid::from(pg_sys::TriggerOidIndexId),
            true,
            &raw mut pg_sys::SnapshotSelfData,
            1,
            &raw mut key,
        );
        let tuple = pg_sys::systable_getnext(scan);
        let relation = (!tuple.is_null()).then(|| {
            let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_trigger>();
            (!(*form).tgisinternal).then_some((*form).tgrelid)
        });
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(triggers, pg_sys::AccessShareLock as i32);
        relation.flatten()
    }
}

fn is_ours(relation: pg_sys::Oid) -> bool {
    // SAFETY: pg_depend.c and extension.c: InvalidOid and null where there is none.
    unsafe {
        let extension = pg_sys::getExtensionOfObject(pg_sys::RelationRelationId, relation);
        let name = pg_sys::get_extension_name(extension);
        !name.is_null() && CStr::from_ptr(name) == c"pg_oidc"
    }
}
