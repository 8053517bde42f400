//! `oidc.explain` and `oidc.explain_claims`: why a login would end as it would. One server; each test has its own
//! provider and roles.
//!
//! 1. What is explained is what happens: for many logins, the explanation's outcome is the login's, reason and all.
//! 2. A token that may still be valid is refused with a hint, and no piece of it is in the server log then.
//! 3. A token whose signature was cut off, or that has expired, is explained to the end, all refusals shown.
//! 4. Rules: those that count, those that nearly do and why, the one that decides, deny rules.
//! 5. Roles: missing, replaced, not allowed to log in, without CONNECT, privileged.
//! 6. Claims alone: what every token has is made up, and said so.
//! 7. It changes nothing, and is not for everybody.

use std::sync::LazyLock;

use anyhow::{Context, Result, ensure};
use pg_oidc_test::keys::keys;
use pg_oidc_test::token::Token;
use serde_json::{Value, json};

use crate::scene::{Stage, good, issuer, quoted, rule_sql, rule_with, text};

fn stage() -> &'static Stage {
    static STAGE: LazyLock<Stage> = LazyLock::new(|| Stage::start().expect("the server of the explanations"));
    &STAGE
}

/// A provider, a role and a rule of this name.
fn trio(name: &str) -> Result<&'static Stage> {
    stage().trio(name)?;
    Ok(stage())
}

/// Name, passed and detail of each step.
type Steps = Vec<[String; 3]>;

fn steps(stage: &Stage, call: &str) -> Result<Steps> {
    let rows = stage.admin()?.rows(&format!("SELECT step, name, passed, detail FROM {call}"))?;
    let mut steps = Vec::new();
    for (row, number) in rows.into_iter().zip(1..) {
        let [step, name, passed, detail] =
            <[Option<String>; 4]>::try_from(row).ok().context("four columns")?;
        ensure!(step == Some(number.to_string()), "steps are numbered from 1");
        steps.push([name, passed, detail].map(Option::unwrap_or_default));
    }
    Ok(steps)
}

/// The token without its signature.
fn cut(token: &Token) -> String {
    token.signing_input(keys().ed25519.algorithm(), keys().ed25519.kid())
}

fn explain(stage: &Stage, token: &str, user: &str) -> Result<Steps> {
    steps(stage, &format!("oidc.explain({}, {}, 'postgres', '127.0.0.1')", quoted(token), quoted(user)))
}

#[track_caller]
fn has(steps: &Steps, name: &str, passed: &str, detail: &str) {
    let found = steps.iter().any(|[its_name, its_passed, its_detail]| {
        its_name == name && its_passed == passed && its_detail.contains(detail)
    });
    assert!(found, "no step {name:?} {passed:?} {detail:?} in {steps:#?}");
}

/// The code in the last step; None: it would be accepted.
fn outcome(steps: &Steps) -> Result<Option<String>> {
    let [name, passed, detail] = steps.last().context("no step")?;
    ensure!(name == "login", "{steps:#?}");
    match passed.as_str() {
        "yes" => Ok(None),
        _ => Ok(Some(detail.trim_start_matches("It would be refused: ").trim_end_matches('.').to_owned())),
    }
}

