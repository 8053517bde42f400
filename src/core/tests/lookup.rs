//! The index finds what a scan of all rules would find, and an image is what was built or nothing.

use std::time::Instant;

use pg_oidc_core::decision::{Request, decide};
use pg_oidc_core::image::{
    ImageError, KeyringImage, PolicyImage, ProviderKeys, check_keyring, check_policy, encode_keyring,
    encode_policy,
};
use pg_oidc_core::provider::compile_provider;
use pg_oidc_core::rules::{RuleRow, compile_rule};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::common::{Policy, World, claims, claims_with, provider_row, rule_row, token};

/// Values from a small set, so that rules and tokens meet often.
fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!("a")),
        Just(json!("b")),
        Just(json!("1")),
        Just(json!(1)),
        Just(json!(2)),
        Just(json!(true)),
        Just(json!(null)),
    ]
}

fn rule_members() -> impl Strategy<Value = Vec<(&'static str, Value)>> {
    let member =
        (prop_oneof![Just("x"), Just("y"), Just("/x"), Just("/n/x"), Just("/x/0"), Just("scope")], value());
    prop::collection::vec(member, 0..4)
}

fn claim() -> impl Strategy<Value = Value> {
    prop_oneof![value(), prop::collection::vec(value(), 0..4).prop_map(Value::from), Just(json!("a b"))]
}

/// The meaning of a member, written down a second time without any of the code under test.
fn holds(claims: &Value, name: &str, wanted: &Value) -> bool {
    let found = if name.starts_with('/') { claims.pointer(name) } else { claims.get(name) };
    match found {
        Some(Value::String(words)) if name == "scope" => words.split(' ').any(|word| wanted == word),
        Some(Value::Array(elements)) => elements.contains(wanted),
        Some(value) => value == wanted,
        None => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn index_finds_what_a_scan_finds(
        rules in prop::collection::vec((rule_members(), -2..3_i32, 0..3_usize), 0..12),
        claims in (claim(), claim(), claim(), claim()),
    ) {
        const ROLES: [&str; 3] = ["reader", "writer", "owner"];
        let (x, y, nested, scope) = claims;
        let claims = claims_with(json!({"n": {"x": nested}}));
        let mut claims = claims;
        for (name, value) in [("x", x), ("y", y), ("scope", scope)] {
            claims[name] = value;
        }
        let rows: Vec<(RuleRow, bool)> = rules
            .into_iter()
            .zip(1..)
            .map(|((members, priority, role), id)| {
                let matches: Value = members.into_iter().collect();
                let all = matches.as_object().unwrap().iter().all(|(name, value)| holds(&claims, name, value));
                (RuleRow { priority, ..rule_row(id, &matches, ROLES[role]) }, all)
            })
            .collect();
        let world = World::with_rules(rows.iter().map(|(row, _)| row.clone()).collect());
        let verified = world.verified(&token(&claims)).unwrap();
        let rules = world.rules.iter().map(|row| compile_rule(row).unwrap()).collect();
        let provider = compile_provider(&provider_row(), false).unwrap();
        let bytes = encode_policy(&PolicyImage::build(vec![provider], rules).unwrap()).unwrap();
        let policy = check_policy(&bytes).unwrap();
        for user in ROLES {
            let scanned = rows
                .iter()
                .filter(|(row, all)| *all && row.role.as_deref() == Some(user))
                .map(|(row, _)| (row.priority, row.id))
                .min();
            let wanted = match scanned {
                Some((_, id)) => Ok(id),
                None if rows.iter().any(|(_, all)| *all) => Err("user_not_mapped"),
                None => Err("no_rule"),
            };
            let found = decide(policy, &verified, &Request { user, ..world.request() });
            prop_assert_eq!(found.map(|decision| decision.rule_id).map_err(|refusal| refusal.code()), wanted);
        }
    }

    #[test]
    fn any_bytes_are_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(World::new().login_bytes(&bytes).is_err());
        let _ = check_policy(&bytes);
        let _ = check_keyring(&bytes);
        let _ = pg_oidc_core::keys::parse_jwks(&bytes, &pg_oidc_core::algorithm::Algorithm::ALL);
    }

    #[test]
    fn any_payload_is_judged_without_panic(payload in r#"[\[\]{}",:0-9eE+\-.a\\ustrfn]{0,60}"#) {
        let _ = World::new().login(&crate::common::token_raw(payload));
    }
}

