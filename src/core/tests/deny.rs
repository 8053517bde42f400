//! Rules that deny, and in which order rules decide.
//!
//! 1. a rule that denies refuses whoever it matches, whatever allows
//! 2. provider, databases, addresses, validity and replication limit it: confines.rs has each border
//! 3. n097: one that does not compile any more refuses everybody of its provider, and nobody else
//! 4. n099: priority, then id; a role login asks for one role

use pg_oidc_core::decision::{Replication, Request, decide};
use pg_oidc_core::image::{PolicyImage, check_policy, encode_policy};
use pg_oidc_core::provider::{ProviderRow, compile_provider};
use pg_oidc_core::rules::{RuleRow, compile_rule};
use pg_oidc_core::verify::Verified;
use serde_json::{Value, json};

use crate::common::{Policy, World, claims, claims_with, provider_row, rule_row, token};

fn allow(id: i64, matches: Value, role: &str) -> RuleRow {
    rule_row(id, &matches, role)
}

fn deny(id: i64, matches: Value) -> RuleRow {
    RuleRow { effect: "deny".to_owned(), role: None, replication: None, ..rule_row(id, &matches, "") }
}

fn outcome(rules: Vec<RuleRow>) -> &'static str {
    World::with_rules(rules).outcome(&token(&claims()))
}

#[test]
fn a_rule_that_denies_refuses_though_another_allows() {
    let readers = || allow(1, json!({"groups": "readers"}), "reader");
    assert_eq!(outcome(vec![readers()]), "accepted");
    for rule in [
        json!({"groups": "staff"}),
        json!({"sub": "u1"}),
        json!({}),
        json!({"groups": {"regex": "sta(.*)"}}),
        json!({"groups": {"glob": "*ff"}}),
        json!({"tenant": {"exists": false}}),
        json!({"amr": {"not": "mfa"}}),
        json!({"groups": {"any": ["x", {"regex": ".*aff"}]}, "sub": "u1"}),
    ] {
        assert_eq!(outcome(vec![readers(), deny(2, rule.clone())]), "denied_by_rule", "{rule}");
        assert_eq!(outcome(vec![deny(2, rule.clone()), readers()]), "denied_by_rule", "{rule}");
        // It says nothing about roles: whoever is asked for, and though nothing allows.
        assert_eq!(outcome(vec![deny(2, rule)]), "denied_by_rule");
    }
    for near in [
        json!({"groups": "Staff"}),
        json!({"sub": "u2"}),
        json!({"groups": "staff", "sub": "u2"}),
        json!({"groups": {"regex": "taf"}}),
        json!({"groups": {"not": "staff"}}),
        json!({"tenant": {"exists": true}}),
        json!({"amr": "mfa"}),
    ] {
        assert_eq!(outcome(vec![readers(), deny(2, near.clone())]), "accepted", "{near}");
    }
    let disabled = RuleRow { enabled: false, ..deny(2, json!({})) };
    assert_eq!(outcome(vec![readers(), disabled]), "accepted");
}

#[test]
fn priority_does_not_help_against_a_rule_that_denies() {
    let first = RuleRow { priority: i32::MIN, ..allow(1, json!({}), "reader") };
    let last = RuleRow { priority: i32::MAX, ..deny(i64::MAX, json!({"groups": "staff"})) };
    assert_eq!(outcome(vec![first, last]), "denied_by_rule");
    // The first of those that deny is the one that is named.
    let world = World::with_rules(vec![
        deny(5, json!({"groups": "staff"})),
        RuleRow { priority: 7, ..deny(9, json!({"groups": "readers"})) },
        RuleRow { priority: 6, ..deny(8, json!({"groups": "others"})) },
        allow(1, json!({}), "reader"),
    ]);
    let refusal = world.login(&token(&claims())).unwrap_err();
    assert!(refusal.detail().ends_with("It is rule 9."), "{}", refusal.detail());
}

#[test]
fn a_rule_that_denies_is_for_both_kinds_of_connection_unless_it_says() {
    let verified = World::new().verified(&token(&claims())).unwrap();
    for kind in [Replication::None, Replication::Physical, Replication::Database] {
        let replication = kind != Replication::None;
        let allow = RuleRow { replication: Some(replication), ..allow(1, json!({}), "reader") };
        let request = Request { replication: kind, ..World::new().request() };
        for (only, refused) in [(None, true), (Some(replication), true), (Some(!replication), false)] {
            let deny = RuleRow { replication: only, ..deny(2, json!({})) };
            let found = Policy::new(&[allow.clone(), deny]).decide(&verified, &request);
            assert_eq!(found, if refused { Err("denied_by_rule") } else { Ok(1) }, "{kind:?} {only:?}");
        }
    }
}

/// A policy of two providers, `corp` and `other`, and what it says to a token of `corp`.
fn two_providers(
    rules: &[RuleRow],
    broken: &[(&str, i64)],
    verified: &Verified,
    request: &Request<'_>,
) -> Result<i64, &'static str> {
    let other =
        ProviderRow { name: "other".to_owned(), issuer: "https://a.example".to_owned(), ..provider_row() };
    let providers = [provider_row(), other].map(|row| compile_provider(&row, false).unwrap());
    let rules = rules.iter().map(|row| compile_rule(row).unwrap()).collect();
    let mut image = PolicyImage::build(providers.to_vec(), rules).unwrap();
    for (provider, id) in broken {
        image = image.with_broken_denial(provider, *id);
    }
    let bytes = encode_policy(&image).unwrap();
    decide(check_policy(&bytes).unwrap(), verified, request)
        .map(|decision| decision.rule_id)
        .map_err(|refusal| refusal.code())
}

