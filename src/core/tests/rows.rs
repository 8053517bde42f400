//! What the trigger of `oidc.provider` accepts and refuses.

use pg_oidc_core::limits::{self, SECOND};
use pg_oidc_core::provider::{ProviderRow, compile_provider};
use pg_oidc_core::row::RowError;
use serde_json::json;

use crate::common::{P256, provider_row};

pub(crate) fn provider(change: impl FnOnce(&mut ProviderRow)) -> Result<(), RowError> {
    let mut row = provider_row();
    change(&mut row);
    compile_provider(&row, false).map(|_| ())
}

#[track_caller]
pub(crate) fn refused_provider(message: &str, change: impl FnOnce(&mut ProviderRow)) {
    let error = provider(change).unwrap_err();
    assert!(error.message.contains(message), "{error:?}");
    in_style(&error);
}

/// Primary lower case without a full stop; detail and hint whole sentences.
#[track_caller]
pub(crate) fn in_style(error: &RowError) {
    assert!(!error.message.ends_with('.') && !error.message.starts_with(char::is_uppercase), "{error:?}");
    for sentence in [&error.detail, &error.hint].into_iter().flatten() {
        assert!(sentence.starts_with(char::is_uppercase) && sentence.ends_with(['.', '-']), "{sentence}");
    }
    assert!(!error.message.contains(char::is_control), "{error:?}");
}

pub(crate) fn some(texts: &[&str]) -> Vec<Option<String>> {
    texts.iter().map(|text| Some((*text).to_owned())).collect()
}

#[test]
fn provider_names() {
    provider(|row| row.name = "n".repeat(63)).unwrap();
    refused_provider("\"name\"", |row| row.name = String::new());
    refused_provider("\"name\"", |row| row.name = "n".repeat(64));
    refused_provider("\"name\"", |row| row.name = "a\nb".to_owned());
    refused_provider("\"name\"", |row| row.name = " corp".to_owned());
}

#[test]
fn issuers() {
    for good in [
        "https://issuer.example",
        "https://issuer.example/",
        "https://issuer.example:8443/realms/a%20b",
        "https://login.microsoftonline.com/9122040d-6c67-4c5b-b112-36a304b66dad/v2.0",
        "https://[2001:db8::1]:8443/x",
        "https://10.0.0.1",
    ] {
        provider(|row| row.issuer = good.to_owned()).unwrap();
    }
    for bad in [
        "",
        "issuer.example",
        "http://issuer.example",
        "http://127.0.0.1",
        "HTTPS://issuer.example",
        "file:///etc/passwd",
        "https:/issuer.example",
        "https://",
        "https:///path",
        "https://issuer.example?x=1",
        "https://issuer.example#x",
        "https://user@issuer.example",
        "https://user:pw@issuer.example",
        "https://issuer.example:",
        "https://issuer.example:x",
        "https://issuer.example:65536",
        "https://issuer.example:+1",
        "https://issuer example",
        "https://issuer.example\n",
        "https://issuer.example\\x",
        "https://b\u{fc}cher.example",
        "https://[::1",
        "https://[::1]x",
        "https://[zz]/",
        "https://a:1:2",
    ] {
        refused_provider("\"issuer\"", |row| row.issuer = bad.to_owned());
    }
}

#[test]
fn plain_http_only_on_loopback_and_only_if_allowed() {
    let compile = |url: &str, allow_http| {
        let issuer =
            compile_provider(&ProviderRow { issuer: url.to_owned(), ..provider_row() }, allow_http).is_ok();
        let keys = ProviderRow { jwks_uri: Some(url.to_owned()), ..provider_row() };
        assert_eq!(issuer, compile_provider(&keys, allow_http).is_ok(), "{url}");
        issuer
    };
    for url in ["http://127.0.0.1:8080/x", "http://127.9.9.9", "http://[::1]:8080", "http://localhost:8080"] {
        assert!(compile(url, true), "{url}");
        assert!(!compile(url, false), "{url}");
    }
    for url in [
        "http://issuer.example",
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example",
        "http://128.0.0.1",
        "http://0.0.0.0",
        "http://[::2]",
        "http://127.1",
        "http://localhost@evil.example",
        "http://2130706433",
    ] {
        assert!(!compile(url, true), "{url}");
    }
}

