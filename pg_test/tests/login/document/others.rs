//! Who may export and apply, who waits for it, and who cannot bend it.
//!
//! 1. n128: PUBLIC may not. Who is granted EXECUTE acts with her own rights, and the triggers judge her.
//! 2. Whoever changes the policy meanwhile waits, and the differences are those from what she left; logins do not wait.
//! 3. n127: what a session puts before or into the search path, and its settings, change nothing.

use std::thread;

use anyhow::{Context, Result, ensure};
use pg_oidc_test::client::Session;
use pg_oidc_test::cluster::until;
use pg_oidc_test::psql::Way;
use serde_json::json;

use super::{apply, applying, document, exported, provider, rule, stage, with};
use crate::scene::{SOON, Stage, good, rule_sql};

const GRANTS: &str = "GRANT EXECUTE ON FUNCTION oidc.export_policy(), oidc.apply_policy(jsonb, boolean), \
                      oidc.document_columns(), oidc.document_rows(), oidc.read_document(jsonb) TO clerk; \
                      GRANT SELECT ON oidc.provider, oidc.identity_role TO clerk; \
                      GRANT SELECT, INSERT, UPDATE, DELETE ON oidc.role_mapping TO clerk";

#[test]
fn n128_rights_are_the_callers() -> Result<()> {
    let stage = stage()?;
    let admin = stage.admin()?;
    admin.rows("CREATE ROLE clerk LOGIN; GRANT analyst TO clerk WITH ADMIN OPTION")?;
    apply(&admin, &document(&[provider("a")], &[rule("a", "reader")]))?;
    let clerk = stage.admin()?;
    clerk.rows("SET ROLE clerk")?;
    for call in [
        "SELECT oidc.export_policy()",
        "SELECT oidc.apply_policy('{\"providers\": [], \"rules\": [], \"bindings\": []}', true)",
        "SELECT * FROM oidc.document_columns()",
        "SELECT * FROM oidc.document_rows()",
        "SELECT * FROM oidc.read_document('{}')",
    ] {
        let told = clerk.error(call)?;
        assert_eq!(told.code, "42501", "{told:?}");
    }
    admin.rows(GRANTS)?;
    let both = document(&[provider("a")], &[rule("a", "reader"), rule("a", "analyst")]);
    assert_eq!(apply(&clerk, &both)?.len(), 1, "a rule for a role that is hers to give");
    assert_eq!(exported(&clerk)?, exported(&admin)?);
    assert_eq!(apply(&clerk, &both)?, []);
    let told = clerk.error(&applying(&document(&[provider("a")], &[rule("a", "analyst")]), false))?;
    ensure!(told.code == "42501" && told.message.starts_with("rule of a: "), "another's rule: {told:?}");
    let more =
        document(&[provider("a")], &[rule("a", "reader"), rule("a", "analyst"), rule("a", "postgres")]);
    let told = clerk.error(&applying(&more, true))?;
    ensure!(told.code == "42501" && told.message.starts_with("rules[2]: "), "another's role: {told:?}");
    let mut other = both;
    other["providers"][0] = with(provider("a"), &json!({ "comment": "mine" }));
    let told = clerk.error(&applying(&other, false))?;
    ensure!(told.code == "42501" && told.message.starts_with("providers[0]: "), "a provider: {told:?}");
    assert_eq!(admin.value("SELECT count(*) FROM oidc.role_mapping")?.as_deref(), Some("2"));
    admin.rows("DROP OWNED BY clerk; DROP ROLE clerk").map(drop)
}

/// A session at work, and the rows that come of it.
type Running = thread::JoinHandle<Result<(Session, Vec<Vec<Option<String>>>)>>;

