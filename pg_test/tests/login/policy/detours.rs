//! Ways around the checks of a rule, each of which leads nowhere.
//!
//! 1. Triggers: one's own cannot be put on our tables, nor in the place of ours, nor can ours be disabled. Where one is
//!    there all the same and changes the row after it was checked, the row is checked again as it is stored.
//! 2. Views and rules of a superuser's lend the right on the table and no ADMIN.
//! 3. n137: the session of a replica, PREPARE TRANSACTION.
//! 4. Another user in the middle of the statement.

use anyhow::{Result, ensure};
use serde_json::json;

use super::lead::{Lead, NO_ADMIN, NO_ADMIN_ON};
use super::stage;
use crate::scene::rule_sql;

#[test]
fn triggers_of_others_do_not_get_around() -> Result<()> {
    let lead = Lead::new("planted")?;
    let own = lead.own_rule()?;
    let admin = stage().admin()?;
    admin.rows(
        "GRANT ALL ON ALL TABLES IN SCHEMA oidc TO planted; CREATE SCHEMA planted AUTHORIZATION planted",
    )?;
    let body = "CREATE FUNCTION planted.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'";
    lead.session.rows(body)?;
    // TRIGGER, which GRANT ALL includes, would let her replace the checks, and run code as who changes a rule next.
    for sql in [
        "CREATE TRIGGER zz BEFORE INSERT ON oidc.role_mapping FOR EACH ROW EXECUTE FUNCTION planted.f()",
        "CREATE OR REPLACE TRIGGER check_rights BEFORE INSERT OR UPDATE OR DELETE ON oidc.role_mapping \
         FOR EACH ROW EXECUTE FUNCTION planted.f()",
        "CREATE OR REPLACE TRIGGER check_row BEFORE INSERT ON oidc.role_mapping FOR EACH ROW EXECUTE FUNCTION planted.f()",
        "CREATE TRIGGER zz AFTER INSERT ON oidc.audit_log FOR EACH STATEMENT EXECUTE FUNCTION planted.f()",
        "CREATE CONSTRAINT TRIGGER zz AFTER UPDATE ON oidc.policy_state FOR EACH ROW EXECUTE FUNCTION planted.f()",
        "CREATE TRIGGER zz BEFORE UPDATE ON oidc.jwks_cache FOR EACH ROW EXECUTE FUNCTION planted.f()",
    ] {
        let told = lead.session.error(sql)?;
        assert_eq!(told.message, "permission denied to create a trigger on a table of pg_oidc", "{sql}");
        assert_eq!(told.code, "42501");
    }
    // Elsewhere she may, and a foreign key makes internal ones.
    lead.session.rows(
        "CREATE TABLE planted.t (p text REFERENCES oidc.provider); \
         CREATE TRIGGER zz BEFORE INSERT ON planted.t FOR EACH ROW EXECUTE FUNCTION planted.f(); DROP TABLE planted.t",
    )?;
    for sql in [
        "ALTER TABLE oidc.role_mapping DISABLE TRIGGER check_rights",
        "ALTER TABLE oidc.role_mapping DISABLE TRIGGER ALL",
        "DROP TRIGGER check_rights ON oidc.role_mapping",
        "CREATE RULE r AS ON INSERT TO oidc.role_mapping DO INSTEAD NOTHING",
        "CREATE TABLE planted.child () INHERITS (oidc.role_mapping)",
    ] {
        let told = lead.session.error(sql)?;
        ensure!(told.code == "42501" && told.message.starts_with("must be owner of"), "{sql}: {told:?}");
    }

    // A trigger that is there all the same, and changes the row after it was checked.
    let plant = |change: &str| -> Result<()> {
        admin.rows(&format!(
            "CREATE OR REPLACE FUNCTION planted.change() RETURNS trigger LANGUAGE plpgsql \
             AS $$BEGIN {change}; RETURN NEW; END$$; \
             CREATE OR REPLACE TRIGGER zz BEFORE INSERT OR UPDATE ON oidc.role_mapping FOR EACH ROW \
             WHEN (NEW.provider = 'planted') EXECUTE FUNCTION planted.change()"
        ))?;
        Ok(())
    };
    let insert = rule_sql("planted", &json!({}), "planted_team");
    let update = format!("UPDATE oidc.role_mapping SET comment = 'x' WHERE id = {own}");
    for (change, detail) in [
        ("NEW.role := 'planted_other'", NO_ADMIN_ON),
        ("NEW.role := 'postgres'; NEW.role_oid := 10", NO_ADMIN_ON),
        ("NEW.role := 'planted_\\1'", "takes its role from the token"),
        ("NEW.effect := 'deny'; NEW.role := NULL", "does not allow but denies"),
        ("NEW.allow_privileged := true", "sets \"allow_privileged\""),
    ] {
        plant(change)?;
        lead.refused(&insert, detail)?;
        lead.refused(&update, detail)?;
    }
    plant("NEW.role_oid := 10")?;
    for session in [&lead.session, &admin] {
        let told = session.error(&insert)?;
        assert_eq!(
            (told.code.as_str(), told.message.as_str()),
            ("27000", "the rule was changed after it had been checked")
        );
    }
    plant("NEW.match := '[]'")?;
    for session in [&lead.session, &admin] {
        let told = session.error(&update)?;
        assert_eq!(told.message, "\"match\" must be a JSON object");
    }
    // One that changes what she may change is nobody's harm.
    plant("NEW.comment := 'stamped'")?;
    lead.session.rows(&update)?;
    admin.rows("DROP TRIGGER zz ON oidc.role_mapping")?;
    let comment = format!("SELECT comment FROM oidc.role_mapping WHERE id = {own}");
    assert_eq!(admin.value(&comment)?.as_deref(), Some("stamped"));
    admin.rows("REVOKE ALL ON ALL TABLES IN SCHEMA oidc FROM planted").map(drop)
}

