//! Rules that deny.
//!
//! 1. One that matches refuses the whole login, whatever else matches and whatever the priorities are.
//! 2. Provider, databases, addresses, kind of connection and time limit it like any other rule.
//! 3. n090: an address that nobody has verified gives nothing, and is denied all the same.
//! 4. n137: it counts, and stops counting, however it was written: as a replica, behind a disabled trigger, by TRUNCATE;
//!    a change of it cannot be prepared, and a table that is gone is not missed.

use anyhow::{Context, Result, ensure};
use pg_oidc_test::psql::Way;
use serde_json::{Value, json};

use super::matching::{deciding_rule, with};
use super::{next_login, reason, signed, stage, token};
use crate::scene::{Stage, good, rule_sql, rule_with};

/// Inserts a rule that denies, with further columns given as SQL, and gives its id.
pub(super) fn deny_sql(provider: &str, claims: &Value, columns: &[(&str, &str)]) -> String {
    let mut all = vec![("effect", "'deny'"), ("role", "NULL")];
    all.extend(columns);
    rule_with(provider, claims, "", &all)
}

fn deny(stage: &Stage, provider: &str, claims: &Value, columns: &[(&str, &str)]) -> Result<String> {
    stage.admin()?.value(&deny_sql(provider, claims, columns))?.context("no id")
}

#[test]
fn n097_denial_refuses_the_whole_login() -> Result<()> {
    let stage = stage();
    stage.trio("denied")?;
    stage.provider("denied2")?;
    let admin = stage.admin()?;
    admin.rows("CREATE ROLE denied_other LOGIN")?;
    for (priority, provider, role) in
        [("-2147483648", "denied", "denied_other"), ("0", "denied2", "denied_other")]
    {
        admin.rows(&rule_with(provider, &json!({}), role, &[("priority", priority)]))?;
    }
    let leaver = signed(&good("denied").groups(&["x", "leavers"]));
    assert_eq!(next_login(stage, "denied", &leaver)?, None, "before");
    let id = deny(stage, "denied", &json!({ "groups": "leavers" }), &[("priority", "2147483647")])?;
    for user in ["denied", "denied_other", "denied_nobody", "postgres"] {
        stage.refused(user, &leaver, "denied_by_rule", user)?;
    }
    let refused = stage.refusal(&stage.login("denied", &leaver), "denied", "with the rule")?;
    ensure!(refused.line.contains(&format!("It is rule {id}.")), "{}", refused.line);
    // Whom it nearly matches.
    for groups in [vec![], vec!["Leavers"], vec!["leaver"], vec!["leavers "], vec!["x,leavers"]] {
        let token = signed(&good("denied").groups(&groups));
        assert_eq!(next_login(stage, "denied", &token)?, None, "{groups:?}");
        assert_eq!(next_login(stage, "denied_other", &token)?, None, "{groups:?}");
    }
    assert_eq!(next_login(stage, "denied", &token("denied"))?, None, "without groups");
    // The tokens of another provider.
    let other = signed(&good("denied2").groups(&["leavers"]));
    assert_eq!(next_login(stage, "denied_other", &other)?, None);
    // Each change counts at the next login.
    for (change, outcome) in [
        ("UPDATE oidc.role_mapping SET enabled = false", None),
        ("UPDATE oidc.role_mapping SET enabled = true", Some("denied_by_rule")),
        ("UPDATE oidc.role_mapping SET match = '{\"groups\": {\"glob\": \"leav\"}}'", None),
        (
            "UPDATE oidc.role_mapping SET match = '{\"groups\": {\"glob\": \"leav*\"}}'",
            Some("denied_by_rule"),
        ),
        ("UPDATE oidc.role_mapping SET provider = 'denied2'", None),
        ("UPDATE oidc.role_mapping SET provider = 'denied', match = '{}'", Some("denied_by_rule")),
        ("UPDATE oidc.role_mapping SET effect = 'allow', role = 'denied'", None),
        ("UPDATE oidc.role_mapping SET effect = 'deny', role = NULL", Some("denied_by_rule")),
        ("DELETE FROM oidc.role_mapping", None),
    ] {
        admin.rows(&format!("{change} WHERE id = {id}"))?;
        assert_eq!(next_login(stage, "denied", &leaver)?.as_deref(), outcome, "{change}");
    }
    Ok(())
}

