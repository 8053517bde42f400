//! A person comes for the first time, and again.
//!
//! 1. her role is made with nothing but LOGIN, bound to her, a member of what the rules give; all of it is in the audit
//! 2. she starts in the first role by priority, then id, and may change to the others, and back
//! 3. what is missing: no rule, no groups claim, groups left out; nothing is made and nothing is swept
//! 4. the provider makes no roles, no names, or is for others

use anyhow::{Result, ensure};
use pg_oidc_test::cluster::until;
use pg_oidc_test::keys::keys;
use serde_json::json;

use super::{cluster, column, exists, ledger, login, may, may_not, memberships, of, session, users};
use crate::stage::{SOON, refuses};

#[test]
fn first_login_makes_the_role() -> Result<()> {
    let cluster = cluster()?;
    let seen = login(cluster, "alice", &["writer", "analyst"]).run("SELECT session_user, current_user")?;
    assert!(seen.ok(), "{seen:?} {}", cluster.log());
    assert_eq!(seen.rows(), [["alice", "analyst"]]);
    let attributes = "SELECT concat_ws(' ', rolcanlogin, rolinherit, rolsuper, rolcreatedb, rolcreaterole, rolreplication, \
                      rolbypassrls, rolpassword IS NULL, rolvaliduntil IS NULL, rolconnlimit) \
                      FROM pg_authid WHERE rolname = 'alice'";
    assert_eq!(cluster.admin_value(attributes)?, "t f f f f f f t t -1");
    let settings = "SELECT count(*) FROM pg_db_role_setting WHERE setrole = 'alice'::regrole";
    assert_eq!(cluster.admin_value(settings)?, "0");
    let bound = "SELECT concat_ws(' ', provider, subject, role, made_by_us, role_oid = 'alice'::regrole, \
                 last_login BETWEEN now() - interval '1 minute' AND now()) \
                 FROM oidc.identity_role WHERE role = 'alice'";
    assert_eq!(cluster.admin_value(bound)?, "corp sub-alice alice t t t");
    assert_eq!(memberships(cluster, "alice")?, ["analyst", "writer"]);
    // From 16 on each grant says whether it inherits.
    let options = "SELECT DISTINCT concat_ws(' ', admin_option, coalesce(to_jsonb(m)->>'inherit_option', 'false'), \
                   coalesce(to_jsonb(m)->>'set_option', 'true')) \
                   FROM pg_auth_members m WHERE member = 'alice'::regrole";
    assert_eq!(column(cluster, options)?, ["f false true"]);
    let ledger = "SELECT concat_ws(' ', role, keep, role_oid = role::regrole, member_oid = 'alice'::regrole) \
                  FROM oidc.granted_membership WHERE member = 'alice' ORDER BY role";
    assert_eq!(column(cluster, ledger)?, ["analyst f t t", "writer f t t"]);
    Ok(())
}

#[test]
fn first_login_is_in_the_audit() -> Result<()> {
    let cluster = cluster()?;
    let session = session(cluster, "audrey", &["writer"])?;
    let login = "SELECT concat_ws(' ', outcome, role, \"session_user\", \"current_user\", identity, subject, rule_id = ( \
                   SELECT id FROM oidc.role_mapping WHERE role = 'writer')) \
                 FROM oidc.audit_log WHERE event = 'login' AND requested_user = 'audrey'";
    until("the login is in the audit", SOON, || Ok(!column(cluster, login)?.is_empty()))?;
    assert_eq!(column(cluster, login)?, ["accepted writer audrey writer audrey@corp.example sub-audrey t"]);
    let bound = "SELECT after->>'subject' FROM oidc.audit_log WHERE after->>'role' = 'audrey'";
    assert_eq!(column(cluster, bound)?, ["sub-audrey"]);
    let granted = "SELECT after->>'role' FROM oidc.audit_log WHERE after->>'member' = 'audrey'";
    assert_eq!(column(cluster, granted)?, ["writer"]);
    // And she is among the live sessions.
    let live = "SELECT concat_ws(' ', provider, subject, identity, role, database) FROM oidc.session WHERE role = 'audrey'";
    assert_eq!(column(cluster, live)?, ["corp sub-audrey audrey@corp.example audrey postgres"]);
    ensure!(session.value("SELECT oidc.identity()")?.as_deref() == Some("audrey@corp.example"));
    Ok(())
}

