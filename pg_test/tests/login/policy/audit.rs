//! Each change of a provider, a rule or a revocation is an event in `oidc.audit_log`.
//!
//! 1. created, changed, deleted, with the row before and after, who it was, from where, by whose token.
//! 2. By somebody who has no right on the log; in a SECURITY DEFINER function; after SET ROLE.
//! 3. What is rolled back leaves no event, and an UPDATE that changes nothing is none.
//! 4. TRUNCATE is one event a table.
//! 5. Where the event cannot be written, the change fails.
//! 6. Triggers, rules and policies on the log have no say. Columns and indexes that a DBA adds do no harm.
//! 7. Nobody but superusers reads it, until SELECT is granted.

use anyhow::{Context, Result, ensure};
use pg_oidc_test::client::Session;
use serde_json::{Value, json};

use super::{next_login, reason, stage, token, without_rule};
use crate::scene::{Stage, issuer, provider_sql, rule_sql};

/// The changes of a provider and its rules in order, as JSON.
fn events(admin: &Session, provider: &str) -> Result<Vec<Value>> {
    let rows = admin.rows(&format!(
        "SELECT to_jsonb(a)::text FROM oidc.audit_log a \
          WHERE provider = '{provider}' AND event NOT IN ('login', 'session_end') AND event NOT LIKE 'keys%' ORDER BY id"
    ))?;
    rows.into_iter().flatten().flatten().map(|row| Ok(serde_json::from_str(&row)?)).collect()
}

fn names(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["event"].as_str()).collect()
}

#[test]
fn changes_of_providers_and_rules_are_events() -> Result<()> {
    let admin = stage().admin()?;
    admin.rows("SET application_name = 'reviewer'; CREATE ROLE changed LOGIN")?;
    admin.rows(&provider_sql("changed", &issuer("changed"), &[("comment", "'it''s \"new\" $$'")]))?;
    let id = admin.value(&rule_sql("changed", &json!({ "sub": "é" }), "changed"))?.context("no id")?;
    admin.rows(&format!("UPDATE oidc.role_mapping SET priority = 7 WHERE id = {id}"))?;
    admin.rows("UPDATE oidc.provider SET enabled = false WHERE name = 'changed'")?;
    admin.rows(&format!("DELETE FROM oidc.role_mapping WHERE id = {id}"))?;
    admin.rows("DELETE FROM oidc.provider WHERE name = 'changed'")?;
    let found = events(&admin, "changed")?;
    let expected = [
        "provider_created",
        "rule_created",
        "rule_changed",
        "provider_changed",
        "rule_deleted",
        "provider_deleted",
    ];
    assert_eq!(names(&found), expected);
    let pid = admin.value("SELECT pg_backend_pid()")?.context("no pid")?;
    for event in &found {
        let who = ["outcome", "session_user", "current_user", "database", "application_name"]
            .map(|key| &event[key]);
        assert_eq!(who, ["done", "postgres", "postgres", "postgres", "reviewer"], "{event}");
        assert_eq!(event["pid"].to_string(), pid, "{event}");
        assert_eq!((&event["tls"], &event["client_address"]), (&json!(false), &Value::Null), "{event}");
        assert_eq!(event["facts"], Value::Null, "{event}");
    }
    let recent = "SELECT bool_and(\"time\" BETWEEN clock_timestamp() - interval '5 minutes' AND clock_timestamp()) \
                  FROM oidc.audit_log WHERE provider = 'changed'";
    assert_eq!(admin.value(recent)?.as_deref(), Some("t"));
    let [made, rule, changed, off, rule_gone, gone] = found.as_slice() else { anyhow::bail!("{found:?}") };
    assert_eq!((&made["before"], &made["after"]["comment"]), (&Value::Null, &json!("it's \"new\" $$")));
    assert_eq!((&rule["role"], rule["rule_id"].to_string()), (&json!("changed"), id));
    assert_eq!((&rule["before"], &rule["after"]["match"]), (&Value::Null, &json!({ "sub": "é" })));
    assert_eq!((&changed["before"]["priority"], &changed["after"]["priority"]), (&json!(100), &json!(7)));
    assert_eq!((&off["before"]["enabled"], &off["after"]["enabled"]), (&json!(true), &json!(false)));
    assert_eq!((&rule_gone["before"], &rule_gone["after"]), (&changed["after"], &Value::Null));
    assert_eq!((&gone["before"], &gone["after"]), (&off["after"], &Value::Null));
    // The row is whole.
    let columns =
        "SELECT count(*) FROM pg_attribute WHERE attrelid = 'oidc.role_mapping'::regclass AND attnum > 0";
    let columns = admin.value(columns)?.context("no count")?;
    assert_eq!(rule["after"].as_object().map(|row| row.len().to_string()), Some(columns));
    Ok(())
}

