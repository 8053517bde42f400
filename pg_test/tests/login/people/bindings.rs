//! Whose role is whose.
//!
//! 1. n110: a role that exists is never taken for a person's own: not one that was there before, not one that comes
//!    meanwhile, not one that a rule or `base_role` names
//! 2. n102, n103, n105: names that no token gives
//! 3. n114: a name that another `sub` has; a claim that changes
//! 4. roles of the administrator's, bound by a row: with and without names made by the provider, dropped, renamed
//! 5. n131: one that inherits is lent nothing (15)

use anyhow::{Result, ensure};
use pg_oidc_test::cluster::until;
use pg_oidc_test::extension::Server;
use pg_oidc_test::keys::keys;
use serde_json::json;

use super::{
    cluster, column, ended, exists, ledger, login, may, may_not, memberships, of, session, told, users,
};
use crate::stage::{SOON, reasons, refuses};

#[test]
fn n110_existing_role_is_never_adopted() -> Result<()> {
    let cluster = cluster()?;
    cluster.admin("CREATE ROLE nora LOGIN; CREATE ROLE olga SUPERUSER LOGIN")?;
    for person in ["nora", "olga"] {
        refuses(cluster, &login(cluster, person, &["analyst"]), person, "role_not_bound")?;
        ensure!(memberships(cluster, person)?.is_empty() && ledger(cluster, person)?.is_empty());
    }
    let bound = "SELECT count(*) FROM oidc.identity_role WHERE role IN ('nora', 'olga')";
    assert_eq!(cluster.admin_value(bound)?, "0");
    // Bound by hand it is hers, and still nobody else's.
    cluster.admin(
        "INSERT INTO oidc.identity_role (provider, subject, role) VALUES ('corp', 'sub-nora', 'nora')",
    )?;
    cluster.admin("ALTER ROLE nora NOINHERIT")?;
    assert_eq!(users(&session(cluster, "nora", &["analyst"])?)?, ["nora", "analyst"]);
    let other = of("nora", &["analyst"]).claim("sub", json!("sub-nora2")).sign(&keys().ec);
    refuses(cluster, &cluster.login("nora").password(other), "nora", "identity_mismatch")
}

#[test]
fn n110_names_that_are_taken() -> Result<()> {
    let cluster = cluster()?;
    cluster.admin(
        "CREATE ROLE paula; INSERT INTO oidc.role_mapping (provider, match, role) \
           VALUES ('corp', '{\"groups\": \"nobody is in it\"}', 'paula'); DROP ROLE paula",
    )?;
    // While the rule is there the role is not made: the rule would give it to others.
    refuses(cluster, &login(cluster, "paula", &["analyst"]), "paula", "named_by_rule")?;
    cluster.admin("UPDATE oidc.role_mapping SET enabled = false WHERE role = 'paula'")?;
    refuses(cluster, &login(cluster, "paula", &["analyst"]), "paula", "named_by_rule")?;
    ensure!(!exists(cluster, "paula")?);
    cluster.admin("DELETE FROM oidc.role_mapping WHERE role = 'paula'")?;
    drop(session(cluster, "paula", &["analyst"])?);
    // A rule that comes afterwards does not give it to others.
    cluster.admin(
        "INSERT INTO oidc.role_mapping (provider, match, role) VALUES ('corp', '{\"groups\": \"paulas\"}', 'paula')",
    )?;
    let thief = cluster.login("paula").password(super::token("quinn", &["paulas", "analyst"]));
    refuses(cluster, &thief, "paula", "user_not_mapped")?;
    may_not(&session(cluster, "quinn", &["paulas", "analyst"])?, "paula")?;
    ensure!(memberships(cluster, "quinn")? == ["analyst"]);
    cluster.admin("DELETE FROM oidc.role_mapping WHERE role = 'paula'")?;
    // The base role of a provider, whichever.
    cluster.admin(
        "INSERT INTO oidc.provider (name, issuer, audiences, base_role) \
         VALUES ('based', 'https://based.example', '{x}', 'basis')",
    )?;
    refuses(cluster, &login(cluster, "basis", &["analyst"]), "basis", "named_by_rule")?;
    refuses(cluster, &login(cluster, "base", &["analyst"]), "base", "role_not_bound")?;
    refuses(cluster, &login(cluster, "analyst", &["writer"]), "analyst", "role_not_bound")
}

#[test]
fn n110_role_that_comes_while_the_login_waits() -> Result<()> {
    let cluster = cluster()?;
    let admin = cluster.admin_session()?;
    admin.rows("BEGIN; CREATE ROLE rosa LOGIN")?;
    let mark = cluster.log_mark();
    let refused = told(&login(cluster, "rosa", &["analyst"]))?;
    assert_eq!(refused.code, "57P03", "{refused:?}");
    assert_eq!(reasons(cluster, mark, "rosa"), ["provisioning_behind"]);
    admin.rows("COMMIT")?;
    refuses(cluster, &login(cluster, "rosa", &["analyst"]), "rosa", "role_not_bound")?;
    ensure!(memberships(cluster, "rosa")?.is_empty());
    // Rolled back instead, she comes in.
    admin.rows("BEGIN; CREATE ROLE rosa2 LOGIN")?;
    assert_eq!(told(&login(cluster, "rosa2", &["analyst"]))?.code, "57P03");
    admin.rows("ROLLBACK")?;
    drop(session(cluster, "rosa2", &["analyst"])?);
    Ok(())
}