/// A session that runs this SQL in a thread of its own, and is waiting for a lock.
fn waiting(stage: &Stage, sql: &str) -> Result<Running> {
    let session = stage.admin()?;
    let pid = session.value("SELECT pg_backend_pid()")?.context("no pid")?;
    let sql = sql.to_owned();
    let running = thread::spawn(move || session.rows(&sql).map(|rows| (session, rows)));
    let watching = stage.admin()?;
    let waits = format!("SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = {pid}");
    until("a lock to be waited for", SOON, || Ok(watching.value(&waits)?.as_deref() == Some("t")))?;
    Ok(running)
}

#[test]
fn others_wait_and_logins_do_not() -> Result<()> {
    let stage = stage()?;
    let admin = stage.admin()?;
    stage.provider("waits")?;
    admin.rows(&rule_sql("waits", &json!({ "sub": "waits" }), "analyst"))?;
    let start: serde_json::Value = serde_json::from_str(&exported(&admin)?)?;
    let mut first = start.clone();
    first["rules"] = json!([rule("waits", "analyst"), rule("waits", "reader")]);
    let mut second = start.clone();
    second["rules"] =
        json!([rule("waits", "analyst"), with(rule("waits", "reader"), &json!({ "priority": 7 }))]);
    let token = good("waits").sign(&pg_oidc_test::keys::keys().ec);
    let outcome = |running: Running| running.join().map_err(|_| anyhow::anyhow!("a session panicked"))?;

    admin.rows("BEGIN")?;
    ensure!(admin.rows(&applying(&first, false))?.len() == 1, "one is created");
    let other = waiting(&stage, &applying(&second, false))?;
    stage.accepted("analyst", &token, "a login does not wait")?;
    stage.refused("reader", &token, "user_not_mapped", "not committed")?;
    admin.rows("COMMIT")?;
    let (_, rows) = outcome(other)?;
    let actions: Vec<_> = rows.iter().filter_map(|row| row.first()?.as_deref()).collect();
    assert_eq!(actions, ["delete", "create"], "the differences from what the first made");

    // Rows written by hand wait too, and so does the document for them.
    admin.rows("BEGIN")?;
    admin.rows(&applying(&start, false))?;
    let by_hand = waiting(&stage, &rule_sql("waits", &json!({ "sub": "late" }), "reader"))?;
    let provider = waiting(&stage, "UPDATE oidc.provider SET comment = 'late' WHERE name = 'waits'")?;
    admin.rows("COMMIT")?;
    outcome(by_hand)?;
    outcome(provider)?;
    admin.rows("BEGIN")?;
    admin.rows(&rule_sql("waits", &json!({ "sub": "later" }), "reader"))?;
    let document = waiting(&stage, &applying(&start, false))?;
    admin.rows("COMMIT")?;
    let (_, rows) = outcome(document)?;
    assert_eq!(rows.len(), 3, "two rules and a comment are taken back: {rows:?}");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&exported(&admin)?)?, start);

    // A dry run leaves no lock behind, though its transaction goes on.
    admin.rows("BEGIN")?;
    admin.rows(&applying(&first, true))?;
    stage.admin()?.rows("SET lock_timeout = '5s'; UPDATE oidc.provider SET comment = comment")?;
    admin.rows("ROLLBACK").map(drop)
}

