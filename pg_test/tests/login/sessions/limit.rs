//! How long sessions last.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pg_oidc_test::client::Session;
use pg_oidc_test::token::now;
use serde_json::json;

use super::{GRACE, gone, pid, signed, some, stage, told_of_its_end};
use crate::scene::{SOON, good};
use crate::stage::forced_parallel;

/// What the client of a session whose time is over is told.
const OVER: &str = "The time of the OIDC token session is over.";
const EXPIRED: &str = "The OIDC token of the session has expired.";

/// A trio whose provider and rule have these limits.
fn limited(name: &str, provider: &str, rule: &str) -> Result<Session> {
    stage().trio(name)?;
    let admin = stage().admin()?;
    admin.rows(&format!(
        "UPDATE oidc.provider SET session_limit = '{provider}', clock_skew = '1 s' WHERE name = '{name}'; \
         UPDATE oidc.role_mapping SET session_limit = {rule} WHERE provider = '{name}'"
    ))?;
    Ok(admin)
}

#[test]
fn tighter_limit_holds() -> Result<()> {
    let cases = [
        ("none_null", "none", "NULL", None),
        ("none_none", "none", "'none'", None),
        ("hour_null", "1 hour", "NULL", some("01:00:00")),
        ("hour_none", "1 hour", "'none'", some("01:00:00")),
        ("hour_iso", "PT90M", "'2 hours'", some("01:30:00")),
        ("hour_minute", "1 hour", "'1 minute'", some("00:01:00")),
        ("minute_hour", "00:01", "'1 hour'", some("00:01:00")),
        ("month", "1 month", "NULL", some("30 days")),
    ];
    for (name, provider, rule, expected) in cases {
        let admin = limited(name, provider, rule)?;
        let session = super::session(name)?;
        let sql = format!("SELECT (ends_at - since)::text FROM oidc.session WHERE pid = {}", pid(&session)?);
        assert_eq!(admin.value(&sql)?, expected, "{name}");
    }
    // With the token, and the tolerance that it is accepted with.
    for (name, provider, rule) in [("token_null", "token", "NULL"), ("hour_token", "1 hour", "'token'")] {
        let admin = limited(name, provider, rule)?;
        let exp = now() + 100;
        let session = stage().session(name, &signed(&good(name).claim("exp", json!(exp))))?;
        let own = pid(&session)?;
        let sql = format!("SELECT extract(epoch FROM ends_at)::bigint FROM oidc.session WHERE pid = {own}");
        assert_eq!(admin.value(&sql)?, Some((exp + 1).to_string()), "{name}");
    }
    Ok(())
}

#[test]
fn limits_that_are_none_are_refused() -> Result<()> {
    let admin = limited("wrong_limit", "none", "NULL")?;
    for limit in ["", "soon", "None", "token ", "1 fortnight", "0", "-1 hour"] {
        for table in ["provider SET", "role_mapping SET"] {
            let key = if table.starts_with("provider") { "name" } else { "provider" };
            let told = admin.error(&format!(
                "UPDATE oidc.{table} session_limit = '{limit}' WHERE {key} = 'wrong_limit'"
            ))?;
            ensure!(told.code == "23514" && told.message.contains("\"session_limit\" must be "), "{told:?}");
        }
    }
    Ok(())
}

#[test]
fn session_ends_with_its_token() -> Result<()> {
    let admin = limited("by_token", "token", "NULL")?;
    let exp = now() + 1;
    let session = stage().session("by_token", &signed(&good("by_token").claim("exp", json!(exp))))?;
    let own = pid(&session)?;
    // It lives until the tolerance is over too.
    let end = Duration::from_secs(u64::try_from(exp + 1)?);
    let left = end.saturating_sub(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?);
    let start = Instant::now();
    gone(&admin, &own, left + GRACE)?;
    let early = left.saturating_sub(start.elapsed());
    ensure!(early < Duration::from_millis(100), "it ended {early:?} before its time");
    told_of_its_end(&session, EXPIRED)?;
    // An expired token does not open the next one.
    let line = "OIDC session ended: cause=token_expired role=\"by_token\"";
    stage().cluster.await_log(line, SOON)?;
    ensure!(stage().cluster.log().matches(line).count() == 1, "more than once");
    Ok(())
}

