//! The token as text.
//!
//! 1. n001: an empty password, and one of blanks.
//! 2. n002: any number of parts but three, and parts that are empty.
//! 3. n003: an encrypted token (JWE).
//! 4. n004: JSON serialization, flattened and general.
//! 5. n005: characters that are not base64url, in each part.
//! 6. n006: unused bits in the last character of each part.
//! 7. n015: a token at the size limit and over it; the limit raised without a restart; a header over its own.
//! 8. n018: words and blanks around a good token.

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pg_oidc_test::keys::keys;
use pg_oidc_test::token::Token;
use serde_json::json;

use super::{key_types, stage};
use crate::scene::{constant_refusal, good};

/// The alphabet of base64url, in the order of its values.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// A good token of the user `form`, padded so that no part fills its last character.
fn padded() -> Token {
    let fits = |token: &Token| {
        let input = token.signing_input("RS256", keys().rsa.kid());
        input.split('.').all(|part| part.len() % 4 != 0)
    };
    let candidates = (0..9).map(|count| {
        let header = good("form").header("pad", json!("x".repeat(count / 3)));
        header.claim("pad", json!("x".repeat(count % 3)))
    });
    candidates.into_iter().find(fits).expect("some padding fits")
}

/// The token with one part changed.
fn with_part(token: &str, number: usize, change: impl FnOnce(&str) -> String) -> String {
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    if let Some(part) = parts.get_mut(number) {
        *part = change(part);
    }
    parts.join(".")
}

#[test]
fn n001_empty_password() -> Result<()> {
    let stage = stage();
    let refused = stage.refusal(&stage.login("n001", ""), "n001", "empty")?;
    assert_eq!((refused.reason.as_str(), refused.told), ("password_empty", constant_refusal("n001")));
    stage.refused("n001", " ", "token_malformed", "one blank")
}

#[test]
fn n002_number_of_parts() -> Result<()> {
    let stage = stage();
    stage.trio("n002")?;
    let token = good("n002").sign(&keys().ec);
    stage.accepted("n002", &token, "the token itself")?;
    let (input, signature) = token.rsplit_once('.').context("three parts")?;
    let (header, payload) = input.split_once('.').context("two parts")?;
    let wrong = [
        "correct horse battery staple".to_owned(),
        ".".to_owned(),
        "..".to_owned(),
        header.to_owned(),
        input.to_owned(),
        format!("{input}."),
        format!("{token}."),
        format!(".{token}"),
        format!("{header}..{payload}.{signature}"),
        format!("{token}.{signature}"),
        format!(".{payload}.{signature}"),
        format!("{token}.{token}"),
    ];
    for wrong in wrong {
        stage.refused("n002", &wrong, "token_malformed", &wrong)?;
    }
    // An empty payload is base64url of nothing, which is not JSON.
    stage.refused("n002", &format!("{header}..{signature}"), "payload_invalid", "empty payload")
}

#[test]
fn n003_encrypted() -> Result<()> {
    let stage = stage();
    let header = URL_SAFE_NO_PAD.encode(json!({ "alg": "RSA-OAEP-256", "enc": "A256GCM" }).to_string());
    let part = URL_SAFE_NO_PAD.encode([7; 48]);
    let jwe = format!("{header}.{part}.{part}.{part}.{part}");
    stage.refused("n003", &jwe, "token_encrypted", "a JWE")?;
    stage.refused("n003", &format!("{header}....{part}"), "token_encrypted", "a JWE with empty parts")?;
    stage.refused("n003", &format!("{jwe}.{part}"), "token_malformed", "six parts")
}

#[test]
fn n004_json_serialization() -> Result<()> {
    let stage = stage();
    stage.trio("n004")?;
    let token = good("n004").sign(&keys().ec);
    let parts: Vec<&str> = token.split('.').collect();
    let [protected, payload, signature] = parts.as_slice() else { anyhow::bail!("three parts") };
    let flattened = json!({ "payload": payload, "protected": protected, "signature": signature });
    let general = json!({
        "payload": payload,
        "signatures": [{ "protected": protected, "signature": signature }],
    });
    stage.refused("n004", &flattened.to_string(), "token_json_serialization", "flattened")?;
    stage.refused("n004", &general.to_string(), "token_json_serialization", "general")?;
    stage.refused("n004", &format!(" {flattened}"), "token_malformed", "after a blank")?;
    stage.accepted("n004", &token, "the same in compact form")
}

