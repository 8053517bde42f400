//! B1, structure and encoding.

use pg_oidc_core::limits;
use pg_oidc_core::token::{may_be_token, parse};
use serde_json::{Value, json};

use crate::common::{
    P256, World, all_refused, b64, claims, claims_with, token, token_raw, token_with_header,
};

fn parts() -> (String, String, String) {
    let token = token(&claims());
    let mut parts = token.split('.').map(str::to_owned);
    (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap())
}

#[test]
fn n001_empty() {
    all_refused(&World::new(), "token_malformed", [("empty", String::new())]);
}

#[test]
fn n002_wrong_number_of_parts() {
    let (header, payload, signature) = parts();
    let world = World::new();
    assert_eq!(world.outcome(&format!("{header}.{payload}.{signature}")), "accepted");
    all_refused(
        &world,
        "token_malformed",
        [
            ("no dot", header.clone()),
            ("one dot", format!("{header}.{payload}")),
            ("no signature", format!("{header}.{payload}.")),
            ("no header", format!(".{payload}.{signature}")),
            ("trailing dot", format!("{header}.{payload}.{signature}.")),
            ("leading dot", format!(".{header}.{payload}.{signature}")),
            ("four parts", format!("{header}.{payload}.{signature}.{signature}")),
            ("six parts", format!("{header}.{payload}.{signature}.{signature}.{signature}.{signature}")),
            ("dots", "..".to_owned()),
            ("a password", "hunter2".to_owned()),
        ],
    );
}