#[test]
fn session_changes_between_its_roles() -> Result<()> {
    let cluster = cluster()?;
    let session = session(cluster, "berta", &["analyst", "writer"])?;
    let is = |current: &str| -> Result<()> {
        assert_eq!(users(&session)?, ["berta", current]);
        Ok(())
    };
    is("analyst")?;
    may(&session, "writer")?;
    session.rows("RESET ROLE")?;
    is("analyst")?;
    session.rows("SET ROLE NONE")?;
    is("berta")?;
    // Her own role has no rights of the others: nothing is inherited.
    let rights = "SELECT pg_has_role('analyst', 'USAGE'), pg_has_role('analyst', 'MEMBER')";
    assert_eq!(session.rows(rights)?, [[Some("f".to_owned()), Some("t".to_owned())]]);
    session.rows("RESET ALL")?;
    session.rows("DISCARD ALL")?;
    is("analyst")?;
    may(&session, "berta")?;
    session.rows("SET SESSION AUTHORIZATION berta")?;
    is("berta")?;
    may_not(&session, "auditor")?;
    may(&session, "writer")?;
    for role in ["writer", "analyst", "postgres"] {
        let told = session.error(&format!("SET SESSION AUTHORIZATION {role}"))?;
        assert_eq!(told.code, "42501", "{told:?}");
    }
    session.rows("SET SESSION AUTHORIZATION DEFAULT")?;
    may_not(&session, "auditor")?;
    may_not(&session, "postgres")?;
    session.rows("DISCARD ALL")?;
    is("analyst")?;
    session.rows("BEGIN; SET LOCAL ROLE writer; ROLLBACK")?;
    is("analyst")?;
    let told = session.error("SET ROLE nobody")?;
    assert_eq!(told.code, "22023", "{told:?}");
    Ok(())
}

#[test]
fn start_role_is_the_first_by_priority_then_id() -> Result<()> {
    let cluster = cluster()?;
    cluster.admin("CREATE ROLE rank_a; CREATE ROLE rank_b; CREATE ROLE rank_c")?;
    cluster.admin(
        "INSERT INTO oidc.role_mapping (id, provider, match, role, priority) VALUES \
           (9003, 'corp', '{\"groups\": \"rank\"}', 'rank_a', 50), \
           (9002, 'corp', '{\"groups\": \"rank\"}', 'rank_b', 50), \
           (9001, 'corp', '{\"groups\": \"rank\"}', 'rank_c', 60), \
           (9000, 'corp', '{\"groups\": \"no rank\"}', 'rank_c', 1)",
    )?;
    let current = |groups: &[&str]| users(&session(cluster, "clara", groups)?);
    assert_eq!(current(&["rank", "analyst"])?, ["clara", "rank_b"]);
    cluster.admin("UPDATE oidc.role_mapping SET priority = 49 WHERE id = 9003")?;
    assert_eq!(current(&["rank", "analyst"])?, ["clara", "rank_a"]);
    assert_eq!(current(&["analyst"])?, ["clara", "analyst"]);
    // A role that is not there any more gives nothing, and the next one is the first.
    cluster.admin("DROP ROLE rank_a")?;
    assert_eq!(current(&["rank", "analyst"])?, ["clara", "rank_b"]);
    cluster.admin("CREATE ROLE rank_a")?;
    assert_eq!(current(&["rank", "analyst"])?, ["clara", "rank_b"], "made anew");
    Ok(())
}

