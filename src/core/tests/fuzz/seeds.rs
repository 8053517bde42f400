//! Inputs that come far: fuzzing starts from them, and proptest changes them.

use serde_json::{Value, json};

use super::PART;
use super::forge::GOOD;
use super::house::{self, HOUSE, STRICT_ISSUER};
use crate::common::{ED25519, ISSUER, NOW, P256, P384, RSA_A, RSA_B, Signer, b64, claims_with, unb64};

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
    let beyond_a_float = usual.to_string().replacen('{', r#"{"big":1e400,"#, 1);
    seeds.push(joined(b'1', &[r#"{"alg":"EdDSA","cty":"text/plain","jku":7}"#, &usual.to_string()]));
    seeds.push(joined(b'1', &[r#"{"alg":"EdDSA"}"#, &beyond_a_float]));
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
        json!({"groups": vec!["a"; 2001]}),
    ];
    let mut seeds: Vec<Vec<u8>> =
        changes.into_iter().map(|change| joined(b'1', &[header, &claims_with(change).to_string()])).collect();
    let usual = claims_with(json!({})).to_string();
    for header in [
        r#"{"alg":"none"}"#,
        r#"{"alg":"HS256","kid":"ed25519"}"#,
        r#"{"alg":"EdDSA","crit":["b64"],"b64":false}"#,
        r#"{"alg":"EdDSA","crit":["exp"]}"#,
        r#"{"alg":"EdDSA","cty":"JWT"}"#,
        r#"{"alg":"EdDSA","kid":"S3CRET"}"#,
        r#"{"alg":"EdDSA","kid":"S3CRET\u0007"}"#,
        r#"{"alg":"EdDSA","typ":"secevent+jwt"}"#,
        r#"{"alg":"EdDSA","alg":"EdDSA"}"#,
    ] {
        seeds.push(joined(b'1', &[header, &usual]));
    }
    let twice = usual.replacen('{', r#"{"sub":"u0","#, 1);
    seeds.push(joined(b'1', &[header, &twice]));
    seeds.push(joined(b'1', &[header, &usual.replacen('{', &format!("{{\"n\":{},", "1".repeat(129)), 1)]));
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

/// Key sets of which no key is taken, each for another reason but all near to a good one.
pub(crate) fn near_key_sets() -> Vec<Vec<u8>> {
    let with = |set: &Value| [[0, 0].as_slice(), set.to_string().as_bytes()].concat();
    let changed = |signer: &Signer, name: &str, value: Value| {
        let mut key = signer.jwk();
        key[name] = value;
        with(&json!({ "keys": [key] }))
    };
    let part = |signer: &Signer, name: &str| unb64(signer.jwk()[name].as_str().unwrap());
    let padded = |signer: &Signer, name: &str| json!(b64([&[0], part(signer, name).as_slice()].concat()));
    let edited = |signer: &Signer, name: &str, place: usize| {
        let mut bytes = part(signer, name);
        bytes[place] ^= 1;
        json!(b64(bytes))
    };
    let private = ["d", "p", "q", "dp", "dq", "qi", "oth"].map(|name| changed(&RSA_A, name, json!(null)));
    let mut seeds = private.to_vec();
    seeds.extend([
        changed(&ED25519, "d", json!("S3CRET")),
        changed(&RSA_A, "n", padded(&RSA_A, "n")),
        changed(&RSA_A, "e", padded(&RSA_A, "e")),
        changed(&RSA_A, "n", edited(&RSA_A, "n", 255)),
        changed(&RSA_A, "n", json!(b64(&part(&RSA_A, "n")[1..]))),
        changed(&RSA_A, "e", json!("AQ")),
        changed(&RSA_A, "e", json!("AQAC")),
        changed(&RSA_A, "e", json!("BAAAAAE")),
        changed(&RSA_A, "alg", json!("ES256")),
        changed(&RSA_A, "alg", json!("HS256")),
        changed(&P256, "y", edited(&P256, "y", 31)),
        changed(&P256, "x", padded(&P256, "x")),
        changed(&P256, "crv", json!("P-384")),
        changed(&P256, "crv", json!("P-521")),
        changed(&P256, "kty", json!("oct")),
        changed(&P256, "use", json!("enc")),
        changed(&P256, "key_ops", json!(["sign"])),
        changed(&P256, "key_ops", json!("verify")),
        changed(&P256, "kid", json!(7)),
        changed(&P256, "kid", json!("line\nbreak")),
        changed(&P384, "alg", json!("ES256")),
        changed(&ED25519, "crv", json!("Ed448")),
        changed(&ED25519, "x", padded(&ED25519, "x")),
        with(&json!({"keys": []})),
        with(&json!({"keys": {}})),
        with(&json!([P256.jwk()])),
        [[0xff, 0xff].as_slice(), house::jwks().to_string().as_bytes()].concat(),
    ]);
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

/// Documents that lead nowhere, near to one that does.
pub(crate) fn near_discoveries() -> Vec<Vec<u8>> {
    let uris = [
        "http://keys.example/jwks",
        "http://localhost.example/jwks",
        "http://localhost@keys.example/jwks",
        "http://localhost:80@keys.example/jwks",
        "http://127.0.0.1.example/jwks",
        "http://127.1/jwks",
        "http://2130706433/jwks",
        "http://[::ffff:127.0.0.1]/jwks",
        "http://[::1]keys.example/jwks",
        "http://localhost\\@keys.example/jwks",
        "https://user:S3CRET@keys.example/jwks",
        "https://keys.example/jwks#part",
        "https://keys.example:65536/jwks",
        "https://keys.example:/jwks",
        "https:///jwks",
        "https://keys .example/jwks",
        "https://k\u{e9}ys.example/jwks",
        "https:keys.example",
        "HTTPS://keys.example/jwks",
        "file:///etc/passwd",
        "//keys.example/jwks",
    ];
    let of = |issuer: &str, uri: &str| json!({"issuer": issuer, "jwks_uri": uri}).to_string();
    let mut seeds: Vec<Vec<u8>> = uris.iter().map(|uri| joined(b'1', &[&of(ISSUER, uri)])).collect();
    let good = "https://keys.example/jwks";
    seeds.push(joined(b'0', &[&of("https://issuer.example/", good)]));
    seeds.push(joined(b'0', &[&of("https://ISSUER.example", good)]));
    seeds.push(joined(b'0', &[&of(ISSUER, good).replacen('{', r#"{"issuer":"https://other.example","#, 1)]));
    for issuer in ["https://issuer.example?a", "http://issuer.example", "https://a@issuer.example"] {
        seeds.push(joined(b'3', &[issuer, &of(issuer, good)]));
    }
    seeds
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
        r#"{"line\nbreak":["x"]}"#,
        r#"{"groups":{"\u001b[31m":1}}"#,
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