/// Each length of a literal is looked up by itself, at both ends, in bytes.
#[test]
fn literals_of_every_length_are_found() {
    for unit in ["x", "\u{e9}"] {
        let literal = |id: i64| unit.repeat(usize::try_from(id).unwrap());
        // A longer literal is only found where the text has one.
        let rows = (1..60).flat_map(|id| {
            let start = json!({"t": {"glob": format!("{}-*", literal(id))}});
            let end = json!({"t": {"regex": format!("[^x].*-{}", literal(id))}});
            [rule_row(id, &start, "reader"), rule_row(id + 100, &end, "reader")]
        });
        let policy = Policy::new(&rows.collect::<Vec<_>>());
        let decide = |text: String| {
            let verified = World::new().verified(&token(&claims_with(json!({ "t": text })))).unwrap();
            policy.decide(&verified, &World::new().request())
        };
        for id in 1..60 {
            assert_eq!(decide(format!("{}-a", literal(id))), Ok(id));
            assert_eq!(decide(format!("a-{}", literal(id))), Ok(id + 100));
        }
        assert_eq!(decide(format!("{}-a", literal(60))), Err("no_rule"));
        assert_eq!(decide(format!("a-{}", literal(60))), Err("no_rule"));
        assert_eq!(decide(literal(7)), Err("no_rule"));
    }
}

#[test]
fn the_cost_does_not_grow_with_the_rules() {
    let provider = compile_provider(&provider_row(), false).unwrap();
    let policy = |count: i64| {
        // All share one member, as in a house where every rule also asks for the tenant.
        let rules = (0..count)
            .map(|id| {
                let row =
                    rule_row(id, &json!({"tenant": "t", "groups": format!("g{id}")}), &format!("r{id}"));
                compile_rule(&row).unwrap()
            })
            .collect();
        encode_policy(&PolicyImage::build(vec![provider.clone()], rules).unwrap()).unwrap()
    };
    let verified =
        World::new().verified(&token(&claims_with(json!({"tenant": "t", "groups": ["g7"]})))).unwrap();
    let best_of = |bytes: &[u8]| {
        let policy = check_policy(bytes).unwrap();
        let once = || {
            let start = Instant::now();
            let decision =
                decide(policy, &verified, &Request { user: "r7", ..World::new().request() }).unwrap();
            assert_eq!(decision.rule_id, 7);
            start.elapsed()
        };
        (0..200).map(|_| once()).min().unwrap()
    };
    let (few, many) = (policy(10), policy(100_000));
    let (few_time, many_time) = (best_of(&few), best_of(&many));
    println!("10 rules: {few_time:?}; 100,000 rules: {many_time:?}, {} bytes", many.len());
    // A scan would cost 10,000 times as much.
    assert!(many_time < few_time * 20, "{few_time:?} {many_time:?}");
}

#[test]
fn images_are_checked_and_aligned() {
    let provider = compile_provider(&provider_row(), false).unwrap();
    let rule = compile_rule(&rule_row(1, &json!({"groups": "readers"}), "reader")).unwrap();
    let bytes = encode_policy(&PolicyImage::build(vec![provider], vec![rule]).unwrap()).unwrap();
    let policy = check_policy(&bytes).unwrap();
    assert_eq!(policy.rule_count(), 1);
    assert_eq!(policy.providers().map(|provider| provider.name.as_str()).collect::<Vec<_>>(), ["corp"]);
    assert_eq!(check_policy(&[]).err(), Some(ImageError::Invalid));
    assert_eq!(check_policy(&bytes[..bytes.len() - 1]).err(), Some(ImageError::Invalid));
    let mut moved = rkyv::util::AlignedVec::<16>::new();
    moved.extend_from_slice(&[0]);
    moved.extend_from_slice(&bytes);
    assert_eq!(check_policy(&moved[1..]).err(), Some(ImageError::Invalid));

    let key_source = 7;
    let entry = ProviderKeys {
        name: "corp".to_owned(),
        key_source,
        fetched_at: 5,
        attempted_at: 5,
        static_keys: true,
        keys: vec![],
        reports: vec![],
        origin: "jwks".to_owned(),
        next_fetch_at: None,
        last_error: None,
    };
    let twice = KeyringImage::build(vec![entry.clone(), entry.clone()]);
    assert_eq!(twice.unwrap_err(), ImageError::Repeated("corp".to_owned()));
    let bytes = encode_keyring(&KeyringImage::build(vec![entry]).unwrap()).unwrap();
    assert_eq!(check_keyring(&bytes).unwrap().providers().count(), 1);
}

#[test]
fn static_keys_never_grow_old() {
    let world = World { fetched_at: i64::MIN, ..World::new() };
    assert_eq!(world.outcome(&token(&claims())), "keys_stale");
    assert_eq!(World { static_keys: true, ..world }.outcome(&token(&claims())), "accepted");
}
