//! The bytes of a password message: whatever they are, a login is granted only what an honest signature and the rules
//! give, and nothing of the token shows.

use pg_oidc_core::claim;
use pg_oidc_core::limits::{GROUPS, KID_BYTES, SECOND, SUBJECT_BYTES, WIRE_BYTES};
use pg_oidc_core::refusal::Refusal;
use pg_oidc_core::token;
use pg_oidc_core::verify::Verified;
use serde_json::Value;

use super::forge::{self, Origin};
use super::house::{AT, HOUSE, USERS};
use super::{SECRET, assert_is_one_line};

/// The bytes as [`forge::make`] reads them. Gives the code of the refusal, or `verified`, or `accepted` if some role
/// was given.
pub(crate) fn check(data: &[u8]) -> &'static str {
    let Some((origin, token)) = forge::make(data) else { return "nothing" };
    let verdict = HOUSE.judge(&token);
    if let Ok(untrusted) = token::parse(&token, WIRE_BYTES) {
        assert!(!format!("{untrusted:?}").contains(SECRET));
    }
    match verdict {
        Ok(verified) => {
            assert!(forge::is_signed(&token));
            if let Origin::Edited(good) = origin {
                assert_eq!(token, good.as_bytes(), "a changed token was believed");
            }
            check_verified(&token, &verified);
            check_decisions(&verified)
        }
        Err(refusal) => {
            if matches!(origin, Origin::Signed) {
                assert_ne!(refusal, Refusal::SignatureInvalid);
            }
            check_refusal(&refusal);
            let smaller = token::parse(&token, token.len().saturating_sub(1));
            assert!(matches!(smaller, Err(Refusal::TokenTooLarge { .. })) || token.is_empty());
            refusal.code()
        }
    }
}

fn check_refusal(refusal: &Refusal) {
    assert!(Refusal::ALL.iter().any(|(code, _, _)| *code == refusal.code()));
    assert_is_one_line(&refusal.detail());
    assert!(refusal.detail().len() < 1000);
    assert!(!refusal.detail().contains(SECRET) && !format!("{refusal:?}").contains(SECRET));
}

fn check_verified(token: &[u8], verified: &Verified) {
    for name in [verified.subject(), verified.identity()] {
        assert!((1..=SUBJECT_BYTES).contains(&name.len()) && !name.chars().any(char::is_control));
    }
    assert!(verified.groups().is_none_or(|groups| groups.len() <= GROUPS));
    // The strict provider's skew.
    assert!(verified.expires_at() > AT - 30 * SECOND);
    assert!(verified.issued_at().is_none_or(|issued_at| issued_at <= AT + 30 * SECOND));
    assert!(!format!("{verified:?}").contains(SECRET));

    let [header, payload, _] = forge::opened(token).expect("three parts");
    let of_header = |name| claim::text(std::str::from_utf8(&header).unwrap(), name).unwrap();
    assert!(of_header("kid").is_none_or(|kid| kid.len() <= KID_BYTES));
    for refused in ["crit", "b64", "zip"] {
        assert_eq!(of_header(refused), None);
    }
    // Another parser reads the same claims before and after, or (numbers beyond a float) neither.
    let text = verified.claims().to_string();
    assert!(text.len() <= payload.len());
    let before = serde_json::from_slice::<Value>(&payload);
    assert_eq!(serde_json::from_str::<Value>(&text).ok(), before.ok());
    assert_eq!(claim::text(&text, "sub").unwrap().as_deref(), Some(verified.subject()));

    let again = forge::signed(&of_header("alg").expect("an algorithm"), &text);
    let again = HOUSE.judge(again.as_bytes()).expect("the claims as they were written down");
    assert_eq!(again.claims(), verified.claims());
    assert_eq!((again.subject(), again.identity()), (verified.subject(), verified.identity()));
    assert_eq!((again.expires_at(), again.issued_at()), (verified.expires_at(), verified.issued_at()));
    assert_eq!((again.provider_name(), again.groups()), (verified.provider_name(), verified.groups()));
}

fn check_decisions(verified: &Verified) -> &'static str {
    let mut given = "verified";
    for user in USERS {
        match HOUSE.decide(verified, user) {
            Ok(decision) => {
                given = "accepted";
                assert_eq!(decision.role, user);
                assert_eq!(decision.subject, verified.subject());
                assert_eq!(decision.identity, verified.identity());
                assert_eq!(decision.claims, verified.claims().to_string());
                assert_eq!(decision.expires_at, verified.expires_at());
                assert!(!format!("{decision:?}").contains(SECRET));
            }
            Err(refusal) => check_refusal(&refusal),
        }
    }
    given
}
