//! n097: rules that do not compile any more, as an older version, a restore past the triggers or a superuser may leave
//! them.
//!
//! 1. A rule that allows gives nothing, with a warning; the others of its provider go on.
//! 2. A rule that denies refuses every login of its provider until it is mended; other providers are not touched.
//! 3. One that is disabled does neither. What says neither allow nor deny counts as a denial.
//! 4. The views and functions that show the policy go on, and the worker lives.

use anyhow::{Context, Result, ensure};
use pg_oidc_test::client::Session;
use pg_oidc_test::keys::keys;
use serde_json::json;

use super::deny::deny_sql;
use super::{next_login, reason, signed, token};
use crate::scene::{SOON, Stage, good, rule_sql, rule_with};
use crate::stage::calm;

/// Writes rows past the checks, in one transaction.
fn unchecked(admin: &Session, sql: &str) -> Result<Option<String>> {
    admin.value(&format!(
        "BEGIN; ALTER TABLE oidc.role_mapping DISABLE TRIGGER check_row, DISABLE TRIGGER check_stored_row; {sql}; \
         ALTER TABLE oidc.role_mapping ENABLE ALWAYS TRIGGER check_row, ENABLE ALWAYS TRIGGER check_stored_row; COMMIT"
    ))
}

/// What shows the policy, and reads every row of it.
fn shown(admin: &Session) -> Result<()> {
    for sql in [
        "SELECT * FROM oidc.access",
        "SELECT * FROM oidc.doctor()",
        "SELECT oidc.export_policy()",
        "SELECT * FROM oidc.explain_claims('broken', '{}')",
    ] {
        ensure!(!admin.rows(sql)?.is_empty(), "{sql}");
    }
    Ok(())
}

