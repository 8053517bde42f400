//! Inputs that come far: fuzzing starts from them, and proptest changes them.

use serde_json::{Value, json};

use super::PART;
use super::forge::GOOD;
use super::house::{self, HOUSE, STRICT_ISSUER};
use crate::common::{ISSUER, NOW, P256, RSA_B, claims_with};

fn joined(mode: u8, parts: &[&str]) -> Vec<u8> {
    let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
    [&[mode], parts.join(&PART).as_slice()].concat()
}

/// Tokens for [`super::token::check`] that are accepted.
pub(crate) fn good_tokens() -> Vec<Vec<u8>> {
    let headers =
        ["EdDSA", "ES256", "ES384", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"].map(|alg| {
            let kid = match alg {
                "EdDSA" => "ed25519",
                "ES256" => "p256",
                "ES384" => "p384",
                _ => "rsa-a",
            };
            json!({"alg": alg, "kid": kid, "typ": "JWT"})
        });
    let usual = claims_with(json!({}));
    let mut seeds: Vec<Vec<u8>> =
        headers.iter().map(|header| joined(b'1', &[&header.to_string(), &usual.to_string()])).collect();
    let header =
        json!({"alg": "EdDSA", "typ": "application/at+jwt", "x5t": "AA", "jwk": {"kty": "OKP"}}).to_string();
    let changes = [
        json!({"aud": ["x", "pg"], "scope": "read write", "nbf": NOW, "exp": 1_750_000_000.5, "note": "S3CRET"}),
        json!({"groups": null, "level": 1.50, "active": true, "list": [[], {}, "\u{1f600}\\\""]}),
        json!({"groups": ["pg-reader", "readers"], "ref": "refs/heads/release-1", "amr": ["mfa"], "env": "prod", "tenant": "t"}),
        json!({"iss": STRICT_ISSUER, "client_id": "pg", "email": "a@corp.example", "email_verified": true,
            "tenant": "t", "realm_access": {"roles": ["dev", "dba"]}, "groups": ["writers"]}),
    ];
    seeds
        .extend(changes.into_iter().map(|change| joined(b'1', &[&header, &claims_with(change).to_string()])));
    let narrow = claims_with(json!({"iss": "https://narrow.example"})).to_string();
    seeds.push(joined(b'1', &[r#"{"alg":"ES256"}"#, &narrow]));
    seeds.extend(GOOD.iter().map(|token| joined(b'0', &[token])));
    seeds.extend([b"3".to_vec(), b"7".to_vec(), b";".to_vec(), b"?".to_vec()]);
    seeds
}

/// Tokens that are refused, each for another reason.
pub(crate) fn bad_tokens() -> Vec<Vec<u8>> {
    let header = r#"{"alg":"EdDSA"}"#;
    let changes = [
        json!({"iss": "https://off.example"}),
        json!({"iss": "https://narrow.example"}),
        json!({"iss": "https://pending.example"}),
        json!({"iss": "https://stale.example"}),
        json!({"iss": "https://empty.example"}),
        json!({"iss": "https://other.example"}),
        json!({"iss": [ISSUER]}),
        json!({"aud": ["x", 1]}),
        json!({"exp": NOW}),
        json!({"exp": "1750000300"}),
        json!({"nbf": NOW + 1}),
        json!({"iat": NOW + 1}),
        json!({"cnf": {"jkt": "S3CRET"}}),
        json!({"sub": "S3CRET\u{7}"}),
        json!({"_claim_names": {"groups": "src1"}}),
        json!({"hasgroups": "true"}),
        json!({"scope": " ".repeat(2001)}),
    ];
    let mut seeds: Vec<Vec<u8>> =
        changes.into_iter().map(|change| joined(b'1', &[header, &claims_with(change).to_string()])).collect();
    let usual = claims_with(json!({})).to_string();
    for header in [
        r#"{"alg":"none"}"#,
        r#"{"alg":"HS256","kid":"ed25519"}"#,
        r#"{"alg":"EdDSA","crit":["b64"],"b64":false}"#,
        r#"{"alg":"EdDSA","cty":"JWT"}"#,
        r#"{"alg":"EdDSA","kid":"S3CRET"}"#,
        r#"{"alg":"EdDSA","typ":"secevent+jwt"}"#,
        r#"{"alg":"EdDSA","alg":"EdDSA"}"#,
    ] {
        seeds.push(joined(b'1', &[header, &usual]));
    }
    let twice = usual.replacen('{', r#"{"sub":"u0","#, 1);
    seeds.push(joined(b'1', &[header, &twice]));
    seeds.push(joined(b'1', &[header, r#"{"a":1e1000,"b":-0.0E-5,"c":"\u0000"}"#]));
    seeds.push(joined(b'2', &[header, &usual, "signature"]));
    seeds.push(
        b"0eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7".to_vec(),
    );
    seeds.push(b"0{\"payload\":\"\",\"signatures\":[]}".to_vec());
    seeds.push(b"0a.b.c.d.e".to_vec());
    seeds
}

/// Key sets for [`super::jwks::check`] of which some keys are taken.
pub(crate) fn key_sets() -> Vec<Vec<u8>> {
    let with = |mode: [u8; 2], set: &Value| [mode.as_slice(), set.to_string().as_bytes()].concat();
    let mut all = house::jwks();
    let mut seeds: Vec<Vec<u8>> =
        all["keys"].as_array().unwrap().iter().map(|key| with([0, 0], &json!({"keys": [key]}))).collect();
    seeds.push(with([0, 0], &all));
    let mut p256 = P256.jwk();
    for (name, value) in [("use", json!("sig")), ("alg", json!("ES256")), ("key_ops", json!(["verify"]))] {
        p256[name] = value;
    }
    let private = json!({"kty": "RSA", "n": "AQAB", "e": "AQAB", "d": "S3CRET"});
    let others = [p256.clone(), p256, RSA_B.jwk(), json!({"kty": "oct", "k": "S3CRET"}), private, json!(7)];
    all["keys"].as_array_mut().unwrap().extend(others);
    seeds.push(with([0, 0], &all));
    seeds.push(with([0, 1], &all));
    seeds
}

/// Documents for [`super::discovery::check`] that lead to keys.
pub(crate) fn discoveries() -> Vec<Vec<u8>> {
    let of =
        |issuer: &str, uri: &str| json!({"issuer": issuer, "jwks_uri": uri, "x": [1.5, null]}).to_string();
    vec![
        joined(b'0', &[&of(ISSUER, "https://keys.example/jwks?v=1")]),
        joined(b'0', &[&of(ISSUER, "https://[2001:db8::1]:8443/jwks")]),
        joined(b'1', &[&of(ISSUER, "http://127.0.0.1:8080/jwks")]),
        joined(b'1', &[&of(ISSUER, "http://[::1]/jwks")]),
        joined(b'1', &[&of(ISSUER, "http://LocalHost:1/")]),
        joined(b'2', &[STRICT_ISSUER, &of(STRICT_ISSUER, "https://k.example:443/a%2f..;b=/")]),
        joined(b'3', &["http://localhost:9/x/", &of("http://localhost:9/x/", "https://10.0.0.1/")]),
    ]
}

/// Documents for [`super::matching::check`] that compile, in the language of today.
pub(crate) fn matches() -> Vec<Vec<u8>> {
    let plain = [
        json!({}),
        json!({"groups": "staff"}),
        json!({"groups": "readers", "sub": "u1"}),
        json!({"scope": "read"}),
        json!({"/realm_access/roles": "dba", "email_verified": true}),
        json!({"/realm_access/roles/0": "dba", "/a~1b/~0": "t"}),
        json!({"level": 1.5, "boss": null, "tenant": ""}),
        json!({"level": 9007199254740993_u64}),
        json!({"email": "a@corp.example"}),
    ];
    let mut seeds: Vec<Vec<u8>> =
        plain.iter().map(|document| joined(b'0', &[&document.to_string()])).collect();
    seeds.push(joined(b'0', &[r#"{"x":"y"}"#, r#"{"x":["z","y"],"n":-1e-3}"#]));
    seeds
}

/// Documents with every operator and with faults.
pub(crate) fn odd_matches() -> Vec<Vec<u8>> {
    let documents = [
        r#"{"ref":{"glob":"refs/heads/release-*"},"x":{"glob":"**/?"}}"#,
        r#"{"groups":{"regex":"pg-(.+)"}}"#,
        r#"{"groups":{"regex":"(?i)[a-z\\d]{1,3}|^ü$"}}"#,
        r#"{"amr":{"any":["mfa","hwk",{"glob":"h*"}]},"env":{"not":"dev"}}"#,
        r#"{"env":{"not":{"regex":"d.*"}},"tenant":{"exists":true},"guest":{"exists":false}}"#,
        r#"{"groups":{"any":[{"not":{"exists":true}},1,null]}}"#,
        r#"{"groups":["a","b"]}"#,
        r#"{"groups":{}}"#,
        r#"{"groups":{"glob":"a","regex":"b"}}"#,
        r#"{"":"x","/~2":1}"#,
        r#"{"scope":"two words"}"#,
        "[]",
    ];
    let modes = [b'0', b'1'];
    modes.into_iter().flat_map(|mode| documents.map(|document| joined(mode, &[document]))).collect()
}

/// Images for [`super::image::check`] that are good.
pub(crate) fn images() -> Vec<Vec<u8>> {
    let whole = |mode: u8, bytes: &[u8]| [&[mode], bytes].concat();
    vec![whole(b'0', HOUSE.policy_bytes()), whole(b'1', HOUSE.keyring_bytes()), b"2".to_vec(), b"3".to_vec()]
}
