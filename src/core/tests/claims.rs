//! B5, claims other than times.

use pg_oidc_core::limits::SECOND;
use pg_oidc_core::provider::ProviderRow;
use serde_json::{Value, json};

use crate::common::{
    NOW, P256, RSA_A, RSA_B, World, all_refused, claims, claims_with, provider_row, rule_row, token,
    token_raw, with_text, without,
};

fn outcome(changes: Value) -> &'static str {
    World::new().outcome(&token(&claims_with(changes)))
}

#[test]
fn n066_issuer_is_no_string() {
    let world = World::new();
    assert_eq!(world.outcome(&without("iss")), "issuer_invalid");
    let values = ["1", "{}", "null", "true", "\"\"", "[\"https://issuer.example\"]"];
    all_refused(&world, "issuer_invalid", values.map(|value| (value, with_text("iss", value))));
}

#[test]
fn n068_issuer_unknown() {
    let near = [
        "https://issuer.example/",
        "https://issuer.example.evil",
        "https://issuer.exampl",
        "https://Issuer.example",
        "HTTPS://issuer.example",
        "https://issuer.example#",
        "https://issuer.example:443",
        " https://issuer.example",
        "http://issuer.example",
    ];
    for issuer in near {
        let refusal = World::new().login(&token(&claims_with(json!({"iss": issuer})))).unwrap_err();
        assert_eq!(refusal.code(), "issuer_unknown", "{issuer}");
        assert_eq!(refusal.wants_keys(), None);
    }
    // Not even its signature is looked at.
    let disabled = World::with_provider(|row| row.enabled = false);
    assert_eq!(disabled.verified(&token(&claims())).unwrap_err().code(), "provider_disabled");
}

/// Two issuers that use one kid.
fn two_issuers() -> World {
    let other = ProviderRow {
        name: "other".to_owned(),
        issuer: "https://other.example".to_owned(),
        ..provider_row()
    };
    let (mut one, mut two) = (RSA_A.jwk(), RSA_B.jwk());
    one["kid"] = "same".into();
    two["kid"] = "same".into();
    let mut rule = rule_row(2, &json!({"groups": "readers"}), "reader");
    rule.provider = "other".to_owned();
    let mut world = World::new();
    world.providers =
        vec![(provider_row(), Some(json!({"keys": [one]}))), (other, Some(json!({"keys": [two]})))];
    world.rules.push(rule);
    world
}

#[test]
fn n069_key_of_another_issuer() {
    let world = two_issuers();
    let header = r#"{"alg":"RS256","kid":"same"}"#;
    let (one, two) = (claims(), claims_with(json!({"iss": "https://other.example"})));
    assert_eq!(world.outcome(&RSA_A.token(header, &one.to_string())), "accepted");
    assert_eq!(world.outcome(&RSA_B.token(header, &two.to_string())), "accepted");
    assert_eq!(world.outcome(&RSA_B.token(header, &one.to_string())), "signature_invalid");
    assert_eq!(world.outcome(&RSA_A.token(header, &two.to_string())), "signature_invalid");
}

#[test]
fn n070_one_sub_two_identities() {
    let world = two_issuers();
    let header = r#"{"alg":"RS256","kid":"same"}"#;
    let one = world.login(&RSA_A.token(header, &claims().to_string())).unwrap();
    let other = claims_with(json!({"iss": "https://other.example"}));
    let two = world.login(&RSA_B.token(header, &other.to_string())).unwrap();
    assert_eq!((one.subject.as_str(), one.provider.as_str(), one.rule_id), ("u1", "corp", 1));
    assert_eq!((two.subject.as_str(), two.provider.as_str(), two.rule_id), ("u1", "other", 2));
}

#[test]
fn n071_audience_missing() {
    assert_eq!(World::new().outcome(&without("aud")), "audience_missing");
}

#[test]
fn n072_audience_shapes() {
    for good in [json!("pg"), json!(["pg"]), json!(["other", "pg"])] {
        assert_eq!(outcome(json!({ "aud": good })), "accepted", "{good}");
    }
    let bad = ["[]", "null", "1", "{}", "true", "[1,\"pg\"]", "[\"pg\",null]", "[[\"pg\"]]", "{\"pg\":1}"];
    all_refused(&World::new(), "audience_invalid", bad.map(|value| (value, with_text("aud", value))));
}

