//! f044: a key set that does not fit into shared memory is refused whole: the old one stays, the reason is shown, and
//! the keys of the other providers go on changing as if nothing had been.

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pg_oidc_test::cluster::until;
use pg_oidc_test::issuer::{Issuer, JWKS};
use pg_oidc_test::keys::{jwks, keys};
use serde_json::{Value, json};

use super::{healthy, provider};
use crate::keys::{shown, token};
use crate::scene::{SOON, Stage};

/// 100 keys of 8192 bits with the longest `kid`: all acceptable, 170 kB together.
fn huge() -> Value {
    let key = |number: usize| {
        // Odd, and each another; nobody knows the primes.
        let mut modulus = [0xa5; 1024];
        modulus[1] = u8::try_from(number).unwrap_or_default();
        let kid = format!("{number:0>256}");
        json!({ "kty": "RSA", "kid": kid, "e": "AQAB", "n": URL_SAFE_NO_PAD.encode(modulus) })
    };
    let mut set: Vec<Value> = (0..99).map(key).collect();
    set.push(keys().ec.jwk());
    json!({ "keys": set })
}

#[test]
fn f044_set_too_large_for_the_board() -> Result<()> {
    // The least: a quarter of it in two halves for the keys.
    let stage = Stage::with(|builder| builder.setting("pg_oidc.shared_memory", "1MB"))?;
    let admin = stage.admin()?;
    let [big, steady, late] = [Issuer::start()?, Issuer::start()?, Issuer::start()?];
    for (name, issuer) in [("big", &big), ("steady", &steady)] {
        issuer.set_jwks(jwks(&[&keys().ec]));
        provider(&stage, name, issuer, None)?;
        stage.session(name, &token(name, issuer, &keys().ec))?;
    }
    let before = shown(&admin, "big", "fetched_at")?;
    big.set_jwks(huge());
    let mark = stage.cluster.log_mark();
    admin.rows("SELECT oidc.refresh_keys('big')")?;
    until("the error is shown", SOON, || Ok(shown(&admin, "big", "last_error")?.is_some()))?;
    let error = shown(&admin, "big", "last_error")?.unwrap_or_default();
    assert_eq!(error, "the key set does not fit into shared memory");
    stage.cluster.await_log_since(mark, "HINT:  Raise \"pg_oidc.shared_memory\"", SOON)?;
    let rows = admin.rows("SELECT kid, fetched_at::text FROM oidc.key WHERE provider = 'big'")?;
    assert_eq!(rows, [[Some("ec-1".to_owned()), before]]);
    stage.accepted("big", &token("big", &big, &keys().ec), "the old set")?;

    // Another provider rotates.
    steady.set_jwks(jwks(&[&keys().other_ec]));
    admin.rows("SELECT oidc.refresh_keys('steady')")?;
    until("newer keys", SOON, || Ok(shown(&admin, "steady", "kid")?.as_deref() == Some("ec-2")))?;
    stage.accepted("steady", &token("steady", &steady, &keys().other_ec), "the new key")?;
    stage.refused("steady", &token("steady", &steady, &keys().ec), "key_unknown", "the withdrawn key")?;

    // One comes whose first set is too large, and while it fails another first fetch goes well.
    late.set_jwks(huge());
    provider(&stage, "late", &late, None)?;
    until("the error is shown", SOON, || Ok(shown(&admin, "late", "last_error")?.is_some()))?;
    stage.refused("late", &token("late", &late, &keys().ec), "keys_unavailable", "it never fitted")?;

    // It is not asked in a circle: each failure is followed by a longer pause, whatever the answer's status.
    let asked = big.count(JWKS);
    ensure!(big.wait(JWKS, asked + 1, SOON), "it was to be asked again");
    let far = "next_fetch_at > now() + interval '1.5 s'";
    until("the pause grows", SOON, || Ok(shown(&admin, "big", far)?.as_deref() == Some("true")))?;

    for (name, issuer) in [("big", &big), ("late", &late)] {
        issuer.set_jwks(jwks(&[&keys().other_ec]));
        admin.rows(&format!("SELECT oidc.refresh_keys('{name}')"))?;
        until("it fits", SOON, || Ok(shown(&admin, name, "kid")?.as_deref() == Some("ec-2")))?;
        stage.accepted(name, &token(name, issuer, &keys().other_ec), "it fits")?;
        assert_eq!(shown(&admin, name, "last_error")?, None);
    }
    healthy(&stage, &[&token("big", &big, &keys().ec)])
}
