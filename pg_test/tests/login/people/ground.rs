//! What a person's session stands on, and what a login of hers would meet.
//!
//! 1. each rule that gave one of her roles; those that give none to her do not count
//! 2. the tightest limit of all of them
//! 3. `oidc.explain_claims` says what happens

use anyhow::{Context, Result, ensure};
use pg_oidc_test::cluster::{Cluster, until};
use serde_json::json;

use super::{cluster, column, ended, exists, login, session};
use crate::scene::{quoted, text};
use crate::stage::{SOON, reasons};

/// A role, and the rule that gives it to the group of its name.
fn rule(cluster: &Cluster, role: &str, limit: &str) -> Result<()> {
    cluster
        .admin(&format!(
            "CREATE ROLE {role}; INSERT INTO oidc.role_mapping (provider, match, role, session_limit) \
             VALUES ('corp', '{{\"groups\": \"{role}\"}}', '{role}', {limit})"
        ))
        .map(drop)
}

#[test]
fn n136_every_rule_that_gave_a_role() -> Result<()> {
    let cluster = cluster()?;
    for role in ["ground_a", "ground_b", "ground_c"] {
        rule(cluster, role, "NULL")?;
    }
    let both = session(cluster, "gitta", &["ground_a", "ground_b"])?;
    let other = session(cluster, "gitta", &["ground_c"])?;
    cluster.admin(
        "UPDATE oidc.role_mapping SET comment = 'x', match = '{\"groups\": \"z\"}' WHERE role = 'ground_a'",
    )?;
    assert_eq!(both.value("SELECT 1")?.as_deref(), Some("1"), "changed, but there");
    cluster.admin("DELETE FROM oidc.role_mapping WHERE role = 'ground_b'")?;
    let detail = ended(&both)?.detail;
    ensure!(
        detail.as_deref().is_some_and(|detail| detail.contains("the rule that gave its role")),
        "{detail:?}"
    );
    assert_eq!(other.value("SELECT 1")?.as_deref(), Some("1"), "it was given neither");
    let ended = "SELECT reason FROM oidc.audit_log WHERE event = 'session_end' AND subject = 'sub-gitta'";
    until("its end is in the audit", SOON, || Ok(column(cluster, ended)? == ["rule_gone"]))
}

#[test]
fn tightest_limit_of_all_rules() -> Result<()> {
    let cluster = cluster()?;
    rule(cluster, "limit_long", "'3 hours'")?;
    rule(cluster, "limit_short", "'20 minutes'")?;
    let lasts = |groups: &[&str]| -> Result<String> {
        let session = session(cluster, "hanne", groups)?;
        let pid = session.value("SELECT pg_backend_pid()")?.context("no pid")?;
        cluster.admin_value(&format!("SELECT (ends_at - since)::text FROM oidc.session WHERE pid = {pid}"))
    };
    assert_eq!(lasts(&["analyst"])?, "08:00:00");
    assert_eq!(lasts(&["analyst", "limit_long"])?, "03:00:00");
    assert_eq!(lasts(&["limit_long", "limit_short", "analyst"])?, "00:20:00");
    Ok(())
}

#[test]
fn identity_logins_are_explained() -> Result<()> {
    let cluster = cluster()?;
    cluster.admin("CREATE ROLE explained_there LOGIN")?;
    drop(session(cluster, "ilse", &["analyst"])?);
    let steps = |person: &str, user: &str, groups: &[&str]| -> Result<Vec<Vec<String>>> {
        let claims = json!({"sub": format!("sub-{person}"), "upn": format!("{person}@corp.example"), "groups": groups});
        cluster.admin(&format!(
            "SELECT name, passed, detail FROM oidc.explain_claims('corp', {}, {}, 'postgres', '127.0.0.1')",
            text(&claims),
            quoted(user)
        ))
    };
    let mut checked = 0;
    for (person, user, groups, made) in [
        ("ilse", "ilse", &["analyst", "writer"][..], ""),
        ("ilse", "ilse", &[][..], "no_rule"),
        ("ilse2", "ilse", &["analyst"][..], "user_not_mapped"),
        ("explained_there", "explained_there", &["analyst"][..], "role_not_bound"),
        ("explained_new", "explained_new", &["analyst"][..], "new"),
        ("none", "none", &["analyst"][..], "user_not_mapped"),
    ] {
        let told = steps(person, user, groups)?;
        let [name, passed, detail] = &told.last().context("no step")?[..] else { anyhow::bail!("{told:?}") };
        assert_eq!(name, "login");
        let mark = cluster.log_mark();
        let happened = cluster.login(user).password(super::token(person, groups)).connect()?;
        if made == "new" || made.is_empty() {
            ensure!(happened.is_ok() && passed == "yes", "{person}: {told:?}");
            let step = told.iter().find(|step| step.first().is_some_and(|name| name == "identity login"));
            let says = step.context("no step")?.get(2).cloned().unwrap_or_default();
            assert_eq!(says.contains("which would be made"), made == "new", "{says}");
        } else {
            assert_eq!(
                (passed.as_str(), detail),
                ("no", &format!("It would be refused: {made}.")),
                "{told:?}"
            );
            assert_eq!(reasons(cluster, mark, user), [made]);
        }
        checked += 1;
    }
    // It makes nothing itself.
    drop(steps("explained_only", "explained_only", &["analyst"])?);
    ensure!(checked == 6 && !exists(cluster, "explained_only")?);
    ensure!(login(cluster, "explained_only", &["analyst"]).run("SELECT 1")?.ok());
    Ok(())
}
