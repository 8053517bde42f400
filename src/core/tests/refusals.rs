//! The list of reasons: each is provoked, and none of them shows a token.

use std::collections::BTreeSet;

use pg_oidc_core::algorithm::Algorithm;
use pg_oidc_core::decision::{Replication, decide};
use pg_oidc_core::image::{PolicyImage, check_policy, encode_policy};
use pg_oidc_core::json::JsonProblem;
use pg_oidc_core::limits::{self, SECOND};
use pg_oidc_core::provider::{ProviderRow, compile_provider};
use pg_oidc_core::refusal::Refusal;
use pg_oidc_core::revocation::Revocation;
use pg_oidc_core::rules::RuleRow;
use serde_json::{Value, json};

use crate::common::{
    NOW, P256, REQUEST, ROLE_OID, World, b64, claims_with, provider_row, rule_row, token, token_raw,
    token_with_header,
};
use crate::people;

#[test]
fn codes_are_unique_snake_case() {
    let codes: BTreeSet<&str> = Refusal::ALL.iter().map(|(code, _, _)| *code).collect();
    assert_eq!(codes.len(), Refusal::ALL.len());
    for (code, row, meaning) in Refusal::ALL {
        let words = code.split('_').all(|word| {
            !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        });
        assert!(words && code.len() <= 63, "{code}");
        assert!(*row <= 142, "{code}");
        assert!(meaning.starts_with(char::is_uppercase) && meaning.ends_with('.'), "{code}");
    }
}

