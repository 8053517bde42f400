//! Appending a row to a table with nobody's say in it.

use super::server;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;
use pgrx::{PgTupleDesc, pg_sys};
use std::ffi::{CStr, CString};
use std::ptr;

/// A table that rows are appended to.
pub(crate) struct Table {
    pub(crate) schema: &'static CStr,
    pub(crate) name: &'static CStr,
    /// The column that is numbered, and the sequence that numbers it.
    pub(crate) identity: (&'static CStr, &'static CStr),
}

/// Appends a row in this transaction, each value as its column's type reads it; columns that are not named stay null.
///
/// No trigger, rule, row security or right has a say, and no user is switched to: what somebody has put on the table
/// neither runs here nor changes or keeps back the row. Constraints and indexes hold as ever. False: there is no such
/// table.
pub(crate) fn append(table: &Table, values: &[(&CStr, CString)]) -> bool {
    // SAFETY: a transaction is open. What is opened is closed; after an ERROR the transaction's end does it.
    unsafe {
        let schema = pg_sys::get_namespace_oid(table.schema.as_ptr(), true);
        let relation = pg_sys::get_relname_relid(table.name.as_ptr(), schema);
        let sequence = pg_sys::get_relname_relid(table.identity.1.as_ptr(), schema);
        if relation == pg_sys::InvalidOid || sequence == pg_sys::InvalidOid {
            return false;
        }
        let number = pg_guard_ffi_boundary(|| server::nextval_internal(sequence, false));
        let number = CString::new(number.to_string()).unwrap_or_default();
        let relation = pg_sys::table_open(relation, pg_sys::RowExclusiveLock as i32);
        let value = |column: &str| {
            let column = column.as_bytes();
            if column == table.identity.0.to_bytes() {
                return number.as_ptr().cast_mut();
            }
            let value = values.iter().find(|(name, _)| name.to_bytes() == column);
            value.map_or(ptr::null_mut(), |(_, value)| value.as_ptr().cast_mut())
        };
        let columns = PgTupleDesc::from_pg_unchecked((*relation).rd_att);
        let mut row: Vec<_> = columns.iter().map(|column| value(column.name())).collect();
        // execTuples.c: null pointers are nulls, and the strings are only read.
        let tuple = pg_sys::BuildTupleFromCStrings(
            pg_sys::TupleDescGetAttInMetadata((*relation).rd_att),
            row.as_mut_ptr(),
        );
        store(relation, tuple);
        pg_sys::table_close(relation, pg_sys::NoLock as i32);
        true
    }
}

/// As a logical replication worker stores a row (execReplication.c), but without the table's triggers.
unsafe fn store(relation: pg_sys::Relation, tuple: pg_sys::HeapTuple) {
    // SAFETY: execMain.c and execReplication.c; the relation is open and locked, the tuple is of its type.
    unsafe {
        let state = pg_sys::CreateExecutorState();
        let mut target: pg_sys::ResultRelInfo = std::mem::zeroed();
        target.type_ = pg_sys::NodeTag::T_ResultRelInfo;
        pg_sys::InitResultRelInfo(&raw mut target, relation, 0, ptr::null_mut(), 0);
        target.ri_TrigDesc = ptr::null_mut();
        pg_sys::ExecOpenIndices(&raw mut target, false);
        let slot = pg_sys::table_slot_create(relation, ptr::null_mut());
        pg_sys::ExecForceStoreHeapTuple(tuple, slot, false);
        pg_sys::ExecSimpleRelationInsert(&raw mut target, state, slot);
        pg_sys::ExecDropSingleTupleTableSlot(slot);
        pg_sys::ExecCloseIndices(&raw mut target);
        pg_sys::FreeExecutorState(state);
    }
}
