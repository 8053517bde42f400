//! B4, key sets.

use pg_oidc_core::algorithm::Algorithm;
use pg_oidc_core::image::{ImageError, KeyringImage, ProviderKeys};
use pg_oidc_core::json::JsonProblem;
use pg_oidc_core::keys::{JwksError, KeyProblem, ParsedJwks, parse_jwks};
use pg_oidc_core::limits;
use serde_json::{Value, json};

use crate::common::{ED25519, P256, P384, RSA_A, RSA_B, World, b64, claims, token, unb64};

pub(crate) fn parse(set: &Value) -> Result<ParsedJwks, JwksError> {
    parse_jwks(set.to_string().as_bytes(), &Algorithm::ALL)
}

/// What becomes of a key in a set that also has a good one, which must stay usable.
#[track_caller]
fn problem(key: Value) -> KeyProblem {
    let parsed = parse(&json!({"keys": [key, ED25519.jwk()]})).unwrap();
    assert_eq!(parsed.keys.len(), 1);
    assert_eq!(parsed.reports[1].usable, Ok(()));
    parsed.reports[0].usable.unwrap_err()
}

#[track_caller]
fn usable(key: Value) {
    assert_eq!(parse(&json!({ "keys": [key] })).unwrap().reports[0].usable, Ok(()));
}

pub(crate) fn changed(mut key: Value, name: &str, value: Value) -> Value {
    key[name] = value;
    key
}

pub(crate) fn without(mut key: Value, name: &str) -> Value {
    key.as_object_mut().unwrap().remove(name).unwrap();
    key
}

/// An RSA key with an odd modulus of that many bits.
fn rsa_of_bits(bits: usize) -> Value {
    let mut n = vec![0xff; bits.div_ceil(8)];
    n[0] = 0xff >> (n.len() * 8 - bits);
    json!({"kty": "RSA", "n": b64(n), "e": "AQAB", "kid": "sized"})
}

