//! The header and the payload as JSON.
//!
//! 1. n007, n008, n009: no object, and bytes after it.
//! 2. n010: other encodings than UTF-8, and lone surrogates.
//! 3. n011: nesting at the limit and over it, and as deep as a token can hold.
//! 4. n013, n014: one member twice.
//! 5. n016: members and elements at their limits and over them, and as many as a token can hold.
//! 6. n017: U+0000.

use anyhow::Result;
use pg_oidc_test::keys::keys;
use pg_oidc_test::token::Token;
use serde_json::{Value, json};

use super::stage;
use crate::scene::good;

/// The claims of a good token of this user as JSON text.
fn text(name: &str) -> String {
    Value::Object(good(name).claims().clone()).to_string()
}

/// The same, with more at its end.
fn with(name: &str, more: &str) -> String {
    text(name).replacen('{', &format!("{{{more},"), 1)
}

fn payload(name: &str, bytes: impl Into<Vec<u8>>) -> String {
    good(name).raw_payload(bytes).sign(&keys().ec)
}

fn header(token: &Token, bytes: impl Into<Vec<u8>>) -> String {
    token.clone().raw_header(bytes).sign(&keys().ec)
}

const HEADER: &str = r#"{"alg":"ES256","kid":"ec-1"}"#;

#[test]
fn n007_n008_n009_one_object_and_nothing_more() -> Result<()> {
    let stage = stage();
    stage.trio("n007")?;
    stage.accepted("n007", &payload("n007", format!(" {}\n", text("n007"))), "blanks around the object")?;
    stage.accepted("n007", &header(&good("n007"), HEADER), "a header by hand")?;
    for other in ["[]", "\"text\"", "1", "null", "true", "{"] {
        stage.refused("n007", &payload("n007", other), "payload_invalid", other)?;
        stage.refused("n007", &header(&good("n007"), other), "header_invalid", other)?;
    }
    stage.refused("n007", &payload("n007", ""), "payload_invalid", "no payload")?;
    for after in ["{}", "x", ",", "\0"] {
        let about = format!("{after:?} after it");
        stage.refused("n007", &payload("n007", text("n007") + after), "payload_invalid", &about)?;
        let token = header(&good("n007"), format!("{HEADER}{after}"));
        stage.refused("n007", &token, "header_invalid", &about)?;
    }
    Ok(())
}

#[test]
fn n010_encodings() -> Result<()> {
    let (stage, text) = (stage(), text("n010"));
    stage.trio("n010")?;
    stage.accepted("n010", &payload("n010", with("n010", r#""x":"\ud83d\ude00é""#)), "a whole pair")?;
    let wide = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let marked = |text: &str| format!("\u{feff}{text}").into_bytes();
    let broken = |text: &str| [text.trim_end_matches('}').as_bytes(), b",\"x\":\"\xff\"}"].concat();
    let lone = |text: &str| text.replacen('{', r#"{"x":"\udc00","#, 1).into_bytes();
    for (about, change) in [
        ("UTF-16", &wide as &dyn Fn(&str) -> Vec<u8>),
        ("BOM", &marked),
        ("0xff", &broken),
        ("surrogate", &lone),
    ] {
        stage.refused("n010", &payload("n010", change(&text)), "payload_invalid", about)?;
        stage.refused("n010", &header(&good("n010"), change(HEADER)), "header_invalid", about)?;
    }
    Ok(())
}

#[test]
fn n011_nesting() -> Result<()> {
    let stage = stage();
    stage.trio("n011")?;
    let nested = |levels| format!("\"x\":{}{}", "[".repeat(levels), "]".repeat(levels));
    // The object around it is the first of 32 levels.
    stage.accepted("n011", &payload("n011", with("n011", &nested(31))), "32 levels")?;
    stage.refused("n011", &payload("n011", with("n011", &nested(32))), "payload_invalid", "33 levels")?;
    stage.refused("n011", &payload("n011", with("n011", &nested(5_900))), "payload_invalid", "all levels")?;
    stage.refused("n011", &payload("n011", "[".repeat(12_000)), "payload_invalid", "never closed")?;
    let deep = HEADER.replacen('{', &format!("{{{},", nested(32)), 1);
    stage.refused("n011", &header(&good("n011"), deep), "header_invalid", "33 levels of header")
}

#[test]
fn n013_n014_one_member_twice() -> Result<()> {
    let stage = stage();
    stage.trio("n013")?;
    let twice = [
        r#""sub":"admin""#,
        r#""\u0073ub":"admin""#,
        r#""iss":"https://other.example""#,
        r#""exp":9999999999"#,
        r#""groups":["a"],"groups":["b"]"#,
        r#""x":{"a":1,"a":1}"#,
        r#""x":[{"a":1,"a":1}]"#,
    ];
    for twice in twice {
        stage.refused("n013", &payload("n013", with("n013", twice)), "duplicate_member", twice)?;
    }
    for twice in [r#""alg":"none""#, r#""kid":"ec-1""#] {
        let doubled = HEADER.replacen('{', &format!("{{{twice},"), 1);
        stage.refused("n013", &header(&good("n013"), doubled), "duplicate_member", twice)?;
    }
    stage.accepted("n013", &payload("n013", with("n013", r#""Sub":"admin""#)), "names are bytes")
}

#[test]
fn n016_counts() -> Result<()> {
    let stage = stage();
    stage.trio("n016")?;
    let elements = |count: usize| payload("n016", with("n016", &format!("\"x\":{}", json!(vec![1; count]))));
    stage.accepted("n016", &elements(2000), "2,000 elements")?;
    stage.refused("n016", &elements(2001), "too_many_groups", "2,001 elements")?;
    stage.refused("n016", &elements(5900), "too_many_groups", "as many elements as a token holds")?;
    let words =
        |count: usize| payload("n016", with("n016", &format!("\"scope\":\"{}w\"", "w ".repeat(count - 1))));
    stage.accepted("n016", &words(2000), "a scope of 2,000 words")?;
    stage.refused("n016", &words(2001), "too_many_groups", "a scope of 2,001 words")?;
    let own = good("n016").claims().len();
    let members = |count: usize| {
        let members: Vec<String> = (own..count).map(|number| format!("\"{number:x}\":1")).collect();
        payload("n016", with("n016", &members.join(",")))
    };
    stage.accepted("n016", &members(512), "512 members")?;
    stage.refused("n016", &members(513), "too_many_claims", "513 members")?;
    stage.refused("n016", &members(1500), "too_many_claims", "as many members as a token holds")
}

#[test]
fn n017_nul() -> Result<()> {
    let stage = stage();
    stage.trio("n017")?;
    for nul in [r#""x":"\u0000""#, r#""x":["a\u0000b"]"#, r#""a\u0000b":1"#] {
        stage.refused("n017", &payload("n017", with("n017", nul)), "nul_character", nul)?;
    }
    let sub = text("n017").replace("\"n017\"", r#""n017\u0000""#);
    stage.refused("n017", &payload("n017", sub), "nul_character", "the subject")?;
    let kid = HEADER.replace("ec-1", r"ec-1\u0000");
    stage.refused("n017", &header(&good("n017"), kid), "nul_character", "the kid")?;
    stage.accepted("n017", &payload("n017", with("n017", r#""x":"\\u0000""#)), "six characters")
}