#[test]
fn n003_jwe() {
    let header = b64(r#"{"alg":"RSA-OAEP","enc":"A256GCM"}"#);
    all_refused(
        &World::new(),
        "token_encrypted",
        [
            ("five parts", format!("{header}.QUJD.QUJD.QUJD.QUJD")),
            ("direct", format!("{header}..QUJD.QUJD.QUJD")),
        ],
    );
}

#[test]
fn n004_json_serialization() {
    let (header, payload, signature) = parts();
    all_refused(
        &World::new(),
        "token_json_serialization",
        [
            (
                "flattened",
                json!({"protected": header, "payload": payload, "signature": signature}).to_string(),
            ),
            (
                "general",
                json!({"payload": payload, "signatures": [{"protected": header, "signature": signature}]})
                    .to_string(),
            ),
        ],
    );
}

#[test]
fn n005_characters_outside_the_alphabet() {
    let (header, payload, signature) = parts();
    let world = World::new();
    for bad in ["=", "==", " ", "\n", "\t", "+", "/", "#", "?", "%3D", "\0", "é"] {
        for token in [
            format!("{header}{bad}.{payload}.{signature}"),
            format!("{header}.{payload}{bad}.{signature}"),
            format!("{header}.{payload}.{signature}{bad}"),
            format!("{header}.{}{bad}{}.{signature}", &payload[..8], &payload[8..]),
        ] {
            assert_eq!(world.outcome(&token), "token_malformed", "{bad:?}");
        }
    }
}

#[test]
fn n005_impossible_length() {
    let (header, payload, signature) = parts();
    let world = World::new();
    // 86 characters: a part of 4n + 1 stands for no whole number of bytes.
    assert_eq!(world.outcome(&format!("{header}.{payload}.{}", &signature[..85])), "token_malformed");
}

#[test]
fn n006_unused_bits() {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let twin = |part: &str| {
        let last = ALPHABET.iter().position(|byte| *byte == part.as_bytes()[part.len() - 1]).unwrap();
        format!("{}{}", &part[..part.len() - 1], char::from(ALPHABET[last + 1]))
    };
    // Blanks inside the JSON bring each part to a length with unused bits.
    let header = b64(r#"{"alg":"ES256","kid":"p256","typ":"JWT" }"#);
    let payload = (0..3)
        .map(|blanks| b64(format!("{}{}", claims(), " ".repeat(blanks))))
        .find(|part| part.len() % 4 != 0)
        .unwrap();
    assert_ne!(header.len() % 4, 0);
    let signature = b64(P256.sign("ES256", format!("{header}.{payload}").as_bytes()));
    let world = World::new();
    assert_eq!(world.outcome(&format!("{header}.{payload}.{signature}")), "accepted");
    all_refused(
        &world,
        "token_not_canonical",
        [
            ("header", format!("{}.{payload}.{signature}", twin(&header))),
            ("payload", format!("{header}.{}.{signature}", twin(&payload))),
            ("signature", format!("{header}.{payload}.{}", twin(&signature))),
        ],
    );
}

#[test]
fn n007_header_is_no_object() {
    let payload = claims().to_string();
    let tokens =
        ["[]", "\"ES256\"", "1", "null", "true", "", "{", "{\"alg\":\"ES256\"", "ES256", "{'alg':'ES256'}"]
            .map(|header| (header, P256.token(header, &payload)))
            // An empty header is no part at all.
            .into_iter()
            .filter(|(header, _)| !header.is_empty());
    all_refused(&World::new(), "header_invalid", tokens);
}

#[test]
fn n008_payload_is_no_object() {
    let payloads = ["", "[]", "[{}]", "\"text\"", "1", "null", "true", "{", "{}}"];
    all_refused(&World::new(), "payload_invalid", payloads.map(|payload| (payload, token_raw(payload))));
}

#[test]
fn n009_bytes_after_the_value() {
    let good = claims().to_string();
    let world = World::new();
    assert_eq!(world.outcome(&token_raw(format!(" \r\n\t{good} \n"))), "accepted");
    all_refused(
        &world,
        "payload_invalid",
        ["{}", "x", ",", "\0", "//", "\u{b}"].map(|after| (after, token_raw(format!("{good}{after}")))),
    );
    let header = r#"{"alg":"ES256","kid":"p256"}"#;
    all_refused(
        &world,
        "header_invalid",
        ["{}", "x", ","].map(|after| (after, token_with_header(&format!("{header}{after}")))),
    );
}

#[test]
fn n010_encodings() {
    let good = claims().to_string();
    let utf16: Vec<u8> = good.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let with_text = |text: &str| good.replace("\"u1\"", &format!("\"{text}\""));
    let world = World::new();
    assert_eq!(world.outcome(&token_raw(with_text(r"\ud83d\ude00é\u00e9"))), "accepted");
    all_refused(
        &world,
        "payload_invalid",
        [
            ("byte order mark", token_raw(format!("\u{feff}{good}"))),
            ("UTF-16", token_raw(utf16)),
            ("lone high surrogate", token_raw(with_text(r"\ud800"))),
            ("lone low surrogate", token_raw(with_text(r"\udc00"))),
            ("high surrogate twice", token_raw(with_text(r"\ud800\ud800"))),
            ("surrogate in a name", token_raw(good.replace("\"sub\"", r#""\udc00""#))),
            ("high surrogate, then text", token_raw(with_text(r"\ud800x"))),
            ("raw control character", token_raw(with_text("\u{1}"))),
            ("unknown escape", token_raw(with_text(r"\x41"))),
        ],
    );
    let header = r#"{"alg":"ES256","kid":"p256"}"#;
    let utf16: Vec<u8> = header.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for header in
        [format!("\u{feff}{header}").into_bytes(), utf16, br#"{"alg":"ES256","kid":"\ud800"}"#.to_vec()]
    {
        let token = P256.token_of_bytes("ES256", &header, good.as_bytes());
        assert_eq!(world.outcome(&token), "header_invalid", "{header:?}");
    }
    for bytes in [&b"\xff"[..], b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xc3"] {
        let payload = [b"{\"sub\":\"", bytes, b"\"}"].concat();
        assert_eq!(world.outcome(&token_raw(payload)), "payload_invalid", "{bytes:?}");
        let header = [b"{\"alg\":\"ES256\",\"kid\":\"", bytes, b"\"}"].concat();
        let token = P256.token_of_bytes("ES256", &header, good.as_bytes());
        assert_eq!(world.outcome(&token), "header_invalid", "{bytes:?}");
    }
}

#[test]
fn n011_nesting() {
    let world = World::new();
    let nested = |levels: usize| {
        let mut text = claims().to_string();
        text.truncate(text.len() - 1);
        format!("{text},\"x\":{}{}}}", "[".repeat(levels), "]".repeat(levels))
    };
    // The claims object is the first level.
    assert_eq!(world.outcome(&token_raw(nested(limits::JSON_DEPTH - 1))), "accepted");
    let objects = format!("{{\"x\":{}1{}}}", "{\"a\":".repeat(32), "}".repeat(32));
    all_refused(
        &world,
        "payload_invalid",
        [
            ("one level more", token_raw(nested(limits::JSON_DEPTH))),
            ("objects", token_raw(objects)),
            ("many", token_raw(nested(20_000))),
            ("many, never closed", token_raw("[".repeat(45_000))),
        ],
    );
    // A million of them fit into no token.
    assert_eq!(world.outcome(&token_raw("[".repeat(1_000_000))), "token_too_large");
    let header = |levels: usize| {
        let (open, close) = ("[".repeat(levels), "]".repeat(levels));
        token_with_header(&format!("{{\"alg\":\"ES256\",\"kid\":\"p256\",\"x\":{open}{close}}}"))
    };
    assert_eq!(world.outcome(&header(limits::JSON_DEPTH - 1)), "accepted");
    assert_eq!(world.outcome(&header(limits::JSON_DEPTH)), "header_invalid");
}

#[test]
fn n013_duplicate_registered_claim() {
    let twice = |name: &str, value: &str| {
        let mut text = claims().to_string();
        text.truncate(text.len() - 1);
        token_raw(format!("{text},{name}:{value}}}"))
    };
    let world = World::new();
    all_refused(
        &world,
        "duplicate_member",
        [
            ("iss", twice("\"iss\"", "\"https://evil.example\"")),
            ("same value", twice("\"iss\"", "\"https://issuer.example\"")),
            ("sub", twice("\"sub\"", "\"admin\"")),
            ("exp", twice("\"exp\"", "9999999999")),
            ("aud", twice("\"aud\"", "\"other\"")),
            ("iat", twice("\"iat\"", "1")),
            ("nbf", twice("\"nbf\":1,\"nbf\"", "2")),
            ("jti", twice("\"jti\":\"a\",\"jti\"", "\"b\"")),
            ("another spelling of one name", twice(r#""\u0073ub""#, "\"admin\"")),
            ("alg", token_with_header(r#"{"alg":"ES256","alg":"none","kid":"p256"}"#)),
            ("kid", token_with_header(r#"{"alg":"ES256","kid":"p256","kid":"p256"}"#)),
            ("typ", token_with_header(r#"{"alg":"ES256","kid":"p256","typ":"JWT","typ":"at+jwt"}"#)),
        ],
    );
    // Names are compared by bytes: another case is another claim.
    assert_eq!(world.outcome(&twice("\"Sub\"", "\"admin\"")), "accepted");
}

#[test]
fn n014_duplicate_custom_claim() {
    let mut text = claims().to_string();
    text.truncate(text.len() - 1);
    all_refused(
        &World::new(),
        "duplicate_member",
        [
            ("groups", token_raw(format!("{text},\"groups\":[\"admins\"]}}"))),
            ("inside an object", token_raw(format!("{text},\"x\":{{\"a\":1,\"a\":2}}}}"))),
            ("inside an array", token_raw(format!("{text},\"x\":[{{\"a\":1,\"b\":2,\"a\":1}}]}}"))),
        ],
    );
}

#[test]
fn n015_size() {
    // Four characters stand for three bytes, so not every length can be had without a longer header.
    let sized = |bytes: usize| {
        let with = |header: usize, payload: usize| {
            let header = json!({"alg": "ES256", "kid": "p256", "x": "p".repeat(header)}).to_string();
            P256.token(&header, &claims_with(json!({"x": "p".repeat(payload)})).to_string())
        };
        let most = (bytes - with(0, 0).len()) / 4 * 3;
        let sizes = (0..3).flat_map(|header| (most - 8..most + 4).map(move |payload| (header, payload)));
        let mut tokens = sizes.map(|(header, payload)| with(header, payload));
        tokens.find(|token| token.len() == bytes).unwrap()
    };
    let code = |token: &str, limit| {
        parse(token.as_bytes(), limit).map_or_else(|refusal| refusal.code(), |_| "parsed")
    };
    for limit in [limits::TOKEN_BYTES, limits::WIRE_BYTES] {
        let token = sized(limit);
        assert_eq!(World::new().outcome(&token), "accepted");
        assert_eq!(code(&token, limit), "parsed");
        assert_eq!(code(&token, limit - 1), "token_too_large");
        assert_eq!(code(&sized(limit + 1), limit), "token_too_large");
    }
    assert_eq!(code(&sized(limits::WIRE_BYTES + 1), usize::MAX), "token_too_large");
    assert_eq!(code(&sized(limits::TOKEN_BYTES), 0), "token_too_large");
    // The size comes before everything else, and no setting raises it above the wire's.
    assert_eq!(code(&" ".repeat(limits::WIRE_BYTES), usize::MAX), "token_malformed");
    assert_eq!(code(&" ".repeat(limits::WIRE_BYTES + 1), usize::MAX), "token_too_large");
}

#[test]
fn n016_counts() {
    let world = World::new();
    let numbers = |count: usize| (0..count).map(|number| format!("g{number}")).collect::<Vec<_>>();
    assert_eq!(world.outcome(&token(&claims_with(json!({"x": numbers(limits::GROUPS)})))), "accepted");
    assert_eq!(
        world.outcome(&token(&claims_with(json!({"x": numbers(limits::GROUPS + 1)})))),
        "too_many_groups"
    );

    // As many as fit on the wire, of each kind; and more, which fit into no token.
    let fill = |count: usize| token_raw(format!("{{\"x\":[1{}]}}", ",1".repeat(count)));
    assert_eq!(world.outcome(&fill(24_000)), "too_many_groups");
    assert_eq!(world.outcome(&fill(100_000)), "token_too_large");
    let fill = |count: usize| {
        token_raw((0..count).map(|number| (format!("{number:x}"), json!(1))).collect::<Value>().to_string())
    };
    assert_eq!(world.outcome(&fill(5_500)), "too_many_claims");
    assert_eq!(world.outcome(&fill(100_000)), "token_too_large");
    // Many small objects count together.
    let objects =
        |count: usize| token_raw(format!("{{\"x\":[{{\"a\":1}}{}]}}", ",{\"a\":1}".repeat(count - 1)));
    assert_eq!(world.outcome(&objects(limits::CLAIM_MEMBERS - 1)), "issuer_invalid");
    assert_eq!(world.outcome(&objects(limits::CLAIM_MEMBERS)), "too_many_claims");

    // A scope is a list of words.
    for name in ["scope", "scp"] {
        let words = |count: usize| token(&claims_with(json!({name: vec!["w"; count].join(" ")})));
        assert_eq!(world.outcome(&words(limits::GROUPS)), "accepted");
        assert_eq!(world.outcome(&words(limits::GROUPS + 1)), "too_many_groups");
    }

    let members = |count: usize| {
        let mut claims = claims();
        let spare = count - claims.as_object().unwrap().len() - 1;
        claims["x"] = (0..spare).map(|number| (format!("m{number}"), json!(1))).collect();
        token(&claims)
    };
    assert_eq!(world.outcome(&members(limits::CLAIM_MEMBERS)), "accepted");
    assert_eq!(world.outcome(&members(limits::CLAIM_MEMBERS + 1)), "too_many_claims");
}

#[test]
fn n017_nul() {
    let world = World::new();
    let good = claims().to_string();
    all_refused(
        &world,
        "nul_character",
        [
            ("sub", token_raw(good.replace("\"u1\"", r#""u1\u0000admin""#))),
            ("a group", token_raw(good.replace("\"readers\"", r#""readers\u0000""#))),
            ("iss", token_raw(good.replace("issuer.example", r"issuer.example\u0000"))),
            ("aud", token_raw(good.replace("\"pg\"", r#""pg\u0000""#))),
            ("a name", token_raw(good.replace("\"iat\"", r#""iat\u0000""#))),
            ("kid", token_with_header(r#"{"alg":"ES256","kid":"p256\u0000"}"#)),
        ],
    );
    // Six characters, no U+0000.
    assert_eq!(world.outcome(&token_raw(good.replace("\"staff\"", r#""\\u0000""#))), "accepted");
}

#[test]
fn n018_prefixes_and_blanks() {
    let good = token(&claims());
    all_refused(
        &World::new(),
        "token_malformed",
        [
            ("Bearer", format!("Bearer {good}")),
            ("leading blank", format!(" {good}")),
            ("trailing blank", format!("{good} ")),
            ("newline", format!("{good}\n")),
            ("CRLF", format!("{good}\r\n")),
            ("byte order mark", format!("\u{feff}{good}")),
            ("quotes", format!("\"{good}\"")),
        ],
    );
}

#[test]
fn a_secret_that_may_be_a_token_is_no_password() {
    let (header, payload, signature) = parts();
    let whole = format!("{header}.{payload}.{signature}");
    let b64_header = |text: &str| format!("{}.{payload}.{signature}", b64(text));
    let tokens = [
        whole.clone(),
        format!(" {whole}"),
        format!("\n\t'\"{whole}\"'"),
        format!("Bearer {whole}"),
        format!("\"bearer  {whole}"),
        format!("{header}."),
        format!("{header}.{payload}"),
        format!("{header}.{payload}.{signature}.x.y"),
        whole.get(..70).unwrap().to_owned(),
        whole.replace('.', ".\n"),
        b64_header("{ \"alg\""),
        b64_header("{\n\"alg\""),
        b64_header("{\r\n\"alg\""),
        "eyJ.".to_owned(),
        "{\"payload\":".to_owned(),
        " {".to_owned(),
        "x".repeat(limits::PASSWORD_BYTES + 1),
    ];
    for token in &tokens {
        assert!(may_be_token(token.as_bytes()), "{token}");
    }
    let passwords = [
        "hunter2".to_owned(),
        String::new(),
        "ey".to_owned(),
        "eyjafjallajokull".to_owned(),
        "a.b.c".to_owned(),
        "bearer".to_owned(),
        "Bearer of good news.".to_owned(),
        "}{".to_owned(),
        "key.eyJ".to_owned(),
        "\u{e9}\u{1f511}".to_owned(),
        "x".repeat(limits::PASSWORD_BYTES),
    ];
    for password in &passwords {
        assert!(!may_be_token(password.as_bytes()), "{password}");
    }
}