#[test]
fn n137_views_replicas_and_prepared_transactions_do_not_get_around() -> Result<()> {
    let lead = Lead::new("around")?;
    let (own, theirs) = (lead.own_rule()?, lead.others.clone());
    let admin = stage().admin()?;
    // A view of the superuser's lends its owner's right on the table, not the owner's ADMIN.
    admin.rows(
        "CREATE VIEW around_view AS SELECT * FROM oidc.role_mapping WHERE provider = 'around'; \
         CREATE RULE r AS ON DELETE TO around_view DO INSTEAD DELETE FROM oidc.role_mapping WHERE id = old.id; \
         GRANT ALL ON around_view TO around; REVOKE ALL ON oidc.role_mapping FROM around",
    )?;
    let delete = |id: &str| format!("DELETE FROM around_view WHERE id = {id}");
    let update = |id: &str| format!("UPDATE around_view SET comment = 'x' WHERE id = {id}");
    lead.refused(&delete(&theirs), NO_ADMIN)?;
    lead.refused(&update(&theirs), NO_ADMIN)?;
    lead.session.rows(&update(&own))?;
    // The triggers fire in the session of a replica too.
    assert_eq!(lead.session.error("SET session_replication_role = replica")?.code, "42501");
    admin.rows("GRANT SET ON PARAMETER session_replication_role TO around")?;
    lead.session.rows("SET session_replication_role = replica")?;
    lead.refused(&delete(&theirs), NO_ADMIN)?;
    lead.refused(&update(&theirs), NO_ADMIN)?;
    lead.session.rows(&update(&own))?;
    lead.session.rows("RESET session_replication_role; BEGIN")?;
    lead.session.rows(&delete(&own))?;
    let told = lead.session.error("PREPARE TRANSACTION 'around'")?;
    assert_eq!(told.message, "cannot prepare a transaction that changed the OIDC policy");
    lead.session.rows("ROLLBACK")?;
    // The user is changed in the middle of a statement, before and after the row is checked: she has the rights of
    // neither, so together they give nothing.
    admin.rows(
        "CREATE ROLE around_guest; GRANT around_guest TO around; GRANT ALL ON around_view TO around_guest",
    )?;
    for sql in [
        format!(
            "UPDATE around_view SET comment = set_config('role', 'around_guest', false) WHERE id = {theirs}"
        ),
        format!(
            "DELETE FROM around_view WHERE id = {theirs} AND set_config('role', 'around_guest', false) = 'around_guest'"
        ),
    ] {
        lead.refused(&sql, NO_ADMIN)?;
        lead.session.rows("RESET ROLE")?;
    }
    lead.session.rows(&delete(&own)).map(drop)
}
