//! B5, n068 and n095: what an `oauth` line of the HBA file asks of a token.

use pg_oidc_core::oauth_line::OauthLine;
use pg_oidc_core::refusal::Refusal;
use pg_oidc_core::token;
use serde_json::{Value, json};

use crate::common::{World, claims_with, token, without};

fn line(issuer: &str, scope: &str) -> OauthLine {
    OauthLine { issuer: issuer.to_owned(), scope: scope.to_owned() }
}

/// What the line refuses by itself.
pub(crate) fn refused() -> [Refusal; 2] {
    let good = token(&claims_with(json!({})));
    let untrusted = token::parse(good.as_bytes(), 65_535).unwrap();
    let verified = World::new().verified(&good).unwrap();
    [line("", "").check_issuer(&untrusted).unwrap_err(), line("", "a").check_scope(&verified).unwrap_err()]
}

/// The code with which a token of these claims is refused for its scope, or `accepted`.
fn scope(asked: &str, changes: Value) -> &'static str {
    let verified = World::new().verified(&token(&claims_with(changes))).unwrap();
    match line("", asked).check_scope(&verified) {
        Ok(()) => "accepted",
        Err(refusal) => refusal.code(),
    }
}

#[test]
fn n068_issuer_of_another_line() {
    let issuer = |issuer: &str, token: &str| {
        let untrusted = token::parse(token.as_bytes(), 65_535).unwrap();
        line(issuer, "").check_issuer(&untrusted).map_err(|refusal| refusal.code())
    };
    let good = token(&claims_with(json!({})));
    assert_eq!(issuer("https://issuer.example", &good), Ok(()));
    for near in [
        "https://issuer.example/",
        "https://issuer.example/.well-known/openid-configuration",
        "https://Issuer.example",
        "https://issuer.exampl",
        "http://issuer.example",
        " https://issuer.example",
        "",
    ] {
        assert_eq!(issuer(near, &good), Err("issuer_not_of_line"), "{near}");
    }
    let other = token(&claims_with(json!({"iss": "https://other.example"})));
    assert_eq!(issuer("https://issuer.example", &other), Err("issuer_not_of_line"));
    assert_eq!(issuer("https://issuer.example", &without("iss")), Err("issuer_invalid"));
    assert_eq!(issuer("", &without("iss")), Err("issuer_invalid"));
}

#[test]
fn n095_scope_that_a_line_asks_for() {
    for claims in [
        json!({"scope": "db:read"}),
        json!({"scope": "openid db:read profile"}),
        json!({"scope": "openid  db:read "}),
        json!({"scope": ["openid", "db:read"]}),
        json!({"scp": "openid db:read"}),
        json!({"scp": ["db:read"]}),
        json!({"scope": "openid", "scp": ["db:read"]}),
    ] {
        assert_eq!(scope("db:read", claims.clone()), "accepted", "{claims}");
        assert_eq!(scope(" db:read  db:read ", claims.clone()), "accepted", "{claims}");
        assert_eq!(scope("db:read db:write", claims.clone()), "scope_missing", "{claims}");
    }
    for claims in [
        json!({}),
        json!({"scope": ""}),
        json!({"scope": "db:rea db:readx xdb:read"}),
        json!({"scope": "DB:READ"}),
        json!({"scope": "db:read,openid"}),
        json!({"scope": "db:read\topenid"}),
        json!({"scope": null}),
        json!({"scope": {"db:read": true}}),
        json!({"scope": [["db:read"]]}),
        json!({"scope": ["openid db:read"]}),
        json!({"scopes": "db:read"}),
        json!({"groups": ["readers", "db:read"]}),
    ] {
        assert_eq!(scope("db:read", claims.clone()), "scope_missing", "{claims}");
    }
    // The words may stand in either claim, and in both orders.
    let both = json!({"scope": "a b", "scp": ["c"]});
    assert_eq!(scope("c a b", both.clone()), "accepted");
    assert_eq!(scope("c a d", both), "scope_missing");
    // A line that asks for nothing is content with anything.
    for asked in ["", " "] {
        assert_eq!(scope(asked, json!({})), "accepted");
    }
}

#[test]
fn the_word_that_is_missing_is_the_lines_own() {
    let verified = World::new().verified(&token(&claims_with(json!({"scope": "a"})))).unwrap();
    let refusal = line("", "a b c").check_scope(&verified).unwrap_err();
    assert_eq!(refusal, Refusal::ScopeMissing { scope: "b".to_owned() });
    assert!(refusal.detail().ends_with(" It is \"b\"."), "{}", refusal.detail());
}
