//! What the audit may keep of a token: nothing before its signature is verified, and then only what decides.

use pg_oidc_core::account::Account;
use pg_oidc_core::limits;
use serde_json::{Value, json};

use crate::common::{P256, RSA_B, World, claims, claims_with, rule_row, token};

fn facts(account: &Account) -> Value {
    serde_json::from_str(account.facts.as_deref().unwrap()).unwrap()
}

#[test]
fn nothing_of_a_token_that_is_not_believed() {
    let world = World::new();
    let good = token(&claims_with(json!({"jti": "t-1"})));
    for bad in ["", "no token", &RSA_B.token(r#"{"alg":"RS256","kid":"x"}"#, &claims().to_string())] {
        assert_eq!(world.account(bad), Account::default(), "{bad}");
    }
    let mut forged = good.clone();
    let last = if forged.ends_with('A') { "Q" } else { "A" };
    forged.replace_range(forged.len() - 6..forged.len() - 5, last);
    assert_eq!(world.outcome(&forged), "signature_invalid");
    let only =
        Account { provider: Some("corp".to_owned()), kid: Some("p256".to_owned()), ..Account::default() };
    assert_eq!(world.account(&forged), only);
    let account = world.account(&good);
    assert_eq!((&account.provider, &account.kid), (&only.provider, &only.kid));
    let who = [&account.subject, &account.identity, &account.token_id].map(|value| value.as_deref());
    assert_eq!(who, [Some("u1"), Some("u1"), Some("t-1")]);
    // A refused one too: who it was is the question then.
    let expired = token(&claims_with(json!({"exp": 1_000})));
    assert_eq!(world.outcome(&expired), "token_expired");
    assert_eq!(world.account(&expired).subject.as_deref(), Some("u1"));
    // Its claims are not: it may be meant for another server.
    let elsewhere = token(&claims_with(json!({"aud": "elsewhere"})));
    assert_eq!(world.outcome(&elsewhere), "audience_mismatch");
    for refused in [expired, elsewhere] {
        assert_eq!(world.account(&refused).facts, None);
    }
}

#[test]
fn names_are_sound_or_absent() {
    let world = World::with_provider(|row| row.identity_claim = "email".to_owned());
    let account = |changes| world.account(&token(&claims_with(changes)));
    let verified = json!({"email": "a@b.example", "email_verified": true});
    assert_eq!(account(verified).identity.as_deref(), Some("a@b.example"));
    let unverified = account(json!({"email": "a@b.example"}));
    assert_eq!((unverified.identity, unverified.subject.as_deref()), (None, Some("u1")));
    assert_eq!(account(json!({"sub": "u\n1"})).subject, None);
    let long = "x".repeat(limits::TOKEN_ID_BYTES);
    assert_eq!(account(json!({"jti": long})).token_id.as_deref(), Some(long.as_str()));
    for jti in [json!(format!("{long}x")), json!(7), json!(""), json!("a\u{7}")] {
        let name = account(json!({"jti": jti})).token_id.unwrap();
        assert!(name.starts_with("sha256:"), "{jti}: {name}");
    }
}

#[test]
fn n028_a_token_without_jti_is_named_by_a_salted_hash_of_what_is_signed() {
    let mut world = World::new();
    let name = |world: &World, token: &str| world.account(token).token_id.unwrap();
    let good = token(&claims());
    let known = name(&world, &good);
    let hash = known.strip_prefix("sha256:").unwrap();
    assert!(hash.len() == 32 && hash.chars().all(|c| c.is_ascii_hexdigit() && !c.is_uppercase()), "{hash}");
    assert_eq!(name(&world, &good), known);
    // An ECDSA signature is another one each time, and what is signed is the same token.
    let again = token(&claims());
    assert!(again != good && name(&world, &again) == known);
    let other = token(&claims_with(json!({"more": 1})));
    assert_ne!(name(&world, &other), known);
    // Only a verified one has a name.
    let (start, last) = good.split_at(good.len() - 6);
    let forged = format!("{start}{}{}", if last.starts_with('A') { "Q" } else { "A" }, &last[1..]);
    assert_eq!(world.outcome(&forged), "signature_invalid");
    assert_eq!(world.account(&forged).token_id, None);
    // On another server it has another name.
    world.salt = 1;
    assert_ne!(name(&world, &good), known);
    let digest = {
        let signed = good.rsplit_once('.').unwrap().0;
        let bytes = [&1_u64.to_be_bytes(), signed.as_bytes()].concat();
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes)
    };
    let hex: String = digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(name(&world, &good), format!("sha256:{hex}"));
}

#[test]
fn facts_are_what_provider_and_rules_look_at() {
    let mut world = World::with_provider(|row| {
        row.groups_claim = Some("/realm/roles".to_owned());
        row.required_claims = Some(r#"{"env": "prod"}"#.to_owned());
    });
    let (one, two) = (json!({"/a/b": 1, "/list/0": "x"}), json!({"/a/c": {"exists": false}, "gone": "x"}));
    world.rules = vec![rule_row(1, &one, "reader"), rule_row(2, &two, "reader")];
    let payload = claims_with(json!({
        "realm": {"roles": ["r"], "other": "private"},
        "a": {"b": 1, "private": 2},
        "list": ["x", "y"],
        "env": "prod",
        "secret": "private",
    }));
    let found = facts(&world.account(&token(&payload)));
    let mut wanted = payload.clone();
    wanted["realm"] = json!({"roles": ["r"]});
    wanted["a"] = json!({"b": 1});
    for name in ["groups", "secret"] {
        wanted.as_object_mut().unwrap().remove(name);
    }
    assert_eq!(found, wanted);
    // A member that names the whole object keeps it, in whatever order they stand.
    world.rules.push(rule_row(3, &json!({"a": {"exists": true}}), "reader"));
    assert_eq!(facts(&world.account(&token(&payload)))["a"], payload["a"]);
}

#[test]
fn facts_are_bounded() {
    let world = World::new();
    let with = |bytes: usize| world.account(&token(&claims_with(json!({"groups": ["x".repeat(bytes)]}))));
    let spare = limits::FACTS_BYTES - with(0).facts.unwrap().len();
    assert_eq!(with(spare).facts.map(|facts| facts.len()), Some(limits::FACTS_BYTES));
    assert_eq!(with(spare + 1).facts, None);
    assert_eq!(with(spare + 1).subject.as_deref(), Some("u1"));

    let name = |number: usize| format!("claim-{number:03}");
    let many = |count: usize| -> usize {
        let rules = (0..count).map(|number| rule_row(1, &json!({name(number): 1}), "reader")).collect();
        let all: Value =
            (0..count).map(|number| (name(number), json!(1))).collect::<serde_json::Map<_, _>>().into();
        let account = World::with_rules(rules).account(
            &P256.token(r#"{"alg":"ES256","kid":"p256","typ":"JWT"}"#, &claims_with(all).to_string()),
        );
        facts(&account).as_object().unwrap().keys().filter(|key| key.starts_with("claim-")).count()
    };
    assert_eq!(
        (many(limits::FACT_CLAIMS), many(limits::FACT_CLAIMS + 1)),
        (limits::FACT_CLAIMS, limits::FACT_CLAIMS)
    );
}
