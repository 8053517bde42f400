//! A key set as an issuer may send it: what is taken of it is sound, and is taken the same way after a restart.

use pg_oidc_core::algorithm::Algorithm;
use pg_oidc_core::image::{KeyringImage, PolicyImage, ProviderKeys};
use pg_oidc_core::keys::{JwksError, KeyReport, ParsedJwks, jwks_text, parse_jwks};
use pg_oidc_core::limits::{JWKS_BYTES, KEYS_PER_PROVIDER, KID_BYTES};
use pg_oidc_core::provider::compile_provider;
use serde_json::Value;

use super::assert_is_one_line;
use super::house::{AT, House};
use crate::common::{ED25519, P256, P384, RSA_A, RSA_B, Signer, claims, provider_row};

/// Two bytes that choose the algorithms of the provider, then the body. Gives how many keys were taken.
pub(crate) fn check(data: &[u8]) -> usize {
    let Some((&[first, second], body)) = data.split_first_chunk() else { return 0 };
    let chosen = u16::from_be_bytes([first, second]);
    let algorithms: Vec<Algorithm> = Algorithm::ALL
        .into_iter()
        .enumerate()
        .filter(|(place, _)| chosen >> place & 1 == 0)
        .map(|(_, algorithm)| algorithm)
        .collect();
    match parse_jwks(body, &algorithms) {
        Ok(parsed) => {
            check_parsed(body, &parsed, &algorithms);
            check_use(body, &parsed);
            parsed.keys.len()
        }
        Err(error) => {
            assert_is_one_line(error.sentence());
            if let JwksError::NoUsableKey(reports) = error {
                assert!(reports.iter().all(|report| report.usable.is_err()));
                check_reports(&reports);
            }
            0
        }
    }
}

fn check_reports(reports: &[KeyReport]) {
    assert!(reports.len() <= KEYS_PER_PROVIDER);
    for report in reports {
        if let Some(kid) = &report.kid {
            assert!(kid.len() <= KID_BYTES && !kid.chars().any(|sign| sign.is_control() || sign == '"'));
        }
        if let Err(problem) = report.usable {
            assert_is_one_line(problem.sentence());
        }
    }
}

fn check_parsed(body: &[u8], parsed: &ParsedJwks, algorithms: &[Algorithm]) {
    check_reports(&parsed.reports);
    let usable = parsed.reports.iter().filter(|report| report.usable.is_ok());
    assert_eq!(usable.count(), parsed.keys.len());
    assert!(!parsed.keys.is_empty());

    // Read once more by another parser, which refuses numbers beyond a float.
    if let Ok(set) = serde_json::from_slice::<Value>(body) {
        let entries = set["keys"].as_array().expect("keys");
        assert_eq!(entries.len(), parsed.reports.len());
        for (entry, report) in entries.iter().zip(&parsed.reports) {
            if report.usable.is_ok() {
                check_usable(entry, report, algorithms);
            }
        }
    }

    // What is kept across a restart.
    let kept = jwks_text(&parsed.keys, 7);
    let source = r#"{"key_source":"7","keys":[]}"#.len();
    if body.len() + source <= JWKS_BYTES {
        assert_eq!(parse_jwks(kept.as_bytes(), algorithms).expect("kept keys").keys, parsed.keys);
    }
}

/// RFC 7517 and 7518 once more: what a key that verifies signatures may look like.
fn check_usable(entry: &Value, report: &KeyReport, algorithms: &[Algorithm]) {
    let text = |name: &str| entry[name].as_str();
    for private in ["d", "p", "q", "dp", "dq", "qi", "oth"] {
        assert!(entry.get(private).is_none(), "{private}");
    }
    assert!(entry.get("use").is_none() || text("use") == Some("sig"));
    assert!(entry.get("kid").is_none() || text("kid") == report.kid.as_deref());
    assert!(entry.get("key_ops").is_none_or(|all| all.as_array().unwrap().contains(&"verify".into())));
    let bytes = |name: &str| {
        let text = text(name).unwrap();
        let bytes = crate::common::unb64(text);
        assert_eq!(crate::common::b64(&bytes), text);
        bytes
    };
    let serves = |name: &str| match text("kty") {
        Some("RSA") => name.starts_with("RS") || name.starts_with("PS"),
        Some("EC") => {
            text("crv") == Some(if name == "ES256" { "P-256" } else { "P-384" }) && name.starts_with("ES")
        }
        Some("OKP") => name == "EdDSA",
        other => panic!("{other:?}"),
    };
    assert!(
        algorithms.iter().any(|one| serves(one.name()) && text("alg").is_none_or(|alg| alg == one.name()))
    );
    match text("kty") {
        Some("RSA") => {
            let (n, e) = (bytes("n"), bytes("e"));
            assert!((256..=1024).contains(&n.len()) && n[0] > 0 && n[n.len() - 1] % 2 == 1);
            assert!((1..=5).contains(&e.len()) && e[0] > 0 && e[e.len() - 1] % 2 == 1 && e != [1]);
        }
        Some("EC") => {
            let length = if text("crv") == Some("P-256") { 32 } else { 48 };
            assert_eq!((bytes("x").len(), bytes("y").len()), (length, length));
        }
        _ => assert_eq!(bytes("x").len(), 32),
    }
}

/// A token verifies with these keys only if the key that signed it is one of them.
fn check_use(body: &[u8], parsed: &ParsedJwks) {
    let provider = compile_provider(&provider_row(), false).unwrap();
    let entry = ProviderKeys {
        name: provider.name.clone(),
        key_source: provider.key_source,
        fetched_at: AT,
        attempted_at: AT,
        static_keys: false,
        keys: parsed.keys.clone(),
        reports: parsed.reports.clone(),
        origin: String::new(),
        next_fetch_at: None,
        last_error: None,
    };
    let keyring = KeyringImage::build(vec![entry]).unwrap();
    let house = House::new(PolicyImage::build(vec![provider], vec![]).unwrap(), &keyring);
    assert_eq!(
        rkyv::deserialize::<KeyringImage, rkyv::rancor::Error>(house.keyring()).unwrap().into_providers(),
        keyring.into_providers(),
    );
    let set: Value = serde_json::from_slice(body).unwrap_or_default();
    for (token, part) in TOKENS.iter() {
        if house.judge(token.as_bytes()).is_ok() && !set.is_null() {
            let entries = set["keys"].as_array().unwrap();
            assert!(entries.iter().any(|entry| entry["x"] == *part || entry["n"] == *part), "{part}");
        }
    }
}

/// Tokens of every key, and the part of the public key that says whose they are.
static TOKENS: std::sync::LazyLock<Vec<(String, Value)>> = std::sync::LazyLock::new(|| {
    let signers: [(&Signer, &str); 5] =
        [(&ED25519, "EdDSA"), (&P256, "ES256"), (&P384, "ES384"), (&RSA_A, "RS256"), (&RSA_B, "PS256")];
    let token = |signer: &Signer, algorithm: &str, kid: &str| {
        let part = signer.jwk()[if algorithm.starts_with(['R', 'P']) { "n" } else { "x" }].clone();
        (signer.token(&format!(r#"{{"alg":"{algorithm}"{kid}}}"#), &claims().to_string()), part)
    };
    signers
        .into_iter()
        .flat_map(|(signer, algorithm)| {
            ["".to_owned(), format!(r#","kid":"{}""#, signer.kid())].map(|kid| token(signer, algorithm, &kid))
        })
        .collect()
});
