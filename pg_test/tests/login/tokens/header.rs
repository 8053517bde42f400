//! The header, and which key of the provider it picks.
//!
//! 1. n037, n038: a `kid` that is a path, SQL or a command is an unknown key.
//! 2. n039: a `kid` with control characters or quotes, and nothing of it in the log.
//! 3. n040, n041: a `kid` that is no string, or over 256 bytes.
//! 4. n042: without a `kid` only where exactly one key fits.
//! 5. n045, n046, n047: `crit`, `b64`, `zip`, a nested JWT.
//! 6. n048: `typ` as the provider accepts it.
//! 7. n049: an `oct` key is dropped, and never an HMAC's.
//! 8. n058: a key with private members is dropped.
//! 9. n034 to n036: keys and addresses in the header are never used.

use anyhow::{Result, ensure};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pg_oidc_test::issuer::Issuer;
use pg_oidc_test::keys::{jwks, keys};
use serde_json::{Value, json};

use super::{key_types, stage};
use crate::scene::{good, issuer, provider_sql, text};

#[test]
fn n037_n038_hostile_kids() -> Result<()> {
    let stage = stage();
    stage.trio("n037")?;
    stage.accepted("n037", &good("n037").sign(&keys().ec), "its own kid")?;
    let hostile = [
        "../../../dev/null",
        "/proc/self/environ",
        "file:///etc/passwd",
        "https://127.0.0.1/jwks",
        "' OR 1=1--",
        "$(id)",
        "; touch /tmp/x",
        "ec-1 ",
        "EC-1",
        "ec-",
        "",
    ];
    for kid in hostile {
        let token = good("n037").header("kid", json!(kid)).sign(&keys().ec);
        stage.refused("n037", &token, "key_unknown", format!("{kid:?}"))?;
    }
    Ok(())
}

#[test]
fn n039_kid_with_control_characters() -> Result<()> {
    let stage = stage();
    let mark = stage.cluster.log_mark();
    for kid in ["ec-1\nLOG:  planted-line", "\u{1b}[31mplanted-red", "planted\"quote", "\u{7f}planted", "\r"]
    {
        let token = good("n039").header("kid", json!(kid)).sign(&keys().ec);
        stage.refused("n039", &token, "kid_invalid", format!("{kid:?}"))?;
    }
    ensure!(!stage.cluster.log_since(mark).contains("planted"), "a kid reached the log");
    Ok(())
}

