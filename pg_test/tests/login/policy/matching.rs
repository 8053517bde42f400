//! What matches.
//!
//! 1. `match`: equality, containment, JSON Pointer, several members, `{}`, numbers, booleans, null; each with
//!    what nearly matches.
//! 2. `databases`.
//! 3. n070: the same subject of two issuers is two identities.
//! 4. n098, n100: no rule, or another role, is to the client what a bad token is.
//! 5. n099: two rules for one login.

use anyhow::{Result, ensure};
use pg_oidc_test::keys::keys;
use pg_oidc_test::token::Token;
use serde_json::{Value, json};

use super::{next_login, reason, signed, stage, token, without_rule};
use crate::scene::{SOON, Stage, good, is_constant, rule_sql, rule_with, text};

/// A `match`, claims that it matches, claims that it does not.
pub(super) type Case = (Value, Vec<Value>, Vec<Value>);

fn cases() -> Vec<Case> {
    vec![
        (
            json!({ "team": "red" }),
            vec![json!({ "team": "red" }), json!({ "team": ["blue", "red"] }), json!({ "team": ["red"] })],
            vec![
                json!({}),
                json!({ "team": "Red" }),
                json!({ "team": "re" }),
                json!({ "team": "redder" }),
                json!({ "team": " red" }),
                json!({ "team": "red,blue" }),
                json!({ "team": "blue red" }),
                json!({ "team": [] }),
                json!({ "team": ["blue", "Red"] }),
                json!({ "team": [["red"]] }),
                json!({ "team": { "red": true } }),
                json!({ "team": null }),
                json!({ "Team": "red" }),
                json!({ "nested": { "team": "red" } }),
            ],
        ),
        (
            json!({ "/realm_access/roles": "dba" }),
            vec![
                json!({ "realm_access": { "roles": ["x", "dba"] } }),
                json!({ "realm_access": { "roles": "dba" } }),
            ],
            vec![
                json!({ "realm_access": { "roles": ["DBA"] } }),
                json!({ "realm_access": { "role": ["dba"] } }),
                json!({ "realm_access": "dba" }),
                json!({ "/realm_access/roles": "dba" }),
                json!({ "roles": ["dba"] }),
                json!({ "x": { "realm_access": { "roles": ["dba"] } } }),
            ],
        ),
        (
            json!({ "/list/1": "b", "/a~1b/c~0d": "e" }),
            vec![json!({ "list": ["a", "b"], "a/b": { "c~d": "e" } })],
            vec![
                json!({ "list": ["b", "a"], "a/b": { "c~d": "e" } }),
                json!({ "list": ["a", "b"], "a/b": { "cd": "e" } }),
                json!({ "list": ["a", "b"] }),
            ],
        ),
        (
            json!({ "https://corp.example/team": "red", "cognito:groups": "admins", "a.b": "c" }),
            vec![json!({ "https://corp.example/team": "red", "cognito:groups": ["admins"], "a.b": "c" })],
            vec![
                json!({ "https://corp.example/team": "red", "cognito:groups": ["admins"], "a": { "b": "c" } }),
                json!({ "https://corp.example/team": "red", "a.b": "c" }),
            ],
        ),
        (json!({}), vec![json!({}), json!({ "anything": 1 })], vec![]),
        (
            json!({ "level": 3 }),
            vec![json!({ "level": 3 }), json!({ "level": 3.0 }), json!({ "level": [1, 3] })],
            vec![
                json!({ "level": "3" }),
                json!({ "level": 30 }),
                json!({ "level": 3.01 }),
                json!({ "level": true }),
            ],
        ),
        (
            json!({ "verified": true, "guest": false }),
            vec![json!({ "verified": true, "guest": false })],
            vec![
                json!({ "verified": "true", "guest": false }),
                json!({ "verified": 1, "guest": false }),
                json!({ "verified": true, "guest": null }),
                json!({ "verified": true }),
            ],
        ),
        (
            json!({ "manager": null }),
            vec![json!({ "manager": null })],
            vec![json!({}), json!({ "manager": "" }), json!({ "manager": "null" }), json!({ "manager": 0 })],
        ),
        (
            json!({ "scope": "db.read" }),
            vec![json!({ "scope": "openid db.read" }), json!({ "scope": "db.read" })],
            vec![
                json!({ "scope": "db.read.all" }),
                json!({ "scope": "openid,db.read" }),
                json!({ "scope": "" }),
            ],
        ),
        (
            json!({ "email": "a@example.org" }),
            vec![json!({ "email": "a@example.org", "email_verified": true })],
            vec![
                json!({ "email": "a@example.org" }),
                json!({ "email": "a@example.org", "email_verified": "true" }),
                json!({ "email": "A@example.org", "email_verified": true }),
            ],
        ),
    ]
}