#[test]
fn n102_n103_n105_names_that_no_token_gives() -> Result<()> {
    let cluster = cluster()?;
    for name in [
        "public",
        "none",
        "pg_monitor",
        "pg_x",
        "with blank",
        "quo\"te",
        "s'quote",
        "back\\slash",
        "a;b",
        "é",
    ] {
        let mark = cluster.log_mark();
        let refused = told(&login(cluster, name, &["analyst"]))?;
        assert_eq!(refused.code, "28000", "{name}: {refused:?}");
        let seen = reasons(cluster, mark, name);
        ensure!(seen == ["user_not_mapped"] || name.contains(['"', '\\', '\'', 'é']), "{name}: {seen:?}");
    }
    let long = |bytes: usize| format!("n{}", "x".repeat(bytes - 1));
    drop(session(cluster, &long(62), &["analyst"])?);
    ensure!(exists(cluster, &long(62))?);
    // 63 bytes may be the stump of a longer name.
    refuses(cluster, &login(cluster, &long(63), &["analyst"]), &long(63), "user_not_mapped")?;
    let cut = cluster.login(long(64)).password(super::token(&long(64), &["analyst"]));
    refuses(cluster, &cut, &long(63), "user_not_mapped")?;
    ensure!(!exists(cluster, &long(63))?);
    drop(session(cluster, "a.b+c#d:e/f-G_1@x", &["analyst"])?);
    Ok(())
}

#[test]
fn n114_another_subject_of_the_same_name() -> Result<()> {
    let cluster = cluster()?;
    drop(session(cluster, "sara", &["analyst"])?);
    let as_sara = |subject: &str| of("sara", &["writer"]).claim("sub", json!(subject)).sign(&keys().ec);
    for subject in ["sub-sara2", "SUB-SARA", "sub-sara "] {
        let login = cluster.login("sara").password(as_sara(subject));
        refuses(cluster, &login, "sara", "identity_mismatch")?;
    }
    assert_eq!(memberships(cluster, "sara")?, ["analyst"]);
    // Her claim may change: the role stays hers, and the new name is nobody's.
    let married = of("sara", &["analyst"]).claim("upn", json!("smith@corp.example")).sign(&keys().ec);
    let seen = cluster.login("sara").password(&married).run("SELECT session_user, oidc.identity()")?;
    assert_eq!(seen.rows(), [["sara", "smith@corp.example"]]);
    refuses(cluster, &cluster.login("smith").password(&married), "smith", "user_not_mapped")?;
    ensure!(!exists(cluster, "smith")?);
    // Dropped by an administrator, the name is kept for her until the row goes.
    cluster.admin("DROP ROLE sara")?;
    refuses(cluster, &login(cluster, "sara", &["analyst"]), "sara", "role_missing")?;
    let other = cluster.login("sara").password(as_sara("sub-sara2"));
    refuses(cluster, &other, "sara", "identity_mismatch")?;
    cluster.admin("DELETE FROM oidc.identity_role WHERE role = 'sara'")?;
    ensure!(other.run("SELECT 1")?.ok(), "the name is free");
    refuses(cluster, &login(cluster, "sara", &["analyst"]), "sara", "identity_mismatch")
}

