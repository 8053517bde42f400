//! The list of reasons, and that none of them shows a token.

use std::collections::BTreeSet;

use pg_oidc_core::algorithm::Algorithm;
use pg_oidc_core::json::JsonProblem;
use pg_oidc_core::refusal::Refusal;
use serde_json::json;

use crate::common::{World, claims_with, token, token_with_header};

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
