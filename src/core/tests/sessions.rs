//! How long sessions last, whose tokens are revoked, and what a live session depends on.

use pg_oidc_core::image::{ImageError, PolicyImage};
use pg_oidc_core::limits::{self, SECOND};
use pg_oidc_core::provider::{ProviderRow, compile_provider};
use pg_oidc_core::revocation::Revocation;
use pg_oidc_core::rules::{RuleRow, compile_rule};
use pg_oidc_core::standing::{Cause, Ground, Standing};
use serde_json::json;

use crate::common::{NOW, World, claims_with, provider_row, rule_row, token};

const HOUR: i64 = 3600 * SECOND;

/// Until when a session lasts from now, in microseconds, and whether the token ends it.
fn lasts(provider: (&str, Option<i64>), rule: Option<(&str, Option<i64>)>) -> Option<(i64, bool)> {
    let mut world = World::with_provider(|row| {
        row.session_limit = provider.0.to_owned();
        row.session_limit_us = provider.1;
        row.clock_skew_us = 7 * SECOND;
    });
    world.rules[0].session_limit = rule.map(|(text, _)| text.to_owned());
    world.rules[0].session_limit_us = rule.and_then(|(_, micros)| micros);
    let decision = world.login(&token(&claims_with(json!({})))).unwrap();
    decision.end.map(|end| (end.at - world.now, end.by_token))
}

#[test]
fn tighter_limit_holds() {
    let none = ("none", None);
    let hour = ("1 hour", Some(HOUR));
    let minute = ("1 minute", Some(60 * SECOND));
    let by_token = ("token", None);
    // The token of the tests expires in 300 s, and the skew is 7 s.
    let token_end = Some((307 * SECOND, true));
    assert_eq!(lasts(none, None), None);
    assert_eq!(lasts(none, Some(none)), None);
    assert_eq!(lasts(hour, None), Some((HOUR, false)));
    assert_eq!(lasts(hour, Some(none)), Some((HOUR, false)));
    assert_eq!(lasts(none, Some(hour)), Some((HOUR, false)));
    assert_eq!(lasts(hour, Some(minute)), Some((60 * SECOND, false)));
    assert_eq!(lasts(minute, Some(hour)), Some((60 * SECOND, false)));
    assert_eq!(lasts(by_token, None), token_end);
    assert_eq!(lasts(none, Some(by_token)), token_end);
    assert_eq!(lasts(hour, Some(by_token)), token_end);
    assert_eq!(lasts(minute, Some(by_token)), Some((60 * SECOND, false)));
    assert_eq!(lasts(("for ever", Some(i64::MAX)), None).unwrap().0, i64::MAX - NOW * SECOND);
}

fn revocation(subject: &str, until: i64, tokens_before: Option<i64>) -> Revocation {
    Revocation { provider: "corp".to_owned(), subject: subject.to_owned(), until, tokens_before }
}

#[test]
fn n112_revoked_identity_is_refused() {
    let now = NOW * SECOND;
    let good = token(&claims_with(json!({})));
    let undated = token(&claims_with(json!({"iat": null})));
    // The token was issued 10 s ago.
    let issued = now - 10 * SECOND;
    let cases = [
        (i64::MAX, None, "identity_revoked", "identity_revoked"),
        (now + 1, None, "identity_revoked", "identity_revoked"),
        (now, None, "accepted", "accepted"),
        (i64::MIN, None, "accepted", "accepted"),
        (i64::MIN, Some(issued), "sessions_ended", "sessions_ended"),
        (i64::MIN, Some(issued - 1), "accepted", "sessions_ended"),
        (i64::MAX, Some(issued - 1), "identity_revoked", "identity_revoked"),
    ];
    for (until, before, with_iat, without_iat) in cases {
        let revocations = vec![
            revocation("a", i64::MAX, None),
            revocation("u1", until, before),
            revocation("z", i64::MAX, None),
        ];
        let world = World { revocations, ..World::new() };
        assert_eq!(world.outcome(&good), with_iat, "{until} {before:?}");
        assert_eq!(world.outcome(&undated), without_iat, "{until} {before:?}");
    }
    for other in ["u", "u10", "U1", ""] {
        let world = World { revocations: vec![revocation(other, i64::MAX, None)], ..World::new() };
        assert_eq!(world.outcome(&good), "accepted", "{other:?}");
    }
    let other = Revocation { provider: "other".to_owned(), ..revocation("u1", i64::MAX, None) };
    assert_eq!(World { revocations: vec![other], ..World::new() }.outcome(&good), "accepted");
}

