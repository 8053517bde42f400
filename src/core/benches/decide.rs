//! What a login costs beyond the signature: parse, select, verify and decide beside the library's bare check.
//!
//! `cargo bench -p pg_oidc_core`. Rounds of both are interleaved in one run, and medians are printed: on a noisy machine
//! only their ratio means something. Asserts nothing about time.

#[allow(dead_code, reason = "the tests' issuer, of which a benchmark needs a part")]
#[path = "../tests/common.rs"]
mod common;

use std::hint::black_box;
use std::time::Instant;

use common::{ED25519, NOW, P256, ROLE_OID, RSA_A, Signer, claims_with, provider_row, rule_row};
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use pg_oidc_core::decision::{Replication, Request, Selection, decide, select};
use pg_oidc_core::image::{
    ArchivedKeyringImage, ArchivedPolicyImage, KeyringImage, PolicyImage, ProviderKeys, check_keyring,
    check_policy, encode_keyring, encode_policy,
};
use pg_oidc_core::keys::parse_jwks;
use pg_oidc_core::limits::{SECOND, TOKEN_BYTES};
use pg_oidc_core::provider::compile_provider;
use pg_oidc_core::rules::compile_rule;
use pg_oidc_core::{token, verify};
use serde_json::{Value, json};

const ROUNDS: usize = 41;
const PER_ROUND: u32 = 200;

fn main() {
    println!(
        "token of 1 kB with 20 groups, 10 rules; median of {ROUNDS} interleaved rounds of {PER_ROUND}\n"
    );
    println!("{:<8} {:>14} {:>14} {:>14} {:>10}", "", "bare check", "whole login", "around it", "of RS256");
    let cases = [
        ("RS256", &*RSA_A, Algorithm::RS256),
        ("ES256", &*P256, Algorithm::ES256),
        ("EdDSA", &*ED25519, Algorithm::EdDSA),
    ];
    let mut rs256 = None;
    for (name, signer, algorithm) in cases {
        let (bare, whole) = measure(name, signer, algorithm);
        let (around, rs256) = (whole - bare, *rs256.get_or_insert(bare));
        println!(
            "{name:<8} {bare:>11.1} us {whole:>11.1} us {around:>11.1} us {:>9.0}%",
            100.0 * around / rs256
        );
    }
}

/// Median microseconds of the bare signature check, and of everything a login asks of this crate.
fn measure(name: &str, signer: &Signer, algorithm: Algorithm) -> (f64, f64) {
    let text = token_of_1_kb(name, signer);
    let (input, signature) = text.rsplit_once('.').unwrap();
    let key = public_key(&signer.jwk());
    let row = provider_row();
    let provider = compile_provider(&row, false).unwrap();
    let jwks = json!({ "keys": [signer.jwk()] }).to_string();
    let entry = ProviderKeys {
        name: provider.name.clone(),
        key_source: provider.key_source,
        fetched_at: 0,
        attempted_at: 0,
        static_keys: true,
        keys: parse_jwks(jwks.as_bytes(), &provider.algorithms).unwrap().keys,
        reports: vec![],
        origin: String::new(),
        next_fetch_at: None,
        last_error: None,
    };
    let rule =
        |id: i64| compile_rule(&rule_row(id, &json!({ "groups": format!("group-{id}") }), "reader")).unwrap();
    let policy =
        encode_policy(&PolicyImage::build(vec![provider], (0..10).map(rule).collect()).unwrap()).unwrap();
    let keyring = encode_keyring(&KeyringImage::build(vec![entry]).unwrap()).unwrap();
    let (policy, keyring) = (check_policy(&policy).unwrap(), check_keyring(&keyring).unwrap());

    let (mut bare, mut whole) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare.push(time(|| assert!(crypto::verify(signature, input.as_bytes(), &key, algorithm).unwrap())));
        whole.push(time(|| login(policy, keyring, &text)));
    }
    (median(bare), median(whole))
}

fn login(policy: &ArchivedPolicyImage, keyring: &ArchivedKeyringImage, text: &str) {
    let now = NOW * SECOND;
    let untrusted = token::parse(text.as_bytes(), TOKEN_BYTES).unwrap();
    let Selection::Ready(selected) = select(policy, keyring, &untrusted, now).unwrap() else {
        panic!("no key")
    };
    let verified = verify::verify(untrusted, &selected, now).unwrap();
    let request = Request {
        user: "reader",
        database: "app",
        role_oid: ROLE_OID,
        address: None,
        replication: Replication::None,
        now,
    };
    black_box(decide(policy, &verified, &request).unwrap());
}

fn token_of_1_kb(algorithm: &str, signer: &Signer) -> String {
    let groups: Vec<String> = (0..20).map(|number| format!("group-{number}")).collect();
    let padding = "x".repeat(180);
    let payload = claims_with(json!({ "groups": groups, "note": padding })).to_string();
    signer.token(&json!({ "alg": algorithm, "kid": signer.kid() }).to_string(), &payload)
}

fn public_key(jwk: &Value) -> DecodingKey {
    let part = |name: &str| jwk[name].as_str().unwrap();
    match part("kty") {
        "RSA" => DecodingKey::from_rsa_components(part("n"), part("e")),
        "EC" => DecodingKey::from_ec_components(part("x"), part("y")),
        _ => DecodingKey::from_ed_components(part("x")),
    }
    .unwrap()
}

fn time(run: impl Fn()) -> f64 {
    let began = Instant::now();
    (0..PER_ROUND).for_each(|_| run());
    began.elapsed().as_secs_f64() * 1e6 / f64::from(PER_ROUND)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
