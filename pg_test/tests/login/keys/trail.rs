//! What becomes of a provider's keys is in `oidc.audit_log` and in the server log.
//!
//! 1. Keys come and go, also under the same `kid`; an ordinary fetch is no event.
//! 2. The first failure in a row, and that it works again.
//! 3. n049, n058: keys that must not be in a set.
//! 4. What was kept across a restart has not come.

use anyhow::{Context, Result, ensure};
use pg_oidc_test::client::Session;
use pg_oidc_test::cluster::until;
use pg_oidc_test::issuer::{Behaviour, JWKS};
use pg_oidc_test::keys::{jwks, keys};
use serde_json::{Value, json};

use super::{issuer_of, shown, stage};
use crate::scene::{SOON, Stage};

/// The events of the provider's keys, oldest first, once there are as many as that.
fn events(admin: &Session, provider: &str, count: usize) -> Result<Vec<Value>> {
    let query = format!(
        "SELECT to_jsonb(a)::text FROM oidc.audit_log a WHERE event LIKE 'keys%' AND provider = '{provider}' ORDER BY id"
    );
    until("the events are in the table", SOON, || Ok(admin.rows(&query)?.len() >= count))?;
    let rows = admin.rows(&query)?.into_iter().flatten().flatten();
    let rows: Vec<Value> =
        rows.map(|row| serde_json::from_str(&row).context("no JSON")).collect::<Result<_>>()?;
    assert_eq!(rows.len(), count, "{rows:?}");
    Ok(rows)
}

/// Event, reason, before and after.
fn told(rows: &[Value]) -> Vec<[Value; 4]> {
    rows.iter().map(|row| ["event", "reason", "before", "after"].map(|column| row[column].clone())).collect()
}

/// Fetches once more, well or not, and waits until what came of it is published.
fn refresh(stage: &Stage, name: &str) -> Result<()> {
    let admin = stage.admin()?;
    let before = shown(&admin, name, "fetched_at")?;
    admin.rows(&format!("SELECT oidc.refresh_keys('{name}')"))?;
    until("newer keys", SOON, || Ok(shown(&admin, name, "fetched_at")? != before))
}

#[test]
fn keys_that_come_and_go() -> Result<()> {
    let stage = stage();
    let mark = stage.cluster.log_mark();
    let issuer = issuer_of(stage, "moving")?;
    let admin = stage.admin()?;
    refresh(stage, "moving")?;
    // The same two in another order are no other ones.
    issuer.set_jwks(jwks(&[&keys().other_ec, &keys().ec]));
    refresh(stage, "moving")?;
    issuer.set_jwks(jwks(&[&keys().ec, &keys().other_ec]));
    refresh(stage, "moving")?;
    issuer.set_jwks(jwks(&[&keys().other_ec]));
    refresh(stage, "moving")?;
    let (old, new) = (keys().ec.kid(), keys().other_ec.kid());
    // Another key of the same name is another key.
    let mut swapped = keys().ec.jwk();
    swapped["kid"] = json!(new);
    let mut nameless = keys().rsa.jwk();
    nameless.as_object_mut().context("no key")?.remove("kid");
    issuer.set_jwks(json!({ "keys": [swapped, nameless] }));
    refresh(stage, "moving")?;
    refresh(stage, "moving")?;
    let rows = events(&admin, "moving", 4)?;
    let change = |before: Value, after: Value| [json!("keys_changed"), Value::Null, before, after];
    let wanted = [
        change(json!([]), json!([old])),
        change(json!([old]), json!([new, old])),
        change(json!([old, new]), json!([new])),
        change(json!([new]), json!([new, null])),
    ];
    assert_eq!(told(&rows), wanted);
    for row in &rows {
        assert_eq!((&row["outcome"], &row["requested_user"]), (&json!("done"), &Value::Null), "{row}");
    }
    let log = stage.cluster.log_since(mark);
    let lines: Vec<&str> = log
        .lines()
        .filter_map(|line| line.split_once("OIDC keys changed: provider=\"moving\" ").map(|(_, rest)| rest))
        .collect();
    let wanted = [
        format!("came=[{old:?}] went=[]"),
        format!("came=[{new:?}] went=[]"),
        format!("came=[] went=[{old:?}]"),
        format!("came=[{new:?}, \"\"] went=[{new:?}]"),
    ];
    assert_eq!(lines, wanted);
    Ok(())
}