#[test]
fn the_event_says_who_it_was() -> Result<()> {
    let stage = without_rule("who")?;
    let admin = stage.admin()?;
    admin.rows(
        "CREATE ROLE who_team LOGIN; CREATE ROLE who_deputy; GRANT who_team TO who, who_deputy WITH ADMIN OPTION; \
         GRANT who_deputy TO who; GRANT SELECT, INSERT, UPDATE, DELETE ON oidc.role_mapping TO who, who_deputy; \
         CREATE FUNCTION who_writes() RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog \
         AS $$UPDATE oidc.role_mapping SET comment = 'by function' WHERE provider = 'who' AND role = 'who_team'$$; \
         ALTER FUNCTION who_writes() OWNER TO who_deputy",
    )?;
    admin.rows(&rule_sql("who", &json!({ "sub": "who" }), "who"))?;
    let session = stage.session("who", &token("who"))?;
    session.rows(&rule_sql("who", &json!({}), "who_team"))?;
    session.rows("SELECT who_writes()")?;
    session.rows("SET ROLE who_deputy; DELETE FROM oidc.role_mapping WHERE role = 'who_team'; RESET ROLE")?;
    let found = events(&admin, "who")?;
    let found: Vec<&Value> = found.iter().filter(|event| event["role"] == "who_team").collect();
    let current: Vec<&Value> = found.iter().map(|event| &event["current_user"]).collect();
    assert_eq!(current, ["who", "who_deputy", "who_deputy"]);
    for event in found {
        assert_eq!(event["session_user"], "who");
        assert_eq!((&event["tls"], &event["client_address"]), (&json!(true), &json!("127.0.0.1")), "{event}");
        let token = json!({ "token": { "provider": "who", "subject": "who", "identity": "who" } });
        assert_eq!(event["facts"], token);
    }
    // She neither reads nor writes it, and its sequence is nothing that she needs or has.
    for sql in ["SELECT FROM oidc.audit_log", "SELECT nextval('oidc.audit_log_id_seq')"] {
        assert_eq!(session.error(sql)?.code, "42501", "{sql}");
    }
    admin.rows("GRANT SELECT ON oidc.audit_log TO who")?;
    assert_eq!(
        session.value("SELECT count(*) FROM oidc.audit_log WHERE role = 'who_team'")?.as_deref(),
        Some("3")
    );
    let told = session.error("INSERT INTO oidc.audit_log (event, outcome) VALUES ('x', 'done')")?;
    assert_eq!(told.message, "permission denied for table audit_log");
    admin.rows("REVOKE SELECT ON oidc.audit_log FROM who").map(drop)
}

#[test]
fn what_is_rolled_back_or_changes_nothing_is_no_event() -> Result<()> {
    let stage = without_rule("back")?;
    let admin = stage.admin()?;
    let insert = rule_sql("back", &json!({ "sub": "back" }), "back");
    admin.rows(&format!("BEGIN; {insert}; ROLLBACK"))?;
    admin.rows(&format!("BEGIN; SAVEPOINT s; {insert}; ROLLBACK TO s; COMMIT"))?;
    assert!(admin.try_rows(&format!("{insert}; SELECT 1/0"))?.is_err());
    assert_eq!(names(&events(&admin, "back")?), ["provider_created"]);
    admin.rows(&format!("BEGIN; SAVEPOINT s; {insert}; RELEASE s; COMMIT"))?;
    assert_eq!(next_login(stage, "back", &token("back"))?, None);
    admin
        .rows("UPDATE oidc.role_mapping SET priority = priority, role_oid = NULL WHERE provider = 'back'")?;
    admin.rows(
        "INSERT INTO oidc.provider SELECT * FROM oidc.provider WHERE name = 'back' ON CONFLICT DO NOTHING",
    )?;
    assert_eq!(names(&events(&admin, "back")?), ["provider_created", "rule_created"]);
    // The role is another one, so what is written in the same words is a change.
    admin.rows("DROP ROLE back; CREATE ROLE back LOGIN; UPDATE oidc.role_mapping SET role = role WHERE provider = 'back'")?;
    assert_eq!(names(&events(&admin, "back")?), ["provider_created", "rule_created", "rule_changed"]);
    Ok(())
}

