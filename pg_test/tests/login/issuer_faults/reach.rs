//! f036: an issuer that cannot be reached, or says nothing; and how often it is asked then.

use std::time::Duration;

use anyhow::{Result, ensure};
use pg_oidc_test::cluster::until;
use pg_oidc_test::issuer::{Behaviour, DISCOVERY, Issuer, JWKS};
use pg_oidc_test::keys::{jwks, keys};
use pg_oidc_test::token::Token;
use serde_json::json;

use super::{Fault, at_keys, healthy, slow_at, stage};
use crate::keys::shown;
use crate::scene::{SOON, provider_sql};

#[test]
fn f036_connection_refused() -> Result<()> {
    let fault = Fault::begin("refusing")?;
    fault.befalls(|issuer| {
        issuer.refuse();
        Ok(())
    })?;
    fault.shows("could not connect: connection refused")?;
    fault.passes(Issuer::accept)
}

#[test]
fn f036_blackhole() -> Result<()> {
    let fault = Fault::begin("blackhole")?;
    let steady = fault.steady()?;
    fault.befalls(Issuer::swallow)?;
    fault.others_go_on(&steady)?;
    fault.keeps()?;
    fault.shows("timeout while connecting")?;
    fault.passes(Issuer::accept)
}

#[test]
fn f036_tarpit() -> Result<()> {
    slow_at(DISCOVERY, "tarpit", Behaviour::Hang, "timeout while waiting for the answer")
}

#[test]
fn f036_discovery_and_keys_share_their_time() -> Result<()> {
    let (stage, admin) = (stage(), stage().admin()?);
    let slow = |name: &str, each: Duration| -> Result<Issuer> {
        let issuer = Issuer::start()?;
        issuer.set_jwks(jwks(&[&keys().ec]));
        issuer.misbehave(DISCOVERY, Behaviour::Delay(each));
        issuer.misbehave(JWKS, Behaviour::Delay(each));
        admin.rows(&provider_sql(name, &issuer.url(), &[]))?;
        Ok(issuer)
    };
    // Either answer alone is in time; both together are only with the second.
    let _late = slow("late", Duration::from_secs(3))?;
    let _just = slow("just", Duration::from_secs(1))?;
    until("one is given up", SOON, || Ok(shown(&admin, "late", "last_error")?.is_some()))?;
    assert_eq!(shown(&admin, "late", "last_error")?.as_deref(), Some("timeout while waiting for the answer"));
    until(
        "the other one has keys",
        SOON,
        || Ok(shown(&admin, "just", "usable")?.as_deref() == Some("true")),
    )?;
    stage.refused("nobody", "x", "token_malformed", "the server lives on")
}

#[test]
fn f036_connection_closed_without_an_answer() -> Result<()> {
    at_keys("hangup", Behaviour::HangUp, "could not read the answer: it breaks off or is not valid HTTP")
}

#[test]
fn f036_unknown_name() -> Result<()> {
    let (stage, admin) = (stage(), stage().admin()?);
    // RFC 6761: `.invalid` never exists. Without any name server the C library may take longer than we do.
    let issuer = "https://idp.invalid";
    admin.rows(&provider_sql("nowhere", issuer, &[]))?;
    stage.role_and_rule("nowhere", "nowhere", &json!({ "sub": "nowhere" }))?;
    until("the error is shown", SOON, || Ok(shown(&admin, "nowhere", "last_error")?.is_some()))?;
    let error = shown(&admin, "nowhere", "last_error")?.unwrap_or_default();
    let reasons = ["could not resolve the host name: ", "timeout while resolving the host name"];
    ensure!(reasons.iter().any(|reason| error.starts_with(reason)), "{error}");
    let token = Token::for_user("nowhere").issuer(issuer).sign(&keys().ec);
    stage.refused("nowhere", &token, "keys_unavailable", "nobody is there")
}

#[test]
fn f036_pauses_grow_and_differ() -> Result<()> {
    let (stage, admin) = (stage(), stage().admin()?);
    let names: Vec<String> = (0..10).map(|number| format!("failing{number}")).collect();
    let issuers = names.iter().map(|_| Issuer::start()).collect::<Result<Vec<_>>>()?;
    for (name, issuer) in names.iter().zip(&issuers) {
        issuer.misbehave(DISCOVERY, Behaviour::Status(500));
        admin.rows(&provider_sql(name, &issuer.url(), &[]))?;
    }
    let mut last = Vec::new();
    for (name, issuer) in names.iter().zip(&issuers) {
        ensure!(issuer.wait(DISCOVERY, 4, SOON), "{name} was to be asked four times");
        let at: Vec<_> = issuer.requests().iter().map(|request| request.at).collect();
        let pauses: Vec<Duration> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
        for (pause, least) in pauses.iter().zip([1, 2, 4]) {
            ensure!(*pause >= Duration::from_secs(least), "{name}: {pauses:?}");
        }
        last.push(pauses[2]);
        // The fourth failure is followed by 8 s and more; it may be published a moment later.
        let far = "next_fetch_at > now() + interval '5 s'";
        until("the pause is shown", SOON, || Ok(shown(&admin, name, far)?.as_deref() == Some("true")))?;
    }
    last.sort();
    // Up to a quarter is added, by chance: 10 of 4 s to 5 s lie this close together once in 10^11 times.
    ensure!(last[9] - last[0] > Duration::from_millis(50), "all come back in one moment: {last:?}");
    healthy(stage, &[])
}