#[test]
fn what_is_explained_is_what_happens() -> Result<()> {
    let stage = trio("same")?;
    let admin = stage.admin()?;
    admin.rows(
        "CREATE ROLE same_nologin; CREATE ROLE same_power LOGIN CREATEROLE; CREATE ROLE same_late LOGIN VALID UNTIL '2020-01-01'",
    )?;
    for (claims, role) in [
        (json!({"groups": "nologin"}), "same_nologin"),
        (json!({"groups": "power"}), "same_power"),
        (json!({"groups": "late"}), "same_late"),
        (json!({"groups": {"regex": "team-(.+)"}}), "\\1"),
    ] {
        admin.rows(&rule_sql("same", &claims, role))?;
    }
    admin.rows(&rule_with(
        "same",
        &json!({"groups": "elsewhere"}),
        "same",
        &[("databases", "'{template1}'")],
    ))?;
    admin.rows(
        "INSERT INTO oidc.role_mapping (provider, match, effect) VALUES ('same', '{\"groups\": \"leavers\"}', 'deny')",
    )?;
    let with = |groups: &[&str]| good("same").groups(groups);
    let somebody = |groups: &[&str]| Token::for_user("x").issuer(&issuer("same")).groups(groups);
    let cases: Vec<(Token, &str)> = vec![
        (good("same"), "same"),
        (good("same"), "other"),
        (with(&["nologin"]), "same_nologin"),
        (with(&["power"]), "same_power"),
        (with(&["late"]), "same_late"),
        (with(&["leavers"]), "same"),
        (somebody(&["team-same"]), "same"),
        (somebody(&["team-nobody"]), "nobody"),
        (somebody(&["team-pg_monitor"]), "pg_monitor"),
        (somebody(&["elsewhere"]), "same"),
        (somebody(&[]), "same"),
        (good("same").audience("another"), "same"),
        (good("same").expired(), "same"),
        (good("same").not_yet_valid(), "same"),
        (good("same").without("exp"), "same"),
        (good("same").without("sub"), "same"),
        (good("same").claim("cnf", json!({"jkt": "x"})), "same"),
        (good("same").claim("iss", json!("https://unknown.example")), "same"),
        (good("same").header("typ", json!("logout+jwt")), "same"),
        (good("same").header("kid", json!("nobody's")), "same"),
        (good("same").header("crit", json!(["x"])), "same"),
    ];
    for (token, user) in cases {
        let login = stage.login(user, &token.sign(&keys().ed25519));
        let seen = match login.connect()? {
            Ok(_) => None,
            Err(_) => Some(stage.refusal(&login, user, "the same login")?.reason),
        };
        let steps = explain(stage, &cut(&token), user)?;
        assert_eq!(outcome(&steps)?, seen, "{user} {:?} {steps:#?}", token.claims());
    }
    Ok(())
}

#[test]
fn n120_a_token_that_may_be_valid_is_refused() -> Result<()> {
    let stage = trio("live")?;
    let admin = stage.admin()?;
    for token in [good("live").sign(&keys().ed25519), good("live").without("exp").sign(&keys().ed25519)] {
        let told = admin.error(&format!("SELECT * FROM oidc.explain({})", quoted(&token)))?;
        assert_eq!(told.message, "the token may still be valid");
        assert!(told.hint.is_some_and(|hint| hint.contains("Cut off its signature")));
    }
    // A signature that does not verify makes it no less of a secret elsewhere.
    let forged = good("live").with_signature("EdDSA", keys().ed25519.kid(), &[7; 64]);
    assert_eq!(
        admin.error(&format!("SELECT * FROM oidc.explain({})", quoted(&forged)))?.message,
        "the token may still be valid"
    );
    // Long expired: with its signature too, which is then checked.
    let old = good("live").claim("exp", json!(1_000_000_000)).claim("iat", json!(999_999_000));
    let steps = explain(stage, &old.sign(&keys().ed25519), "live")?;
    has(&steps, "signature", "yes", "It verifies");
    has(&steps, "times", "no", "The token has expired.");
    has(&steps, "role login", "yes", "by rule");
    assert_eq!(outcome(&steps)?.as_deref(), Some("token_expired"));
    let forged = old.with_signature("EdDSA", keys().ed25519.kid(), &[7; 64]);
    has(&explain(stage, &forged, "live")?, "signature", "no", "does not verify");
    Ok(())
}

#[test]
fn a_cut_token_is_explained_to_the_end() -> Result<()> {
    let stage = trio("cut")?;
    let token = good("cut").audience("another").without("exp").claim("cnf", json!({}));
    for text in [cut(&token), format!("{}.", cut(&token)), format!("  {}\n", cut(&token))] {
        let steps = explain(stage, &text, "cut")?;
        has(&steps, "token", "yes", "well-formed");
        has(&steps, "provider", "yes", "\"cut\"");
        has(&steps, "key", "yes", "");
        has(&steps, "signature", "not checked", "cut off");
        has(&steps, "audience", "no", "none of the provider's audiences");
        has(&steps, "times", "no", "\"exp\" is missing");
        has(&steps, "binding", "no", "bound to a key");
        has(&steps, "subject", "yes", "\"cut\"");
        has(&steps, "role login", "yes", "\"cut\"");
        assert_eq!(outcome(&steps)?.as_deref(), Some("audience_mismatch"), "the first one decides");
    }
    for text in ["", "x", "a.b", "not a token at all", "e30.e30"] {
        let steps = explain(stage, text, "cut")?;
        assert_eq!(steps.len(), 2, "{steps:#?}");
        has(&steps, "token", "no", "");
    }
    Ok(())
}