#[test]
fn n040_n041_kid_that_is_none() -> Result<()> {
    let stage = stage();
    stage.trio("n041")?;
    for kid in [json!(1), json!(["ec-1"]), json!({ "ec-1": 1 }), json!(true), json!("k".repeat(257))] {
        let token = good("n041").header("kid", kid.clone()).sign(&keys().ec);
        stage.refused("n041", &token, "kid_invalid", kid)?;
    }
    let null = good("n041").raw_header(r#"{"alg":"ES256","kid":null}"#).sign(&keys().ec);
    stage.refused("n041", &null, "kid_invalid", "null")?;
    let longest = good("n041").header("kid", json!("k".repeat(256))).sign(&keys().ec);
    stage.refused("n041", &longest, "key_unknown", "256 bytes are a kid")
}

#[test]
fn n042_kid_missing() -> Result<()> {
    let stage = stage();
    let all = keys();
    stage.provider_with("n042", &jwks(&[&all.rsa, &all.other_rsa, &all.ec]), &[])?;
    stage.role_and_rule("n042", "n042", &json!({ "sub": "n042" }))?;
    let without = |key| good("n042").header("kid", Value::Null).sign(key);
    stage.accepted("n042", &without(&all.ec), "the only EC key")?;
    stage.refused("n042", &without(&all.rsa), "key_ambiguous", "one of two RSA keys")?;
    stage.refused("n042", &without(&all.other_ec), "signature_invalid", "not the only EC key")?;
    stage.refused("n042", &without(&all.ed25519), "key_unknown", "no Ed25519 key")?;
    stage.accepted("n042", &good("n042").sign(&all.other_rsa), "the second RSA key, named")
}

#[test]
fn n045_n046_n047_parameters_that_change_the_meaning() -> Result<()> {
    let stage = stage();
    stage.trio("n045")?;
    let refused = [
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("crit", json!("exp")),
        ("crit", json!(["b64"])),
        ("crit", json!(["exp", "exp"])),
        ("crit", json!({})),
        ("b64", json!(false)),
        ("b64", json!(true)),
        ("zip", json!("DEF")),
        ("zip", json!("")),
        ("cty", json!("JWT")),
        ("cty", json!("jwt")),
        ("cty", json!("application/jwt")),
        ("cty", json!(1)),
    ];
    for (parameter, value) in refused {
        let about = format!("{parameter}: {value}");
        let token = good("n045").header(parameter, value).sign(&keys().ec);
        stage.refused("n045", &token, "header_refused", about)?;
    }
    let harmless = good("n045").header("cty", json!("json")).header("x-own", json!(["crit"]));
    stage.accepted("n045", &harmless.sign(&keys().ec), "parameters that mean nothing")
}

#[test]
fn n048_typ() -> Result<()> {
    let stage = stage();
    stage.trio("n048")?;
    let strict = jwks(&[&keys().ec]);
    stage.provider_with("n048s", &strict, &[("accepted_typ", "'{at+jwt}'")])?;
    stage.role_and_rule("n048s", "n048s", &json!({ "sub": "n048s" }))?;
    let token = |name, typ: Value| good(name).header("typ", typ).sign(&keys().ec);
    for typ in ["at+jwt", "AT+JWT", "application/at+jwt", "Application/AT+jwt"] {
        stage.accepted("n048s", &token("n048s", json!(typ)), typ)?;
        stage.accepted("n048", &token("n048", json!(typ)), typ)?;
    }
    for typ in ["JWT", "logout+jwt", "dpop+jwt", "at+jwt2", "x/application/at+jwt", "at+jwt ", ""] {
        stage.refused("n048s", &token("n048s", json!(typ)), "typ_refused", typ)?;
    }
    stage.refused("n048s", &token("n048s", Value::Null), "typ_refused", "absent")?;
    // By default: absent, JWT, at+jwt, and nothing that another protocol signs.
    stage.accepted("n048", &token("n048", Value::Null), "absent")?;
    stage.accepted("n048", &token("n048", json!("JWT")), "JWT")?;
    for typ in ["logout+jwt", "dpop+jwt", "secevent+jwt"] {
        stage.refused("n048", &token("n048", json!(typ)), "typ_refused", typ)?;
    }
    for typ in [json!(1), json!(["at+jwt"])] {
        stage.refused("n048", &token("n048", typ.clone()), "typ_invalid", typ)?;
    }
    Ok(())
}

#[test]
fn n049_oct_keys() -> Result<()> {
    let stage = stage();
    let secret = b"a secret that both sides share, as HMAC wants it";
    let oct = json!({ "kty": "oct", "kid": "oct-1", "k": URL_SAFE_NO_PAD.encode(secret) });
    let alone = text(&json!({ "keys": [oct] }));
    let told = stage.admin()?.error(&provider_sql("n049a", &issuer("n049a"), &[("jwks", &alone)]))?;
    assert_eq!(told.message, "\"jwks\" has no usable key");
    ensure!(told.detail.is_some(), "{told:?}");

    stage.provider_with("n049", &json!({ "keys": [oct, keys().ec.jwk()] }), &[])?;
    stage.role_and_rule("n049", "n049", &json!({ "sub": "n049" }))?;
    stage.accepted("n049", &good("n049").sign(&keys().ec), "the key beside it")?;
    let input = good("n049").signing_input("HS256", "oct-1");
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), input.as_bytes());
    let token = format!("{input}.{}", URL_SAFE_NO_PAD.encode(tag));
    stage.refused("n049", &token, "algorithm_unsupported", "HS256 with the oct key")?;
    let named = good("n049").header("kid", json!("oct-1")).sign(&keys().ec);
    stage.refused("n049", &named, "key_unknown", "the oct key's kid")
}

#[test]
fn n058_private_members() -> Result<()> {
    let stage = stage();
    for member in ["d", "p", "q", "dp", "dq", "qi"] {
        let mut leaked = keys().rsa.jwk();
        leaked[member] = json!(URL_SAFE_NO_PAD.encode([7; 32]));
        let alone = text(&json!({ "keys": [leaked] }));
        let told = stage.admin()?.error(&provider_sql("n058a", &issuer("n058a"), &[("jwks", &alone)]))?;
        assert_eq!(told.message, "\"jwks\" has no usable key", "{member}");

        let name = format!("n058{member}");
        stage.provider_with(&name, &json!({ "keys": [leaked, keys().ec.jwk()] }), &[])?;
        stage.role_and_rule(&name, &name, &json!({ "sub": name }))?;
        stage.accepted(&name, &good(&name).sign(&keys().ec), "the key beside it")?;
        stage.refused(&name, &good(&name).sign(&keys().rsa), "key_unknown", member)?;
    }
    Ok(())
}

#[test]
fn n034_n035_n036_keys_in_the_header() -> Result<()> {
    let stage = stage();
    stage.trio("n034")?;
    let canary = Issuer::start()?;
    canary.set_jwks(jwks(&[&keys().other_rsa, &keys().other_ec, &keys().other_ed25519]));
    let address = json!(format!("{}/jwks", canary.url()));
    let forged = [("jwk", keys().other_ec.jwk()), ("jku", address.clone()), ("x5u", address)];
    for (parameter, value) in &forged {
        let token =
            |key| good("n034").header(parameter, value.clone()).header("kid", json!("ec-1")).sign(key);
        stage.refused("n034", &token(&keys().other_ec), "signature_invalid", parameter)?;
        stage.accepted("n034", &token(&keys().ec), format!("{parameter} beside a configured key"))?;
    }
    for key in key_types() {
        let chain = good("n034").header("x5c", json!(["MIIB"])).header("x5t", json!("AAAA")).sign(key);
        stage.accepted("n034", &chain, "x5c and x5t beside a configured key")?;
    }
    assert_eq!(canary.connections(), 0);
    Ok(())
}
