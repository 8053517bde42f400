//! B2, algorithms and signatures.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::common::{
    ED25519, P256, P384, RSA_A, RSA_B, World, all_refused, b64, claims, claims_with, token,
    token_with_header, unb64,
};

/// The order of P-256.
const N: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";

fn split_signature(token: &str) -> (String, Vec<u8>) {
    let (input, signature) = token.rsplit_once('.').unwrap();
    (input.to_owned(), unb64(signature))
}

#[test]
fn every_algorithm_verifies() {
    let world = World::new();
    let payload = claims().to_string();
    for algorithm in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"] {
        let header = format!(r#"{{"alg":"{algorithm}","kid":"rsa-a"}}"#);
        assert_eq!(world.outcome(&RSA_A.token(&header, &payload)), "accepted", "{algorithm}");
    }
    assert_eq!(world.outcome(&P256.token(r#"{"alg":"ES256","kid":"p256"}"#, &payload)), "accepted");
    assert_eq!(world.outcome(&P384.token(r#"{"alg":"ES384","kid":"p384"}"#, &payload)), "accepted");
    assert_eq!(world.outcome(&ED25519.token(r#"{"alg":"EdDSA","kid":"ed25519"}"#, &payload)), "accepted");
}

#[test]
fn n019_alg_none() {
    let payload = b64(claims().to_string());
    let old = token(&claims()).rsplit_once('.').unwrap().1.to_owned();
    for name in ["none", "None", "NONE", "nOnE", "none ", ""] {
        let header = b64(json!({"alg": name, "kid": "p256"}).to_string());
        all_refused(
            &World::new(),
            "algorithm_unsupported",
            [(name, format!("{header}.{payload}.")), (name, format!("{header}.{payload}.{old}"))],
        );
    }
}

#[test]
fn n020_alg_is_no_string() {
    let headers = [
        r#"{"kid":"p256"}"#,
        r#"{"alg":null,"kid":"p256"}"#,
        r#"{"alg":256,"kid":"p256"}"#,
        r#"{"alg":["ES256"],"kid":"p256"}"#,
        r#"{"alg":{"ES256":1},"kid":"p256"}"#,
        r#"{"alg":true,"kid":"p256"}"#,
        r#"{"ALG":"ES256","kid":"p256"}"#,
    ];
    all_refused(
        &World::new(),
        "algorithm_unsupported",
        headers.map(|header| (header, token_with_header(header))),
    );
}

#[test]
fn n021_hmac_with_the_public_key() {
    let world = World::new();
    let jwk = RSA_A.jwk();
    let secrets: [(&str, Vec<u8>); 3] = [
        ("modulus", unb64(jwk["n"].as_str().unwrap())),
        ("JWK", jwk.to_string().into_bytes()),
        ("modulus as text", jwk["n"].as_str().unwrap().as_bytes().to_vec()),
    ];
    for (what, secret) in secrets {
        for name in ["HS256", "HS384", "HS512"] {
            let input = format!(
                "{}.{}",
                b64(json!({"alg": name, "kid": "rsa-a"}).to_string()),
                b64(claims().to_string())
            );
            let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &secret);
            let tag = aws_lc_rs::hmac::sign(&key, input.as_bytes());
            assert_eq!(world.outcome(&format!("{input}.{}", b64(tag))), "algorithm_unsupported", "{what}");
        }
    }
}

#[test]
fn n022_not_in_the_list() {
    let world = World::with_provider(|row| row.algorithms = vec![Some("RS256".into()), Some("EdDSA".into())]);
    let payload = claims().to_string();
    assert_eq!(world.outcome(&RSA_A.token(r#"{"alg":"RS256","kid":"rsa-a"}"#, &payload)), "accepted");
    assert_eq!(
        world.outcome(&RSA_A.token(r#"{"alg":"RS512","kid":"rsa-a"}"#, &payload)),
        "algorithm_not_allowed"
    );
    assert_eq!(
        world.outcome(&RSA_A.token(r#"{"alg":"PS256","kid":"rsa-a"}"#, &payload)),
        "algorithm_not_allowed"
    );
    assert_eq!(world.outcome(&token(&claims())), "algorithm_not_allowed");
}

#[test]
fn n023_key_bound_to_its_alg() {
    let mut key = RSA_A.jwk();
    key["alg"] = "PS512".into();
    let world = World::with_keys(json!([key]));
    let payload = claims().to_string();
    for algorithm in ["RS256", "RS384", "RS512", "PS256", "PS384"] {
        let header = format!(r#"{{"alg":"{algorithm}","kid":"rsa-a"}}"#);
        assert_eq!(world.outcome(&RSA_A.token(&header, &payload)), "key_unknown", "{algorithm}");
    }
    assert_eq!(world.outcome(&RSA_A.token(r#"{"alg":"PS512","kid":"rsa-a"}"#, &payload)), "accepted");
}

#[test]
fn n024_curve_of_another_alg() {
    let world = World::new();
    let payload = claims().to_string();
    all_refused(
        &world,
        "key_unknown",
        [
            ("ES256 with P-384", P384.token(r#"{"alg":"ES256","kid":"p384"}"#, &payload)),
            ("ES384 with P-256", P256.token(r#"{"alg":"ES384","kid":"p256"}"#, &payload)),
            ("EdDSA with P-256", P256.token(r#"{"alg":"EdDSA","kid":"p256"}"#, &payload)),
            ("ES256 with Ed25519", ED25519.token(r#"{"alg":"ES256","kid":"ed25519"}"#, &payload)),
            ("ES256 with RSA", RSA_A.token(r#"{"alg":"ES256","kid":"rsa-a"}"#, &payload)),
            ("RS256 with P-256", P256.token(r#"{"alg":"RS256","kid":"p256"}"#, &payload)),
        ],
    );
    let mut key = P256.jwk();
    key["alg"] = "ES384".into();
    assert_eq!(World::with_keys(json!([key])).outcome(&token(&claims())), "keys_unavailable");
}

#[test]
fn n025_unsupported_alg() {
    for name in
        ["ES256K", "ES512", "ML-DSA-44", "Ed25519", "Ed448", "RS1", "es256", "ES256 ", "RSA-OAEP", "dir"]
    {
        let token = token_with_header(&json!({"alg": name, "kid": "p256"}).to_string());
        let refusal = World::new().login(&token).unwrap_err();
        assert_eq!(refusal.code(), "algorithm_unsupported", "{name}");
    }
    let unknown = token_with_header(r#"{"alg":"SECRET-IN-ALG","kid":"p256"}"#);
    assert!(!World::new().login(&unknown).unwrap_err().detail().contains("SECRET"));
}

#[test]
fn n027_ecdsa_values_out_of_range() {
    let world = World::new();
    let (input, good) = split_signature(&token(&claims()));
    let (r, s) = good.split_at(32);
    let n: Vec<u8> =
        (0..32).map(|place| u8::from_str_radix(&N[2 * place..2 * place + 2], 16).unwrap()).collect();
    let less = [&n[..31], &[n[31] - 1]].concat();
    let more = [&n[..31], &[n[31] + 1]].concat();
    let (zero, full) = ([0; 32], [0xff; 32]);
    let bad: Vec<(&str, Vec<u8>)> = vec![
        ("both 0", [zero, zero].concat()),
        ("r = 0", [&zero, s].concat()),
        ("s = 0", [r, &zero].concat()),
        ("r = n", [&n, s].concat()),
        ("s = n", [r, &n].concat()),
        ("r = n - 1", [&less, s].concat()),
        ("s = n - 1", [r, &less].concat()),
        ("r > n", [&more, s].concat()),
        ("s > n", [r, &more].concat()),
        ("largest", [full, full].concat()),
        ("leading byte", [&[0], &good[..]].concat()),
        ("leading byte in each", [&[0], r, &[0], s].concat()),
        ("one byte short", good[..63].to_vec()),
        ("one byte long", [&good[..], &[0]].concat()),
        ("r alone", r.to_vec()),
        ("swapped", [s, r].concat()),
        ("DER", [&[0x30, 0x44, 2, 32], r, &[2, 32], s].concat()),
    ];
    for (what, signature) in bad {
        assert_eq!(world.outcome(&format!("{input}.{}", b64(signature))), "signature_invalid", "{what}");
    }
}

#[test]
fn n028_high_s_twin_is_the_same_login() {
    let world = World::new();
    let good = token(&claims());
    let (input, signature) = split_signature(&good);
    let n: Vec<u8> =
        (0..32).map(|place| u8::from_str_radix(&N[2 * place..2 * place + 2], 16).unwrap()).collect();
    let mut twin = signature.clone();
    let mut borrow = 0_i16;
    for place in (0..32).rev() {
        let difference = i16::from(n[place]) - i16::from(signature[32 + place]) - borrow;
        borrow = i16::from(difference < 0);
        twin[32 + place] = u8::try_from(difference.rem_euclid(256)).unwrap();
    }
    // Another text, the same claims: so nothing may be remembered by the bytes of a token.
    let twin = world.login(&format!("{input}.{}", b64(twin))).unwrap();
    assert_eq!(twin, world.login(&good).unwrap());
}

fn forged(algorithm: &str, code: &str) {
    let all: BTreeMap<String, BTreeMap<String, String>> =
        serde_json::from_str(include_str!("fixtures/forged_rsa.json")).unwrap();
    let world = World::new();
    let mut refused = 0;
    for (what, token) in &all[algorithm] {
        let wanted = if what == "sound" { "accepted" } else { code };
        refused += usize::from(what != "sound");
        let world = World { user: "reader", ..world.clone() };
        assert_eq!(world.outcome(token), wanted, "{algorithm}: {what}");
    }
    assert!(refused >= 9);
}

#[test]
fn n029_pkcs1_padding() {
    forged("RS256", "signature_invalid");
}

#[test]
fn n030_pss_parameters() {
    forged("PS256", "signature_invalid");
}

#[test]
fn n031_changed_signature() {
    let world = World::new();
    let payload = claims().to_string();
    let tokens = [
        RSA_A.token(r#"{"alg":"RS256","kid":"rsa-a"}"#, &payload),
        RSA_A.token(r#"{"alg":"PS384","kid":"rsa-a"}"#, &payload),
        token(&claims()),
        P384.token(r#"{"alg":"ES384","kid":"p384"}"#, &payload),
        ED25519.token(r#"{"alg":"EdDSA","kid":"ed25519"}"#, &payload),
    ];
    for token in tokens {
        let (input, good) = split_signature(&token);
        let flipped = |place: usize| {
            let mut bad = good.clone();
            bad[place] ^= 1;
            bad
        };
        let bad = [
            good[..good.len() - 1].to_vec(),
            good[..1].to_vec(),
            [&good[..], &[0]].concat(),
            [&good[..], &good[..]].concat(),
            vec![0; good.len()],
            vec![0xff; good.len()],
            flipped(0),
            flipped(good.len() / 2),
            flipped(good.len() - 1),
        ];
        for (number, signature) in bad.into_iter().enumerate() {
            assert_eq!(
                world.outcome(&format!("{input}.{}", b64(signature))),
                "signature_invalid",
                "{number}"
            );
        }
    }
}

#[test]
fn n032_changed_content() {
    let world = World::new();
    let good = token(&claims());
    let parts: Vec<&str> = good.split('.').collect();
    let payload = b64(claims_with(json!({"sub": "admin"})).to_string());
    let header = b64(r#"{"alg":"ES256","kid":"p256","typ":"at+jwt"}"#);
    // The same header in another spelling is not what was signed.
    let spelled = b64(r#"{ "alg":"ES256","kid":"p256","typ":"JWT"}"#);
    all_refused(
        &world,
        "signature_invalid",
        [
            ("payload", format!("{}.{payload}.{}", parts[0], parts[2])),
            ("header", format!("{header}.{}.{}", parts[1], parts[2])),
            ("spelling", format!("{spelled}.{}.{}", parts[1], parts[2])),
        ],
    );
}

#[test]
fn a_key_of_the_wrong_issuer_signs_nothing() {
    let forged: Value = claims();
    let token = RSA_B.token(r#"{"alg":"RS256","kid":"rsa-a"}"#, &forged.to_string());
    assert_eq!(World::new().outcome(&token), "signature_invalid");
}
