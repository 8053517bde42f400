//! The counter: the functions that SQL calls, thin.

pub(crate) mod audit;
pub(crate) mod claims;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod keys;
pub(crate) mod policy_text;
mod rights;
pub(crate) mod sessions;
pub(crate) mod stat;
pub(crate) mod triggers;

use crate::board;
use crate::pg::{catalog, report, transaction};
use crate::settings;
use pg_oidc_core::row::RowError;
use pgrx::{PgSqlErrorCode, PgTrigger};

/// Hooks that the SQL side needs in every backend; for `_PG_init`.
pub(crate) fn init() {
    transaction::after_commit(board::ask);
    transaction::watch_tables(|| catalog::current_database() == settings::database());
}

/// Raises an error where the library came too late to guard anything.
fn must_be_preloaded() {
    if !board::exists() {
        report::raise(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "pg_oidc must be loaded via shared_preload_libraries",
            None,
            Some("Add pg_oidc to \"shared_preload_libraries\" in postgresql.conf and restart the server."),
        );
    }
}

/// Raises what core says of a row, or of a name in it.
fn raise(code: PgSqlErrorCode, error: &RowError) -> ! {
    report::raise(code, &error.message, error.detail.as_deref(), error.hint.as_deref())
}

/// Raises an error in a trigger of ours on a table of somebody else's.
fn must_be_ours(trigger: &PgTrigger<'_>) {
    if trigger.table_schema().ok().as_deref() != Some("oidc") {
        report::raise(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            "this trigger is only for the tables of schema \"oidc\"",
            None,
            None,
        );
    }
}