#[test]
fn confines_of_a_denial() -> Result<()> {
    let stage = stage();
    stage.trio("narrow")?;
    let admin = stage.admin()?;
    admin.rows("CREATE DATABASE narrow_app")?;
    let token = token("narrow");
    let id = deny(stage, "narrow", &json!({}), &[])?;
    let change = |columns: &str| {
        let all =
            "databases = NULL, addresses = NULL, replication = false, valid_from = NULL, valid_until = NULL";
        admin.rows(&format!("UPDATE oidc.role_mapping SET {all} WHERE id = {id}"))?;
        admin.rows(&format!("UPDATE oidc.role_mapping SET {columns} WHERE id = {id}"))
    };
    for (columns, denies) in [
        ("comment = 'as it is'", true),
        ("databases = '{postgres}'", true),
        ("databases = '{narrow_app}'", false),
        ("addresses = '{127.0.0.0/8}'", true),
        ("addresses = '{10.0.0.0/8,::/0}'", false),
        ("valid_from = now() - interval '1 hour'", true),
        ("valid_from = now() + interval '1 hour'", false),
        ("valid_until = now() + interval '1 hour'", true),
        ("valid_until = now() - interval '1 hour'", false),
        ("replication = NULL", true),
        ("replication = true", false),
    ] {
        change(columns)?;
        let outcome = if denies { reason("denied_by_rule") } else { None };
        assert_eq!(next_login(stage, "narrow", &token)?, outcome, "{columns}");
    }
    change("databases = '{narrow_app}'")?;
    let elsewhere = stage.login("narrow", &token).database("narrow_app");
    assert_eq!(stage.refusal(&elsewhere, "narrow", "its database")?.reason, "denied_by_rule");
    // A rule with addresses never counts for a Unix-domain socket, one without does.
    let socket = stage.login("narrow", &token).way(Way::Socket);
    change("addresses = '{0.0.0.0/0,::/0}'")?;
    assert_eq!(next_login(stage, "narrow", &token)?, reason("denied_by_rule"));
    assert_eq!(socket.run("SELECT session_user")?.rows(), [["narrow"]]);
    change("addresses = NULL")?;
    assert_eq!(stage.refusal(&socket, "narrow", "the socket")?.reason, "denied_by_rule");
    Ok(())
}