/// Every reason that core gives, as a login provokes it.
fn provoked() -> Vec<Refusal> {
    let login = |world: World, token: &str| world.login(token).unwrap_err();
    let refused = |token: &str| login(World::new(), token);
    let claims = |changes: Value| login(World::new(), &token(&claims_with(changes)));
    let header = |header: &str| refused(&token_with_header(header));
    let asking = |change: fn(&mut ProviderRow), changes: Value| {
        login(World::with_provider(change), &token(&claims_with(changes)))
    };
    let good = token(&claims_with(json!({})));
    let (input, _) = good.rsplit_once('.').unwrap();
    let many = vec!["g"; limits::GROUPS + 1];
    let members: Value = (0..limits::CLAIM_MEMBERS).map(|number| (number.to_string(), json!(1))).collect();
    let grouped: fn(&mut ProviderRow) = |row| row.groups_claim = Some("groups".to_owned());
    let aged: fn(&mut ProviderRow) = |row| row.max_token_age_us = Some(60 * SECOND);
    let deny = RuleRow { effect: "deny".to_owned(), role: None, ..rule_row(1, &json!({}), "") };
    let with_role = |role_oid| World { role_oid, ..World::new() };
    let mut pending = World::new();
    pending.providers[0].1 = None;
    let [issuer_not_of_line, scope_missing] = crate::oauth_line::refused();
    vec![
        issuer_not_of_line,
        scope_missing,
        refused(&"a".repeat(limits::WIRE_BYTES + 1)),
        refused("a password"),
        refused("e30.e30.e30.e30.e30"),
        refused("{}"),
        refused(&format!("{input}.QR")),
        header(&json!({"alg": "ES256", "x": "p".repeat(limits::HEADER_BYTES)}).to_string()),
        header("[]"),
        header(r#"{"alg":"ES256","alg":"ES256"}"#),
        header(r#"{"alg":"ES256","kid":"\u0000"}"#),
        claims(json!({ "x": members })),
        claims(json!({ "x": many })),
        header(r#"{"alg":"none"}"#),
        header(r#"{"alg":"ES256","kid":1}"#),
        header(r#"{"alg":"ES256","typ":1}"#),
        header(r#"{"alg":"ES256","crit":[]}"#),
        refused(&token_raw("[]")),
        claims(json!({"iss": 1})),
        claims(json!({"iss": "https://other.example"})),
        asking(|row| row.enabled = false, json!({})),
        asking(|row| row.algorithms = vec![Some("RS256".to_owned())], json!({})),
        login(World::with_keys(json!([])), &good),
        login(World { fetched_at: 0, ..World::new() }, &good),
        header(r#"{"alg":"ES256","kid":"nobody's"}"#),
        login(two_keys(), &token_with_header(r#"{"alg":"ES256"}"#)),
        login(pending, &good),
        refused(&format!("{input}.{}", b64([1; 64]))),
        claims(json!({"aud": null})),
        claims(json!({"aud": []})),
        claims(json!({"aud": "other"})),
        claims(json!({"exp": null})),
        claims(json!({"exp": "1"})),
        claims(json!({"exp": NOW})),
        claims(json!({"nbf": "1"})),
        claims(json!({"nbf": NOW + 1})),
        claims(json!({"iat": "1"})),
        claims(json!({"iat": NOW + 1})),
        asking(aged, json!({"iat": null})),
        asking(aged, json!({"iat": NOW - 61})),
        asking(aged, json!({"iat": NOW - 1, "exp": NOW + 60})),
        header(r#"{"alg":"ES256","kid":"p256","typ":"dpop+jwt"}"#),
        asking(|row| row.required_claims = Some(r#"{"azp":"a"}"#.to_owned()), json!({})),
        claims(json!({"cnf": {}})),
        claims(json!({"sub": ""})),
        asking(|row| row.identity_claim = "name".to_owned(), json!({})),
        asking(|row| row.identity_claim = "email".to_owned(), json!({"email": "a@corp.example"})),
        claims(json!({"hasgroups": true})),
        asking(grouped, json!({"groups": null})),
        asking(grouped, json!({"groups": 1})),
        login(revoking(i64::MAX, None), &good),
        login(revoking(i64::MIN, Some(NOW * SECOND)), &good),
        login(World::with_rules(vec![]), &good),
        login(World { user: "writer", ..World::new() }, &good),
        login(with_role(0), &good),
        login(with_role(ROLE_OID + 1), &good),
        people::refused("mate", 0, vec![people::binding("u2", "mate", 7)], &[]),
        people::refused("mate", 7, vec![], &[]),
        login(many_roles(), &token(&claims_with(json!({"upn": "mate@corp.example"})))),
        login(World { replication: Replication::Physical, ..World::new() }, &good),
        login(World::with_rules(vec![deny.clone()]), &good),
        login(
            World::with_rules(crate::bounds::costly(200, "deny")),
            &token(&claims_with(json!({"c": "a".repeat(8000)}))),
        ),
        between(provider_row(), Some(deny.id)),
        // The provider changes between the check of the token and the decision.
        between(ProviderRow { clock_skew_us: 1, ..provider_row() }, None),
    ]
}

/// Somebody who asks for her own role, in one group too many.
fn many_roles() -> World {
    let rule = |id: i64| rule_row(id, &json!({}), &format!("r{id}"));
    let most = i64::try_from(limits::GIVEN_ROLES).unwrap();
    World { rules: (0..=most).map(rule).collect(), ..people::world("mate", 0) }
}

fn revoking(until: i64, tokens_before: Option<i64>) -> World {
    let (provider, subject) = ("corp".to_owned(), "u1".to_owned());
    World { revocations: vec![Revocation { provider, subject, until, tokens_before }], ..World::new() }
}

fn two_keys() -> World {
    let mut second = P256.jwk();
    second["kid"] = "another".into();
    World::with_keys(json!([P256.jwk(), second]))
}

/// What a policy that came after the check of the token decides; it may have a broken rule that denies.
fn between(row: ProviderRow, broken: Option<i64>) -> Refusal {
    let verified = World::new().verified(&token(&claims_with(json!({})))).unwrap();
    let image = PolicyImage::build(vec![compile_provider(&row, false).unwrap()], vec![]).unwrap();
    let image = broken.into_iter().fold(image, |image, id| image.with_broken_denial("corp", id));
    let bytes = encode_policy(&image).unwrap();
    decide(check_policy(&bytes).unwrap(), &verified, &REQUEST).unwrap_err()
}

#[test]
fn every_reason_is_provoked_here_or_at_the_door() {
    let here: BTreeSet<&str> = provoked().iter().map(Refusal::code).collect();
    // The tests named in the list are looked up by pg_test/tests/login/tokens/reasons.rs.
    let list = include_str!("fixtures/door_reasons.txt").lines().filter(|line| !line.starts_with('#'));
    let door: BTreeSet<&str> = list.filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(here.intersection(&door).collect::<Vec<_>>(), [&""; 0]);
    let all: BTreeSet<&str> = Refusal::ALL.iter().map(|(code, ..)| *code).collect();
    assert_eq!(here.union(&door).copied().collect::<BTreeSet<_>>(), all);
}

#[test]
fn every_row_has_a_test_named_after_it() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let tests: String = files.filter_map(|path| std::fs::read_to_string(path).ok()).collect();
    let names = tests.lines().filter_map(|line| line.strip_prefix("fn n"));
    let named: BTreeSet<u16> = names
        .flat_map(|name| name.split("_n").filter_map(|part| part.get(..3)?.parse().ok()).collect::<Vec<_>>())
        .collect();
    let gaps = [12, 26, 33, 43, 57, 63, 67, 82, 94];
    let rows: BTreeSet<u16> = (1..=95).filter(|row| !gaps.contains(row)).collect();
    assert_eq!(rows.difference(&named).collect::<Vec<_>>(), [&0; 0]);
}

#[test]
fn what_waiting_may_mend() {
    for refusal in [Refusal::NotReady, Refusal::PolicyBehind, Refusal::PolicyChanged, Refusal::KeysPending] {
        assert!(refusal.retry(), "{}", refusal.code());
    }
    let provider = || "corp".to_owned();
    for refusal in [
        Refusal::PolicyAbsent,
        Refusal::WorkerMissing,
        Refusal::KeyUnknown { provider: provider() },
        Refusal::KeysStale { provider: provider() },
        Refusal::TokenExpired,
        Refusal::NoRule,
        Refusal::InternalError,
    ] {
        assert!(!refusal.retry(), "{}", refusal.code());
    }
}

#[test]
fn details_are_sentences_with_escaped_short_names() {
    let provider = "evil\n\"name\u{1b}[2J".to_owned() + &"x".repeat(300);
    let details = [
        Refusal::KeyUnknown { provider: provider.clone() }.detail(),
        Refusal::AlgorithmNotAllowed { provider: provider.clone(), algorithm: Algorithm::RS256 }.detail(),
        Refusal::GroupsMissing { claim: provider.clone() }.detail(),
        Refusal::RequiredClaimFailed { claim: provider }.detail(),
        Refusal::HeaderInvalid { problem: JsonProblem::NotJson }.detail(),
        Refusal::DuplicateMember { part: "payload" }.detail(),
        Refusal::TokenTooLarge { limit: 7 }.detail(),
        Refusal::TooManyGroups { limit: 2000 }.detail(),
        Refusal::AlgorithmUnsupported { algorithm: None }.detail(),
        Refusal::AlgorithmUnsupported { algorithm: Some("none") }.detail(),
        Refusal::TlsRequired.detail(),
    ];
    for detail in details {
        assert!(detail.starts_with(char::is_uppercase) && detail.ends_with('.'), "{detail}");
        assert!(!detail.contains(char::is_control) && detail.len() < 350, "{detail}");
    }
}

#[test]
fn n120_nothing_of_a_token_is_shown() {
    let secret = "SECRETSECRETSECRET";
    let mut tokens = vec![
        token_with_header(&json!({"alg": secret, "kid": "p256"}).to_string()),
        token_with_header(&json!({"alg": "ES256", "kid": secret}).to_string()),
        token_with_header(&json!({"alg": "ES256", "kid": "p256", "typ": secret}).to_string()),
        token_with_header(&format!("{{\"alg\":\"ES256\",\"{secret}\":1,\"{secret}\":2}}")),
        token_with_header(&format!("{secret}{{}}")),
        secret.to_owned(),
    ];
    for name in ["iss", "aud", "exp", "nbf", "iat", "sub", "groups", "cnf"] {
        tokens.push(token(&claims_with(json!({name: secret}))));
        tokens.push(token(&claims_with(json!({name: [secret, 1]}))));
    }
    let world = World::with_provider(|row| row.groups_claim = Some("groups".to_owned()));
    for token in tokens {
        let Err(refusal) = world.login(&token) else { continue };
        let shown = format!("{} {refusal:?}", refusal.detail());
        assert!(!shown.contains(secret), "{}", refusal.code());
        for part in token.split('.') {
            assert!(!shown.contains(&part[..part.len().min(12)]) || part.len() < 12, "{}", refusal.code());
        }
    }
    let good = token(&claims_with(json!({"secret": secret})));
    let verified = World::new().verified(&good).unwrap();
    let decision = World::new().login(&good).unwrap();
    let untrusted = pg_oidc_core::token::parse(good.as_bytes(), 65_535).unwrap();
    for shown in [format!("{verified:?}"), format!("{decision:?}"), format!("{untrusted:?}")] {
        assert!(!shown.contains(secret) && !shown.contains("u1"), "{shown}");
    }
}
