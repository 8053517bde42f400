//! Which tokens open a session and which do not. One server; each test has its own provider, role and rule.
//!
//! 1. A token signed with RS256, ES256 or EdDSA opens a session, with psql and with tokio-postgres, whether
//!    the keys stand in the row, are found by discovery or under `jwks_uri`.
//! 2. A good login asks the provider nothing.
//! 3. The text of the token: [`form`] (n001 to n018), and its JSON: [`content`] (n007 to n017).
//! 4. Its algorithm and signature: [`signature`] (n019 to n032).
//! 5. Its header and the provider's keys: [`header`] (n034 to n058).
//! 6. Its claims: [`claims`] (n066 to n093), and what a provider may ask of them: [`asked`] (n074 to n095).
//! 7. Providers that are down, slow or come back: [`keys`].
//! 8. No piece of a token is ever written down: [`secret`] (n120).
//! 9. Every reason of the door is provoked: [`reasons`].

mod asked;
mod claims;
mod content;
mod form;
mod header;
mod keys;
mod reasons;
mod secret;
mod signature;

use std::sync::LazyLock;

use anyhow::{Result, ensure};
use pg_oidc_test::cluster::until;
use pg_oidc_test::issuer::{DISCOVERY, Issuer, JWKS};
use pg_oidc_test::keys::{Key, jwks, keys as all_keys};
use pg_oidc_test::token::Token;
use serde_json::json;

use crate::scene::{SOON, Stage, good, provider_sql, quoted};

fn stage() -> &'static Stage {
    static STAGE: LazyLock<Stage> = LazyLock::new(|| Stage::start().expect("the server of the token tests"));
    &STAGE
}

/// One key of each kind.
fn key_types() -> [&'static Key; 3] {
    let all = all_keys();
    [&all.rsa, &all.ec, &all.ed25519]
}

/// An issuer that serves the first keys of the process.
fn issuer_with_keys() -> Result<Issuer> {
    let issuer = Issuer::start()?;
    issuer.set_jwks(jwks(&key_types()));
    Ok(issuer)
}

/// Waits until a login of this user with this token is admitted.
fn until_admitted(stage: &Stage, user: &str, token: &str) -> Result<()> {
    until("the token is accepted", SOON, || Ok(stage.login(user, token).connect()?.is_ok()))
}

#[test]
fn each_key_type_opens_a_session_with_static_keys() -> Result<()> {
    let stage = stage();
    stage.trio("static")?;
    for key in key_types() {
        stage.accepted("static", &good("static").sign(key), key.algorithm())?;
    }
    Ok(())
}

#[test]
fn each_key_type_opens_a_session_with_keys_found_by_discovery() -> Result<()> {
    let (stage, issuer) = (stage(), issuer_with_keys()?);
    stage.admin()?.rows(&provider_sql("discovered", &issuer.url(), &[]))?;
    stage.role_and_rule("discovered", "discovered", &json!({ "sub": "discovered" }))?;
    for key in key_types() {
        let token = Token::for_user("discovered").issuer(&issuer.url()).sign(key);
        stage.accepted("discovered", &token, key.algorithm())?;
    }
    assert_eq!((issuer.count(DISCOVERY), issuer.count(JWKS)), (1, 1));
    Ok(())
}

#[test]
fn each_key_type_opens_a_session_with_keys_under_jwks_uri() -> Result<()> {
    let (stage, issuer) = (stage(), issuer_with_keys()?);
    // The issuer of the tokens is not where the keys are, and is never asked.
    let place = quoted(&format!("{}{JWKS}", issuer.url()));
    stage.admin()?.rows(&provider_sql("placed", "https://placed.example", &[("jwks_uri", &place)]))?;
    stage.role_and_rule("placed", "placed", &json!({ "sub": "placed" }))?;
    for key in key_types() {
        stage.accepted("placed", &good("placed").sign(key), key.algorithm())?;
    }
    assert_eq!((issuer.count(DISCOVERY), issuer.count(JWKS)), (0, 1));
    Ok(())
}

#[test]
fn a_good_login_asks_the_provider_nothing() -> Result<()> {
    let (stage, issuer) = (stage(), issuer_with_keys()?);
    stage.admin()?.rows(&provider_sql("quiet", &issuer.url(), &[]))?;
    stage.role_and_rule("quiet", "quiet", &json!({ "sub": "quiet" }))?;
    let token = |key| Token::for_user("quiet").issuer(&issuer.url()).sign(key);
    until_admitted(stage, "quiet", &token(&all_keys().ec))?;
    let before = (issuer.requests().len(), issuer.connections());
    ensure!(before.0 == 2, "discovery and keys were to be asked for once: {before:?}");
    for number in 0..50 {
        let key = key_types()[number % 3];
        stage.session("quiet", &token(key))?;
    }
    assert_eq!((issuer.requests().len(), issuer.connections()), before);
    Ok(())
}
