//! Published vectors, run unmodified inside the crate, by the functions that a login uses.
//!
//! Wycheproof (`fixtures/wycheproof`, Apache licence) and the JOSE cookbook, RFC 7520, 7797 and 8037
//! (`fixtures/rfc7520`). The payloads of the vectors are no claims, so those of a good login stand in their place once
//! the token has been read; all else is [`parse_jws`], [`select`] and [`verify`], with the keys as [`parse_jwks`] takes
//! them out of a key set. What is not judged as its label says stands in `fixtures/whitelist.json`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rkyv::util::AlignedVec;
use serde_json::{Value, json};

use crate::algorithm::Algorithm;
use crate::image::{
    KeyringImage, PolicyImage, ProviderKeys, check_keyring, check_policy, encode_keyring, encode_policy,
};
use crate::json::{TOKEN_BOUNDS, parse_object};
use crate::keys::{Key, parse_jwks};
use crate::limits::{SECOND, TOKEN_BYTES};
use crate::provider::{ProviderRow, compile_provider};
use crate::refusal::Refusal;
use crate::selection::{Selection, select};
use crate::token::{Untrusted, parse, parse_jws};
use crate::verify::verify;

/// What a case that is let in is judged as; every other verdict is the code of a refusal.
const ACCEPTED: &str = "accepted";

/// Seconds since the Unix epoch.
const NOW: i64 = 1_750_000_000;

/// One vector, as it is labelled and as it is judged.
struct Case {
    name: String,
    label: String,
    verdict: &'static str,
}

/// A suite: its name, its number of cases, and what runs it.
type Suite = (&'static str, usize, fn() -> Vec<Case>);

const SUITES: [Suite; 8] = [
    ("json_web_signature", 401, || tokens(include_str!("fixtures/wycheproof/json_web_signature_test.json"))),
    ("json_web_key", 26, || tokens(include_str!("fixtures/wycheproof/json_web_key_test.json"))),
    ("json_web_encryption", 139, encrypted),
    ("ecdsa_secp256r1_sha256_p1363", 262, || {
        let text = include_str!("fixtures/wycheproof/ecdsa_secp256r1_sha256_p1363_test.json");
        signatures(text, Algorithm::ES256)
    }),
    ("ed25519", 151, || signatures(include_str!("fixtures/wycheproof/ed25519_test.json"), Algorithm::EdDSA)),
    ("rsa_pss_2048_sha256_mgf1_32", 108, || {
        let text = include_str!("fixtures/wycheproof/rsa_pss_2048_sha256_mgf1_32_test.json");
        signatures(text, Algorithm::PS256)
    }),
    ("rsa_signature_2048_sha256", 259, || {
        let text = include_str!("fixtures/wycheproof/rsa_signature_2048_sha256_test.json");
        signatures(text, Algorithm::RS256)
    }),
    ("cookbook", 37, cookbook),
];

#[test]
fn every_vector_is_judged_as_labelled_or_whitelisted() {
    let mut whitelist = whitelist();
    for (suite, count, run) in SUITES {
        let cases = run();
        assert_eq!(cases.len(), count, "{suite}");
        for Case { name, label, verdict } in cases {
            // What is merely "acceptable" may be judged either way.
            let as_labelled = label == "acceptable" || (label == "valid") == (verdict == ACCEPTED);
            match whitelist.remove(&(suite.to_owned(), name.clone())) {
                None => assert!(as_labelled, "{suite} {name} is {label}, but {verdict}"),
                Some(entry) => {
                    assert!(!as_labelled, "{suite} {name} needs no entry");
                    assert_eq!((entry.label, entry.verdict.as_str()), (label, verdict), "{suite} {name}");
                }
            }
        }
    }
    assert!(whitelist.is_empty(), "entries for nothing: {:?}", whitelist.keys());
}

/// One entry of the whitelist.
struct Entry {
    label: String,
    verdict: String,
}

/// The whitelist, by suite and case. It may only hold what is refused although it is valid.
fn whitelist() -> BTreeMap<(String, String), Entry> {
    let list = read(include_str!("fixtures/whitelist.json"));
    let mut entries = BTreeMap::new();
    for entry in list.as_array().unwrap() {
        let text = |name: &str| entry[name].as_str().unwrap().to_owned();
        let (label, verdict) = (text("label"), text("verdict"));
        assert_eq!(label, "valid", "only what is refused although it is valid: {entry}");
        assert!(Refusal::ALL.iter().any(|(code, ..)| *code == verdict), "no refusal: {entry}");
        assert!(text("reason").ends_with('.'), "no reason: {entry}");
        let earlier = entries.insert((text("suite"), text("case")), Entry { label, verdict });
        assert!(earlier.is_none(), "twice: {entry}");
    }
    entries
}

#[test]
fn vectors_are_unmodified() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut files: Vec<String> = ["rfc7520", "wycheproof"]
        .into_iter()
        .flat_map(|name| std::fs::read_dir(folder.join(name)).unwrap().map(move |file| (name, file.unwrap())))
        .map(|(name, file)| format!("{name}/{}", file.file_name().to_str().unwrap()))
        .collect();
    files.sort();
    let sums = include_str!("fixtures/SHA256SUMS");
    let listed: Vec<&str> = sums.lines().filter_map(|line| line.split("  ").nth(1)).collect();
    assert_eq!(files, listed);
    for line in sums.lines() {
        let (sum, name) = line.split_once("  ").unwrap();
        let real = digest(&SHA256, &std::fs::read(folder.join(name)).unwrap());
        assert_eq!(real.as_ref(), unhex(&sum.into()), "{name}");
    }
}

