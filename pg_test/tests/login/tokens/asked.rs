//! What a provider may ask of its tokens.
//!
//! 1. n074, n075, n095: `required_claims`, with `accepted_typ`: the client, the kind of token, the scope.
//! 2. n083, n086: the age of a token and its life.
//! 3. n089, n090: the identity claim, and an e-mail address as one.
//! 4. n091, n092: the groups claim; groups that the issuer left out.

use anyhow::Result;
use pg_oidc_test::keys::{jwks, keys};
use pg_oidc_test::token::{Token, now};
use serde_json::{Value, json};

use super::stage;
use crate::scene::good;

/// A provider with these columns, a role and a rule that every token of it matches.
fn asking(name: &str, columns: &[(&str, &str)]) -> Result<()> {
    stage().provider_with(name, &jwks(&[&keys().ec]), columns)?;
    stage().role_and_rule(name, name, &json!({}))
}

fn signed(token: &Token) -> String {
    token.sign(&keys().ec)
}

/// A good token of the provider with these claims changed; null leaves one out.
fn with(name: &str, changes: Value) -> String {
    let changes = changes.as_object().cloned().unwrap_or_default();
    let changed = changes.into_iter().fold(good(name), |token, (claim, value)| match value {
        Value::Null => token.without(&claim),
        value => token.claim(&claim, value),
    });
    signed(&changed)
}

fn accepted(name: &str, changes: Value) -> Result<()> {
    stage().accepted(name, &with(name, changes.clone()), changes)
}

fn refused(name: &str, reason: &str, changes: Value) -> Result<()> {
    stage().refused(name, &with(name, changes.clone()), reason, changes)
}

