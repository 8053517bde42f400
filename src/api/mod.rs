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
use crate::pg::catalog::{self, Role, Roles};
use crate::pg::{report, startup, transaction};
use crate::settings;
use pg_oidc_core::refusal::Refusal;
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

/// Waits, bounded as a login, until what was committed before is published; false: it is not yet.
fn await_policy() -> bool {
    let asked = board::asked();
    board::wait_until(settings::login().wait, || board::policy_generation() >= asked)
}

/// Why a token does not open a session in a role, by the code that a login goes through. `oid`: what the role must have.
///
/// # Errors
/// The refusal; otherwise the role.
fn admit(role: &str, oid: Option<u32>, allow_privileged: bool) -> Result<Role, Refusal> {
    admit_but(role, oid, allow_privileged, |_, _| false)
}

/// As [`admit`]; a membership for which `aside` holds, of the first in the second, carries no privilege.
fn admit_but(
    role: &str,
    oid: Option<u32>,
    allow_privileged: bool,
    aside: impl Fn(u32, u32) -> bool,
) -> Result<Role, Refusal> {
    let found = Roles::of(&settings::database()).find(role, aside).ok_or(Refusal::RoleMissing)?;
    if oid.is_some_and(|oid| oid != found.oid) {
        return Err(Refusal::RoleReplaced);
    }
    found.admits(allow_privileged, startup::now()).map(|()| found)
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