#[test]
fn n073_audience_near_misses() {
    for near in ["p", "pgx", "xpg", "PG", "Pg", "pg ", " pg", "", "pg,other", "other pg", "pg/", "\u{440}g"] {
        assert_eq!(outcome(json!({ "aud": near })), "audience_mismatch", "{near}");
        assert_eq!(outcome(json!({ "aud": [near, "other"] })), "audience_mismatch", "{near}");
    }
}

#[test]
fn audience_in_another_claim() {
    let world = World::with_provider(|row| row.audience_claim = "client_id".to_owned());
    assert_eq!(world.outcome(&token(&claims_with(json!({"client_id": "pg", "aud": null})))), "accepted");
    assert_eq!(world.outcome(&token(&claims_with(json!({"client_id": "other"})))), "audience_mismatch");
    assert_eq!(world.outcome(&token(&claims())), "audience_missing");
}

fn requiring(required: Value) -> World {
    World::with_provider(|row| row.required_claims = Some(required.to_string()))
}

#[test]
fn n074_azp() {
    let world = requiring(json!({"azp": "desktop"}));
    let with = |azp: Value| world.outcome(&token(&claims_with(json!({"aud": ["pg", "other"], "azp": azp}))));
    assert_eq!(with(json!("desktop")), "accepted");
    assert_eq!(with(json!("phone")), "required_claim_failed");
    assert_eq!(with(json!(null)), "required_claim_failed");
    assert_eq!(with(json!("Desktop")), "required_claim_failed");
    assert_eq!(with(json!(["phone"])), "required_claim_failed");
    // Without it, several audiences are no reason: one is ours.
    let several = token(&claims_with(json!({"aud": ["pg", "other"], "azp": "phone"})));
    assert_eq!(World::new().outcome(&several), "accepted");
}

#[test]
fn n075_n076_another_kind_of_token() {
    let access = World::with_provider(|row| {
        row.accepted_typ = Some(vec![Some("at+jwt".to_owned())]);
        row.required_claims = Some(json!({"token_use": "access"}).to_string());
    });
    let header = r#"{"alg":"ES256","kid":"p256","typ":"at+jwt"}"#;
    let with = |changes: Value| claims_with(changes).to_string();
    assert_eq!(access.outcome(&P256.token(header, &with(json!({"token_use": "access"})))), "accepted");
    assert_eq!(
        access.outcome(&P256.token(header, &with(json!({"token_use": "id"})))),
        "required_claim_failed"
    );
    assert_eq!(access.outcome(&token(&claims_with(json!({"token_use": "access"})))), "typ_refused");
    let other_api = with(json!({"token_use": "access", "aud": "https://graph.example"}));
    assert_eq!(access.outcome(&P256.token(header, &other_api)), "audience_mismatch");

    // The reverse: ID tokens are wanted, whose audience is the client.
    let id = World::with_provider(|row| {
        row.accepted_typ = Some(vec![Some("JWT".to_owned())]);
        row.audiences = vec![Some("desktop".to_owned())];
        row.required_claims = Some(json!({"token_use": "id"}).to_string());
    });
    let changes = json!({"token_use": "id", "aud": "desktop"});
    assert_eq!(id.outcome(&token(&claims_with(changes.clone()))), "accepted");
    assert_eq!(id.outcome(&P256.token(header, &with(changes))), "typ_refused");
    assert_eq!(id.outcome(&token(&claims_with(json!({"token_use": "id"})))), "audience_mismatch");
    let access_token = json!({"token_use": "access", "aud": "desktop"});
    assert_eq!(id.outcome(&token(&claims_with(access_token))), "required_claim_failed");
}

