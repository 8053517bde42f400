//! What is shown of the keys, and fetching them on demand.
//!
//! 1. `oidc.key` has a row for each key of each provider: usable, or why not; where from, how old, when next, what
//!    went wrong last.
//! 2. n049, n058: a symmetric key and a private one are named in the log, once, and the others serve; also where there
//!    are no others.
//! 3. `oidc.refresh_keys` fetches of one provider or of all, at once; an unknown name is an error; PUBLIC may not, and
//!    may not read `oidc.key` either.
//! 4. A renamed provider is shown under its new name.

use anyhow::{Result, ensure};
use pg_oidc_test::cluster::until;
use pg_oidc_test::issuer::{DISCOVERY, Issuer, JWKS};
use pg_oidc_test::keys::{jwks, keys};
use serde_json::{Value, json};

use super::{issuer_of, shown, stage, token};
use crate::scene::{SOON, Stage, good, provider_sql};

const ALARM: &str = "holds a key that must not be there";

fn symmetric() -> Value {
    json!({ "kty": "oct", "k": "c2VjcmV0", "kid": "shared" })
}

fn leaked() -> Value {
    let mut key = keys().other_ec.jwk();
    key["d"] = key["x"].clone();
    key["kid"] = json!("leaked");
    key
}

fn small() -> Value {
    // 1024 bits.
    json!({ "kty": "RSA", "kid": "small", "n": "_".repeat(170) + "w", "e": "AQAB" })
}

/// Fetches once more, and waits until what came is published.
fn refresh(stage: &Stage, name: &str) -> Result<()> {
    let admin = stage.admin()?;
    let before = shown(&admin, name, "fetched_at")?;
    admin.rows(&format!("SELECT oidc.refresh_keys('{name}')"))?;
    until("newer keys", SOON, || Ok(shown(&admin, name, "fetched_at")? != before))
}

#[test]
fn n058_each_key_and_why_it_is_not_used() -> Result<()> {
    let stage = stage();
    let issuer = issuer_of(stage, "shown")?;
    let mark = stage.cluster.log_mark();
    issuer.set_jwks(json!({ "keys": [keys().ec.jwk(), symmetric(), leaked(), small()] }));
    refresh(stage, "shown")?;
    let admin = stage.admin()?;
    let rows = admin.rows(
        "SELECT kid, kty, alg, usable::text, coalesce(problem, '') FROM oidc.key WHERE provider = 'shown' ORDER BY kid",
    )?;
    let rows: Vec<Vec<String>> =
        rows.into_iter().map(|row| row.into_iter().map(Option::unwrap_or_default).collect()).collect();
    let all = [
        ("ec-1", "EC", "true", ""),
        ("leaked", "EC", "false", "private"),
        ("shared", "oct", "false", "symmetric"),
        ("small", "RSA", "false", "2048"),
    ];
    assert_eq!(rows.len(), all.len(), "{rows:?}");
    for (row, (kid, kty, usable, problem)) in rows.iter().zip(all) {
        ensure!(row[0] == kid && row[1] == kty && row[3] == usable && row[4].contains(problem), "{row:?}");
    }
    let set = "origin, (age BETWEEN '0 s' AND '1 min')::text, (next_fetch_at > now())::text, last_error";
    let set = admin.rows(&format!("SELECT DISTINCT {set} FROM oidc.key WHERE provider = 'shown'"))?;
    let yes = Some("true".to_owned());
    assert_eq!(set, [vec![Some(format!("{}{JWKS}", issuer.url())), yes.clone(), yes, None]]);
    stage.accepted("shown", &token("shown", &issuer, &keys().ec), "the good one of the set")?;

    // Said once of the same set, and of nothing but what must not be there.
    refresh(stage, "shown")?;
    refresh(stage, "shown")?;
    let log = stage.cluster.log_since(mark);
    let alarms: Vec<&str> =
        log.lines().filter(|line| line.contains(&format!("provider \"shown\" {ALARM}"))).collect();
    assert_eq!(alarms.len(), 2, "{alarms:?}");
    ensure!(alarms.iter().all(|line| line.contains("WARNING")), "{alarms:?}");
    ensure!(
        log.contains("Key \"leaked\"") && log.contains("Key \"shared\"") && !log.contains("c2VjcmV0"),
        "{log}"
    );

    issuer.refuse();
    admin.rows("SELECT oidc.refresh_keys('shown')")?;
    until("the error is shown", SOON, || Ok(shown(&admin, "shown", "last_error")?.is_some()))?;
    assert_eq!(shown(&admin, "shown", "count(*) FILTER (WHERE usable)")?.as_deref(), Some("1"));
    stage.accepted("shown", &token("shown", &issuer, &keys().ec), "the last good ones")
}