#[test]
fn rules_that_count_and_rules_that_nearly_do() -> Result<()> {
    let stage = trio("near")?;
    let admin = stage.admin()?;
    admin.rows("CREATE ROLE near_b LOGIN; CREATE ROLE near_c LOGIN")?;
    let rule = |claims: Value, role: &str, columns: &[(&str, &str)]| -> Result<String> {
        Ok(admin.value(&rule_with("near", &claims, role, columns))?.unwrap_or_default())
    };
    let first = rule(json!({"groups": "a", "env": "prod"}), "near_b", &[("priority", "1")])?;
    let second = rule(json!({"groups": "a"}), "near_b", &[("priority", "2")])?;
    let elsewhere = rule(json!({"groups": "a"}), "near_c", &[("databases", "'{template1}'")])?;
    let later = rule(json!({"groups": "a"}), "near_c", &[("valid_from", "now() + interval '1 day'")])?;
    let address = rule(json!({"groups": "a"}), "near_c", &[("addresses", "'{10.0.0.0/8}'")])?;
    let token = cut(&good("near").groups(&["a"]).claim("env", json!("dev")));
    let steps = explain(stage, &token, "near_b")?;
    has(&steps, &format!("rule {first}"), "no", "claim \"env\" does not match");
    has(&steps, &format!("rule {second}"), "yes", "It gives \"near_b\".");
    has(&steps, &format!("rule {elsewhere}"), "no", "is not for this database");
    has(&steps, &format!("rule {later}"), "no", "does not count yet");
    has(&steps, &format!("rule {address}"), "no", "is not for this client address");
    has(&steps, "role login", "yes", &format!("by rule {second}."));
    has(&steps, "role \"near_b\"", "yes", "");
    assert_eq!(outcome(&steps)?, None);

    let steps = explain(stage, &cut(&good("near").groups(&["a"])), "near_b")?;
    has(&steps, &format!("rule {first}"), "no", "claim \"env\" is missing");

    // Without a user: every role that the rules give.
    let steps = super::explain::steps(stage, &format!("oidc.explain({})", quoted(&token)))?;
    has(&steps, "role \"near_b\"", "yes", "");
    has(&steps, "role \"near\"", "yes", "");
    assert_eq!(outcome(&steps)?, None);

    admin.rows("INSERT INTO oidc.role_mapping (provider, match, effect) VALUES ('near', '{\"env\": \"dev\"}', 'deny')")?;
    let steps = explain(stage, &token, "near_b")?;
    has(&steps, "deny rules", "no", "A rule denies the login.");
    has(&steps, "role login", "yes", "");
    assert_eq!(outcome(&steps)?.as_deref(), Some("denied_by_rule"));
    Ok(())
}

#[test]
fn n108_roles_are_looked_at() -> Result<()> {
    let stage = trio("look")?;
    let admin = stage.admin()?;
    admin.rows("CREATE DATABASE look_closed")?;
    admin.rows("REVOKE CONNECT ON DATABASE look_closed FROM PUBLIC")?;
    let token = cut(&good("look"));
    let in_database = |database: &str| {
        let call = format!("oidc.explain({}, 'look', {})", quoted(&token), quoted(database));
        steps(stage, &call).and_then(|steps| outcome(&steps))
    };
    assert_eq!(in_database("postgres")?, None);
    assert_eq!(in_database("look_closed")?.as_deref(), Some("connect_denied"));
    assert_eq!(in_database("no such database")?.as_deref(), Some("connect_denied"));
    admin.rows("GRANT CONNECT ON DATABASE look_closed TO look")?;
    assert_eq!(in_database("look_closed")?, None);
    admin.rows("REVOKE CONNECT ON DATABASE look_closed FROM look; DROP ROLE look")?;
    assert_eq!(in_database("postgres")?.as_deref(), Some("role_missing"));
    admin.rows("CREATE ROLE look LOGIN")?;
    assert_eq!(in_database("postgres")?.as_deref(), Some("role_replaced"));
    Ok(())
}

