//! Documents around a token: discovery, the native HBA file, one claim as SQL sees it.
//!
//! 1. A discovery document counts only if its issuer is the configured one, byte for byte.
//! 2. Its jwks_uri must be https (or http on loopback, where allowed).
//! 3. `trust` is found where hba.c would find a method, and nowhere else.
//! 4. `oidc.claim` gives what `->>` would.

use pg_oidc_core::{claim, discovery, hba};

const ISSUER: &str = "https://idp.example/tenant";

fn document(issuer: &str, jwks_uri: &str) -> Vec<u8> {
    format!(r#"{{"issuer":"{issuer}","jwks_uri":"{jwks_uri}","scopes_supported":["openid"]}}"#).into_bytes()
}

#[test]
fn discovery_gives_the_key_set_of_the_configured_issuer() {
    let body = document(ISSUER, "https://keys.example/jwks?v=1");
    assert_eq!(discovery::parse(&body, ISSUER, false).as_deref(), Ok("https://keys.example/jwks?v=1"));
    for near_miss in
        ["https://idp.example/tenant/", "https://IDP.example/tenant", "https://idp.example/tenan"]
    {
        let other = discovery::parse(&document(near_miss, "https://keys.example/jwks"), ISSUER, false);
        assert_eq!(other, Err(discovery::DiscoveryError::OtherIssuer), "{near_miss}");
    }
    assert_eq!(discovery::parse(b"{}", ISSUER, false), Err(discovery::DiscoveryError::OtherIssuer));
    assert!(discovery::parse(b"<html>", ISSUER, false).is_err());
    let mut twice = body.clone();
    twice.splice(0..1, br#"{"issuer":"https://evil.example","#.iter().copied());
    assert!(discovery::parse(&twice, ISSUER, false).is_err(), "a duplicate issuer");
}

#[test]
fn n068_discovery_never_leads_to_plain_http() {
    let try_with = |uri: &str, allow| discovery::parse(&document(ISSUER, uri), ISSUER, allow);
    for uri in [
        "http://keys.example/jwks",
        "file:///etc/passwd",
        "ftp://keys.example/",
        "https://u:p@k.example/",
        "",
    ] {
        assert_eq!(try_with(uri, true), Err(discovery::DiscoveryError::NoJwksUri), "{uri}");
    }
    assert!(try_with("http://127.0.0.1:8080/jwks", true).is_ok());
    assert!(try_with("http://127.0.0.1:8080/jwks", false).is_err());
    let large =
        [document(ISSUER, "https://k.example/"), vec![b' '; pg_oidc_core::limits::JWKS_BYTES]].concat();
    assert_eq!(discovery::parse(&large, ISSUER, false), Err(discovery::DiscoveryError::TooLarge));
}

#[test]
fn discovery_is_found_below_the_issuer() {
    let place = "https://idp.example/tenant/.well-known/openid-configuration";
    assert_eq!(discovery::location(ISSUER), place);
    assert_eq!(discovery::location("https://idp.example/tenant/"), place);
}

#[test]
fn trust_lines_are_found_where_hba_would_find_a_method() {
    let file = "\
# local all all trust
local   all  all                 trust
local   all  trust               peer
host    all  all  127.0.0.1/32   \"trust\"  clientcert=verify-ca
host    all  all  10.0.0.1 255.255.255.255 trust
hostssl \"my db\",other , third all ::1/128 trust # why
host    all  all  samenet        scram-sha-256 # trust
host    trust trust trust        md5
host all all \\
  0.0.0.0/0 \\
  trust
local all all reject";
    assert_eq!(hba::trust_lines(file), [2, 4, 5, 6, 9]);
    assert_eq!(hba::trust_lines(""), [0_usize; 0]);
    assert_eq!(hba::trust_lines("local all all trust\\"), [1], "continued into nothing");
}

#[test]
fn include_lines_are_found() {
    let file = "\
# include \"a\"
include \"a file\"
local include include peer
  include_if_exists b
include_dir \\
  c
includes d
local all all trust # include e";
    assert_eq!(hba::include_lines(file), [2, 4, 5]);
}

#[test]
fn a_claim_is_given_as_text() {
    let claims = r#"{"sub":"a","n":12345678901234567890.50,"ok":true,"none":null,"list":["x",{"y":1}],"a/b":{"~":"t"}}"#;
    let get = |name| claim::text(claims, name).map_err(|error| error.message);
    assert_eq!(get("sub"), Ok(Some("a".into())));
    assert_eq!(get("/n"), Ok(Some("12345678901234567890.50".into())), "exact to the last digit");
    assert_eq!(get("ok"), Ok(Some("true".into())));
    assert_eq!(get("none"), Ok(None));
    assert_eq!(get("missing"), Ok(None));
    assert_eq!(get("list"), Ok(Some(r#"["x",{"y":1}]"#.into())));
    assert_eq!(get("/list/0"), Ok(Some("x".into())));
    assert_eq!(get("/list/01"), Ok(None));
    assert_eq!(get("/a~1b/~0"), Ok(Some("t".into())));
    assert_eq!(get("a/b"), Ok(Some(r#"{"~":"t"}"#.into())), "no leading slash: a plain name");
    assert!(get("/bad~2").is_err());
    assert!(get("").is_err());
    assert_eq!(claim::text("", "sub"), Ok(None), "a session without a token");
}