/// Logs in with the claims of each case: with those that match, and with those that nearly do.
pub(super) fn judge(name: &str, cases: Vec<Case>) -> Result<()> {
    let stage = without_rule(name)?;
    let admin = stage.admin()?;
    admin.rows(&rule_sql(name, &json!({}), name))?;
    for (rule, good_claims, other_claims) in cases {
        let update =
            format!("UPDATE oidc.role_mapping SET match = {} WHERE provider = '{name}'", text(&rule));
        admin.rows(&update)?;
        let expected = |claims: Vec<Value>, outcome| claims.into_iter().map(move |claims| (claims, outcome));
        let all = expected(good_claims, None).chain(expected(other_claims, Some("no_rule")));
        for (claims, outcome) in all {
            let found = next_login(stage, name, &signed(&with(name, &claims)))?;
            ensure!(found.as_deref() == outcome, "{rule} with {claims}: {found:?} instead of {outcome:?}");
        }
    }
    Ok(())
}

/// A good token of this name with the members of `claims`.
pub(super) fn with(name: &str, claims: &Value) -> Token {
    let members = claims.as_object().cloned().unwrap_or_default();
    members.into_iter().fold(good(name), |token, (name, value)| token.claim(&name, value))
}

/// The rule by which this login is admitted.
pub(super) fn deciding_rule(stage: &Stage, role: &str, token: &str) -> Result<String> {
    let mark = stage.cluster.log_mark();
    stage.session(role, token)?;
    let line = stage.cluster.await_log_since(mark, &format!("OIDC login accepted: role={role:?} "), SOON)?;
    let (_, rule) = line.split_once(" rule=").unwrap_or_default();
    Ok(rule.split(' ').next().unwrap_or_default().to_owned())
}

#[test]
fn match_and_what_nearly_matches() -> Result<()> {
    judge("matched", cases())
}

#[test]
fn databases_of_a_rule() -> Result<()> {
    let stage = without_rule("homed")?;
    let (admin, token) = (stage.admin()?, token("homed"));
    for database in ["homed_app", "homed_app2", "homed_ap", "Homed_App"] {
        admin.rows(&format!("CREATE DATABASE \"{database}\""))?;
    }
    let columns = [("databases", "'{homed_app,homed_missing}'")];
    admin.rows(&rule_with("homed", &json!({ "sub": "homed" }), "homed", &columns))?;
    let login = |database: &str| stage.login("homed", &token).database(database);
    let seen = login("homed_app").run("SELECT current_database()")?;
    assert_eq!(seen.rows(), [["homed_app"]]);
    for database in ["homed_app2", "homed_ap", "Homed_App", "postgres", "template1", "homed_nowhere"] {
        let refused = stage.refusal(&login(database), "homed", database)?;
        assert_eq!(refused.reason, "no_rule", "{database}");
        ensure!(is_constant(&refused.told, "homed"), "{database}: {:?}", refused.told);
    }
    Ok(())
}

#[test]
fn n070_same_subject_of_two_issuers() -> Result<()> {
    let stage = without_rule("n070a")?;
    stage.provider("n070b")?;
    stage.admin()?.rows(&rule_sql("n070a", &json!({ "sub": "42" }), "n070a"))?;
    let token = |provider: &str| signed(&good(provider).claim("sub", json!("42")));
    stage.accepted("n070a", &token("n070a"), "the one that the rule is for")?;
    stage.refused("n070a", &token("n070b"), "no_rule", "the same subject of another")
}