#[test]
fn fetches_that_fail_and_work_again() -> Result<()> {
    let stage = stage();
    let mark = stage.cluster.log_mark();
    let issuer = issuer_of(stage, "shaky")?;
    let admin = stage.admin()?;
    let fails = |number: usize| {
        let failed = "could not fetch the keys of OIDC provider \"shaky\"";
        until("it fails", SOON, || Ok(stage.cluster.log_since(mark).matches(failed).count() >= number))
    };
    issuer.misbehave(JWKS, Behaviour::Status(500));
    admin.rows("SELECT oidc.refresh_keys('shaky')")?;
    // Twice, and it is one event.
    fails(2)?;
    issuer.behave(JWKS);
    until("it works again", SOON, || {
        Ok(shown(&admin, "shaky", "last_error IS NULL")?.as_deref() == Some("true"))
    })?;
    let rows = events(&admin, "shaky", 3)?;
    let names: Vec<&Value> = rows.iter().map(|row| &row["event"]).collect();
    assert_eq!(names, ["keys_changed", "keys_failed", "keys_recovered"]);
    assert_eq!(rows[1]["reason"], "status_unexpected");
    let detail = rows[1]["facts"]["detail"].as_str().context("no detail")?;
    assert_eq!(detail, "unexpected HTTP status 500");
    let log = stage.cluster.log_since(mark);
    for (line, count) in [
        (
            "OIDC keys failed: provider=\"shaky\" reason=status_unexpected detail=\"unexpected HTTP status 500\"",
            1,
        ),
        ("OIDC keys failed: provider=\"shaky\"", 1),
        ("OIDC keys recovered: provider=\"shaky\"", 1),
    ] {
        assert_eq!(log.matches(line).count(), count, "{line} in {log}");
    }
    // A set that cannot be used is a failure too, and the old keys have not gone.
    issuer.set_jwks(json!({ "keys": [] }));
    admin.rows("SELECT oidc.refresh_keys('shaky')")?;
    let rows = events(&admin, "shaky", 4)?;
    assert_eq!((&rows[3]["event"], &rows[3]["reason"]), (&json!("keys_failed"), &json!("key_set_invalid")));
    Ok(())
}

#[test]
fn n058_keys_that_must_not_be_there() -> Result<()> {
    let stage = stage();
    let mark = stage.cluster.log_mark();
    let issuer = issuer_of(stage, "open")?;
    let admin = stage.admin()?;
    let mut private = keys().other_ec.jwk();
    private["d"] = private["x"].clone();
    private["kid"] = json!("private-one");
    let shared = json!({ "kty": "oct", "k": "c2VjcmV0", "kid": "shared-one" });
    issuer.set_jwks(json!({ "keys": [keys().ec.jwk(), private, shared] }));
    refresh(stage, "open")?;
    refresh(stage, "open")?;
    let rows = events(&admin, "open", 3)?;
    let leak = |reason: &str, kid: &str| [json!("keys_leaked"), json!(reason), Value::Null, json!([kid])];
    assert_eq!(told(&rows)[1..], [leak("private_key", "private-one"), leak("symmetric_key", "shared-one")]);
    let log = stage.cluster.log_since(mark);
    let line = "OIDC keys leaked: provider=\"open\" reason=private_key kids=[\"private-one\"]";
    assert_eq!(log.matches(line).count(), 1, "{log}");
    ensure!(!log.contains("c2VjcmV0"), "a key is in the log");
    Ok(())
}

#[test]
fn what_was_kept_has_not_come() -> Result<()> {
    let stage = Stage::start()?;
    let issuer = issuer_of(&stage, "kept")?;
    let kept = "SELECT count(*) FROM oidc.jwks_cache";
    until("the keys are kept", SOON, || Ok(stage.admin()?.value(kept)?.as_deref() == Some("1")))?;
    events(&stage.admin()?, "kept", 1)?;
    let fetched = issuer.count(JWKS);
    stage.cluster.restart()?;
    ensure!(issuer.wait(JWKS, fetched + 1, SOON), "no fetch after the restart");
    // What comes next is told, so what came before would have been.
    issuer.set_jwks(jwks(&[&keys().other_ec]));
    refresh(&stage, "kept")?;
    let rows = events(&stage.admin()?, "kept", 2)?;
    assert_eq!(rows[1]["before"], json!([keys().ec.kid()]));
    Ok(())
}