#[test]
fn n074_client() -> Result<()> {
    asking("n074", &[("required_claims", r#"'{"azp": "desktop"}'"#)])?;
    accepted("n074", json!({"aud": ["warehouse", "other"], "azp": "desktop"}))?;
    refused("n074", "required_claim_failed", json!({"aud": ["warehouse", "other"], "azp": "phone"}))?;
    refused("n074", "required_claim_failed", json!({"aud": ["warehouse", "other"]}))
}

#[test]
fn n075_kind_of_token() -> Result<()> {
    let access = r#"'{"token_use": "access"}'"#;
    asking("n075a", &[("accepted_typ", "'{at+jwt}'"), ("required_claims", access)])?;
    let id = r#"'{"token_use": "id"}'"#;
    asking("n075i", &[("accepted_typ", "'{JWT}'"), ("required_claims", id), ("audiences", "'{desktop}'")])?;
    let token = |name: &str, typ: &str, kind: &str, audience: &str| {
        let token = good(name).header("typ", json!(typ)).claim("token_use", json!(kind)).audience(audience);
        signed(&token)
    };
    let stage = stage();
    stage.accepted("n075a", &token("n075a", "at+jwt", "access", "warehouse"), "access token")?;
    stage.refused("n075a", &token("n075a", "JWT", "access", "warehouse"), "typ_refused", "typ")?;
    stage.refused("n075a", &token("n075a", "at+jwt", "id", "warehouse"), "required_claim_failed", "kind")?;
    stage.refused("n075a", &token("n075a", "JWT", "id", "desktop"), "audience_mismatch", "an ID token")?;
    stage.accepted("n075i", &token("n075i", "JWT", "id", "desktop"), "ID token")?;
    stage.refused("n075i", &token("n075i", "at+jwt", "id", "desktop"), "typ_refused", "typ")?;
    stage.refused("n075i", &token("n075i", "JWT", "access", "desktop"), "required_claim_failed", "kind")?;
    stage.refused(
        "n075i",
        &token("n075i", "at+jwt", "access", "warehouse"),
        "audience_mismatch",
        "an access token",
    )
}

#[test]
fn n083_n086_age_and_life() -> Result<()> {
    asking("n086", &[("max_token_age", "'10 min'"), ("clock_skew", "'0 s'")])?;
    let issued = |ago: i64, life: i64| json!({"iat": now() - ago, "exp": now() - ago + life});
    accepted("n086", issued(60, 600))?;
    refused("n086", "lifetime_too_long", issued(60, 601))?;
    refused("n086", "token_too_old", issued(700, 900))?;
    refused("n086", "issued_at_missing", json!({"iat": null}))?;
    // A provider that does not ask takes them all.
    asking("n086b", &[])?;
    accepted("n086b", json!({"iat": null}))?;
    accepted("n086b", issued(86_400, 100_000))
}

#[test]
fn n089_identity() -> Result<()> {
    asking("n089", &[("identity_claim", "'/user/name'")])?;
    accepted("n089", json!({"user": {"name": "alice"}}))?;
    let session = stage().session("n089", &with("n089", json!({"user": {"name": "alice"}})))?;
    assert_eq!(session.value("SELECT oidc.identity()")?.as_deref(), Some("alice"));
    let names = [json!(1), json!(true), json!({}), json!(["alice"]), json!(""), json!("a\nb")];
    for name in names {
        refused("n089", "identity_invalid", json!({"user": {"name": name}}))?;
    }
    refused("n089", "identity_invalid", json!({}))
}

#[test]
fn n090_unverified_email() -> Result<()> {
    asking("n090", &[("identity_claim", "'email'")])?;
    let email = |verified: Value| json!({"email": "a@corp.example", "email_verified": verified});
    accepted("n090", email(json!(true)))?;
    for verified in [json!(false), Value::Null, json!("true"), json!(1)] {
        refused("n090", "email_unverified", email(verified))?;
    }
    // A rule on the address does not match.
    stage().provider("n090r")?;
    stage().role_and_rule("n090r", "n090r", &json!({"email": "a@corp.example"}))?;
    accepted("n090r", email(json!(true)))?;
    refused("n090r", "no_rule", email(json!(false)))?;
    // Where required_claims names email_verified, that alone decides.
    let columns = [("identity_claim", "'email'"), ("required_claims", r#"'{"email_verified": "yes"}'"#)];
    asking("n090d", &columns)?;
    accepted("n090d", email(json!("yes")))?;
    refused("n090d", "required_claim_failed", email(json!(true)))
}

#[test]
fn n091_n092_groups() -> Result<()> {
    stage().provider_with("n091", &jwks(&[&keys().ec]), &[("groups_claim", "'groups'")])?;
    stage().role_and_rule("n091", "n091", &json!({"groups": "readers"}))?;
    accepted("n091", json!({"groups": "readers"}))?;
    accepted("n091", json!({"groups": ["staff", "readers"]}))?;
    for groups in [json!(1), json!(true), json!({"readers": 1}), json!(["readers", 1]), json!([["readers"]])]
    {
        refused("n091", "groups_invalid", json!({ "groups": groups }))?;
    }
    for groups in [json!("readers,staff"), json!("readers staff"), json!(["staff,readers"]), json!([])] {
        refused("n091", "no_rule", json!({ "groups": groups }))?;
    }
    refused("n091", "groups_missing", json!({}))?;
    refused("n091", "groups_overage", json!({"_claim_names": {"groups": "src1"}}))?;
    refused("n091", "groups_overage", json!({"hasgroups": true}))?;
    accepted(
        "n091",
        json!({"groups": ["readers"], "_claim_names": {"address": "src1"}, "hasgroups": false}),
    )?;
    // Also where the provider names no groups claim: a rule on groups would silently give less.
    asking("n092", &[])?;
    refused("n092", "groups_overage", json!({"_claim_names": {"groups": "src1"}}))?;
    accepted("n092", json!({}))
}

#[test]
fn n095_scope() -> Result<()> {
    for (number, claim) in ["scope", "scp"].into_iter().enumerate() {
        let name = format!("n095_{number}");
        asking(&name, &[("required_claims", &format!("'{{\"{claim}\": \"db:read\"}}'"))])?;
        accepted(&name, json!({claim: "openid db:read"}))?;
        accepted(&name, json!({claim: ["openid", "db:read"]}))?;
        for other in [json!("db:reader"), json!("db:read,openid"), json!(""), json!(["openid db:read"])] {
            refused(&name, "required_claim_failed", json!({ claim: other }))?;
        }
        refused(&name, "required_claim_failed", json!({}))?;
    }
    Ok(())
}