#[test]
fn n098_n100_no_rule_and_other_role_are_told_as_a_bad_token() -> Result<()> {
    let stage = without_rule("n098")?;
    let admin = stage.admin()?;
    admin.rows("CREATE ROLE n098_other LOGIN")?;
    admin.rows(&rule_sql("n098", &json!({ "team": "red" }), "n098_other"))?;
    let red = signed(&good("n098").claim("team", json!("red")));
    stage.accepted("n098_other", &red, "the role that the rule gives")?;
    let bad = good("n098").claim("team", json!("red")).sign(&keys().other_ed25519);
    let forged = good("n098").header("kid", json!("ed-1")).sign(&keys().other_ed25519);
    let tried = [
        ("no_rule", token("n098")),
        ("user_not_mapped", red),
        ("key_unknown", bad),
        ("signature_invalid", forged),
        ("token_malformed", "a password".to_owned()),
    ];
    let mut told = Vec::new();
    for (reason, password) in &tried {
        stage.refused("n098", password, reason, reason)?;
        told.push(stage.login("n098", password).run("SELECT 1")?.stderr);
    }
    ensure!(told.windows(2).all(|pair| pair[0] == pair[1]), "clients can tell refusals apart: {told:?}");
    // A role that does not exist is told as one that does.
    stage.refused("n098_nobody", &tried[1].1, "user_not_mapped", "no such role")?;
    assert_eq!(next_login(stage, "N098_other", &tried[1].1)?, reason("user_not_mapped"), "another case");
    Ok(())
}

#[test]
fn rules_count_for_their_provider_only() -> Result<()> {
    // n069 for rules: a rule without a condition is no rule for the tokens of others.
    stage().provider("anyones")?;
    stage().provider("others")?;
    stage().role_and_rule("anyones", "anyones", &json!({}))?;
    stage().accepted("anyones", &token("anyones"), "its own provider")?;
    stage().refused("anyones", &token("others"), "no_rule", "another provider")
}

#[test]
fn n099_two_rules_priority_then_id_shown_by_explain() -> Result<()> {
    let stage = without_rule("n099")?;
    let admin = stage.admin()?;
    admin.rows("CREATE ROLE n099_other LOGIN")?;
    let rule = |claims: Value, role: &str, priority: &str| -> Result<String> {
        let sql = rule_with("n099", &claims, role, &[("priority", priority)]);
        Ok(admin.value(&sql)?.unwrap_or_default())
    };
    let plain = rule(json!({ "groups": "a" }), "n099", "100")?;
    let derived = rule(json!({ "groups": { "regex": "role:(.+)" } }), "\\1", "100")?;
    let first = rule(json!({ "sub": "n099" }), "n099_other", "50")?;
    let claims = json!({ "sub": "n099", "groups": ["a", "role:n099", "role:n099_other"] });
    let token = signed(&with("n099", &claims));
    let explained = |user: &str| -> Result<Vec<String>> {
        let call = format!("oidc.explain_claims('n099', {}, {user})", text(&claims));
        let rows = admin.rows(&format!("SELECT name || ': ' || detail FROM {call}"))?;
        Ok(rows.into_iter().flatten().flatten().collect())
    };
    let decides = |role: &str, expected: &str| -> Result<()> {
        assert_eq!(deciding_rule(stage, role, &token)?, expected, "the login as {role}");
        let said =
            format!("role login: Session user and current user would be \"{role}\", by rule {expected}.");
        let all = explained(&format!("'{role}'"))?;
        ensure!(all.contains(&said), "{said} is not in {all:?}");
        Ok(())
    };
    decides("n099", &plain)?;
    decides("n099_other", &first)?;
    admin.rows(&format!("UPDATE oidc.role_mapping SET priority = 101 WHERE id IN ({plain}, {first})"))?;
    decides("n099", &derived)?;
    decides("n099_other", &derived)?;
    // All rules that give something are shown in the order in which they are tried.
    let order = |ids: [&str; 3]| -> Result<()> {
        let all = explained("NULL")?;
        let place = |id: &str| all.iter().position(|line| line.starts_with(&format!("rule {id}: It gives ")));
        let places = ids.map(place);
        ensure!(places.iter().all(Option::is_some) && places.is_sorted(), "{ids:?} in {all:?}");
        Ok(())
    };
    order([&derived, &plain, &first])?;
    admin.rows(&format!("UPDATE oidc.role_mapping SET priority = -1 WHERE id = {first}"))?;
    order([&first, &derived, &plain])?;
    decides("n099_other", &first)
}
