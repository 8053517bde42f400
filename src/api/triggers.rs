//! The triggers of the policy tables: who may write, what may be written, and that a change counts.

use crate::pg::{catalog, report, transaction};
use crate::{board, rows, settings};
use pg_oidc_core::row::RowError;
use pgrx::PgSqlErrorCode;

/// Refuses a change by anyone but a superuser, and in any database but the one that holds the policy.
///
/// Where the library is not preloaded (pg_restore into a server that is not set up yet) only the first is checked.
fn may_write() {
    if !catalog::superuser() {
        report::raise(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            "permission denied to change the OIDC policy",
            Some("Only superusers may change it."),
            None,
        );
    }
    if !board::exists() {
        return;
    }
    let (here, right) = (catalog::current_database(), settings::database());
    if here != right {
        report::raise(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            &format!("cannot change the OIDC policy in database \"{here}\""),
            Some(&format!("The policy of this server is in database \"{right}\".")),
            Some(&format!("Connect to \"{right}\", or change \"pg_oidc.database\" and restart the server.")),
        );
    }
}

/// Raises what core's compiler says of a row.
fn judge<T>(compiled: Result<T, RowError>) {
    if let Err(error) = compiled {
        super::raise(PgSqlErrorCode::ERRCODE_CHECK_VIOLATION, &error);
    }
}

#[pgrx::pg_schema]
mod oidc {
    use super::*;
    use pgrx::heap_tuple::PgHeapTuple;
    use pgrx::prelude::*;

    type Judged<'a> = Result<Option<PgHeapTuple<'a, pgrx::AllocatedByPostgres>>, std::convert::Infallible>;

    /// Raises an error where a row of `oidc.provider` (as `oidc.provider_row` gives it) cannot be compiled.
    #[pg_extern]
    fn judge_provider(row: &str) {
        judge(rows::provider(row));
    }

    /// Raises an error where a row of `oidc.role_mapping` (as `oidc.rule_row` gives it) cannot be compiled.
    #[pg_extern]
    fn judge_rule(row: &str) {
        judge(rows::rule(row));
    }

    /// BEFORE each change of a policy table, TRUNCATE included: who may write, and where.
    #[pg_trigger]
    fn check_rights<'a>(trigger: &'a PgTrigger<'a>) -> Judged<'a> {
        may_write();
        Ok(trigger.new().or_else(|| trigger.old()))
    }

    /// BEFORE each change of a table that is there in its final shape but not acted on.
    #[pg_trigger]
    fn refuse_change<'a>(trigger: &'a PgTrigger<'a>) -> Judged<'a> {
        let table = trigger.table_name().unwrap_or_default();
        report::raise(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            &format!("table \"oidc.{table}\" is not supported yet"),
            Some("This version of pg_oidc does not act on its rows, so it takes none."),
            None,
        )
    }

    /// AFTER each change of a policy table: the transaction is marked, and the policy's generation moves on.
    ///
    /// SECURITY DEFINER: whoever may write rules need not be able to write the generation.
    #[pg_trigger]
    fn policy_changed<'a>(trigger: &'a PgTrigger<'a>) -> Judged<'a> {
        if trigger.table_schema().ok().as_deref() != Some("oidc") {
            report::raise(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                "this trigger is only for the tables of schema \"oidc\"",
                None,
                None,
            );
        }
        transaction::note_change();
        if transaction::first_touch()
            && let Err(error) = Spi::run("UPDATE oidc.policy_state SET generation = generation + 1")
        {
            pgrx::error!("could not move the policy's generation: {error}");
        }
        Ok(None)
    }
}