#[test]
fn revocations_have_bounds() {
    let policy =
        || PolicyImage::build(vec![compile_provider(&provider_row(), false).unwrap()], vec![]).unwrap();
    let many = |count: usize| (0..count).map(|n| revocation(&n.to_string(), 0, None)).collect();
    assert!(policy().with_revocations(many(limits::REVOCATIONS)).is_ok());
    let error = policy().with_revocations(many(limits::REVOCATIONS + 1)).unwrap_err();
    assert_eq!(error, ImageError::TooManyRevocations);
    let twice = vec![revocation("u1", 0, None), revocation("u1", 1, None)];
    assert_eq!(policy().with_revocations(twice).unwrap_err(), ImageError::Repeated("u1".to_owned()));
}

fn standing(provider: ProviderRow, rules: &[RuleRow], revocations: Vec<Revocation>) -> Standing {
    let rules = rules.iter().map(|row| compile_rule(row).unwrap()).collect();
    let policy = PolicyImage::build(vec![compile_provider(&provider, false).unwrap()], rules).unwrap();
    Standing::of(&policy.with_revocations(revocations).unwrap())
}

#[test]
fn n136_session_loses_its_ground() {
    let now = NOW * SECOND;
    let rule = || rule_row(1, &json!({"groups": "readers"}), "reader");
    let ground =
        Ground { provider: "corp", subject: "u1", rules: &[1], person: None, issued_at: Some(now - HOUR) };
    let lost = |standing: &Standing| standing.lost(&ground, now);
    let kept = standing(provider_row(), &[rule()], vec![revocation("u2", i64::MAX, None)]);
    assert_eq!(lost(&kept), None);
    assert_eq!(kept.lost(&Ground { rules: &[1, 2], ..ground }, now), Some(Cause::Rule));
    assert_eq!(kept.lost(&Ground { provider: "corp2", ..ground }, now), Some(Cause::Provider));
    assert_eq!(kept.lost(&Ground { subject: "u2", ..ground }, now), Some(Cause::Revoked));
    assert_eq!(lost(&Standing::default()), Some(Cause::Provider), "no policy at all");

    // Changed, but still there: the session goes on.
    let changed = RuleRow { matches: json!({"groups": "others"}).to_string(), ..rule() };
    assert_eq!(lost(&standing(provider_row(), &[changed], vec![])), None);
    let disabled = RuleRow { enabled: false, ..rule() };
    assert_eq!(lost(&standing(provider_row(), &[disabled], vec![])), Some(Cause::Rule));
    let denies = RuleRow { effect: "deny".to_owned(), role: None, ..rule() };
    assert_eq!(lost(&standing(provider_row(), &[denies], vec![])), Some(Cause::Rule));
    for (valid_until, expected) in [(now + 1, None), (now, Some(Cause::Rule)), (now - 1, Some(Cause::Rule))] {
        let rule = RuleRow { valid_until: Some(valid_until), ..rule() };
        assert_eq!(lost(&standing(provider_row(), &[rule], vec![])), expected, "{valid_until}");
    }
    let disabled = ProviderRow { enabled: false, ..provider_row() };
    assert_eq!(lost(&standing(disabled, &[rule()], vec![])), Some(Cause::Provider));

    let revoked = |until, before| standing(provider_row(), &[rule()], vec![revocation("u1", until, before)]);
    assert_eq!(lost(&revoked(i64::MAX, None)), Some(Cause::Revoked));
    assert_eq!(lost(&revoked(now, None)), None);
    assert_eq!(lost(&revoked(i64::MIN, Some(now - HOUR))), Some(Cause::Ended));
    assert_eq!(lost(&revoked(i64::MIN, Some(now - HOUR - 1))), None);
    let undated = Ground { issued_at: None, ..ground };
    assert_eq!(revoked(i64::MIN, Some(0)).lost(&undated, now), Some(Cause::Ended));
}

#[test]
fn causes_are_numbered_from_1() {
    for cause in Cause::ALL {
        assert_eq!(Cause::of(cause as u8), Some(cause), "{}", cause.code());
    }
    assert_eq!((Cause::of(0), Cause::of(8)), (None, None));
}