#[test]
fn jwks_uris() {
    provider(|row| row.jwks_uri = Some("https://issuer.example/keys?p=policy".to_owned())).unwrap();
    refused_provider("\"jwks_uri\"", |row| row.jwks_uri = Some("https://issuer.example/keys#x".to_owned()));
    refused_provider("\"jwks_uri\"", |row| row.jwks_uri = Some("http://issuer.example/keys".to_owned()));
    refused_provider("\"jwks_uri\"", |row| row.jwks_uri = Some(String::new()));
    refused_provider("\"jwks_uri\"", |row| row.jwks_uri = Some("https://u@issuer.example/keys".to_owned()));
}

#[test]
fn static_keys() {
    let set = json!({"keys": [P256.jwk()]}).to_string();
    provider(|row| row.jwks = Some(set.clone())).unwrap();
    refused_provider("exclude each other", |row| {
        row.jwks = Some(set.clone());
        row.jwks_uri = Some("https://issuer.example/keys".to_owned());
    });
    refused_provider("no usable key", |row| row.jwks = Some(r#"{"keys":[]}"#.to_owned()));
    refused_provider("no usable key", |row| {
        row.jwks = Some(r#"{"keys":[{"kty":"oct","k":"x"}]}"#.to_owned())
    });
    refused_provider("no usable key", |row| {
        row.jwks = Some(set.clone());
        row.algorithms = some(&["RS256"]);
    });
    refused_provider("not an acceptable key set", |row| row.jwks = Some("[]".to_owned()));
    refused_provider("not an acceptable key set", |row| row.jwks = Some("{}".to_owned()));
}

#[test]
fn certificates() {
    let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    provider(|row| row.ca_certificate = Some(pem.to_owned())).unwrap();
    refused_provider("\"ca_certificate\"", |row| row.ca_certificate = Some(String::new()));
    refused_provider("\"ca_certificate\"", |row| row.ca_certificate = Some("/etc/ssl/ca.pem".to_owned()));
    refused_provider("private key", |row| {
        row.ca_certificate =
            Some(format!("{pem}-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n{pem}"));
    });
}

#[test]
fn audiences_algorithms_and_typ() {
    refused_provider("\"audiences\"", |row| row.audiences = vec![]);
    refused_provider("nulls", |row| row.audiences = vec![None]);
    refused_provider("\"audiences\"", |row| row.audiences = some(&[""]));
    refused_provider("twice", |row| row.audiences = some(&["pg", "pg"]));
    refused_provider("\"algorithms\"", |row| row.algorithms = vec![]);
    refused_provider("nulls", |row| row.algorithms = vec![None]);
    refused_provider("twice", |row| row.algorithms = some(&["RS256", "RS256"]));
    for name in ["none", "HS256", "rs256", "ES256K", "ES512", "Ed25519", ""] {
        refused_provider("not supported", |row| row.algorithms = some(&[name]));
    }
    refused_provider("\"accepted_typ\"", |row| row.accepted_typ = Some(vec![]));
    refused_provider("nulls", |row| row.accepted_typ = Some(vec![None]));
    provider(|row| row.accepted_typ = Some(some(&["", "JWT"]))).unwrap();
}

#[test]
fn claim_names() {
    let changes: [fn(&mut ProviderRow, &str); 3] = [
        |row, name| row.audience_claim = name.to_owned(),
        |row, name| row.identity_claim = name.to_owned(),
        |row, name| row.groups_claim = Some(name.to_owned()),
    ];
    for change in changes {
        provider(|row| change(row, "/a/b~0~1")).unwrap();
        provider(|row| change(row, "https://corp.example/x~y")).unwrap();
        for bad in ["", "/a~", "/a~2", "/~01~x", "a\0b"] {
            refused_provider("names no claim", |row| change(row, bad));
        }
    }
}

#[test]
fn n087_skew_and_other_times() {
    for good in [0, 1, 30 * SECOND, limits::CLOCK_SKEW_MAX] {
        provider(|row| row.clock_skew_us = good).unwrap();
    }
    for bad in [-1, limits::CLOCK_SKEW_MAX + 1, i64::MIN, i64::MAX] {
        refused_provider("\"clock_skew\"", |row| row.clock_skew_us = bad);
    }
    provider(|row| row.max_token_age_us = Some(1)).unwrap();
    for bad in [0, -1, i64::MIN] {
        refused_provider("\"max_token_age\"", |row| row.max_token_age_us = Some(bad));
    }
    provider(|row| row.max_stale_us = limits::MAX_STALE_MIN).unwrap();
    for bad in [limits::MAX_STALE_MIN - 1, 0, -1] {
        refused_provider("\"max_stale\"", |row| row.max_stale_us = bad);
    }
}

#[test]
fn session_limits() {
    for limit in ["8 hours", "", "None"] {
        refused_provider("\"session_limit\" must be 'token', 'none' or an interval", |row| {
            row.session_limit = limit.to_owned()
        });
    }
}

#[test]
fn fingerprints_follow_the_row() {
    let compile = |change: fn(&mut ProviderRow)| {
        let mut row = provider_row();
        change(&mut row);
        let provider = compile_provider(&row, false).unwrap();
        (provider.key_source, provider.revision)
    };
    let (source, revision) = compile(|_| {});
    assert_eq!((source, revision), compile(|_| {}));
    let other_keys: [fn(&mut ProviderRow); 4] = [
        |row| row.issuer.push('/'),
        |row| row.jwks_uri = Some("https://issuer.example/keys".to_owned()),
        |row| row.ca_certificate = Some("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----".to_owned()),
        |row| row.algorithms.truncate(8),
    ];
    for change in other_keys {
        let changed = compile(change);
        assert_ne!((changed.0 == source, changed.1 == revision), (true, true));
        assert!(changed.0 != source && changed.1 != revision);
    }
    let same_keys: [fn(&mut ProviderRow); 17] = [
        |row| row.name.push('x'),
        |row| row.audiences.push(Some("two".to_owned())),
        |row| row.audiences = vec![Some("p".to_owned()), Some("g".to_owned())],
        |row| row.audience_claim = "client_id".to_owned(),
        |row| row.identity_claim = "email".to_owned(),
        |row| row.groups_claim = Some("groups".to_owned()),
        |row| row.max_stale_us += 1,
        |row| row.accepted_typ = Some(vec![Some(String::new())]),
        |row| row.accepted_typ = Some(vec![Some("JWT".to_owned())]),
        |row| row.required_claims = Some("{}".to_owned()),
        |row| row.required_claims = Some("{\"a\":1}".to_owned()),
        |row| row.clock_skew_us = 1,
        |row| row.max_token_age_us = Some(1),
        |row| row.enabled = false,
        |row| row.base_role = Some("base".to_owned()),
        |row| (row.identity_pattern, row.identity_role) = (Some("(.*)".to_owned()), Some("\\1".to_owned())),
        |row| {
            (row.identity_pattern, row.identity_role) = (Some("(.*)".to_owned()), Some("\\1".to_owned()));
            row.auto_provision = true;
        },
    ];
    let mut seen = vec![revision];
    for change in same_keys {
        let changed = compile(change);
        assert_eq!(changed.0, source);
        assert!(!seen.contains(&changed.1));
        seen.push(changed.1);
    }
}