fn read(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn unhex(text: &Value) -> Vec<u8> {
    let digits = text.as_str().unwrap().as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// The key source of the provider of all vectors, which takes every algorithm, and the policy as published.
static POLICY: LazyLock<(u64, AlignedVec)> = LazyLock::new(|| {
    let row = json!({
        "name": "vectors", "issuer": "https://vectors.example", "audiences": ["pg"], "audience_claim": "aud",
        "algorithms": Algorithm::ALL.map(Algorithm::name), "identity_claim": "sub", "max_stale_us": 60 * SECOND,
        "clock_skew_us": 0, "session_limit": "none", "auto_provision": false, "enabled": true,
        "jwks": null, "required_claims": null,
    });
    let row: ProviderRow = serde_json::from_value(row).unwrap();
    let provider = compile_provider(&row, false).unwrap();
    (provider.key_source, encode_policy(&PolicyImage::build(vec![provider], vec![]).unwrap()).unwrap())
});

/// The usable keys of a JWK or a set of them, as an issuer publishes it.
fn keys(jwk: &Value) -> Vec<Key> {
    let set = if jwk["keys"].is_array() { jwk.clone() } else { json!({ "keys": [jwk] }) };
    parse_jwks(set.to_string().as_bytes(), &Algorithm::ALL).map(|parsed| parsed.keys).unwrap_or_default()
}

/// What a login says to this token of an issuer with that key or those keys.
fn judge(jwk: &Value, token: &str) -> &'static str {
    match log_in(keys(jwk), token) {
        Ok(()) => ACCEPTED,
        Err(refusal) => refusal.code(),
    }
}

fn log_in(keys: Vec<Key>, token: &str) -> Result<(), Refusal> {
    let (key_source, policy) = &*POLICY;
    let now = NOW * SECOND;
    let published = ProviderKeys {
        name: "vectors".to_owned(),
        key_source: *key_source,
        fetched_at: now,
        attempted_at: now,
        static_keys: true,
        keys,
        reports: vec![],
        origin: String::new(),
        next_fetch_at: None,
        last_error: None,
    };
    let keyring = encode_keyring(&KeyringImage::build(vec![published]).unwrap()).unwrap();
    let claims =
        json!({ "iss": "https://vectors.example", "sub": "u1", "aud": "pg", "exp": NOW + 300 }).to_string();
    let (untrusted, _) = parse_jws(token.as_bytes(), TOKEN_BYTES)?;
    let untrusted = Untrusted { claims: parse_object(claims.as_bytes(), TOKEN_BOUNDS).unwrap(), ..untrusted };
    let selection = select(check_policy(policy).unwrap(), check_keyring(&keyring).unwrap(), &untrusted, now)?;
    let Selection::Ready(selected) = selection else { panic!("static keys are never waited for") };
    verify(untrusted, &selected, now).map(drop)
}

/// The tests of a Wycheproof file, each with its group.
fn groups(file: &Value) -> impl Iterator<Item = (&Value, &Value)> {
    let groups = file["testGroups"].as_array().unwrap();
    groups.iter().flat_map(|group| group["tests"].as_array().unwrap().iter().map(move |test| (group, test)))
}

fn case(test: &Value, verdict: &'static str) -> Case {
    Case { name: test["tcId"].to_string(), label: test["result"].as_str().unwrap().to_owned(), verdict }
}

/// Wycheproof's tests of tokens; some are given in JSON serialization.
fn tokens(text: &str) -> Vec<Case> {
    let file = read(text);
    let judged = groups(&file).map(|(group, test)| {
        let jwk = if group["public"].is_null() { &group["private"] } else { &group["public"] };
        let token = test["jws"].as_str().map_or_else(|| test["jws"].to_string(), str::to_owned);
        case(test, judge(jwk, &token))
    });
    judged.collect()
}

/// Wycheproof's tests of encrypted tokens: read as a login reads them, whose keys they never come to.
fn encrypted() -> Vec<Case> {
    let file = read(include_str!("fixtures/wycheproof/json_web_encryption_test.json"));
    let judged = groups(&file).map(|(_, test)| {
        let token = test["jwe"].as_str().unwrap();
        case(test, parse(token.as_bytes(), TOKEN_BYTES).map_or_else(|refusal| refusal.code(), |_| ACCEPTED))
    });
    judged.collect()
}

#[test]
fn n003_no_encrypted_vector_is_taken_for_signed() {
    for Case { name, verdict, .. } in encrypted() {
        assert!(
            ["token_encrypted", "token_json_serialization", "token_malformed"].contains(&verdict),
            "{name}"
        );
    }
}

/// Wycheproof's tests of signatures by themselves.
fn signatures(text: &str, algorithm: Algorithm) -> Vec<Case> {
    let file = read(text);
    let judged = groups(&file).map(|(group, test)| {
        let keys = keys(&primitive_key(group));
        let [key] = keys.as_slice() else { panic!("{} has no usable key", test["tcId"]) };
        let verified = key.verifies(algorithm, &unhex(&test["msg"]), &unhex(&test["sig"]));
        case(test, if verified { ACCEPTED } else { Refusal::SignatureInvalid.code() })
    });
    judged.collect()
}

/// The key as a JWK; a few groups of ECDSA give only the point.
fn primitive_key(group: &Value) -> Value {
    let given = ["publicKeyJwk", "keyJwk"].into_iter().find_map(|name| group.get(name)).cloned();
    given.unwrap_or_else(|| {
        let point = unhex(&group["publicKey"]["uncompressed"]);
        let [x, y] = [&point[1..33], &point[33..]].map(|half| URL_SAFE_NO_PAD.encode(half));
        json!({"kty": "EC", "crv": "P-256", "x": x, "y": y})
    })
}

/// The cookbook's files by the name of each.
const COOKBOOK: [(&str, &str); 12] = [
    ("RFC 7520, 4.1", include_str!("fixtures/rfc7520/jws_4_1.rsa_v15_signature.json")),
    ("RFC 7520, 4.2", include_str!("fixtures/rfc7520/jws_4_2.rsa-pss_signature.json")),
    ("RFC 7520, 4.3", include_str!("fixtures/rfc7520/jws_4_3.ecdsa_signature.json")),
    ("RFC 7520, 4.4", include_str!("fixtures/rfc7520/jws_4_4.hmac-sha2_integrity_protection.json")),
    ("RFC 7520, 4.5", include_str!("fixtures/rfc7520/jws_4_5.signature_with_detached_content.json")),
    ("RFC 7520, 4.6", include_str!("fixtures/rfc7520/jws_4_6.protecting_specific_header_fields.json")),
    ("RFC 7520, 4.7", include_str!("fixtures/rfc7520/jws_4_7.protecting_content_only.json")),
    ("RFC 7520, 4.8", include_str!("fixtures/rfc7520/jws_4_8.multiple_signatures.json")),
    ("RFC 7797, 4.2", include_str!("fixtures/rfc7520/rfc7797_4.2.hmac-sha2_b64_false.json")),
    ("RFC 7797", include_str!("fixtures/rfc7520/rfc7797_hmac-sha2_b64_false.json")),
    ("RFC 8037, A.4", RFC_8037),
    ("RFC 8037, A.6", include_str!("fixtures/rfc7520/curve25519_ecdh-es.json")),
];

const RFC_8037: &str = include_str!("fixtures/rfc7520/curve25519_jws.json");

/// The cookbook's keys by their sections.
const COOKBOOK_KEYS: [(&str, &str); 6] = [
    ("RFC 7520, 3.1", include_str!("fixtures/rfc7520/jwk_3_1.ec_public_key.json")),
    ("RFC 7520, 3.2", include_str!("fixtures/rfc7520/jwk_3_2.ec_private_key.json")),
    ("RFC 7520, 3.3", include_str!("fixtures/rfc7520/jwk_3_3.rsa_public_key.json")),
    ("RFC 7520, 3.4", include_str!("fixtures/rfc7520/jwk_3_4.rsa_private_key.json")),
    ("RFC 7520, 3.5", include_str!("fixtures/rfc7520/jwk_3_5.symmetric_key_mac_computation.json")),
    ("RFC 7520, 3.6", include_str!("fixtures/rfc7520/jwk_3_6.symmetric_key_encryption.json")),
];

/// Every token of the cookbook in each of its forms, and every key: all are valid, in some world.
fn cookbook() -> Vec<Case> {
    let valid = |name: String, verdict| Case { name, label: "valid".to_owned(), verdict };
    let mut cases = Vec::new();
    for (name, text) in COOKBOOK {
        let example = read(text);
        let key = public_half(&example["input"]["key"]);
        for (form, token) in example["output"].as_object().unwrap() {
            let token = token.as_str().map_or_else(|| token.to_string(), str::to_owned);
            cases.push(valid(format!("{name}, {form}"), judge(&key, &token)));
        }
    }
    for (name, text) in COOKBOOK_KEYS {
        let verdict = if keys(&read(text)).is_empty() { "keys_unavailable" } else { ACCEPTED };
        cases.push(valid(name.to_owned(), verdict));
    }
    cases
}

/// What an issuer publishes of a key; the examples of tokens show the private one.
fn public_half(jwk: &Value) -> Value {
    let mut jwk = jwk.clone();
    if let Some(members) = jwk.as_object_mut() {
        members.retain(|name, _| !["d", "p", "q", "dp", "dq", "qi"].contains(&name.as_str()));
    }
    jwk
}

#[test]
fn a_changed_payload_of_the_cookbook_does_not_verify() {
    let mut accepted = 0;
    for (name, text) in COOKBOOK {
        let example = read(text);
        let key = public_half(&example["input"]["key"]);
        let Some(token) = example["output"]["compact"].as_str() else { continue };
        if judge(&key, token) == ACCEPTED {
            let at = token.find('.').unwrap() + 1;
            let other = if &token[at..=at] == "A" { "B" } else { "A" };
            let changed = format!("{}{other}{}", &token[..at], &token[at + 1..]);
            assert_eq!(judge(&key, &changed), "signature_invalid", "{name}");
            accepted += 1;
        }
    }
    assert_eq!(accepted, 3);
}

#[test]
fn rfc_8037_ed25519() {
    let example = read(RFC_8037);
    let private = &example["input"]["key"];
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let decode = |value: &Value| URL_SAFE_NO_PAD.decode(text(value)).unwrap();
    // A.1: the private key, whose public half is A.2's. A set that shows it is not used.
    let pair = aws_lc_rs::signature::Ed25519KeyPair::from_seed_and_public_key(
        &decode(&private["d"]),
        &decode(&private["x"]),
    );
    let pair = pair.unwrap();
    assert!(keys(private).is_empty());
    // A.2: the public key.
    let mut public =
        json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
    assert_eq!(public["x"], private["x"]);
    assert_eq!(keys(&public).len(), 1);
    // A.3: its thumbprint (RFC 7638) is the SHA-256 of its members in the order of their names; as a kid it is opaque.
    let thumbprint = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k";
    let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, text(&public["x"]));
    assert_eq!(URL_SAFE_NO_PAD.encode(digest(&SHA256, members.as_bytes())), thumbprint);
    public["kid"] = thumbprint.into();
    let sign = |header: &str| {
        let input = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode("Example of Ed25519 signing")
        );
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(pair.sign(input.as_bytes())))
    };
    assert_eq!(judge(&public, &sign(&format!(r#"{{"alg":"EdDSA","kid":"{thumbprint}"}}"#))), ACCEPTED);
    assert_eq!(judge(&public, &sign(r#"{"alg":"EdDSA","kid":"another"}"#)), "key_unknown");
    // A.4 and A.5: signing gives this very token, and it verifies.
    let token = text(&example["output"]["compact"]);
    assert_eq!(token, sign(r#"{"alg":"EdDSA"}"#));
    assert_eq!(judge(&public, &token), ACCEPTED);
    // A.6 and A.7 are keys to agree on keys with, which sign nothing.
    let agreement = read(include_str!("fixtures/rfc7520/curve25519_ecdh-es.json"));
    assert!(keys(&public_half(&agreement["input"]["key"])).is_empty());
    let x448 = URL_SAFE_NO_PAD.encode([5; 56]);
    assert!(keys(&json!({"kty": "OKP", "crv": "X448", "x": x448})).is_empty());
}