#[test]
fn roles_that_are_bound_by_hand() -> Result<()> {
    let cluster = cluster()?;
    // A provider that makes no names.
    cluster.admin(
        "INSERT INTO oidc.provider (name, issuer, audiences, jwks, identity_claim, groups_claim) \
           SELECT 'hand', 'https://hand.example', audiences, jwks, 'upn', 'groups' FROM oidc.provider WHERE name = 'corp'; \
         INSERT INTO oidc.role_mapping (provider, match, role) VALUES ('hand', '{\"groups\": \"analyst\"}', 'analyst'); \
         CREATE ROLE \"Tina's own\" LOGIN NOINHERIT",
    )?;
    let token = |subject: &str| {
        let token = of("tina", &["analyst", "writer"]).issuer("https://hand.example");
        token.claim("sub", json!(subject)).sign(&keys().ec)
    };
    let role = "Tina's own";
    let tina = cluster.login(role).password(token("t1"));
    refuses(cluster, &tina, role, "user_not_mapped")?;
    cluster.admin(
        "INSERT INTO oidc.identity_role (provider, subject, role) VALUES ('hand', 't1', 'Tina''s own')",
    )?;
    let seen = tina.run("SELECT session_user, current_user")?;
    assert_eq!(seen.rows(), [[role, "analyst"]], "{seen:?}");
    refuses(cluster, &cluster.login(role).password(token("t2")), role, "user_not_mapped")?;
    refuses(cluster, &cluster.login("tina").password(token("t1")), "tina", "user_not_mapped")?;
    let made = "SELECT made_by_us FROM oidc.identity_role WHERE subject = 't1'";
    assert_eq!(cluster.admin_value(made)?, "f");
    // Under another name it is not what she is bound to, until the row says so.
    cluster.admin("ALTER ROLE \"Tina's own\" RENAME TO tina_new")?;
    refuses(cluster, &tina, role, "role_missing")?;
    let renamed = cluster.login("tina_new").password(token("t1"));
    refuses(cluster, &renamed, "tina_new", "user_not_mapped")?;
    cluster.admin("UPDATE oidc.identity_role SET role = 'tina_new' WHERE subject = 't1'")?;
    ensure!(renamed.run("SELECT 1")?.ok());
    cluster.admin("DROP ROLE tina_new; CREATE ROLE tina_new LOGIN NOINHERIT")?;
    refuses(cluster, &renamed, "tina_new", "role_replaced")?;
    cluster.admin("UPDATE oidc.identity_role SET role = role WHERE subject = 't1'")?;
    ensure!(renamed.run("SELECT 1")?.ok());
    cluster.admin("ALTER ROLE tina_new NOLOGIN")?;
    refuses(cluster, &renamed, "tina_new", "role_cannot_login")?;
    cluster.admin("ALTER ROLE tina_new LOGIN VALID UNTIL '2020-01-01'")?;
    refuses(cluster, &renamed, "tina_new", "role_expired")
}

#[test]
fn n131_role_that_inherits() -> Result<()> {
    let cluster = cluster()?;
    let bind = |person: &str| {
        cluster.admin(&format!(
            "CREATE ROLE {person} LOGIN INHERIT; INSERT INTO oidc.identity_role (provider, subject, role) \
             VALUES ('corp', 'sub-{person}', '{person}')"
        ))
    };
    bind("ursula")?;
    bind("vera")?;
    if Server::shared()?.major() >= 16 {
        // Each grant says that it does not inherit.
        let session = session(cluster, "ursula", &["analyst"])?;
        let rights = session.value("SELECT pg_has_role('ursula', 'analyst', 'USAGE')")?;
        assert_eq!(rights.as_deref(), Some("f"));
        return Ok(());
    }
    refuses(cluster, &login(cluster, "ursula", &["analyst"]), "ursula", "role_inherits")?;
    ensure!(memberships(cluster, "ursula")?.is_empty());
    let explained = "SELECT detail FROM oidc.explain_claims('corp', '{\"sub\": \"sub-ursula\", \
                       \"upn\": \"ursula@corp.example\", \"groups\": [\"analyst\"]}', 'ursula', 'postgres') WHERE name = 'login'";
    assert_eq!(cluster.admin_value(explained)?, "It would be refused: role_inherits.");
    // What an administrator granted is there for all of her sessions anyway.
    cluster.admin("GRANT analyst TO vera")?;
    let by_hand = session(cluster, "vera", &["analyst"])?;
    may_not(&by_hand, "writer")?;
    refuses(cluster, &login(cluster, "vera", &["analyst", "writer"]), "vera", "role_inherits")?;
    // Without INHERIT she gets what the rules give; with it again, what another token gave would be lent to this one.
    cluster.admin("ALTER ROLE vera NOINHERIT")?;
    let both = session(cluster, "vera", &["analyst", "writer"])?;
    may(&both, "writer")?;
    cluster.admin("ALTER ROLE vera INHERIT")?;
    refuses(cluster, &login(cluster, "vera", &["analyst"]), "vera", "role_inherits")?;
    cluster.admin("ALTER ROLE vera NOINHERIT")?;
    drop(session(cluster, "vera", &["analyst"])?);
    Ok(())
}

#[test]
fn binding_that_goes_ends_the_session() -> Result<()> {
    let cluster = cluster()?;
    let changes = [
        ("wanda", "DELETE FROM oidc.identity_role WHERE role = 'wanda'"),
        ("wilma", "UPDATE oidc.identity_role SET subject = 'sub-other' WHERE role = 'wilma'"),
        (
            "xenia",
            "ALTER ROLE xenia RENAME TO xenia_old; CREATE ROLE xenia; \
                   UPDATE oidc.identity_role SET role = role WHERE role = 'xenia'",
        ),
    ];
    let stays = session(cluster, "yvonne", &["analyst"])?;
    for (person, change) in changes {
        let session = session(cluster, person, &["analyst"])?;
        cluster.admin(change)?;
        let told = ended(&session)?;
        assert_eq!(
            told.detail.as_deref(),
            Some("The OIDC token session was ended: the role is not bound to its identity any more.")
        );
        let cause = format!(
            "SELECT reason FROM oidc.audit_log WHERE event = 'session_end' AND subject = 'sub-{person}'"
        );
        until("its end is in the audit", SOON, || Ok(column(cluster, &cause)? == ["binding_gone"]))?;
    }
    assert_eq!(stays.value("SELECT 1")?.as_deref(), Some("1"));
    Ok(())
}
