//! Keys that change, are shown, are kept, and how they are fetched. A provider's keys are fetched for logins at most
//! once in ten seconds, so these tests first wait until the last fetch is that old.
//!
//! 1. f041: after a rotation the first login with the new key gets in, at the cost of one fetch; the withdrawn key is
//!    refused.
//! 2. n037: a key that nobody has is refused as `key_unknown`, in a bounded time also while the issuer is down, and good
//!    logins go on.
//! 3. What `oidc.key` and the log show, and `oidc.refresh_keys`: [`shown`] (n049, n058).
//! 4. What is kept across a restart, and what is not: [`kept`].
//! 5. Through which proxy: [`proxy`] (f040).
//! 6. What becomes of them is in the audit and in the log: [`trail`] (n058).
//!
//! Many at once (n044, f043): [`crate::floods`].

mod kept;
mod proxy;
mod shown;
mod trail;

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use pg_oidc_test::client::Session;
use pg_oidc_test::cluster::until;
use pg_oidc_test::issuer::{Behaviour, Issuer, JWKS};
use pg_oidc_test::keys::{Key, jwks, keys};
use pg_oidc_test::token::Token;
use serde_json::json;

use crate::scene::{SOON, Stage, provider_sql};

fn stage() -> &'static Stage {
    static STAGE: LazyLock<Stage> = LazyLock::new(|| Stage::start().expect("the server of the key tests"));
    &STAGE
}

/// An issuer that serves the first EC key of the process, and its provider, role and rule of this name.
pub(crate) fn issuer_of(stage: &Stage, name: &str) -> Result<Issuer> {
    let issuer = Issuer::start()?;
    issuer.set_jwks(jwks(&[&keys().ec]));
    stage.admin()?.rows(&provider_sql(name, &issuer.url(), &[]))?;
    stage.role_and_rule(name, name, &json!({ "sub": name }))?;
    stage.session(name, &token(name, &issuer, &keys().ec))?;
    Ok(issuer)
}

pub(crate) fn token(name: &str, issuer: &Issuer, key: &Key) -> String {
    Token::for_user(name).issuer(&issuer.url()).sign(key)
}

/// One column of the provider's keys, of the first of them.
pub(crate) fn shown(admin: &Session, name: &str, column: &str) -> Result<Option<String>> {
    let rows = admin.rows(&format!("SELECT ({column})::text FROM oidc.key WHERE provider = '{name}'"))?;
    Ok(rows.into_iter().next().and_then(|row| row.into_iter().next().flatten()))
}

/// Waits until a login may ask for this provider's keys again.
pub(crate) fn until_rested(stage: &Stage, name: &str) -> Result<()> {
    let admin = stage.admin()?;
    until("the pause is over", SOON, || Ok(shown(&admin, name, "age > '10.1 s'")?.as_deref() == Some("true")))
}

#[test]
fn f041_rotation_and_withdrawal() -> Result<()> {
    let stage = stage();
    let issuer = issuer_of(stage, "rotated")?;
    until_rested(stage, "rotated")?;
    let fetched = issuer.count(JWKS);
    issuer.set_jwks(jwks(&[&keys().other_ec]));
    stage.session("rotated", &token("rotated", &issuer, &keys().other_ec))?;
    assert_eq!(issuer.count(JWKS), fetched + 1);
    stage.accepted("rotated", &token("rotated", &issuer, &keys().other_ec), "the new key")?;
    stage.refused("rotated", &token("rotated", &issuer, &keys().ec), "key_unknown", "the withdrawn key")?;
    assert_eq!(issuer.count(JWKS), fetched + 1, "the pause holds");
    Ok(())
}

#[test]
fn n037_unknown_key_while_the_issuer_is_down() -> Result<()> {
    let stage = stage();
    let issuer = issuer_of(stage, "away")?;
    let (good, unknown) = (token("away", &issuer, &keys().ec), token("away", &issuer, &keys().other_ec));
    until_rested(stage, "away")?;
    issuer.refuse();
    let begun = Instant::now();
    stage.refused("away", &unknown, "key_unknown", "while the issuer is down")?;
    ensure!(begun.elapsed() < Duration::from_secs(9), "it took {:?}", begun.elapsed());
    stage.accepted("away", &good, "while the issuer is down")?;
    let error = shown(&stage.admin()?, "away", "last_error")?;
    ensure!(error.as_deref().is_some_and(|error| error.contains("refused")), "{error:?}");
    Ok(())
}

#[test]
fn n037_unknown_key_while_the_issuer_hangs() -> Result<()> {
    let stage = Stage::with(|builder| builder.setting("pg_oidc.wait_timeout", "1s"))?;
    let issuer = issuer_of(&stage, "hung")?;
    let (good, unknown) = (token("hung", &issuer, &keys().ec), token("hung", &issuer, &keys().other_ec));
    until_rested(&stage, "hung")?;
    issuer.misbehave(JWKS, Behaviour::Hang);
    let begun = Instant::now();
    let refused = stage.refusal(&stage.login("hung", &unknown), "hung", "while the issuer hangs")?;
    let elapsed = begun.elapsed();
    assert_eq!(refused.reason, "key_unknown");
    ensure!(elapsed >= Duration::from_secs(1) && elapsed < Duration::from_secs(5), "it took {elapsed:?}");
    stage.accepted("hung", &good, "while the issuer hangs")
}