#[test]
fn n049_symmetric() {
    assert_eq!(
        problem(json!({"kty": "oct", "k": "c2VjcmV0", "alg": "HS256", "kid": "s"})),
        KeyProblem::Symmetric
    );
    assert_eq!(problem(json!({"kty": "oct", "k": "c2VjcmV0", "alg": "RS256"})), KeyProblem::Symmetric);
    let only = parse(&json!({"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}));
    assert!(matches!(only, Err(JwksError::NoUsableKey(reports)) if reports[0].kty.as_deref() == Some("oct")));
}

#[test]
fn n050_rsa_size() {
    assert_eq!(problem(rsa_of_bits(1024)), KeyProblem::RsaTooSmall);
    assert_eq!(problem(rsa_of_bits(2047)), KeyProblem::RsaTooSmall);
    usable(rsa_of_bits(2048));
    usable(rsa_of_bits(8192));
    assert_eq!(problem(rsa_of_bits(8193)), KeyProblem::RsaTooLarge);
    assert_eq!(problem(rsa_of_bits(65_536)), KeyProblem::RsaTooLarge);
}

#[test]
fn n051_rsa_exponent() {
    let with = |e: &[u8]| changed(RSA_A.jwk(), "e", b64(e).into());
    usable(with(&[3]));
    usable(with(&[1, 0xff, 0xff, 0xff, 0xff]));
    assert_eq!(problem(with(&[1])), KeyProblem::RsaExponent);
    assert_eq!(problem(with(&[2])), KeyProblem::RsaExponent);
    assert_eq!(problem(with(&[1, 0, 0])), KeyProblem::RsaExponent);
    assert_eq!(problem(with(&[3, 0xff, 0xff, 0xff, 0xff])), KeyProblem::RsaExponent);
    assert_eq!(problem(with(&[0xff; 256])), KeyProblem::RsaExponent);
    assert_eq!(problem(with(&[0])), KeyProblem::Encoding);
    assert_eq!(problem(with(&[])), KeyProblem::Encoding);
    assert_eq!(problem(with(&[0, 1, 0, 1])), KeyProblem::Encoding);
}

#[test]
fn n052_even_modulus() {
    let mut n = unb64(RSA_A.jwk()["n"].as_str().unwrap());
    *n.last_mut().unwrap() &= 0xfe;
    assert_eq!(problem(changed(RSA_A.jwk(), "n", b64(&n).into())), KeyProblem::RsaModulus);
    n.insert(0, 0);
    assert_eq!(problem(changed(RSA_A.jwk(), "n", b64(&n).into())), KeyProblem::Encoding);
}

#[test]
fn n052_roca() {
    let file: Value =
        serde_json::from_str(include_str!("fixtures/wycheproof/json_web_key_test.json")).unwrap();
    let groups = file["testGroups"].as_array().unwrap();
    let roca = groups.iter().find(|group| group["comment"] == "jws_rsa_roca_key").unwrap();
    let key = &roca["public"]["keys"][0];
    assert_eq!(problem(key.clone()), KeyProblem::RsaRoca);
    // Any modulus of that form, and no other: the powers of 65537 are not closed under adding 2.
    let mut n = unb64(key["n"].as_str().unwrap());
    *n.last_mut().unwrap() ^= 2;
    usable(changed(key.clone(), "n", b64(n).into()));
    for sound in [&RSA_A, &RSA_B] {
        usable(sound.jwk());
    }
}

#[test]
fn n053_ec_point() {
    for (signer, length) in [(&P256, 32), (&P384, 48)] {
        let key = signer.jwk();
        let y = unb64(key["y"].as_str().unwrap());
        let mut off = y.clone();
        off[length - 1] ^= 1;
        assert_eq!(problem(changed(key.clone(), "y", b64(off).into())), KeyProblem::NotOnCurve);
        for name in ["x", "y"] {
            let whole = unb64(key[name].as_str().unwrap());
            for wrong in [&whole[1..], &[&[0], &whole[..]].concat(), &[]] {
                assert_eq!(problem(changed(key.clone(), name, b64(wrong).into())), KeyProblem::Encoding);
            }
        }
        let zero = json!(b64(vec![0; length]));
        let infinity = changed(changed(key.clone(), "x", zero.clone()), "y", zero);
        assert_eq!(problem(infinity), KeyProblem::NotOnCurve);
        let over = json!(b64(vec![0xff; length]));
        assert_eq!(problem(changed(key.clone(), "x", over)), KeyProblem::NotOnCurve);
        usable(key);
    }
    assert_eq!(problem(changed(P256.jwk(), "crv", "P-384".into())), KeyProblem::Encoding);
    assert_eq!(problem(changed(P384.jwk(), "crv", "P-256".into())), KeyProblem::Encoding);
    for curve in ["P-521", "secp256k1", "p-256", ""] {
        assert_eq!(problem(changed(P256.jwk(), "crv", curve.into())), KeyProblem::Curve);
    }
    for curve in ["Ed448", "X25519", "P-256"] {
        assert_eq!(okp_problem(changed(ED25519.jwk(), "crv", curve.into())), KeyProblem::Curve);
    }
    assert_eq!(okp_problem(changed(ED25519.jwk(), "x", b64([1; 31]).into())), KeyProblem::Encoding);
    assert_eq!(okp_problem(changed(ED25519.jwk(), "x", b64([1; 33]).into())), KeyProblem::Encoding);
}

#[track_caller]
fn okp_problem(key: Value) -> KeyProblem {
    parse(&json!({"keys": [key, P256.jwk()]})).unwrap().reports[0].usable.unwrap_err()
}

#[test]
fn n054_purpose() {
    let with_use = |value: Value| changed(P256.jwk(), "use", value);
    usable(with_use("sig".into()));
    for value in [json!("enc"), json!("SIG"), json!(""), json!(null), json!(["sig"])] {
        assert_eq!(problem(with_use(value)), KeyProblem::Use);
    }
    let with_ops = |value: Value| changed(P256.jwk(), "key_ops", value);
    usable(with_ops(json!(["verify"])));
    usable(with_ops(json!(["sign", "verify"])));
    for value in
        [json!(["sign"]), json!(["encrypt"]), json!([]), json!("verify"), json!(null), json!(["verify", 1])]
    {
        assert_eq!(problem(with_ops(value)), KeyProblem::KeyOps);
    }
    let both = changed(with_use("sig".into()), "key_ops", json!(["encrypt"]));
    assert_eq!(problem(both), KeyProblem::KeyOps);
}

#[test]
fn n055_odd_entries() {
    for entry in [json!(1), json!("key"), json!(null), json!([]), json!(true)] {
        assert_eq!(problem(entry), KeyProblem::NotObject);
    }
    assert_eq!(problem(json!({})), KeyProblem::KeyType);
    for kty in [json!("DSA"), json!("rsa"), json!(1), json!(null), json!("AKP")] {
        assert_eq!(problem(changed(RSA_A.jwk(), "kty", kty)), KeyProblem::KeyType);
    }
    for name in ["n", "e"] {
        assert_eq!(problem(without(RSA_A.jwk(), name)), KeyProblem::Encoding);
        for value in [
            json!(65537),
            json!(null),
            json!("AQAB="),
            json!("+/+/"),
            json!(""),
            json!("AQ AB"),
            json!("AQAC\n"),
        ] {
            assert_eq!(problem(changed(RSA_A.jwk(), name, value)), KeyProblem::Encoding);
        }
    }
    for name in ["x", "y"] {
        assert_eq!(problem(without(P256.jwk(), name)), KeyProblem::Encoding);
    }
    assert_eq!(problem(without(P256.jwk(), "crv")), KeyProblem::Curve);
    assert_eq!(okp_problem(without(ED25519.jwk(), "x")), KeyProblem::Encoding);
    for kid in [json!(1), json!(null), json!("a\nb"), json!("k".repeat(limits::KID_BYTES + 1))] {
        assert_eq!(problem(changed(P256.jwk(), "kid", kid)), KeyProblem::Kid);
    }
    for alg in
        [json!("RSA-OAEP"), json!("HS256"), json!("none"), json!("ES256K"), json!(null), json!(["ES256"])]
    {
        assert_eq!(problem(changed(P256.jwk(), "alg", alg)), KeyProblem::Algorithm);
    }
    for alg in ["RS256", "ES384", "EdDSA"] {
        assert_eq!(problem(changed(P256.jwk(), "alg", alg.into())), KeyProblem::AlgorithmMismatch);
    }
    assert_eq!(problem(changed(RSA_A.jwk(), "alg", "ES256".into())), KeyProblem::AlgorithmMismatch);
}

#[test]
fn n056_one_kid_two_kinds() {
    let (mut one, mut two) = (RSA_A.jwk(), P256.jwk());
    one["kid"] = "same".into();
    two["kid"] = "same".into();
    let world = World::with_keys(json!([one, two]));
    let payload = claims().to_string();
    assert_eq!(world.outcome(&P256.token(r#"{"alg":"ES256","kid":"same"}"#, &payload)), "accepted");
    assert_eq!(world.outcome(&RSA_A.token(r#"{"alg":"RS256","kid":"same"}"#, &payload)), "accepted");
    assert_eq!(world.outcome(&RSA_A.token(r#"{"alg":"ES256","kid":"same"}"#, &payload)), "signature_invalid");
}

#[test]
fn n058_private_members() {
    for name in ["d", "p", "q", "dp", "dq", "qi", "oth"] {
        assert_eq!(problem(changed(RSA_A.jwk(), name, "AQAB".into())), KeyProblem::PrivateMember);
        assert_eq!(problem(changed(RSA_A.jwk(), name, json!(null))), KeyProblem::PrivateMember);
    }
    assert_eq!(problem(changed(P256.jwk(), "d", "AQAB".into())), KeyProblem::PrivateMember);
    assert_eq!(okp_problem(changed(ED25519.jwk(), "d", "AQAB".into())), KeyProblem::PrivateMember);
    let world = World::with_keys(json!([changed(P256.jwk(), "d", "AQAB".into())]));
    assert_eq!(world.outcome(&token(&claims())), "keys_unavailable");
}

#[test]
fn n059_no_usable_key() {
    assert_eq!(parse(&json!({"keys": []})), Err(JwksError::NoUsableKey(vec![])));
    let unusable = parse(&json!({"keys": [{"kty": "oct"}, changed(P256.jwk(), "use", "enc".into())]}));
    assert!(matches!(unusable, Err(JwksError::NoUsableKey(reports)) if reports.len() == 2));
}

#[test]
fn n060_no_key_set() {
    let parse = |body: &[u8]| parse_jwks(body, &Algorithm::ALL).unwrap_err();
    let good = json!({"keys": [P256.jwk()]}).to_string();
    assert_eq!(parse(b"<html>sign in</html>"), JwksError::NotJson(JsonProblem::NotJson));
    assert_eq!(parse(b""), JwksError::NotJson(JsonProblem::NotJson));
    assert_eq!(parse(&good.as_bytes()[..good.len() - 1]), JwksError::NotJson(JsonProblem::NotJson));
    assert_eq!(parse(format!("{good}{good}").as_bytes()), JwksError::NotJson(JsonProblem::NotJson));
    assert_eq!(parse(b"\xff"), JwksError::NotJson(JsonProblem::NotUtf8));
    assert_eq!(parse(b"[]"), JwksError::NotJson(JsonProblem::NotObject));
    assert_eq!(parse(b"{}"), JwksError::NoKeys);
    assert_eq!(parse(br#"{"keys":{}}"#), JwksError::NoKeys);
    assert_eq!(parse(br#"{"keys":null}"#), JwksError::NoKeys);
    assert_eq!(parse(br#"{"Keys":[]}"#), JwksError::NoKeys);
    assert_eq!(parse(br#"{"keys":[],"keys":[]}"#), JwksError::NotJson(JsonProblem::DuplicateMember));
    assert_eq!(
        parse(br#"{"keys":[{"kty":"RSA","kty":"EC"}]}"#),
        JwksError::NotJson(JsonProblem::DuplicateMember)
    );
}

#[test]
fn n061_too_large_or_too_many() {
    let padded = |bytes: usize| {
        let mut set = json!({"keys": [P256.jwk()]}).to_string();
        set.push_str(&" ".repeat(bytes - set.len()));
        parse_jwks(set.as_bytes(), &Algorithm::ALL)
    };
    assert!(padded(limits::JWKS_BYTES).is_ok());
    assert_eq!(padded(limits::JWKS_BYTES + 1), Err(JwksError::TooLarge));

    let many = |count: usize| {
        let keys: Vec<Value> =
            (0..count).map(|number| changed(P256.jwk(), "kid", format!("k{number}").into())).collect();
        parse(&json!({ "keys": keys }))
    };
    assert_eq!(many(limits::KEYS_PER_PROVIDER).unwrap().keys.len(), limits::KEYS_PER_PROVIDER);
    assert_eq!(many(limits::KEYS_PER_PROVIDER + 1), Err(JwksError::TooManyKeys));

    let key = parse(&json!({"keys": [P256.jwk()]})).unwrap().keys.remove(0);
    let published = |count| ProviderKeys {
        name: "corp".to_owned(),
        key_source: 1,
        fetched_at: 0,
        attempted_at: 0,
        static_keys: false,
        keys: vec![key.clone(); count],
        reports: vec![],
        origin: String::new(),
        next_fetch_at: None,
        last_error: None,
    };
    assert!(KeyringImage::build(vec![published(limits::KEYS_PER_PROVIDER)]).is_ok());
    let over = KeyringImage::build(vec![published(limits::KEYS_PER_PROVIDER + 1)]);
    assert_eq!(over.unwrap_err(), ImageError::TooManyKeys);
}

#[test]
fn n062_bombs() {
    let parse = |body: String| parse_jwks(body.as_bytes(), &Algorithm::ALL).unwrap_err();
    let deep = format!("{{\"keys\":{}{}}}", "[".repeat(130_000), "]".repeat(130_000));
    assert_eq!(parse(deep), JwksError::NotJson(JsonProblem::TooDeep));
    assert_eq!(parse("[".repeat(200_000)), JwksError::NotJson(JsonProblem::NotJson));
    assert_eq!(parse("{\"a\":".repeat(40_000)), JwksError::NotJson(JsonProblem::NotJson));
    assert_eq!(
        parse(format!("{{\"x\":{}}}", "9".repeat(250_000))),
        JwksError::NotJson(JsonProblem::NumberTooLong)
    );
    assert_eq!(parse("9".repeat(1_000_000)), JwksError::TooLarge);
    assert_eq!(parse("{\"x\":1e999999999999}".to_owned()), JwksError::NotJson(JsonProblem::NumberTooLong));
    assert_eq!(parse("[".repeat(1_000_000)), JwksError::TooLarge);
    // At the limit it is read, and has no keys; or too many of them.
    let members = |count: usize| {
        let members: Vec<String> = (0..count).map(|number| format!("\"m{number}\":1")).collect();
        parse(format!("{{{}}}", members.join(",")))
    };
    assert_eq!(members(limits::JWKS_MEMBERS), JwksError::NoKeys);
    assert_eq!(members(limits::JWKS_MEMBERS + 1), JwksError::NotJson(JsonProblem::TooManyMembers));
    let elements = |count: usize| parse(json!({ "keys": vec![1; count] }).to_string());
    assert_eq!(elements(limits::JWKS_MEMBERS), JwksError::TooManyKeys);
    assert_eq!(elements(limits::JWKS_MEMBERS + 1), JwksError::NotJson(JsonProblem::TooManyElements));
}

#[test]
fn n064_kids_differ_by_case() {
    let world = World::with_keys(json!([changed(P256.jwk(), "kid", "KEY".into())]));
    let payload = claims().to_string();
    assert_eq!(world.outcome(&P256.token(r#"{"alg":"ES256","kid":"KEY"}"#, &payload)), "accepted");
    assert_eq!(world.outcome(&P256.token(r#"{"alg":"ES256","kid":"key"}"#, &payload)), "key_unknown");
    assert_eq!(world.outcome(&P256.token(r#"{"alg":"ES256","kid":"Key"}"#, &payload)), "key_unknown");
}

#[test]
fn n065_key_without_alg() {
    let payload = claims().to_string();
    let algorithms = |names: &[&str]| {
        let names = names.iter().map(|name| Some((*name).to_owned())).collect();
        World::with_provider(|row| row.algorithms = names)
    };
    let rs256 = RSA_A.token(r#"{"alg":"RS256","kid":"rsa-a"}"#, &payload);
    let ps256 = RSA_A.token(r#"{"alg":"PS256","kid":"rsa-a"}"#, &payload);
    assert_eq!(algorithms(&["RS256"]).outcome(&rs256), "accepted");
    assert_eq!(algorithms(&["RS256"]).outcome(&ps256), "algorithm_not_allowed");
    assert_eq!(algorithms(&["RS256", "PS256"]).outcome(&ps256), "accepted");

    let only = |key: Value, allowed: &[Algorithm]| {
        parse_jwks(json!({"keys": [key]}).to_string().as_bytes(), allowed)
            .map_or_else(|_| false, |parsed| parsed.keys.len() == 1)
    };
    assert!(only(RSA_A.jwk(), &[Algorithm::PS384]));
    assert!(!only(RSA_A.jwk(), &[Algorithm::ES256, Algorithm::EdDSA]));
    assert!(only(P256.jwk(), &[Algorithm::ES256]));
    assert!(!only(P256.jwk(), &[Algorithm::ES384, Algorithm::RS256]));
    assert!(!only(ED25519.jwk(), &[Algorithm::ES256]));
    assert!(!only(changed(RSA_A.jwk(), "alg", "RS512".into()), &[Algorithm::RS256]));
}

#[test]
fn the_same_key_twice_is_one_key() {
    let parsed = parse(&json!({"keys": [P256.jwk(), P256.jwk()]})).unwrap();
    assert_eq!(parsed.keys.len(), 1);
    assert_eq!(parsed.reports[1].usable, Err(KeyProblem::Repeated));
}
