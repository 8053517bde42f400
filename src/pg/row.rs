//! Rows of tables, as triggers and functions get them from core.

use super::report;
use pgrx::datum::UnboxDatum;
use pgrx::heap_tuple::PgHeapTuple;
use pgrx::{
    FromDatum, IntoDatum, PgSqlErrorCode, PgTrigger, WhoAllocated, direct_function_call_as_datum, pg_sys,
};
use std::ffi::{CStr, CString};

/// The row as JSON in the encoding of the database, each value as core writes it.
pub(crate) fn json(row: PgHeapTuple<'_, impl WhoAllocated>) -> CString {
    // SAFETY: json.c: row_to_json takes a composite value, which says itself of which type it is, and gives text.
    unsafe {
        let text = row
            .into_composite_datum()
            .and_then(|row| direct_function_call_as_datum(pg_sys::row_to_json, &[Some(row)]));
        let Some(text) = text else { return CString::default() };
        CStr::from_ptr(pg_sys::text_to_cstring(text.cast_mut_ptr())).to_owned()
    }
}

/// Whether the new row has a null in a column that must not be null. Core refuses such a row after the BEFORE triggers,
/// and names the column.
pub(crate) fn lacks_a_value(trigger: &PgTrigger<'_>) -> bool {
    let Some(row) = trigger.new() else { return false };
    let data = trigger.trigger_data();
    let tuple = if data.tg_newtuple.is_null() { data.tg_trigtuple } else { data.tg_newtuple };
    row.attributes().any(|(_, column)| {
        // SAFETY: trigger.h: the new row of an INSERT is in tg_trigtuple, that of an UPDATE in tg_newtuple, and both
        // are as the relation's descriptor says.
        column.attnotnull
            && unsafe { pg_sys::heap_attisnull(tuple, column.attnum.into(), (*data.tg_relation).rd_att) }
    })
}

/// A column of a row of one of our tables; None for null.
pub(crate) fn column<'row, T>(row: &'row PgHeapTuple<'_, impl WhoAllocated>, name: &str) -> Option<T>
where
    T: FromDatum + IntoDatum + UnboxDatum<As<'row> = T> + 'row,
{
    row.get_by_name(name).unwrap_or_else(|error| {
        report::raise(
            PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
            &format!("could not read column \"{name}\": {error}"),
            None,
            Some("The tables of pg_oidc must be as its script made them."),
        )
    })
}