#[test]
fn truncate_is_one_event_a_table() -> Result<()> {
    // Its own server: TRUNCATE takes the rules of all other tests with it.
    let stage = Stage::start()?;
    stage.trio("cut")?;
    let admin = stage.admin()?;
    admin.rows(&rule_sql("cut", &json!({}), "cut"))?;
    let truncated = "SELECT event, before IS NULL AND after IS NULL AND provider IS NULL, \"current_user\" \
                     FROM oidc.audit_log WHERE event LIKE '%truncated' ORDER BY event";
    admin.rows("BEGIN; TRUNCATE oidc.role_mapping; ROLLBACK")?;
    assert_eq!(admin.rows(truncated)?, [] as [Vec<Option<String>>; 0]);
    let row = |event: &str| vec![Some(event.to_owned()), Some("t".to_owned()), Some("postgres".to_owned())];
    admin.rows("TRUNCATE oidc.role_mapping")?;
    assert_eq!(admin.rows(truncated)?, [row("rule_truncated")]);
    admin.rows("TRUNCATE oidc.audit_log; TRUNCATE oidc.provider CASCADE")?;
    let all = ["binding_truncated", "provider_truncated", "revocation_truncated", "rule_truncated"].map(row);
    assert_eq!(admin.rows(truncated)?, all);
    assert_eq!(next_login(&stage, "cut", &token("cut"))?, reason("issuer_unknown"));
    Ok(())
}

#[test]
fn a_change_that_cannot_be_recorded_fails() -> Result<()> {
    // Its own server: the log is locked and taken apart.
    let stage = Stage::start()?;
    stage.trio("unrecorded")?;
    let admin = stage.admin()?;
    let delete = "DELETE FROM oidc.role_mapping WHERE provider = 'unrecorded'";
    admin.rows("ALTER TABLE oidc.audit_log RENAME TO elsewhere")?;
    let told = admin.error(delete)?;
    assert_eq!(
        (told.code.as_str(), told.message.as_str()),
        ("42P01", "could not record the change of the OIDC policy")
    );
    admin.rows("ALTER TABLE oidc.elsewhere RENAME TO audit_log")?;
    admin.rows("ALTER TABLE oidc.audit_log ADD CONSTRAINT never CHECK (event <> 'rule_deleted')")?;
    let told = admin.error(delete)?;
    assert_eq!(told.code, "23514", "constraints hold: {told:?}");
    assert_eq!(next_login(&stage, "unrecorded", &token("unrecorded"))?, None, "nothing was deleted");

    // What a DBA adds to the table does no harm, what somebody puts on it keeps nothing back.
    admin.rows(
        "ALTER TABLE oidc.audit_log DROP CONSTRAINT never; ALTER TABLE oidc.audit_log ADD seen_by text; \
         ALTER TABLE oidc.audit_log DROP COLUMN token_id; \
         CREATE INDEX ON oidc.audit_log ((after->>'role')) WHERE event LIKE 'rule%'; \
         CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; \
         CREATE TRIGGER swallow BEFORE INSERT ON oidc.audit_log FOR EACH ROW EXECUTE FUNCTION swallow(); \
         ALTER TABLE oidc.audit_log ENABLE ALWAYS TRIGGER swallow; \
         CREATE RULE swallow AS ON INSERT TO oidc.audit_log DO INSTEAD NOTHING; \
         ALTER TABLE oidc.audit_log ENABLE ROW LEVEL SECURITY; ALTER TABLE oidc.audit_log FORCE ROW LEVEL SECURITY",
    )?;
    admin.rows(delete)?;
    admin.rows("SET enable_seqscan = off")?;
    let found = admin.value("SELECT before->>'role' FROM oidc.audit_log WHERE event = 'rule_deleted'")?;
    assert_eq!(found.as_deref(), Some("unrecorded"));
    assert_eq!(next_login(&stage, "unrecorded", &token("unrecorded"))?, reason("no_rule"));
    // The index has the row too.
    admin.rows(&rule_sql("unrecorded", &json!({}), "unrecorded"))?;
    let by_index =
        "SELECT count(*) FROM oidc.audit_log WHERE event LIKE 'rule%' AND after->>'role' = 'unrecorded'";
    let plan = format!("{:?}", admin.rows(&format!("EXPLAIN {by_index}"))?);
    ensure!(plan.contains("audit_log_expr_idx"), "{plan}");
    assert_eq!(admin.value(by_index)?.as_deref(), Some("2"));
    Ok(())
}

#[test]
fn changes_of_revocations_are_events() -> Result<()> {
    // Its own server: all its revocations are changed.
    let stage = Stage::start()?;
    stage.provider("gone")?;
    let admin = stage.admin()?;
    admin.rows(
        "INSERT INTO oidc.revocation (provider, subject, reason) VALUES ('gone', 'x', 'left'); \
         UPDATE oidc.revocation SET reason = 'lost'; DELETE FROM oidc.revocation",
    )?;
    let found = events(&admin, "gone")?;
    assert_eq!(names(&found)[1..], ["revocation_created", "revocation_changed", "revocation_deleted"]);
    let [_, _, changed, _] = found.as_slice() else { anyhow::bail!("{found:?}") };
    assert_eq!((&changed["subject"], &changed["after"]["reason"]), (&json!("x"), &json!("lost")));
    Ok(())
}
