//! The functions that are fuzzed (`fuzz/`), on their seeds and on what proptest makes of them.
//!
//! 1. Every seed comes as far as it should: a check that refuses everything would prove nothing.
//! 2. Images with any one byte changed.
//! 3. Seeds with some bytes and words changed.

use proptest::prelude::*;
use proptest::sample::Index;

use crate::fuzz::{discovery, house, image, jwks, matching, seeds, token};

#[test]
fn every_seed_comes_as_far_as_it_should() {
    for seed in seeds::good_tokens() {
        assert_eq!(token::check(&seed), "accepted", "{}", seed.escape_ascii());
    }
    let mut codes: Vec<&str> = seeds::bad_tokens().iter().map(|seed| token::check(seed)).collect();
    let several = codes.len();
    codes.sort_unstable();
    codes.dedup();
    assert!(!codes.contains(&"accepted") && !codes.contains(&"verified"), "{codes:?}");
    assert!(codes.len() > several * 3 / 4, "{codes:?}");
    assert!(seeds::key_sets().iter().all(|seed| jwks::check(seed) > 0));
    assert!(seeds::near_key_sets().iter().all(|seed| jwks::check(seed) == 0));
    assert!(seeds::near_discoveries().iter().all(|seed| !discovery::check(seed)));
    assert!(seeds::discoveries().iter().all(|seed| discovery::check(seed)));
    assert!(seeds::matches().iter().all(|seed| matching::check(seed).0));
    assert!(seeds::matches().iter().filter(|seed| matching::check(seed).1).count() > 5);
    for seed in seeds::odd_matches() {
        matching::check(&seed);
    }
    assert!(seeds::images().iter().all(|seed| image::check(seed)));
}

/// A byte that proptest seldom meets may be the number of a rule or a length.
#[test]
fn every_byte_of_an_image_may_be_wrong() {
    let cottage = house::cottage();
    let taken = |good: &[u8], check: fn(&[u8]) -> bool| {
        let changed = (0..good.len()).map(|place| {
            let mut bytes = good.to_vec();
            bytes[place] ^= 0x40;
            bytes
        });
        changed.filter(|bytes| check(bytes)).count()
    };
    assert!(taken(cottage.policy_bytes(), image::check_as_policy) > 0);
    assert!(taken(cottage.keyring_bytes(), image::check_as_keyring) > 0);
}

/// What is put into a seed.
const WORDS: [&str; 24] = [
    "\"",
    "\\",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "null",
    "true",
    "1e999",
    "-0.0",
    "\\u0000",
    "\\ud800",
    "\u{2028}",
    "iss",
    "exp",
    "kid",
    "\"groups\":[1]",
    "{\"not\":1}",
    ".",
    "=",
    "\u{7f}",
    "/",
];

/// A seed with up to six changes: a byte, a word put in, a piece taken away, a piece repeated.
fn changed(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<Index>(), 0..4_u8, any::<u8>(), 0..WORDS.len(), 1..20_usize);
    (prop::sample::select(seeds), prop::collection::vec(change, 0..6)).prop_map(|(mut bytes, changes)| {
        for (place, kind, byte, word, length) in changes {
            let from = place.index(bytes.len() + 1);
            let to = (from + length).min(bytes.len());
            match kind {
                0 => drop(bytes.splice(from..(from + 1).min(bytes.len()), [byte])),
                1 => drop(bytes.splice(from..from, WORDS[word].bytes())),
                2 => drop(bytes.drain(from..to)),
                _ => drop(bytes.splice(from..from, bytes[from..to].to_vec())),
            }
        }
        bytes
    })
}

fn all_tokens() -> Vec<Vec<u8>> {
    [seeds::good_tokens(), seeds::bad_tokens()].concat()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn token_to_decision(data in changed(all_tokens())) {
        token::check(&data);
    }

    #[test]
    fn key_set(data in changed([seeds::key_sets(), seeds::near_key_sets()].concat())) {
        jwks::check(&data);
    }

    #[test]
    fn discovery_document(data in changed([seeds::discoveries(), seeds::near_discoveries()].concat())) {
        discovery::check(&data);
    }

    #[test]
    fn match_document(data in changed([seeds::matches(), seeds::odd_matches()].concat())) {
        matching::check(&data);
    }

    #[test]
    fn image_bytes(data in changed(seeds::images())) {
        image::check(&data);
    }
}