#[test]
fn claims_alone() -> Result<()> {
    let stage = trio("alone")?;
    let admin = stage.admin()?;
    admin.rows(&rule_sql("alone", &json!({"account": 9007199254740993_u64}), "alone"))?;
    let claims =
        |claims: &str| steps(stage, &format!("oidc.explain_claims('alone', {}, 'alone')", quoted(claims)));
    let steps = claims(r#"{"sub": "alone"}"#)?;
    has(&steps, "claims", "yes", "Made up, because they are not given: iss, aud, exp, iat.");
    has(&steps, "typ", "not checked", "");
    has(&steps, "role login", "yes", "");
    assert_eq!(outcome(&steps)?, None);
    assert_eq!(outcome(&claims(r#"{"sub": "somebody else"}"#)?)?.as_deref(), Some("no_rule"));
    assert_eq!(
        outcome(&claims(r#"{"sub": "alone", "aud": "another"}"#)?)?.as_deref(),
        Some("audience_mismatch")
    );
    assert_eq!(outcome(&claims(r#"{"sub": "alone", "iss": 1}"#)?)?, None, "iss only finds the provider");
    // Exact to the last digit.
    assert_eq!(outcome(&claims(r#"{"account": 9007199254740993}"#)?)?, None);
    assert_eq!(outcome(&claims(r#"{"account": 9007199254740992}"#)?)?.as_deref(), Some("no_rule"));

    for (call, message) in [
        ("oidc.explain_claims('nobody', '{}')", "OIDC provider \"nobody\" does not exist"),
        ("oidc.explain_claims('alone', '[]')", "could not read the claims"),
        ("oidc.explain_claims('alone', '1')", "could not read the claims"),
    ] {
        assert_eq!(admin.error(&format!("SELECT * FROM {call}"))?.message, message);
    }
    admin.rows("UPDATE oidc.provider SET enabled = false WHERE name = 'alone'")?;
    let steps = claims(r#"{"sub": "alone"}"#)?;
    has(&steps, "provider", "no", "disabled");
    assert_eq!(outcome(&steps)?.as_deref(), Some("provider_disabled"));
    Ok(())
}

#[test]
fn n128_it_changes_nothing_and_is_not_for_everybody() -> Result<()> {
    let stage = trio("quiet")?;
    let session = stage.session("quiet", &good("quiet").sign(&keys().ed25519))?;
    let calls = [
        format!("oidc.explain({})", quoted(&cut(&good("quiet")))),
        format!("oidc.explain_claims('quiet', {})", text(&json!({"sub": "quiet"}))),
    ];
    let admin = stage.admin()?;
    let before = admin.value("SELECT generation FROM oidc.policy_state")?;
    for call in &calls {
        let told = session.error(&format!("SELECT * FROM {call}"))?;
        assert_eq!(told.code, "42501", "{told:?}");
        admin.rows(&format!("SELECT * FROM {call}"))?;
    }
    assert_eq!(admin.value("SELECT generation FROM oidc.policy_state")?, before);
    admin.rows("GRANT EXECUTE ON FUNCTION oidc.explain(text, text, text, inet, boolean) TO quiet")?;
    let rows = session.rows(&format!("SELECT * FROM {}", calls[0]))?;
    assert!(rows.len() > 10, "{rows:?}");
    Ok(())
}

#[test]
fn f046_words_of_a_text_of_any_length_stop_nothing() -> Result<()> {
    let stage = stage();
    let admin = stage.admin()?;
    let words = |sql: &str| admin.value(&format!("SELECT oidc.condition_text({sql})"));
    assert_eq!(
        words("'{\"a\":[0' || repeat(',0', 20000000) || ']}'")?.as_deref(),
        Some("(too long to show)")
    );
    assert_eq!(words("'{\"a\": 1}'")?.as_deref(), Some("a is 1"));
    let told = admin
        .error("SELECT * FROM oidc.explain_claims('nobody', jsonb_build_object('a', repeat('x', 70000)))")?;
    assert_eq!(told.message, "the claims are too long");
    Ok(())
}
