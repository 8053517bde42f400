//! Limits of the policy, through a server: a policy over a limit is refused whole, the log says which limit, and what
//! brings it back under the limit heals it at once.
//!
//! 1. Rules with a pattern, wherever in the rule it stands; rules without one, and disabled ones, do not count.
//! 2. The doctor counts the same.

use anyhow::{Result, ensure};
use pg_oidc_core::limits::PATTERN_RULES;
use pg_oidc_test::keys::keys;
use serde_json::json;

use crate::scene::{SOON, Stage, good, rule_sql};

#[test]
fn rules_with_a_pattern() -> Result<()> {
    let stage = Stage::start()?;
    stage.trio("many")?;
    let admin = stage.admin()?;
    let token = good("many").groups(&["g-1000"]).sign(&keys().ed25519);
    let accepted = |about: &str| stage.accepted("many", &token, about);
    admin.rows(&format!(
        "INSERT INTO oidc.role_mapping (provider, match, role) SELECT 'many', \
         jsonb_build_object('groups', jsonb_build_object('regex', 'g-' || n || '(.*)')), 'many' \
         FROM generate_series(1, {PATTERN_RULES}) n"
    ))?;
    accepted("as many as there may be")?;
    // What does not count.
    admin.rows(&rule_sql("many", &json!({ "sub": { "any": ["x", { "not": "y" }] } }), "many"))?;
    admin.rows(
        "INSERT INTO oidc.role_mapping (provider, match, role, enabled) VALUES ('many', '{\"a\": {\"glob\": \"*\"}}', 'many', false)",
    )?;
    accepted("rules without a pattern, and one that is disabled")?;
    let doctor = "SELECT status FROM oidc.doctor() WHERE name = 'pattern_rules'";
    ensure!(admin.value(doctor)?.as_deref() != Some("fail"), "the doctor");

    for claims in [
        json!({ "sub": "nobody", "a": { "glob": "x" } }),
        json!({ "a": { "any": ["x", { "not": { "regex": "x" } }] } }),
        json!({ "a": { "not": { "glob": "x*" } } }),
    ] {
        let mark = stage.cluster.log_mark();
        let id = admin.value(&rule_sql("many", &claims, "many"))?.unwrap_or_default();
        stage.refused("many", &token, "policy_overflow", &claims)?;
        let warning = "WARNING:  the OIDC policy cannot be published, token logins are refused";
        stage.cluster.await_log_since(mark, warning, SOON)?;
        let detail = format!("DETAIL:  more than {PATTERN_RULES} rules have a regular expression or a glob.");
        stage.cluster.await_log_since(mark, &detail, SOON)?;
        assert_eq!(admin.value(doctor)?.as_deref(), Some("fail"), "{claims}");
        admin.rows(&format!("UPDATE oidc.role_mapping SET enabled = false WHERE id = {id}"))?;
        accepted("disabled")?;
        admin.rows(&format!("UPDATE oidc.role_mapping SET enabled = true WHERE id = {id}"))?;
        stage.refused("many", &token, "policy_overflow", "enabled again")?;
        // A denial counts like any other rule.
        admin.rows(&format!("UPDATE oidc.role_mapping SET effect = 'deny', role = NULL WHERE id = {id}"))?;
        stage.refused("many", &token, "policy_overflow", "as a denial")?;
        admin.rows(&format!("DELETE FROM oidc.role_mapping WHERE id = {id}"))?;
        accepted("deleted")?;
    }
    Ok(())
}
