//! Images: what was built or nothing, whatever becomes of the bytes.

use std::sync::LazyLock;

use pg_oidc_core::decision::{Replication, Request, decide};
use pg_oidc_core::image::{PolicyImage, check_policy, encode_policy};
use pg_oidc_core::provider::{ProviderRow, compile_provider};
use pg_oidc_core::rules::{RuleRow, compile_rule};
use pg_oidc_core::verify::Verified;
use proptest::prelude::*;
use serde_json::json;

use crate::common::{World, claims_with, provider_row, rule_row, token};
use crate::rows::some;

/// A policy with something of everything.
static BYTES: LazyLock<rkyv::util::AlignedVec> = LazyLock::new(|| {
    let tests = [
        json!("readers"),
        json!({"regex": "(read)ers"}),
        json!({"regex": ".*ers"}),
        json!({"glob": "read**"}),
        json!({"any": ["a", 1, null, true, {"regex": "x.*"}, {"not": {"any": ["b"]}}]}),
        json!({"not": {"not": {"not": "c"}}}),
        json!({"exists": true}),
    ];
    let mut rules = vec![];
    for (id, test) in tests.iter().enumerate() {
        let id = id as i64;
        let allow = RuleRow {
            databases: (id % 2 == 0).then(|| some(&["app", "other"])),
            addresses: (id % 3 == 0).then(|| some(&["10.0.0.0/8", "::/0"])),
            valid_from: (id % 2 == 1).then_some(5),
            replication: Some(id % 4 == 3),
            ..rule_row(id, &json!({"groups": test, "/n/x": {"not": 1}}), "reader")
        };
        let deny = RuleRow {
            id: id + 50,
            effect: "deny".to_owned(),
            role: None,
            matches: json!({"groups": test, "sub": "nobody"}).to_string(),
            ..allow.clone()
        };
        rules.extend([allow, deny]);
    }
    rules.push(rule_row(99, &json!({"groups": {"regex": "(.+)s"}}), "\\1_x"));
    let provider = ProviderRow {
        required_claims: Some(r#"{"groups":{"any":["readers",{"glob":"r*"}]}}"#.to_owned()),
        ..provider_row()
    };
    let provider = compile_provider(&provider, false).unwrap();
    let rules = rules.iter().map(|row| compile_rule(row).unwrap()).collect();
    encode_policy(&PolicyImage::build(vec![provider], rules).unwrap()).unwrap()
});

static VERIFIED: LazyLock<Verified> = LazyLock::new(|| {
    let mut world = World::new();
    world.providers[0].0.required_claims = Some(r#"{"groups":{"any":["readers",{"glob":"r*"}]}}"#.to_owned());
    world
        .verified(&token(&claims_with(json!({"groups": ["readers", "x", "writers"], "n": {"x": 2}}))))
        .unwrap()
});

/// How many of some requests are granted; none, if the bytes are refused.
fn decide_all(bytes: &[u8]) -> usize {
    let Ok(policy) = check_policy(bytes) else {
        return 0;
    };
    let request = World::new().request();
    let replication = Replication::Physical;
    let requests = [
        request,
        Request { user: "writer_x", address: Some("10.1.1.1".parse().unwrap()), ..request },
        Request { replication, address: Some("::1".parse().unwrap()), ..request },
        Request { user: "nobody", replication: Replication::Database, ..request },
    ];
    requests.iter().filter(|request| decide(policy, &VERIFIED, request).is_ok()).count()
}

#[test]
fn the_policy_as_it_was_built_lets_in() {
    assert_eq!(decide_all(&BYTES), 3);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changed_bytes_are_refused_or_decide_without_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0..8_u32), 1..4),
    ) {
        let mut bytes = BYTES.clone();
        for (place, bit) in flips {
            let place = place.index(bytes.len());
            bytes[place] ^= 1 << bit;
        }
        decide_all(&bytes);
    }

    #[test]
    fn words_put_elsewhere_are_refused_or_decide_without_panic(
        from in any::<prop::sample::Index>(), to in any::<prop::sample::Index>(), length in 1..64_usize,
    ) {
        let mut bytes = BYTES.clone();
        let (from, to) = (from.index(bytes.len() - length), to.index(bytes.len() - length));
        bytes.copy_within(from..from + length, to);
        decide_all(&bytes);
    }

    #[test]
    fn a_part_is_refused(end in any::<prop::sample::Index>(), start in any::<prop::sample::Index>()) {
        let end = end.index(BYTES.len());
        decide_all(&BYTES[..end]);
        let start = start.index(BYTES.len()) & !15;
        decide_all(&BYTES[start..]);
    }
}