#[test]
fn a_rule_denies_only_tokens_of_its_provider() {
    let verified = World::new().verified(&token(&claims())).unwrap();
    let request = World::new().request();
    let allow = allow(1, json!({}), "reader");
    let elsewhere = RuleRow { provider: "other".to_owned(), ..deny(2, json!({})) };
    assert_eq!(two_providers(&[allow.clone(), elsewhere], &[], &verified, &request), Ok(1));
    let here = deny(2, json!({}));
    assert_eq!(two_providers(&[allow, here], &[], &verified, &request), Err("denied_by_rule"));
}

#[test]
fn n097_a_broken_rule_that_denies_refuses_everybody_of_its_provider() {
    let rules = [
        RuleRow { priority: -1, ..allow(1, json!({}), "reader") },
        RuleRow { provider: "other".to_owned(), ..allow(3, json!({}), "reader") },
    ];
    let corp = World::new().verified(&token(&claims())).unwrap();
    let mut world = World::new();
    world.providers[0].0.name = "other".to_owned();
    world.providers[0].0.issuer = "https://a.example".to_owned();
    let other = world.verified(&token(&claims_with(json!({"iss": "https://a.example"})))).unwrap();
    let request = World::new().request();
    let decide = |broken: &[(&str, i64)]| {
        (two_providers(&rules, broken, &corp, &request), two_providers(&rules, broken, &other, &request))
    };
    assert_eq!(decide(&[]), (Ok(1), Ok(3)));
    assert_eq!(decide(&[("corp", 9)]), (Err("broken_deny_rule"), Ok(3)));
    assert_eq!(decide(&[("other", 9)]), (Ok(1), Err("broken_deny_rule")));
    assert_eq!(decide(&[("corp", 9), ("other", 8)]), (Err("broken_deny_rule"), Err("broken_deny_rule")));
    assert_eq!(decide(&[("Corp", 9), ("", 1), ("corp ", 2)]), (Ok(1), Ok(3)));
    // Whoever it is, wherever from, whatever is asked for.
    for request in [
        Request { user: "nobody", ..request },
        Request { database: "other", ..request },
        Request { replication: Replication::Physical, ..request },
        Request { address: Some("::1".parse().unwrap()), ..request },
        Request { now: 0, ..request },
    ] {
        assert_eq!(two_providers(&rules, &[("corp", 9)], &corp, &request), Err("broken_deny_rule"));
    }
    // The one with the lowest id is named, in whichever order they were found.
    let provider = compile_provider(&provider_row(), false).unwrap();
    for order in [[7, 5, 6], [5, 6, 7], [6, 7, 5]] {
        let image = PolicyImage::build(vec![provider.clone()], vec![]).unwrap();
        let image = order.iter().fold(image, |image, id| image.with_broken_denial("corp", *id));
        let bytes = encode_policy(&image).unwrap();
        let refusal =
            pg_oidc_core::decision::decide(check_policy(&bytes).unwrap(), &corp, &request).unwrap_err();
        assert!(refusal.detail().ends_with("It is rule 5."), "{}", refusal.detail());
    }
}

#[test]
fn a_rule_that_denies_decides_before_everything_but_the_provider() {
    let verified = World::new().verified(&token(&claims())).unwrap();
    let deny = deny(2, json!({}));
    let stale = RuleRow { role_oid: 1, ..allow(1, json!({}), "reader") };
    let policy = Policy::new(&[stale, deny]);
    let request = World::new().request();
    for request in [request, Request { user: "nobody", ..request }, Request { role_oid: 0, ..request }] {
        assert_eq!(policy.decide(&verified, &request), Err("denied_by_rule"));
    }
    let mut changed = World::with_rules(vec![]);
    changed.providers[0].0.enabled = false;
    assert_eq!(changed.outcome(&token(&claims())), "provider_disabled");
}

#[test]
fn n099_the_first_rule_by_priority_and_id_decides() {
    let rule = |id, priority, member: Value, role| RuleRow { priority, ..rule_row(id, &member, role) };
    // Found in many ways: by value, by start, by end, by none.
    let ways = [
        json!({"groups": "staff"}),
        json!({"groups": {"regex": "sta.*"}}),
        json!({"groups": {"glob": "*ers"}}),
        json!({"groups": {"regex": "[rs].*"}}),
        json!({}),
        json!({"groups": {"any": ["staff", {"not": "x"}]}}),
    ];
    let verified = World::new().verified(&token(&claims())).unwrap();
    for first in 0..ways.len() {
        for tie in [false, true] {
            let rules: Vec<RuleRow> = ways
                .iter()
                .enumerate()
                .map(|(number, member)| {
                    // The last ids come first, but for the one that is to decide.
                    let id = if number == first { 0 } else { 100 - number as i64 };
                    let priority = if number == first && !tie { -5 } else { 3 };
                    rule(if tie { id } else { id + 200 }, priority, member.clone(), "reader")
                })
                .collect();
            let wanted = if tie { 0 } else { 200 };
            let policy = Policy::new(&rules);
            assert_eq!(policy.decide(&verified, &World::new().request()), Ok(wanted), "{first} {tie}");
        }
    }
    let policy = Policy::new(&[
        rule(1, 1, json!({}), "writer"),
        rule(2, 2, json!({}), "reader"),
        rule(3, 0, json!({"x": 1}), "reader"),
    ]);
    let decide = |user| policy.decide(&verified, &Request { user, ..World::new().request() });
    assert_eq!((decide("reader"), decide("writer"), decide("owner")), (Ok(2), Ok(1), Err("user_not_mapped")));
}