#[test]
fn n090_unverified_address_gives_nothing_and_is_denied() -> Result<()> {
    let stage = stage();
    stage.provider("mail")?;
    let admin = stage.admin()?;
    let address = json!({ "email": { "glob": "*@corp.example" } });
    stage.role_and_rule("mail", "mail", &address)?;
    let mail = |verified: Option<Value>| {
        let token = good("mail").claim("email", json!("a@corp.example"));
        signed(&verified.map_or(token.clone(), |verified| token.claim("email_verified", verified)))
    };
    let unverified = [None, Some(json!(false)), Some(json!("true")), Some(json!(1)), Some(json!([true]))];
    assert_eq!(next_login(stage, "mail", &mail(Some(json!(true))))?, None, "verified");
    for verified in &unverified {
        assert_eq!(next_login(stage, "mail", &mail(verified.clone()))?, reason("no_rule"), "{verified:?}");
    }
    // What an unverified address is not, or that it is there, gives nothing either.
    for test in
        [json!({ "not": "b@corp.example" }), json!({ "exists": true }), json!({ "any": ["a@corp.example"] })]
    {
        let change = format!(
            "UPDATE oidc.role_mapping SET match = '{}' WHERE provider = 'mail'",
            json!({ "email": test })
        );
        admin.rows(&change)?;
        assert_eq!(next_login(stage, "mail", &mail(Some(json!(true))))?, None, "{test}");
        assert_eq!(next_login(stage, "mail", &mail(None))?, reason("no_rule"), "{test}");
    }
    // A denial of the address holds whether it is verified or not.
    admin.rows(&rule_sql("mail", &json!({ "sub": "mail" }), "mail"))?;
    assert_eq!(next_login(stage, "mail", &mail(None))?, None, "by its subject");
    let id = deny(stage, "mail", &json!({ "email": "a@corp.example" }), &[])?;
    for verified in unverified.into_iter().chain([Some(json!(true))]) {
        let found = next_login(stage, "mail", &mail(verified.clone()))?;
        assert_eq!(found, reason("denied_by_rule"), "{verified:?}");
    }
    let other = good("mail").claim("email", json!("A@corp.example"));
    assert_eq!(next_login(stage, "mail", &signed(&other))?, None, "another address");
    assert_eq!(next_login(stage, "mail", &token("mail"))?, None, "no address");
    // Where required_claims decides that question, it alone does.
    admin.rows(&format!("DELETE FROM oidc.role_mapping WHERE id = {id}"))?;
    admin.rows("DELETE FROM oidc.role_mapping WHERE provider = 'mail'")?;
    admin.rows(&rule_sql("mail", &address, "mail"))?;
    admin.rows(
        "UPDATE oidc.provider SET required_claims = '{\"email_verified\": {\"any\": [true, \"true\"]}}' WHERE name = 'mail'",
    )?;
    for (verified, outcome) in [
        (Some(json!("true")), None),
        (Some(json!(true)), None),
        (Some(json!(false)), Some("required_claim_failed")),
        (None, Some("required_claim_failed")),
    ] {
        assert_eq!(next_login(stage, "mail", &mail(verified.clone()))?.as_deref(), outcome, "{verified:?}");
    }
    Ok(())
}

#[test]
fn n137_denial_written_as_a_replica_counts() -> Result<()> {
    let stage = stage();
    stage.trio("denyreplica")?;
    let (admin, token) = (stage.admin()?, token("denyreplica"));
    admin.rows("SET session_replication_role = replica")?;
    for number in 0..5 {
        admin.rows(&deny_sql("denyreplica", &json!({}), &[]))?;
        assert_eq!(next_login(stage, "denyreplica", &token)?, reason("denied_by_rule"), "login {number}");
        admin.rows("DELETE FROM oidc.role_mapping WHERE provider = 'denyreplica' AND effect = 'deny'")?;
        assert_eq!(next_login(stage, "denyreplica", &token)?, None, "login {number}");
    }
    let told = admin.error(&deny_sql("denyreplica", &json!(7), &[]))?;
    assert_eq!(told.message, "\"match\" must be a JSON object");
    Ok(())
}

#[test]
fn n137_change_of_a_denial_cannot_be_prepared() -> Result<()> {
    let stage = stage();
    stage.trio("denyprepared")?;
    let (admin, token) = (stage.admin()?, token("denyprepared"));
    let id = deny(stage, "denyprepared", &json!({ "sub": "denyprepared" }), &[])?;
    let insert = deny_sql("denyprepared", &json!({}), &[]);
    for change in [
        insert.as_str(),
        "UPDATE oidc.role_mapping SET enabled = false WHERE provider = 'denyprepared'",
        "DELETE FROM oidc.role_mapping WHERE provider = 'denyprepared'",
        "SAVEPOINT s; DELETE FROM oidc.role_mapping WHERE provider = 'denyprepared'; RELEASE s",
        "ALTER TABLE oidc.role_mapping DISABLE TRIGGER policy_changed; \
         DELETE FROM oidc.role_mapping WHERE provider = 'denyprepared'",
    ] {
        admin.rows("BEGIN")?;
        admin.rows(change)?;
        let told = admin.error("PREPARE TRANSACTION 'denial'")?;
        assert_eq!(told.message, "cannot prepare a transaction that changed the OIDC policy", "{change}");
        assert_eq!(admin.error("COMMIT PREPARED 'denial'")?.code, "42704", "{change}");
        assert_eq!(next_login(stage, "denyprepared", &token)?, reason("denied_by_rule"), "{change}");
    }
    admin.rows(&format!("DELETE FROM oidc.role_mapping WHERE id = {id}"))?;
    assert_eq!(next_login(stage, "denyprepared", &token)?, None);
    Ok(())
}