#[test]
fn n098_without_a_rule_no_role_is_made() -> Result<()> {
    let cluster = cluster()?;
    refuses(cluster, &login(cluster, "dana", &[]), "dana", "no_rule")?;
    refuses(cluster, &login(cluster, "dana", &["strangers"]), "dana", "no_rule")?;
    ensure!(!exists(cluster, "dana")?);
    // Not when every role that a rule gives is missing or privileged either.
    cluster.admin("CREATE ROLE dana_power CREATEROLE")?;
    cluster.admin(
        "INSERT INTO oidc.role_mapping (provider, match, role) VALUES \
           ('corp', '{\"groups\": \"dana_gone\"}', 'dana_gone'), ('corp', '{\"groups\": \"dana_power\"}', 'dana_power')",
    )?;
    refuses(cluster, &login(cluster, "dana", &["dana_gone"]), "dana", "role_missing")?;
    refuses(cluster, &login(cluster, "dana", &["dana_power"]), "dana", "role_privileged")?;
    let other = cluster.login("dana").password(super::token("dana2", &["analyst"]));
    refuses(cluster, &other, "dana", "user_not_mapped")?;
    ensure!(!exists(cluster, "dana")?);
    // Beside one that is to be had they do no harm.
    let session = session(cluster, "dana", &["dana_gone", "dana_power", "analyst"])?;
    assert_eq!(users(&session)?, ["dana", "analyst"]);
    may_not(&session, "dana_power")?;
    assert_eq!(memberships(cluster, "dana")?, ["analyst"]);
    Ok(())
}

/// Runs the login of a changed token as `person`.
fn refused_as(person: &str, token: pg_oidc_test::token::Token, reason: &str) -> Result<()> {
    let cluster = cluster()?;
    refuses(cluster, &cluster.login(person).password(token.sign(&keys().ec)), person, reason)
}

#[test]
fn groups_that_are_missing_are_not_empty_ones() -> Result<()> {
    let cluster = cluster()?;
    drop(session(cluster, "edith", &["analyst", "writer"])?);
    for (token, reason) in [
        (of("edith", &[]).claim("groups", json!(null)), "groups_invalid"),
        (of("edith", &[]).without("groups"), "groups_missing"),
        (of("edith", &[]).without("groups").claim("hasgroups", json!(true)), "groups_overage"),
        (
            of("edith", &[]).without("groups").claim("_claim_names", json!({"groups": "src1"})),
            "groups_overage",
        ),
    ] {
        refused_as("edith", token, reason)?;
    }
    assert_eq!(memberships(cluster, "edith")?, ["analyst", "writer"]);
    assert_eq!(ledger(cluster, "edith")?, ["analyst", "writer"]);
    // Empty ones give no role, and so no login that could sweep.
    refuses(cluster, &login(cluster, "edith", &[]), "edith", "no_rule")?;
    drop(session(cluster, "edith", &["analyst", "writer"])?);
    Ok(())
}

#[test]
fn group_named_like_the_person() -> Result<()> {
    let cluster = cluster()?;
    cluster.admin("CREATE ROLE \"team-red\"")?;
    cluster.admin(
        "INSERT INTO oidc.role_mapping (provider, match, role) VALUES \
           ('corp', '{\"groups\": {\"regex\": \"((?:team|f)[a-z-]+)\"}}', '\\1')",
    )?;
    // Before she has a role, when she comes, and afterwards.
    for _ in 0..2 {
        let session = session(cluster, "frida", &["frida", "team-red", "fritz"])?;
        assert_eq!(users(&session)?, ["frida", "team-red"]);
        assert_eq!(memberships(cluster, "frida")?, ["team-red"]);
    }
    refuses(cluster, &login(cluster, "frida", &["frida"]), "frida", "no_rule")?;
    // Another person in a group of that name never gets her role: neither to log in with, nor to take on.
    let session = session(cluster, "fritz", &["frida", "team-red"])?;
    may_not(&session, "frida")?;
    assert_eq!(memberships(cluster, "fritz")?, ["team-red"]);
    let as_her = cluster.login("frida").password(super::token("fritz", &["frida", "team-red"]));
    refuses(cluster, &as_her, "frida", "user_not_mapped")
}