#[test]
fn n127_shadows_have_no_effect() -> Result<()> {
    let stage = stage()?;
    let admin = stage.admin()?;
    let wanted = document(
        &[provider("a"), with(provider("b"), &json!({ "max_stale": "1 day", "comment": "a \\ and 'b'" }))],
        &[
            rule("a", "analyst"),
            rule("a", "analyst"),
            with(rule("b", "reader"), &json!({ "valid_until": "2030-01-02T00:00:00+00:00", "comment": "x" })),
        ],
    );
    apply(&admin, &wanted)?;
    let plain = exported(&admin)?;
    admin.rows(
        "CREATE ROLE squatter LOGIN; CREATE SCHEMA traps AUTHORIZATION squatter; CREATE TABLE traps.fired (); \
         GRANT INSERT ON traps.fired TO PUBLIC",
    )?;
    // One trap for each kind of thing that the functions use.
    let trap = |head: &str, returns: &str, gives: &str| {
        format!(
            "CREATE FUNCTION traps.{head} RETURNS {returns} LANGUAGE plpgsql AS \
             'BEGIN INSERT INTO traps.fired DEFAULT VALUES; RETURN {gives}; END'"
        )
    };
    let functions = [
        trap("to_jsonb(oidc.provider)", "jsonb", "NULL"),
        trap("to_jsonb(oidc.role_mapping)", "jsonb", "NULL"),
        trap("jsonb_each(jsonb, OUT key text, OUT value jsonb)", "record", "")
            .replace("RETURN ;", "key := 1;"),
        trap("format(text, text)", "text", "NULL"),
        trap("concat(text, text)", "text", "NULL"),
        trap("jsonb_object_keys(jsonb)", "text", "NULL"),
        trap("has_table_privilege(text, text)", "boolean", "false"),
        trap("same(jsonb, jsonb)", "boolean", "true"),
        trap("joined(jsonb, jsonb)", "jsonb", "NULL"),
        trap("joined(text, text)", "text", "NULL"),
    ];
    for function in functions {
        admin.rows(&function)?;
    }
    for (operator, function, left) in [
        ("=", "same", "jsonb"),
        ("<>", "same", "jsonb"),
        ("||", "joined", "jsonb"),
        ("||", "joined", "text"),
        ("?", "same", "jsonb"),
        ("->", "joined", "jsonb"),
    ] {
        admin.rows(&format!(
            "CREATE OPERATOR traps.{operator} (FUNCTION = traps.{function}, LEFTARG = {left}, RIGHTARG = {left})"
        ))?;
    }
    let hostile =
        stage.cluster.login("postgres").way(Way::Socket).options("-c search_path=traps,pg_temp,pg_catalog");
    let hostile = crate::scene::admitted(&hostile)?;
    hostile.rows(
        "CREATE TEMP TABLE provider (name text); CREATE TEMP TABLE role_mapping (); CREATE TEMP TABLE identity_role (); \
         CREATE TEMP TABLE pg_attribute (attname text); CREATE TEMP TABLE pg_attrdef (x int); CREATE TYPE pg_temp.jsonb AS (x int); \
         CREATE DOMAIN pg_temp.text AS pg_catalog.int4; CREATE DOMAIN pg_temp.interval AS pg_catalog.int4; \
         SET standard_conforming_strings = off; SET escape_string_warning = off; SET datestyle = 'German'; \
         SET intervalstyle = 'sql_standard'; SET timezone = 'Asia/Kolkata'; SET transform_null_equals = on; \
         SET array_nulls = off; SET session_replication_role = replica; SET check_function_bodies = off",
    )?;
    assert_eq!(exported(&hostile)?, plain);
    hostile.rows("CREATE TEMP TABLE kept AS SELECT oidc.export_policy() AS policy")?;
    let rows = "SELECT provider::pg_catalog.text, condition, role, databases, addresses FROM oidc.access";
    assert_eq!(hostile.rows(rows)?, admin.rows(&rows.replace("pg_catalog.", ""))?);
    assert_eq!(hostile.rows("SELECT * FROM oidc.apply_policy((SELECT policy FROM kept), false)")?.len(), 0);
    let empty = "pg_catalog.jsonb_build_object('providers', ARRAY[]::pg_catalog.int4[], 'rules', ARRAY[]::pg_catalog.int4[], \
                 'bindings', ARRAY[]::pg_catalog.int4[])";
    assert_eq!(hostile.rows(&format!("SELECT * FROM oidc.apply_policy({empty}, false)"))?.len(), 5);
    assert_eq!(hostile.rows("SELECT * FROM oidc.apply_policy((SELECT policy FROM kept), false)")?.len(), 5);
    assert_eq!(exported(&admin)?, plain);
    assert_eq!(admin.value("SELECT count(*) FROM traps.fired")?.as_deref(), Some("0"), "a trap was called");
    admin.rows("DROP SCHEMA traps CASCADE; DROP ROLE squatter").map(drop)
}