#[test]
fn n137_truncated_and_dropped_tables() -> Result<()> {
    // Its own server: all rules go.
    let stage = Stage::with(|builder| builder.setting("pg_oidc.wait_timeout", "1s"))?;
    stage.trio("gone")?;
    let (admin, token) = (stage.admin()?, token("gone"));
    deny(&stage, "gone", &json!({ "sub": "gone" }), &[])?;
    assert_eq!(next_login(&stage, "gone", &token)?, reason("denied_by_rule"));
    admin.rows("BEGIN; TRUNCATE oidc.role_mapping; ROLLBACK")?;
    assert_eq!(next_login(&stage, "gone", &token)?, reason("denied_by_rule"));
    admin.rows("TRUNCATE oidc.role_mapping")?;
    assert_eq!(next_login(&stage, "gone", &token)?, reason("no_rule"));
    let allow = admin.value(&rule_sql("gone", &json!({}), "gone"))?.context("no id")?;
    assert_eq!(deciding_rule(&stage, "gone", &token)?, allow);

    // Behind a trigger that was disabled, a denial counts as soon as the trigger is enabled again.
    admin.rows("ALTER TABLE oidc.role_mapping DISABLE TRIGGER policy_changed")?;
    let id = deny(&stage, "gone", &json!({}), &[])?;
    admin.rows("ALTER TABLE oidc.role_mapping ENABLE ALWAYS TRIGGER policy_changed")?;
    assert_eq!(next_login(&stage, "gone", &token)?, reason("denied_by_rule"));
    admin.rows(&format!("DELETE FROM oidc.role_mapping WHERE id = {id}"))?;
    assert_eq!(next_login(&stage, "gone", &token)?, None);

    // The table belongs to the extension. Where somebody takes it away all the same, nobody is let in by what was.
    let told = admin.error("DROP TABLE oidc.role_mapping CASCADE")?;
    ensure!(told.code == "2BP01", "{told:?}");
    let told = admin.error("DROP SCHEMA oidc CASCADE")?;
    ensure!(told.code == "2BP01", "{told:?}");
    assert_eq!(next_login(&stage, "gone", &token)?, None);
    let missing = "57P03 OIDC authentication is not ready, try again";
    let told = || match stage.login("gone", &token).connect()? {
        Ok(_) => Ok::<_, anyhow::Error>(String::new()),
        Err(told) => Ok(format!("{} {}", told.code, told.message)),
    };
    admin.rows("ALTER TABLE oidc.role_mapping RENAME TO aside")?;
    assert_eq!(told()?, missing, "renamed");
    admin.rows("ALTER TABLE oidc.aside RENAME TO role_mapping")?;
    assert_eq!(told()?, "", "its own name again");
    admin.rows("BEGIN; ALTER EXTENSION pg_oidc DROP TABLE oidc.role_mapping")?;
    admin.rows("ALTER EXTENSION pg_oidc DROP SEQUENCE oidc.role_mapping_id_seq")?;
    admin.rows("ALTER EXTENSION pg_oidc DROP FUNCTION oidc.rule_row(oidc.role_mapping)")?;
    admin.rows(
        "ALTER EXTENSION pg_oidc DROP VIEW oidc.access; DROP TABLE oidc.role_mapping CASCADE; COMMIT",
    )?;
    assert_eq!(told()?, missing, "dropped");
    stage.cluster.await_log("could not read the OIDC policy", crate::scene::SOON)?;
    admin.rows("DROP EXTENSION pg_oidc CASCADE; CREATE EXTENSION pg_oidc")?;
    assert_eq!(next_login(&stage, "gone", &token)?, reason("issuer_unknown"));
    stage.provider("gone")?;
    admin.rows(&rule_sql("gone", &json!({}), "gone"))?;
    assert_eq!(next_login(&stage, "gone", &signed(&with("gone", &json!({}))))?, None);
    Ok(())
}