#[test]
fn n005_characters_outside_of_base64url() -> Result<()> {
    let stage = stage();
    let token = padded().sign(&keys().rsa);
    for number in 0..3 {
        for strange in ["=", " ", "\n", "+", "/", "#", "?", "%", "é"] {
            let inside = with_part(&token, number, |part| format!("{}{strange}{}", &part[..8], &part[9..]));
            let behind = with_part(&token, number, |part| format!("{part}{strange}"));
            let about = format!("{strange:?} in part {number}");
            stage.refused("n005", &inside, "token_malformed", &about)?;
            stage.refused("n005", &behind, "token_malformed", &about)?;
        }
    }
    Ok(())
}

#[test]
fn n006_unused_bits() -> Result<()> {
    let stage = stage();
    stage.trio("form")?;
    let token = padded().sign(&keys().rsa);
    stage.accepted("form", &token, "the token itself")?;
    for number in 0..3 {
        let twin = with_part(&token, number, |part| {
            let (rest, last) = part.split_at(part.len() - 1);
            let value = ALPHABET.iter().position(|&letter| last.as_bytes() == [letter]).unwrap_or(0);
            // Its lowest bit is one of those that base64 leaves over.
            format!("{rest}{}", char::from(ALPHABET[value ^ 1]))
        });
        stage.refused("form", &twin, "token_not_canonical", format!("part {number}"))?;
    }
    Ok(())
}

/// A good token of exactly this many bytes.
fn of_size(user: &str, bytes: usize) -> Result<String> {
    let token = |header: usize, payload: usize| {
        let token = good(user).header("pad", json!("x".repeat(header)));
        token.claim("pad", json!("x".repeat(payload))).sign(&keys().ed25519)
    };
    let start = (bytes - token(0, 0).len()) * 3 / 4;
    let sizes = (0..3).flat_map(|header| (start - 8..start + 8).map(move |payload| (header, payload)));
    let mut tokens = sizes.map(|(header, payload)| token(header, payload));
    tokens.find(|token| token.len() == bytes).with_context(|| format!("no token of {bytes} bytes"))
}

#[test]
fn n015_size() -> Result<()> {
    let stage = stage();
    stage.trio("n015")?;
    let limit = 16 * 1024;
    stage.accepted("n015", &of_size("n015", limit)?, "at the limit")?;
    let larger = of_size("n015", limit + 1)?;
    stage.refused("n015", &larger, "token_too_large", "one byte over it")?;
    let header = good("n015").header("pad", json!("x".repeat(4096))).sign(&keys().ec);
    stage.refused("n015", &header, "header_too_large", "a header over its own limit")?;

    stage.cluster.set("pg_oidc.max_token_size", &(limit + 1).to_string())?;
    stage.cluster.reload()?;
    stage.accepted("n015", &larger, "at the limit that was raised")?;
    stage.refused("n015", &of_size("n015", limit + 2)?, "token_too_large", "over the limit that was raised")
}

#[test]
fn n018_words_and_blanks_around() -> Result<()> {
    let stage = stage();
    stage.trio("n018")?;
    for key in key_types() {
        let token = good("n018").sign(key);
        stage.accepted("n018", &token, "the token itself")?;
        let wrong = [
            format!("Bearer {token}"),
            format!("bearer {token}"),
            format!(" {token}"),
            format!("{token} "),
            format!("{token}\n"),
            format!("{token}\r\n"),
            format!("\t{token}"),
            format!("\"{token}\""),
        ];
        for wrong in wrong {
            stage.refused("n018", &wrong, "token_malformed", &wrong)?;
        }
    }
    Ok(())
}