/// Sessions in every state, all of which must end within a second of their time.
#[test]
fn f031_f032_session_ends_on_time_whatever_it_does() -> Result<()> {
    let admin = limited("states", "3 s", "NULL")?;
    admin.rows(
        "CREATE TABLE states (n int); INSERT INTO states SELECT generate_series(1, 1000); \
         GRANT ALL ON states TO states",
    )?;
    // What is run to get there, and what runs when the time comes (empty: nothing, the session is idle).
    let states = [
        ("idle", "SELECT 1", ""),
        ("running", "SELECT 1", "SELECT pg_sleep(60)"),
        ("idle in transaction", "BEGIN; SELECT count(*) FROM states", ""),
        ("locks held", "BEGIN; LOCK TABLE states IN ROW EXCLUSIVE MODE; SAVEPOINT s", ""),
        ("cursor", "BEGIN; DECLARE c CURSOR FOR SELECT * FROM states; FETCH 10 FROM c", ""),
        ("failed transaction", "BEGIN", ""),
        ("listening", "LISTEN states", ""),
        (
            "exceptions caught",
            "SELECT 1",
            "DO $$ BEGIN LOOP BEGIN PERFORM pg_sleep(0.01), 1/0; EXCEPTION WHEN OTHERS THEN NULL; END; END LOOP; END $$",
        ),
        ("cpu", "SELECT 1", "SELECT count(*) FROM generate_series(1, 1000000000000)"),
        ("copy to", "SELECT 1", "COPY (SELECT pg_sleep(60)) TO STDOUT"),
        (
            "parallel query",
            &format!(
                "SET {} = on; SET max_parallel_workers_per_gather = 2",
                forced_parallel(&stage().cluster)
            ),
            "SELECT count(*) FROM states a, states b, states c, states d",
        ),
        ("after an error", "SELECT 1", "after an error"),
        ("after statement_timeout", "SET statement_timeout = '20ms'", "after a timeout"),
        ("after a cancel", "SELECT 1", "after a cancel"),
    ];
    let mut waiting = Vec::new();
    for (what, first, then) in states {
        let session = super::session("states")?;
        let started = Instant::now();
        session.rows(first)?;
        let own = pid(&session)?;
        match what {
            "failed transaction" | "after an error" => drop(session.error("SELECT 1/0")?),
            "after statement_timeout" => drop(session.error("SELECT pg_sleep(10)")?),
            _ => {}
        }
        let then = match what {
            "after an error" | "after statement_timeout" => "",
            "after a cancel" => "SELECT pg_sleep(60)",
            _ => then,
        };
        let runner = (!then.is_empty()).then(|| {
            let then = then.to_owned();
            thread::spawn(move || -> Result<_> {
                let told = session.try_rows(&then);
                Ok((session, told))
            })
        });
        if what == "after a cancel" {
            let sql = format!("SELECT pg_cancel_backend({own})");
            crate::sessions::until("it sleeps", SOON, || {
                let sql = format!(
                    "SELECT count(*) FROM pg_stat_activity WHERE pid = {own} AND wait_event = 'PgSleep'"
                );
                Ok(admin.value(&sql)?.as_deref() == Some("1"))
            })?;
            admin.rows(&sql)?;
        }
        waiting.push((what, own, started, runner));
    }
    for (what, own, started, runner) in waiting {
        let limit = Duration::from_secs(3) + GRACE;
        gone(&admin, &own, limit.saturating_sub(started.elapsed())).context(what)?;
        if let Some(runner) = runner {
            let joined = runner.join().map_err(|_| anyhow::anyhow!("{what}: the client panicked"))?;
            let (_, told) = joined.context(what)?;
            if what != "after a cancel" {
                // What was running ended with the words; over COPY the driver reports them too.
                if let Ok(Err(told)) = told {
                    super::says_why(&told, OVER).context(what)?;
                }
            }
        }
    }
    ensure!(!stage().cluster.log().contains("terminated by signal"), "a process died");
    Ok(())
}

#[test]
fn session_without_limit_goes_on() -> Result<()> {
    let admin = limited("endless", "none", "NULL")?;
    let exp = now() + 1;
    let session = stage().session("endless", &signed(&good("endless").claim("exp", json!(exp))))?;
    super::until("the token is over", SOON, || Ok(now() > exp + 2))?;
    assert_eq!(session.value("SELECT 1")?, some("1"));
    drop(admin);
    Ok(())
}
