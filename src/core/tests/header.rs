//! B3, header parameters.

use pg_oidc_core::limits;
use serde_json::{Value, json};

use crate::common::{P256, RSA_A, RSA_B, World, all_refused, b64, claims, token_with_header};

fn header_with(name: &str, value: Value) -> String {
    let mut header = json!({"alg": "ES256", "kid": "p256"});
    header[name] = value;
    token_with_header(&header.to_string())
}

#[test]
fn n034_embedded_jwk() {
    let world = World::new();
    let forged = json!({"alg": "RS256", "jwk": RSA_B.jwk(), "kid": "rsa-b"}).to_string();
    assert_eq!(world.outcome(&RSA_B.token(&forged, &claims().to_string())), "key_unknown");
    let forged = json!({"alg": "RS256", "jwk": RSA_B.jwk(), "kid": "rsa-a"}).to_string();
    assert_eq!(world.outcome(&RSA_B.token(&forged, &claims().to_string())), "signature_invalid");
    // Signed with a configured key: judged as if the parameter were not there.
    let signed = json!({"alg": "RS256", "jwk": RSA_B.jwk(), "kid": "rsa-a"}).to_string();
    assert_eq!(world.outcome(&RSA_A.token(&signed, &claims().to_string())), "accepted");
}

#[test]
fn n035_n036_keys_from_elsewhere() {
    let world = World::new();
    for (name, value) in [
        ("jku", json!("https://evil.example/keys")),
        ("jku", json!("https://issuer.example/keys")),
        ("x5u", json!("https://evil.example/chain.pem")),
        ("x5c", json!([b64([0; 300])])),
        ("x5t", json!(b64([1; 20]))),
        ("x5t#S256", json!(b64([1; 32]))),
    ] {
        let header = json!({"alg": "RS256", "kid": "rsa-a", name: value}).to_string();
        assert_eq!(
            world.outcome(&RSA_B.token(&header, &claims().to_string())),
            "signature_invalid",
            "{name}"
        );
        assert_eq!(world.outcome(&RSA_A.token(&header, &claims().to_string())), "accepted", "{name}");
    }
}

#[test]
fn n037_n038_kid_is_opaque() {
    let kids = [
        "../../../dev/null",
        "/proc/self/environ",
        "' OR 1=1--",
        "$(id)",
        "; cmd",
        "https://evil.example/key",
        "",
        "p256 ",
        "*",
        "%",
    ];
    all_refused(&World::new(), "key_unknown", kids.map(|kid| (kid, header_with("kid", json!(kid)))));
}

#[test]
fn n039_kid_that_could_forge_a_line() {
    let kids = ["p256\n", "p256\r\nLOG:  fine", "\u{1b}[2Jp256", "p256\"", "\u{7f}", "\u{85}", "\t"];
    for kid in kids {
        let refusal = World::new().login(&header_with("kid", json!(kid))).unwrap_err();
        assert_eq!(refusal.code(), "kid_invalid", "{kid:?}");
        assert!(!refusal.detail().contains(kid));
    }
}

#[test]
fn n040_kid_is_no_string() {
    let kids = [json!(256), json!(null), json!(["p256"]), json!({"kid": "p256"}), json!(true)];
    all_refused(&World::new(), "kid_invalid", kids.map(|kid| (kid.to_string(), header_with("kid", kid))));
}

#[test]
fn n041_kid_length() {
    let longest = "k".repeat(limits::KID_BYTES);
    let mut key = P256.jwk();
    key["kid"] = longest.clone().into();
    let world = World::with_keys(json!([key]));
    assert_eq!(world.outcome(&header_with("kid", json!(longest))), "accepted");
    assert_eq!(world.outcome(&header_with("kid", json!(format!("{longest}k")))), "kid_invalid");
}

