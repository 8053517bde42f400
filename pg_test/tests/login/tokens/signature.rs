//! The algorithm and the signature.
//!
//! 1. n019: `alg` none in every spelling, without a signature and with an old one.
//! 2. n020: `alg` missing or no string.
//! 3. n021: HS256 keyed with the public key in each of its forms.
//! 4. n022: an algorithm outside of the provider's list.
//! 5. n025: algorithms that nobody here supports.
//! 6. n031: a signature cut, extended, of zeros, with a flipped bit, of another key.
//! 7. n032: header or payload changed under an old signature.

use anyhow::Result;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use pg_oidc_test::keys::{Key, jwks, keys};
use pg_oidc_test::token::tampered;
use serde_json::{Value, json};

use super::{key_types, stage};
use crate::scene::{good, issuer, provider_sql, text};

#[test]
fn n019_alg_none() -> Result<()> {
    let stage = stage();
    stage.trio("n019")?;
    for key in key_types() {
        let token = good("n019").sign(key);
        stage.accepted("n019", &token, "the token itself")?;
        let (_, signature) = token.rsplit_once('.').unwrap_or_default();
        for none in ["none", "None", "NONE", "nOnE"] {
            let input = good("n019").header("alg", json!(none)).signing_input("", key.kid());
            stage.refused("n019", &format!("{input}."), "algorithm_unsupported", none)?;
            stage.refused("n019", &format!("{input}.{signature}"), "algorithm_unsupported", none)?;
        }
    }
    Ok(())
}

#[test]
fn n020_alg_missing_or_no_string() -> Result<()> {
    let stage = stage();
    let key = &keys().rsa;
    for alg in [Value::Null, json!(256), json!(["RS256"]), json!({ "alg": "RS256" }), json!("")] {
        let token = good("n020").header("alg", alg.clone()).sign(key);
        stage.refused("n020", &token, "algorithm_unsupported", alg)?;
    }
    let null = good("n020").raw_header(r#"{"alg":null,"kid":"rsa-1"}"#).sign(key);
    stage.refused("n020", &null, "algorithm_unsupported", "null")
}

/// The forms in which a library may have been handed the public key, and thus the HMAC's.
fn public_forms(key: &Key) -> Vec<Vec<u8>> {
    let der = key.public_der();
    let base64 = STANDARD.encode(&der);
    let lines: Vec<String> =
        base64.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"));
    let mut forms = vec![der, pem.trim_end().into(), pem.into()];
    let jwk = key.jwk();
    forms.push(jwk.to_string().into());
    for member in ["n", "x"] {
        if let Some(value) = jwk.get(member).and_then(Value::as_str) {
            forms.push(value.into());
            forms.push(URL_SAFE_NO_PAD.decode(value).unwrap_or_default());
        }
    }
    forms
}

#[test]
fn n021_hmac_with_the_public_key() -> Result<()> {
    let stage = stage();
    stage.trio("n021")?;
    for key in key_types() {
        for (number, form) in public_forms(key).iter().enumerate() {
            let input = good("n021").signing_input("HS256", key.kid());
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, form), input.as_bytes());
            let token = format!("{input}.{}", URL_SAFE_NO_PAD.encode(tag));
            let about = format!("form {number} of {}", key.kid());
            stage.refused("n021", &token, "algorithm_unsupported", about)?;
        }
    }
    // Nor can a provider ask for it.
    let jwks = text(&jwks(&[&keys().rsa]));
    let columns = [("jwks", jwks.as_str()), ("algorithms", "'{RS256,HS256}'")];
    let told = stage.admin()?.error(&provider_sql("n021b", &issuer("n021b"), &columns))?;
    assert_eq!(told.message, "algorithm \"HS256\" is not supported");
    Ok(())
}

#[test]
fn n022_algorithm_outside_of_the_list() -> Result<()> {
    let stage = stage();
    let set = jwks(&key_types());
    stage.provider_with("n022", &set, &[("algorithms", "'{ES256,EdDSA}'")])?;
    stage.role_and_rule("n022", "n022", &json!({ "sub": "n022" }))?;
    stage.accepted("n022", &good("n022").sign(&keys().ec), "ES256")?;
    stage.accepted("n022", &good("n022").sign(&keys().ed25519), "EdDSA")?;
    stage.refused("n022", &good("n022").sign(&keys().rsa), "algorithm_not_allowed", "RS256")?;
    let other = good("n022").header("alg", json!("ES384")).sign(&keys().ec);
    stage.refused("n022", &other, "algorithm_not_allowed", "ES384")
}

#[test]
fn n025_unknown_algorithms() -> Result<()> {
    let stage = stage();
    for alg in ["ES256K", "ML-DSA-65", "ES512", "RS1", "rs256", "RS256 ", "Ed25519", "HS256", "Schnorr"] {
        let token = good("n025").header("alg", json!(alg)).sign(&keys().ec);
        stage.refused("n025", &token, "algorithm_unsupported", alg)?;
    }
    Ok(())
}

#[test]
fn n031_damaged_signatures() -> Result<()> {
    let stage = stage();
    stage.trio("n031")?;
    let all = keys();
    for (key, other) in
        [(&all.rsa, &all.other_rsa), (&all.ec, &all.other_ec), (&all.ed25519, &all.other_ed25519)]
    {
        let input = good("n031").signing_input(key.algorithm(), key.kid());
        let signature = key.sign(input.as_bytes());
        let with = |signature: &[u8]| format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature));
        stage.accepted("n031", &with(&signature), key.kid())?;
        let (first, last) = (signature.first().copied().unwrap_or(0), signature.last().copied().unwrap_or(0));
        let rest = &signature[1..];
        let start = &signature[..signature.len() - 1];
        let damaged: [(&str, Vec<u8>); 8] = [
            ("cut", start.to_vec()),
            ("extended", [signature.as_slice(), &[0]].concat()),
            ("twice", [signature.as_slice(), &signature].concat()),
            ("zeros", vec![0; signature.len()]),
            ("one zero", vec![0]),
            ("first bit", [&[first ^ 0x80], rest].concat()),
            ("last bit", [start, &[last ^ 1]].concat()),
            ("another key", other.sign(input.as_bytes())),
        ];
        for (what, damaged) in damaged {
            let about = format!("{what}, {}", key.kid());
            stage.refused("n031", &with(&damaged), "signature_invalid", about)?;
        }
    }
    Ok(())
}

#[test]
fn n032_changed_under_an_old_signature() -> Result<()> {
    let stage = stage();
    stage.trio("n032")?;
    for key in key_types() {
        let token = good("n032").claim("role", json!("clerk")).sign(key);
        stage.accepted("n032", &token, "the token itself")?;
        let changes: [(&str, Value); 4] = [
            ("role", json!("boss")),
            ("sub", json!("n032 ")),
            ("exp", json!(4_000_000_000_u32)),
            ("more", json!(1)),
        ];
        for (claim, value) in changes {
            let changed = tampered(&token, |claims| drop(claims.insert(claim.to_owned(), value)));
            stage.refused("n032", &changed, "signature_invalid", claim)?;
        }
        let (_, rest) = token.split_once('.').unwrap_or_default();
        let header = good("n032").header("typ", json!("at+jwt")).signing_input(key.algorithm(), key.kid());
        let (header, _) = header.split_once('.').unwrap_or_default();
        stage.refused("n032", &format!("{header}.{rest}"), "signature_invalid", "header")?;
    }
    Ok(())
}
