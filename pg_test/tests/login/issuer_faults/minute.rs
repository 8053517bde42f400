//! What only time brings. Both bounds are a minute at least, so this test lasts one, mostly idle.

use std::time::Duration;

use anyhow::{Result, ensure};
use pg_oidc_test::cluster::until;
use pg_oidc_test::issuer::{Behaviour, Issuer, JWKS};
use pg_oidc_test::keys::{jwks, keys};

use super::{healthy, provider};
use crate::keys::{shown, token};
use crate::scene::Stage;

/// More than a minute, on a busy machine.
const LONG: Duration = Duration::from_secs(120);

#[test]
fn f036_f041_after_a_minute() -> Result<()> {
    let stage = Stage::start()?;
    let (admin, gone, turning) = (stage.admin()?, Issuer::start()?, Issuer::start()?);
    for (name, issuer) in [("gone", &gone), ("turning", &turning)] {
        issuer.set_jwks(jwks(&[&keys().ec]));
        let age = ("Cache-Control".to_owned(), "max-age=1".to_owned());
        issuer.misbehave(JWKS, Behaviour::Headers(vec![age]));
        provider(&stage, name, issuer, None)?;
    }
    admin.rows("UPDATE oidc.provider SET max_stale = '60 s' WHERE name = 'gone'")?;
    let [last_good, withdrawn] = [("gone", &gone), ("turning", &turning)].map(|(name, issuer)| {
        let token = token(name, issuer, &keys().ec);
        stage.session(name, &token).map(|_| token)
    });
    let (last_good, withdrawn) = (last_good?, withdrawn?);
    gone.refuse();
    turning.set_jwks(jwks(&[&keys().other_ec]));

    // The issuer that is gone: the last good keys, until max_stale.
    let is_old = |age: &str| Ok(shown(&admin, "gone", &format!("age > '{age}'"))?.as_deref() == Some("true"));
    until("the better part of a minute", LONG, || is_old("40 s"))?;
    stage.accepted("gone", &last_good, "younger than max_stale")?;

    // The issuer that has withdrawn its key: it is asked again before a minute is over, without anybody's doing.
    until("newer keys", LONG, || Ok(shown(&admin, "turning", "kid")?.as_deref() == Some("ec-2")))?;
    let requests = turning.requests();
    let at: Vec<_> =
        requests.iter().filter(|request| request.path == JWKS).map(|request| request.at).collect();
    ensure!(at.len() == 2 && at[1] - at[0] < Duration::from_secs(60), "asked at {at:?}");
    stage.refused("turning", &withdrawn, "key_unknown", "withdrawn")?;

    until("they are stale", LONG, || is_old("60 s"))?;
    ensure!(shown(&admin, "gone", "last_error")?.is_some(), "it is down");
    stage.refused("gone", &last_good, "keys_stale", "older than max_stale")?;
    gone.accept()?;
    admin.rows("SELECT oidc.refresh_keys('gone')")?;
    until("it is back", LONG, || Ok(stage.login("gone", &last_good).connect()?.is_ok()))?;
    healthy(&stage, &[&last_good, &withdrawn])
}
