//! The triggers of the policy tables: who may write, what may be written, and that a change counts.

use super::rights::{self, Rule};
use crate::pg::{catalog, report, row, transaction, worker};
use crate::{board, rows, settings};
use pg_oidc_core::row::RowError;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode, pg_sys};

/// Refuses a change in any database but the one that holds the policy.
///
/// Not where the library is not preloaded: pg_restore into a server that is not set up yet.
fn must_be_here() {
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

/// A restore may bring the rules before the roles.
fn warn_of_missing_role(role: &str) {
    let message = format!("role \"{role}\" does not exist");
    ErrorReport::new(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, message, "pg_oidc")
        .set_detail("The rule gives nothing until the role exists and the rule is written again.")
        .report(PgLogLevel::WARNING);
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

    /// BEFORE each change of a table of ours, TRUNCATE included: who may write, and where.
    #[pg_trigger]
    fn check_rights<'a>(trigger: &'a PgTrigger<'a>) -> Judged<'a> {
        must_be_here();
        let table = trigger.table_name().unwrap_or_default();
        let (old, new) = (trigger.old(), trigger.new());
        if old.is_none() && new.is_none() {
            rights::may_truncate(&table);
        } else if table == "role_mapping" {
            if let Some(old) = &old {
                rights::may_change(&Rule::of(old));
            }
            if let Some(new) = &new {
                rights::may_write(&Rule::of(new));
            }
        } else {
            rights::must_be_superuser(&table);
        }
        Ok(new.or(old))
    }

    /// BEFORE a rule is written: it must compile, and gets the oid of its role beside the name, whatever was given. A
    /// role that is dropped and made anew gets nothing.
    #[pg_trigger]
    fn check_rule<'a>(
        trigger: &'a PgTrigger<'a>,
    ) -> Result<Option<PgHeapTuple<'a, pgrx::AllocatedByRust>>, std::convert::Infallible> {
        let Some(new) = trigger.new() else { return Ok(None) };
        let mut new = new.into_owned();
        if row::lacks_a_value(trigger) {
            return Ok(Some(new));
        }
        judge(trigger.new().map_or(Ok(()), |row| rows::rule_in_hand(row).map(drop)));
        let rule = Rule::of(&new);
        let oid = rule.current_oid();
        if let (Some(role), None) = (rule.named_role(), oid) {
            warn_of_missing_role(role);
        }
        if rule.stored_oid() != oid
            && let Err(error) = new.set_by_name("role_oid", oid.map(pg_sys::Oid::from))
        {
            pgrx::error!("could not keep the oid of the rule's role: {error}");
        }
        Ok(Some(new))
    }

    /// AFTER a rule was written: all of it again, of the row as it is stored. A BEFORE trigger of somebody else's that
    /// fires after ours may have changed it.
    #[pg_trigger]
    fn check_stored_rule<'a>(trigger: &'a PgTrigger<'a>) -> Judged<'a> {
        if let Some(old) = trigger.old() {
            rights::may_change(&Rule::of(&old));
        }
        if let Some(new) = trigger.new() {
            let rule = Rule::of(&new);
            rights::may_write(&rule);
            judge(rows::rule_in_hand(new));
            if rule.stored_oid() != rule.current_oid() {
                report::raise(
                    PgSqlErrorCode::ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION,
                    "the rule was changed after it had been checked",
                    Some("\"role_oid\" is not the oid of \"role\"."),
                    Some("Look for triggers on \"oidc.role_mapping\" that are not of pg_oidc."),
                );
            }
        }
        Ok(None)
    }

    /// AFTER each change of a policy table: the transaction is marked, and the policy's generation moves on.
    ///
    /// SECURITY DEFINER: whoever may write rules need not be able to write the generation.
    #[pg_trigger]
    fn policy_changed<'a>(trigger: &'a PgTrigger<'a>) -> Judged<'a> {
        crate::api::must_be_ours(trigger);
        if worker::is_registry() {
            // Its own changes of bindings and memberships: it publishes them itself, and waits for nobody's generation.
            return Ok(None);
        }
        transaction::note_change();
        if transaction::first_touch()
            && let Err(error) = Spi::run("UPDATE oidc.policy_state SET generation = generation + 1")
        {
            pgrx::error!("could not move the policy's generation: {error}");
        }
        Ok(None)
    }

    /// For scripts of finished versions alone, which create it before ALTER EXTENSION drops it.
    #[pg_trigger(sql = false)]
    fn refuse_change<'a>(trigger: &'a PgTrigger<'a>) -> Judged<'a> {
        let table = trigger.table_name().unwrap_or_default();
        report::raise(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            &format!("table \"oidc.{table}\" is not supported yet"),
            None,
            Some("Run ALTER EXTENSION pg_oidc UPDATE."),
        )
    }
}
