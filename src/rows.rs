//! The rows of the policy tables as core's compiler takes them, read the same way by triggers and worker.

use crate::pg::interval;
use crate::pg::row::{self, column};
use crate::pg::{catalog, startup};
use crate::settings;
use pg_oidc_core::provider::{Provider, ProviderRow, compile_provider};
use pg_oidc_core::row::{RowError, from_json};
use pg_oidc_core::rules::{Rule, RuleRow, compile_rule};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::heap_tuple::PgHeapTuple;
use pgrx::{WhoAllocated, pg_sys};
use serde_json::value::{RawValue, to_raw_value};
use std::collections::BTreeMap;

/// Compiles a row that `oidc.provider_row` gave.
///
/// # Errors
/// The first column that is not acceptable.
pub(crate) fn provider(json: &str) -> Result<Provider, RowError> {
    let mut row: ProviderRow = from_json(json)?;
    row.session_limit_us = session_limit_us(&row.session_limit);
    compile_provider(&row, settings::allow_http())
}

/// Compiles a row that `oidc.rule_row` gave.
///
/// # Errors
/// As [`provider`].
pub(crate) fn rule(json: &str) -> Result<Rule, RowError> {
    let mut row: RuleRow = from_json(json)?;
    row.session_limit_us = row.session_limit.as_deref().and_then(session_limit_us);
    compile_rule(&row)
}

/// A `session_limit` in microseconds, where it is an interval.
pub(crate) fn session_limit_us(text: &str) -> Option<i64> {
    if text == "token" || text == "none" { None } else { interval::micros(text) }
}

/// Compiles a row of `oidc.role_mapping` that a trigger has in its hand. The JSON is what `oidc.rule_row` gives; that
/// function cannot be called here, since whoever may write rules need not be able to execute it.
///
/// # Errors
/// As [`provider`].
pub(crate) fn rule_in_hand(row: PgHeapTuple<'_, impl WhoAllocated>) -> Result<Rule, RowError> {
    let oid = column::<pg_sys::Oid>(&row, "role_oid").map_or(0, pg_sys::Oid::to_u32);
    let (from, until) = (micros(&row, "valid_from"), micros(&row, "valid_until"));
    let text = row::json(row);
    let text = text.to_string_lossy();
    let mut json: BTreeMap<&str, Box<RawValue>> = from_json(&text)?;
    // No rule looks at it, and it may hold what the worker could not read.
    json.remove("comment");
    readable(json.iter().map(|(column, value)| (*column, value.get())))?;
    json.insert("role_oid", raw(&oid));
    json.insert("valid_from", raw(&from));
    json.insert("valid_until", raw(&until));
    rule(raw(&json).get())
}

/// Tokens are UTF-8, and so is what they are compared with. In a database of another encoding only ASCII reads the same.
fn readable<'a>(mut columns: impl Iterator<Item = (&'a str, &'a str)>) -> Result<(), RowError> {
    match columns.find(|(_, value)| !value.is_ascii() && !catalog::database_is_utf8()) {
        Some((column, _)) => Err(RowError {
            message: format!("\"{column}\" must be ASCII in this database"),
            detail: Some("The encoding of the database is not UTF8, and that of tokens is.".to_owned()),
            hint: Some("Keep the policy in a database with encoding UTF8.".to_owned()),
        }),
        None => Ok(()),
    }
}

fn raw(value: &impl serde::Serialize) -> Box<RawValue> {
    to_raw_value(value).unwrap_or_default()
}

/// A time in microseconds since 1970; the infinities are the extremes.
fn micros(row: &PgHeapTuple<'_, impl WhoAllocated>, name: &str) -> Option<i64> {
    column::<TimestampWithTimeZone>(row, name).map(startup::micros)
}

/// What is wrong with a row, for the log and for `oidc.doctor()`.
pub(crate) fn sentence(error: &RowError) -> String {
    match &error.detail {
        Some(detail) => format!("{}: {detail}", error.message),
        None => error.message.clone(),
    }
}