#[test]
fn n088_subject() {
    let world = World::new();
    assert_eq!(world.outcome(&without("sub")), "subject_invalid");
    let long = format!("\"{}\"", "s".repeat(2049));
    let values =
        ["\"\"", "1", "null", "[\"u1\"]", "{}", "true", r#""u\n1""#, r#""u\u001b[2J""#, long.as_str()];
    all_refused(&world, "subject_invalid", values.map(|value| (value, with_text("sub", value))));
    assert_eq!(world.outcome(&with_text("sub", &format!("\"{}\"", "s".repeat(2048)))), "accepted");
}

#[test]
fn n089_identity() {
    let world = World::with_provider(|row| row.identity_claim = "/user/name".to_owned());
    let with = |text: &str| world.outcome(&with_text("user", text));
    assert_eq!(with(r#"{"name":"alice"}"#), "accepted");
    let decision = world.login(&with_text("user", r#"{"name":"alice"}"#)).unwrap();
    assert_eq!((decision.identity.as_str(), decision.subject.as_str()), ("alice", "u1"));
    for text in
        [r#"{"name":1}"#, r#"{"name":true}"#, r#"{"name":{}}"#, r#"{"name":["alice"]}"#, r#"{"name":""}"#]
    {
        assert_eq!(with(text), "identity_invalid", "{text}");
    }
    for text in [r#"{"name":null}"#, r#"{"Name":"alice"}"#, "{}", "\"alice\"", r#"{"name":"a\nb"}"#] {
        assert_eq!(with(text), "identity_invalid", "{text}");
    }
}

#[test]
fn n090_unverified_email() {
    let by_email = World::with_provider(|row| row.identity_claim = "email".to_owned());
    let with = |world: &World, verified: Value| {
        world.outcome(&token(&claims_with(json!({"email": "a@corp.example", "email_verified": verified}))))
    };
    assert_eq!(with(&by_email, json!(true)), "accepted");
    for verified in [json!(false), json!(null), json!("true"), json!(1), json!([true])] {
        assert_eq!(with(&by_email, verified.clone()), "email_unverified", "{verified}");
    }

    // A rule on the address does not match.
    for member in ["email", "/email"] {
        let ruled = World::with_rules(vec![rule_row(1, &json!({member: "a@corp.example"}), "reader")]);
        assert_eq!(with(&ruled, json!(true)), "accepted");
        assert_eq!(with(&ruled, json!(false)), "no_rule");
        assert_eq!(with(&ruled, json!(null)), "no_rule");
    }

    // required_claims decides alone: an issuer that writes "true" as a string, or sends nothing but knows.
    let text = |world: &mut World| {
        world.providers[0].0.required_claims = Some(r#"{"email_verified":"true"}"#.into())
    };
    let mut decided = World::with_rules(vec![rule_row(1, &json!({"email": "a@corp.example"}), "reader")]);
    decided.providers[0].0.identity_claim = "email".to_owned();
    text(&mut decided);
    assert_eq!(with(&decided, json!("true")), "accepted");
    assert_eq!(with(&decided, json!(true)), "required_claim_failed");
}

fn grouped() -> World {
    World::with_provider(|row| row.groups_claim = Some("groups".to_owned()))
}

#[test]
fn n091_groups_shapes() {
    let world = grouped();
    assert_eq!(world.outcome(&with_text("groups", "\"readers\"")), "accepted");
    assert_eq!(world.outcome(&with_text("groups", "[\"readers\"]")), "accepted");
    assert_eq!(world.verified(&token(&claims())).unwrap().groups(), Some(vec!["readers", "staff"]));
    let bad =
        ["1", "null", "{}", "true", "[1]", "[\"readers\",1]", "[[\"readers\"]]", "[null]", "{\"readers\":1}"];
    all_refused(&world, "groups_invalid", bad.map(|value| (value, with_text("groups", value))));
    // Never split.
    for text in ["\"readers,staff\"", "\"readers staff\"", "[\"readers,staff\"]", "[\"staff readers\"]", "[]"]
    {
        assert_eq!(world.outcome(&with_text("groups", text)), "no_rule", "{text}");
    }
    assert_eq!(world.outcome(&without("groups")), "groups_missing");
}

#[test]
fn n092_groups_overage() {
    let overage = json!({"groups": null, "_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {}}});
    for world in [grouped(), World::new()] {
        for marks in [
            overage.clone(),
            json!({"groups": null, "hasgroups": true}),
            json!({"groups": null, "hasgroups": "true"}),
        ] {
            assert_eq!(world.outcome(&token(&claims_with(marks))), "groups_overage");
        }
        let elsewhere = json!({"_claim_names": {"address": "src1"}, "hasgroups": false});
        assert_eq!(world.outcome(&token(&claims_with(elsewhere))), "accepted");
    }
    // Groups of another claim are complete.
    let mut roles = World::with_provider(|row| row.groups_claim = Some("roles".to_owned()));
    roles.rules = vec![rule_row(1, &json!({"roles": "r"}), "reader")];
    let mut marks = overage;
    marks["roles"] = json!(["r"]);
    assert_eq!(roles.outcome(&token(&claims_with(marks))), "accepted");
}

#[test]
fn n093_bound_token() {
    for cnf in ["{\"jkt\":\"x\"}", "{\"x5t#S256\":\"x\"}", "{}", "null"] {
        assert_eq!(World::new().outcome(&with_text("cnf", cnf)), "token_bound", "{cnf}");
    }
}

#[test]
fn n095_scope() {
    for name in ["scope", "scp"] {
        let world = requiring(json!({name: "db:read"}));
        let with = |value: Value| world.outcome(&token(&claims_with(json!({name: value}))));
        for good in [
            json!("db:read"),
            json!("openid db:read"),
            json!("db:read  openid"),
            json!(["openid", "db:read"]),
        ] {
            assert_eq!(with(good.clone()), "accepted", "{good}");
        }
        for bad in [
            json!("db:reader"),
            json!("openid"),
            json!(""),
            json!(null),
            json!("db:read,openid"),
            json!("DB:READ"),
            json!(["db:read openid"]),
            json!({"db:read": 1}),
        ] {
            assert_eq!(with(bad.clone()), "required_claim_failed", "{bad}");
        }
    }
    // Any other claim is one value.
    let world = requiring(json!({"note": "a"}));
    assert_eq!(world.outcome(&token(&claims_with(json!({"note": "a b"})))), "required_claim_failed");
    let world = requiring(json!({"/act/sub": "robot"}));
    assert_eq!(world.outcome(&token(&claims_with(json!({"act": {"sub": "robot"}})))), "accepted");
    assert_eq!(world.outcome(&token(&claims())), "required_claim_failed");
}

#[test]
fn the_signature_is_judged_before_any_claim() {
    let forged = claims_with(json!({"exp": 1, "aud": "other", "sub": ""}));
    let token = RSA_B.token(r#"{"alg":"RS256","kid":"rsa-a"}"#, &forged.to_string());
    assert_eq!(World::new().outcome(&token), "signature_invalid");
}

#[test]
fn decision_carries_the_claims_as_they_came() {
    let mut usual = claims().to_string();
    usual.truncate(usual.len() - 1);
    let payload = format!(r#" {usual}, "big" : 12345678901234567890123, "x":1.50,"é":"\u00e9\"\\\n" }} "#);
    let decision = World::new().login(&token_raw(payload)).unwrap();
    let wanted = format!(r#"{usual},"big":12345678901234567890123,"x":1.50,"é":"é\"\\\n"}}"#);
    assert_eq!(decision.claims, wanted);
    assert_eq!(decision.expires_at, (NOW + 300) * SECOND);
}

#[test]
fn keys_that_are_old_or_not_there_yet() {
    let token = token(&claims());
    let aged = |age: i64| World {
        fetched_at: (NOW - age) * SECOND,
        ..World::with_provider(|row| row.max_stale_us = 60 * SECOND)
    };
    assert_eq!(aged(60).outcome(&token), "accepted");
    assert_eq!(aged(61).outcome(&token), "keys_stale");
    // A clock that went back does not make keys old.
    assert_eq!(aged(-3600).outcome(&token), "accepted");
    let mut pending = World::new();
    pending.providers[0].1 = None;
    assert_eq!(pending.outcome(&token), "keys_pending");
}
