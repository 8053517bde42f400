//! Keys that are kept across a restart: they come back as they were, and only for the place that they came from.

use pg_oidc_core::algorithm::Algorithm;
use pg_oidc_core::keys::{jwks_text, parse_jwks};
use pg_oidc_core::provider::{KeptKeys, ProviderRow, compile_provider};
use serde_json::{Value, json};

use crate::common::{ED25519, P256, P384, RSA_A, provider_row};
use crate::jwks::{changed, parse, without};

#[test]
fn kept_text_reads_back_as_the_same_keys() {
    // Of each kind; with and without a kid, with one that JSON must escape, with and without an algorithm of its own.
    let rs384 = changed(changed(RSA_A.jwk(), "alg", "RS384".into()), "kid", "a/b=c é".into());
    let set = json!({"keys": [RSA_A.jwk(), rs384, without(P256.jwk(), "kid"), P384.jwk(), ED25519.jwk(),
        changed(P256.jwk(), "alg", "ES256".into()), {"kty": "oct", "k": "c2VjcmV0"}]});
    let parsed = parse(&set).unwrap();
    assert_eq!(parsed.keys.len(), 6);
    let text = jwks_text(&parsed.keys, u64::MAX);
    let again = parse_jwks(text.as_bytes(), &Algorithm::ALL).unwrap();
    assert_eq!(again.keys, parsed.keys);
    assert!(again.reports.iter().all(|report| report.usable.is_ok()));
    assert_eq!(jwks_text(&again.keys, u64::MAX), text);
    // Nothing but what the keys are: no member of the fetched set that we do not know.
    let kept: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(kept["key_source"], u64::MAX.to_string());
    assert!(
        kept["keys"].as_array().unwrap().iter().all(|key| key.get("k").is_none() && key.get("d").is_none())
    );
    // What the provider's list no longer holds does not come back.
    let narrower = parse_jwks(text.as_bytes(), &[Algorithm::EdDSA]).unwrap();
    assert_eq!(narrower.keys.len(), 1);
}

#[test]
fn kept_keys_of_another_source_are_refused() {
    let keys = parse(&json!({"keys": [P256.jwk()]})).unwrap().keys;
    let compile = |row: ProviderRow| compile_provider(&row, false).unwrap();
    let kept = |key_source: u64| KeptKeys { jwks: jwks_text(&keys, key_source), fetched_at: 5 };
    let mut provider = compile(provider_row());
    provider.keep(kept(provider.key_source));
    assert_eq!(provider.kept, Some(kept(provider.key_source)));

    let elsewhere = compile(ProviderRow {
        jwks: None,
        jwks_uri: Some("https://issuer.example/other".to_owned()),
        ..provider_row()
    });
    assert_ne!(elsewhere.key_source, provider.key_source);
    let own = format!("\"key_source\":\"{}\"", provider.key_source);
    let good = kept(provider.key_source).jwks;
    assert!(good.contains(&own));
    let refused = [
        kept(elsewhere.key_source).jwks,
        kept(provider.key_source.wrapping_add(1)).jwks,
        good.replace(&own, own.replace("\":\"", "\":").trim_end_matches('"')),
        good.replace(&own, "\"key_source\":\"\""),
        good.replace("key_source", "source"),
        good.replace('}', ""),
        String::new(),
        "[]".to_owned(),
    ];
    for jwks in refused {
        let mut provider = compile(provider_row());
        provider.keep(KeptKeys { jwks: jwks.clone(), fetched_at: 5 });
        assert_eq!(provider.kept, None, "{jwks}");
    }
}