#[test]
fn n049_nothing_but_keys_that_must_not_be_there() -> Result<()> {
    let (stage, issuer) = (stage(), Issuer::start()?);
    issuer.set_jwks(json!({ "keys": [symmetric(), leaked()] }));
    let mark = stage.cluster.log_mark();
    let admin = stage.admin()?;
    admin.rows(&provider_sql("leaky", &issuer.url(), &[]))?;
    for kid in ["shared", "leaked"] {
        stage.cluster.await_log_since(mark, &format!("Key \"{kid}\": "), SOON)?;
    }
    let rows = admin.rows("SELECT kid, usable::text FROM oidc.key WHERE provider = 'leaky' ORDER BY kid")?;
    let row = |kid: &str| vec![Some(kid.to_owned()), Some("false".to_owned())];
    assert_eq!(rows, [row("leaked"), row("shared")]);
    ensure!(shown(&admin, "leaky", "last_error")?.is_some(), "a set without a usable key is a failure");
    Ok(())
}

#[test]
fn static_keys_and_no_keys() -> Result<()> {
    let (stage, issuer) = (stage(), Issuer::start()?);
    stage.trio("carved")?;
    let admin = stage.admin()?;
    stage.session("carved", &good("carved").sign(&keys().ec))?;
    let columns =
        "DISTINCT origin, usable::text, fetched_at::text, age::text, next_fetch_at::text, last_error";
    let rows = admin.rows(&format!("SELECT {columns} FROM oidc.key WHERE provider = 'carved'"))?;
    assert_eq!(rows, [vec![Some("jwks".to_owned()), Some("true".to_owned()), None, None, None, None]]);

    issuer.refuse();
    admin.rows(&provider_sql("keyless", &issuer.url(), &[]))?;
    until("the failure is shown", SOON, || Ok(shown(&admin, "keyless", "last_error")?.is_some()))?;
    let rows =
        admin.rows("SELECT kid, usable::text, fetched_at::text FROM oidc.key WHERE provider = 'keyless'")?;
    assert_eq!(rows, [vec![None, None, None]]);
    Ok(())
}

#[test]
fn refresh_of_one_of_all_and_of_none() -> Result<()> {
    // Its own server: a refresh of all would be counted in the other tests.
    let stage = Stage::start()?;
    let (one, two) = (issuer_of(&stage, "one")?, issuer_of(&stage, "two")?);
    let admin = stage.admin()?;
    let counts = || (one.count(JWKS), two.count(JWKS));
    assert_eq!(counts(), (1, 1));
    admin.rows("SELECT oidc.refresh_keys('one')")?;
    ensure!(one.wait(JWKS, 2, SOON), "no fetch: {:?}", one.requests());
    refresh(&stage, "one")?;
    assert_eq!(two.count(DISCOVERY), 1);
    let before = counts();
    admin.rows("SELECT oidc.refresh_keys()")?;
    ensure!(one.wait(JWKS, before.0 + 1, SOON) && two.wait(JWKS, before.1 + 1, SOON), "{:?}", counts());

    let told = admin.error("SELECT oidc.refresh_keys('three')")?;
    assert_eq!(
        (told.code.as_str(), told.message.as_str()),
        ("42704", "OIDC provider \"three\" does not exist")
    );
    // What was committed before counts.
    for number in 0..20 {
        admin.rows(&provider_sql(
            &format!("new{number}"),
            &format!("https://new{number}.example"),
            &[("enabled", "false")],
        ))?;
        admin.rows(&format!("SELECT oidc.refresh_keys('new{number}')"))?;
    }
    let guest = stage.session("one", &token("one", &one, &keys().ec))?;
    for sql in [
        "SELECT oidc.refresh_keys()",
        "SELECT oidc.refresh_keys('one')",
        "TABLE oidc.key",
        "SELECT oidc.key_rows()",
    ] {
        assert_eq!(guest.error(sql)?.code, "42501", "{sql}");
    }
    // As the comment on the view says, whoever is to read it needs both.
    admin.rows("GRANT SELECT ON oidc.key TO one; GRANT EXECUTE ON FUNCTION oidc.key_rows() TO one")?;
    ensure!(!guest.rows("TABLE oidc.key")?.is_empty(), "no rows");
    Ok(())
}

#[test]
fn renamed_provider() -> Result<()> {
    let stage = stage();
    let issuer = Issuer::start()?;
    issuer.set_jwks(jwks(&[&keys().ec]));
    let admin = stage.admin()?;
    admin.rows(&provider_sql("before", &issuer.url(), &[]))?;
    let kept = |name: &str| format!("SELECT count(*) FROM oidc.jwks_cache WHERE provider = '{name}'");
    until("its keys are kept", SOON, || Ok(admin.value(&kept("before"))?.as_deref() == Some("1")))?;
    admin.rows("UPDATE oidc.provider SET name = 'after' WHERE name = 'before'")?;
    assert_eq!(admin.value(&kept("after"))?.as_deref(), Some("1"));
    admin.rows("SELECT oidc.refresh_keys('after')")?;
    until("the new name is shown", SOON, || Ok(shown(&admin, "after", "kid")?.is_some()))?;
    assert_eq!(shown(&admin, "before", "kid")?, None);
    Ok(())
}