#[test]
fn n097_broken_rules() -> Result<()> {
    let stage = Stage::start()?;
    stage.trio("broken")?;
    stage.trio("whole")?;
    let admin = stage.admin()?;
    let logins = |provider: Option<&str>| -> Result<()> {
        let found = next_login(&stage, "broken", &token("broken"))?;
        ensure!(found.as_deref() == provider, "{found:?} instead of {provider:?}");
        ensure!(next_login(&stage, "whole", &token("whole"))?.is_none(), "the other provider");
        shown(&admin)
    };
    let delete = |id: &str| admin.rows(&format!("DELETE FROM oidc.role_mapping WHERE id = {id}"));
    let worker = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_oidc registry'";
    let pid = admin.value(worker)?;

    // Rules that would give another role to everybody, were they read as something else.
    admin.rows("CREATE ROLE broken_other LOGIN")?;
    let allows = [
        json!([]),
        json!(7),
        json!("{}"),
        json!(null),
        json!({ "g": { "regex": "(" } }),
        json!({ "g": { "regex": "a)|(?:.*" } }),
        json!({ "g": { "like": "%" } }),
        json!({ "g": {} }),
        json!({ "g": { "any": [] } }),
        json!({ "g": [1] }),
        json!({ "": 1 }),
        json!({ "exists": { "exists": "no" } }),
    ];
    for claims in allows {
        let sql = rule_with("broken", &claims, "broken_other", &[("role_oid", "'broken_other'::regrole")]);
        let mark = stage.cluster.log_mark();
        let id = unchecked(&admin, &sql)?.context("no id")?;
        logins(None)?;
        stage.cluster.await_log_since(mark, &format!("WARNING:  OIDC rule {id} gives nothing"), SOON)?;
        let found = next_login(&stage, "broken_other", &token("broken"))?;
        assert_eq!(found, reason("user_not_mapped"), "{claims}");
        delete(&id)?;
    }
    for column in [
        ("replication", "NULL"),
        ("databases", "'{}'"),
        ("addresses", "'{}'"),
        ("valid_until", "'-infinity'"),
        ("session_limit", "'soon'"),
        ("role", "'\\1'"),
        ("role", "'public'"),
        ("role", "NULL"),
        ("allow_privileged", "true, role = 'x\\1', match = '{\"sub\": {\"regex\": \"(.+)\"}}'"),
    ] {
        let id = admin.value(&rule_sql("broken", &json!({}), "broken_other"))?.context("no id")?;
        let found = next_login(&stage, "broken_other", &token("broken"))?;
        assert_eq!(found, None, "before {column:?}");
        let mark = stage.cluster.log_mark();
        unchecked(
            &admin,
            &format!("UPDATE oidc.role_mapping SET {} = {} WHERE id = {id} RETURNING id", column.0, column.1),
        )?;
        let found = next_login(&stage, "broken_other", &token("broken"))?;
        assert_eq!(found, reason("user_not_mapped"), "{column:?}");
        stage.cluster.await_log_since(mark, &format!("WARNING:  OIDC rule {id} gives nothing"), SOON)?;
        delete(&id)?;
    }
    logins(None)?;

    // Denials.
    for claims in
        [json!([]), json!(null), json!({ "sub": { "regex": "(" } }), json!({ "nobody": { "like": "x" } })]
    {
        let mark = stage.cluster.log_mark();
        let id = unchecked(&admin, &deny_sql("broken", &claims, &[]))?.context("no id")?;
        logins(Some("broken_deny_rule"))?;
        let warning = format!("WARNING:  OIDC rule {id} refuses every login of its provider");
        stage.cluster.await_log_since(mark, &warning, SOON)?;
        stage.refused("broken_nobody", &token("broken"), "broken_deny_rule", "whoever it is")?;
        let refused = stage.refusal(&stage.login("broken", &token("broken")), "broken", "with the rule")?;
        ensure!(refused.line.contains(&format!("It is rule {id}.")), "{}", refused.line);
        // A token that is no good is refused for what it is, and the rule is not shown to whoever asks.
        let forged = good("broken").sign(&keys().other_ed25519);
        ensure!(next_login(&stage, "broken", &forged)? != reason("broken_deny_rule"), "a forged token");
        unchecked(
            &admin,
            &format!("UPDATE oidc.role_mapping SET enabled = false WHERE id = {id} RETURNING id"),
        )?;
        logins(None)?;
        unchecked(
            &admin,
            &format!("UPDATE oidc.role_mapping SET enabled = true WHERE id = {id} RETURNING id"),
        )?;
        logins(Some("broken_deny_rule"))?;
        let mended =
            format!("UPDATE oidc.role_mapping SET match = '{{\"groups\": \"out\"}}' WHERE id = {id}");
        admin.rows(&mended)?;
        logins(None)?;
        let out = signed(&good("broken").groups(&["out"]));
        assert_eq!(next_login(&stage, "broken", &out)?, reason("denied_by_rule"), "mended");
        delete(&id)?;
    }
    // Its confines are broken too, so they confine nothing.
    let elsewhere =
        deny_sql("broken", &json!([]), &[("databases", "'{elsewhere}'"), ("valid_until", "'2020-01-01'")]);
    let id = unchecked(&admin, &elsewhere)?.context("no id")?;
    logins(Some("broken_deny_rule"))?;
    delete(&id)?;
    // What says neither may have been meant to deny.
    admin.rows("ALTER TABLE oidc.role_mapping DROP CONSTRAINT role_mapping_effect_check")?;
    for effect in ["Deny", "maybe", "", "allow "] {
        let sql =
            rule_with("broken", &json!({ "sub": "nobody" }), "broken", &[("effect", &format!("'{effect}'"))]);
        let id = unchecked(&admin, &sql)?.context("no id")?;
        logins(Some("broken_deny_rule"))?;
        delete(&id)?;
    }
    logins(None)?;
    assert_eq!(admin.value(worker)?, pid, "the worker is another");
    calm(&stage.cluster, &[&token("broken")])
}
