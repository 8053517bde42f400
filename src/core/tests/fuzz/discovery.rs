//! A discovery document, and an issuer: the keys are asked for only where the document says, over https, and the HTTP
//! client reads the URL as we do.

use pg_oidc_core::discovery::{location, parse};
use pg_oidc_core::limits::ISSUER_BYTES;
use pg_oidc_core::provider::{ProviderRow, compile_provider};
use serde_json::Value;
use url::{Host, Url};

use super::{PART, assert_is_one_line};
use crate::common::{ISSUER, provider_row};

/// A byte (bit 0: plain http is allowed on loopback; bit 1: an issuer comes first), then the document. Gives whether
/// a URL was found.
pub(crate) fn check(data: &[u8]) -> bool {
    let Some((mode, rest)) = data.split_first() else { return false };
    let allow_http = mode & 1 == 1;
    let (issuer, body) = match rest.iter().position(|byte| *byte == PART) {
        Some(end) if mode & 2 == 2 => (String::from_utf8_lossy(&rest[..end]).into_owned(), &rest[end + 1..]),
        _ => (ISSUER.to_owned(), rest),
    };
    match compile_provider(&ProviderRow { issuer: issuer.clone(), ..provider_row() }, allow_http) {
        Ok(_) => {
            check_url(&location(&issuer), allow_http);
            assert!(!location(&issuer).contains('?'));
        }
        Err(error) => {
            assert_is_one_line(&error.message);
            assert_is_one_line(error.detail.as_deref().unwrap_or("none"));
            return false;
        }
    }
    match parse(body, &issuer, allow_http) {
        Ok(uri) => {
            if let Ok(document) = serde_json::from_slice::<Value>(body) {
                assert_eq!(document["issuer"], *issuer);
                assert_eq!(document["jwks_uri"], *uri);
            }
            assert!(uri.len() <= ISSUER_BYTES);
            check_url(&uri, allow_http);
            true
        }
        Err(error) => {
            assert_is_one_line(&error.to_string());
            false
        }
    }
}

/// The crate `url` is what the HTTP client reads URLs with. What it does not read is never asked.
fn check_url(text: &str, allow_http: bool) {
    let Ok(url) = Url::parse(text) else { return };
    assert!(url.username().is_empty() && url.password().is_none() && url.fragment().is_none(), "{text:?}");
    let authority = text.split("://").nth(1).and_then(|rest| rest.split(['/', '?']).next()).unwrap();
    let host = url.host_str().unwrap();
    let loopback = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    match url.scheme() {
        "https" => {}
        "http" => assert!(allow_http && loopback, "{text:?}"),
        other => panic!("{other} in {text:?}"),
    }
    // A name may be written in two ways; an address in numbers is rewritten, and then it is no name of ours.
    if let Some(Host::Domain(_)) = url.host() {
        assert!(authority.to_ascii_lowercase().starts_with(host), "{text:?} leads to {host}");
    }
}