#[test]
fn n042_kid_missing() {
    let without = token_with_header(r#"{"alg":"ES256"}"#);
    // One P-256 key among keys of other kinds.
    assert_eq!(World::new().outcome(&without), "accepted");
    let mut second = P256.jwk();
    second["kid"] = "another".into();
    assert_eq!(World::with_keys(json!([P256.jwk(), second])).outcome(&without), "key_ambiguous");
    assert_eq!(World::with_keys(json!([RSA_A.jwk()])).outcome(&without), "key_unknown");

    // Two RSA keys, told apart by their alg.
    let (mut one, mut two) = (RSA_A.jwk(), RSA_B.jwk());
    one["alg"] = "RS256".into();
    two["alg"] = "PS256".into();
    let world = World::with_keys(json!([one, two]));
    assert_eq!(world.outcome(&RSA_A.token(r#"{"alg":"RS256"}"#, &claims().to_string())), "accepted");
    assert_eq!(world.outcome(&RSA_A.token(r#"{"alg":"RS384"}"#, &claims().to_string())), "key_unknown");

    // A key without a kid serves only tokens without one.
    let mut nameless = P256.jwk();
    nameless.as_object_mut().unwrap().remove("kid");
    let world = World::with_keys(json!([nameless]));
    assert_eq!(world.outcome(&without), "accepted");
    assert_eq!(world.outcome(&header_with("kid", json!("p256"))), "key_unknown");
}

#[test]
fn n042_two_keys_of_one_kid() {
    let mut second = RSA_B.jwk();
    second["kid"] = "rsa-a".into();
    let world = World::with_keys(json!([RSA_A.jwk(), second]));
    let token = RSA_A.token(r#"{"alg":"RS256","kid":"rsa-a"}"#, &claims().to_string());
    assert_eq!(world.outcome(&token), "key_ambiguous");
}

#[test]
fn n044_unknown_kids_ask_for_keys_by_provider() {
    for number in 0..100 {
        let refusal = World::new().login(&header_with("kid", json!(format!("kid-{number}")))).unwrap_err();
        assert_eq!(refusal.wants_keys(), Some("corp"));
    }
    // What no fetch can mend asks for none.
    let refusal = World::new().login(&header_with("kid", json!(1))).unwrap_err();
    assert_eq!(refusal.wants_keys(), None);
}

#[test]
fn n045_crit() {
    let values = [
        json!(["exp"]),
        json!([]),
        json!("exp"),
        json!(["b64", "b64"]),
        json!(null),
        json!({}),
        json!(["unknown"]),
    ];
    all_refused(
        &World::new(),
        "header_refused",
        values.map(|value| (value.to_string(), header_with("crit", value))),
    );
}

#[test]
fn n046_b64() {
    let values = [json!(false), json!(true), json!("false"), json!(null)];
    all_refused(
        &World::new(),
        "header_refused",
        values.map(|value| (value.to_string(), header_with("b64", value))),
    );
    let both = r#"{"alg":"ES256","kid":"p256","b64":false,"crit":["b64"]}"#;
    let input = format!("{}.{}", b64(both), claims());
    let unencoded = format!("{input}.{}", b64(P256.sign("ES256", input.as_bytes())));
    assert_eq!(World::new().outcome(&unencoded), "token_malformed");
}

#[test]
fn n047_zip_and_nested() {
    let refused = [
        ("zip", json!("DEF")),
        ("zip", json!("none")),
        ("zip", json!(null)),
        ("cty", json!("JWT")),
        ("cty", json!("jwt")),
        ("cty", json!("application/jwt")),
        ("cty", json!(["JWT"])),
        ("cty", json!(null)),
    ];
    all_refused(
        &World::new(),
        "header_refused",
        refused.map(|(name, value)| (format!("{name} {value}"), header_with(name, value))),
    );
    assert_eq!(World::new().outcome(&header_with("cty", json!("json"))), "accepted");
}

#[test]
fn n048_typ() {
    let with = |typ: &str| header_with("typ", json!(typ));
    let without = token_with_header(r#"{"alg":"ES256","kid":"p256"}"#);

    // By default: absent, JWT, at+jwt.
    let usual = World::new();
    for typ in
        ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt", "application/jwt"]
    {
        assert_eq!(usual.outcome(&with(typ)), "accepted", "{typ}");
    }
    assert_eq!(usual.outcome(&without), "accepted");
    for typ in [
        "logout+jwt",
        "dpop+jwt",
        "id+jwt",
        "JWS",
        "at+jwt ",
        "application/x/at+jwt",
        "text/at+jwt",
        "secevent+jwt",
    ] {
        assert_eq!(usual.outcome(&with(typ)), "typ_refused", "{typ}");
    }
    for typ in [json!(1), json!(null), json!(["JWT"])] {
        assert_eq!(usual.outcome(&header_with("typ", typ.clone())), "typ_invalid", "{typ}");
    }

    // Only access tokens.
    let strict = World::with_provider(|row| row.accepted_typ = Some(vec![Some("AT+jwt".to_owned())]));
    for typ in ["at+jwt", "AT+JWT", "application/at+jwt"] {
        assert_eq!(strict.outcome(&with(typ)), "accepted", "{typ}");
    }
    for typ in ["JWT", "logout+jwt", "dpop+jwt", ""] {
        assert_eq!(strict.outcome(&with(typ)), "typ_refused", "{typ}");
    }
    assert_eq!(strict.outcome(&without), "typ_refused");

    // The empty string in the list means absent.
    let absent = World::with_provider(|row| row.accepted_typ = Some(vec![Some(String::new())]));
    assert_eq!(absent.outcome(&without), "accepted");
    assert_eq!(absent.outcome(&with("JWT")), "typ_refused");
}
