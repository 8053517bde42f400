//! n112, n136: identities are revoked, their sessions ended.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pg_oidc_test::cluster::until;
use pg_oidc_test::token::now;
use serde_json::json;

use super::{gone, pid, session, signed, some, stage, told_of_its_end};
use crate::scene::{SOON, good};

const REVOKED: &str = "The OIDC token session was ended: its identity is revoked.";
const ENDED: &str = "All OIDC token sessions of this identity were ended.";
const SOON_ENOUGH: Duration = Duration::from_secs(2);

#[test]
fn n112_revoked_identity_is_out_until_reinstated() -> Result<()> {
    stage().trio("leaver")?;
    stage().trio("colleague")?;
    let admin = stage().admin()?;
    let (first, second, other) = (session("leaver")?, session("leaver")?, session("colleague")?);
    let pids = [pid(&first)?, pid(&second)?];
    assert_eq!(admin.value("SELECT oidc.revoke('leaver', 'leaver', 'left the company')")?, some("2"));
    for own in &pids {
        gone(&admin, own, SOON_ENOUGH)?;
    }
    told_of_its_end(&first, REVOKED)?;
    told_of_its_end(&second, REVOKED)?;
    let line = "OIDC session ended: cause=identity_revoked role=\"leaver\"";
    until("both ends are logged, once each", SOON, || Ok(stage().cluster.log().matches(line).count() == 2))?;
    assert_eq!(other.value("SELECT 1")?, some("1"));

    // Every token, also a fresh one, and one from before.
    stage().refused("leaver", &signed(&good("leaver")), "identity_revoked", "a fresh token")?;
    let old = signed(&good("leaver").claim("iat", json!(now() - 500)));
    stage().refused("leaver", &old, "identity_revoked", "an old token")?;
    // The explanation has the step.
    let sql = "SELECT detail FROM oidc.explain_claims('leaver', '{\"sub\": \"leaver\"}') \
                WHERE name = 'revocation' AND passed = 'no'";
    assert_eq!(admin.value(sql)?, some("The identity is revoked."));

    let row = "SELECT reason, until::text, created_by FROM oidc.revocation WHERE provider = 'leaver'";
    assert_eq!(admin.rows(row)?, [["left the company", "infinity", "postgres"].map(some)]);
    assert_eq!(admin.value("SELECT oidc.revoke('leaver', 'leaver')")?, some("0"), "again");
    assert_eq!(admin.value("SELECT oidc.reinstate('leaver', 'leaver')")?, some("t"));
    assert_eq!(admin.value("SELECT oidc.reinstate('leaver', 'leaver')")?, some("f"), "again");
    stage().accepted("leaver", &signed(&good("leaver")), "reinstated")?;
    assert_eq!(other.value("SELECT 1")?, some("1"));
    Ok(())
}

#[test]
fn revocation_ends_at_its_time() -> Result<()> {
    stage().trio("pause")?;
    let admin = stage().admin()?;
    admin.rows("SELECT oidc.revoke('pause', 'pause', 'holiday', clock_timestamp() + '2 s')")?;
    let token = signed(&good("pause"));
    stage().refused("pause", &token, "identity_revoked", "before its time")?;
    until("the time comes", SOON, || {
        Ok(admin.value("SELECT until < clock_timestamp() FROM oidc.revocation WHERE provider = 'pause'")?
            == some("t"))
    })?;
    stage().accepted("pause", &token, "after its time")?;
    for past in ["now()", "'-infinity'"] {
        let told = admin.error(&format!("SELECT oidc.revoke('pause', 'pause', NULL, {past})"))?;
        assert_eq!(told.code, "22023", "{told:?}");
    }
    let told = admin.error("SELECT oidc.revoke('nobody', 'x')")?;
    assert_eq!(told.code, "23503", "{told:?}");
    Ok(())
}

#[test]
fn ended_sessions_ask_for_a_fresh_token() -> Result<()> {
    stage().trio("kicked")?;
    let admin = stage().admin()?;
    let token = signed(&good("kicked"));
    let ended = stage().session("kicked", &token)?;
    let own = pid(&ended)?;
    assert_eq!(admin.value("SELECT oidc.end_sessions('kicked', 'kicked')")?, some("1"));
    gone(&admin, &own, SOON_ENOUGH)?;
    told_of_its_end(&ended, ENDED)?;
    stage().refused("kicked", &token, "sessions_ended", "the token of before")?;
    let undated = signed(&good("kicked").without("iat"));
    stage().refused("kicked", &undated, "sessions_ended", "a token without iat")?;
    let start = now();
    until("the next second", SOON, || Ok(now() > start))?;
    stage().accepted("kicked", &signed(&good("kicked")), "a fresh token")?;
    // It stays so when a revocation comes and goes.
    admin.rows("SELECT oidc.revoke('kicked', 'kicked')")?;
    stage().refused("kicked", &signed(&good("kicked")), "identity_revoked", "revoked as well")?;
    assert_eq!(admin.value("SELECT oidc.reinstate('kicked', 'kicked')")?, some("t"));
    stage().refused("kicked", &token, "sessions_ended", "the token of before, reinstated")?;
    stage().accepted("kicked", &signed(&good("kicked")), "a fresh token, reinstated")?;
    Ok(())
}

#[test]
fn what_is_rolled_back_refuses_nobody() -> Result<()> {
    stage().trio("undone")?;
    let admin = stage().admin()?;
    admin.rows("BEGIN; SELECT oidc.revoke('undone', 'undone'); ROLLBACK")?;
    stage().accepted("undone", &signed(&good("undone")), "rolled back")?;
    // A row does as well as the function, and TRUNCATE counts too.
    admin.rows("INSERT INTO oidc.revocation (provider, subject) VALUES ('undone', 'undone')")?;
    stage().refused("undone", &signed(&good("undone")), "identity_revoked", "by a row")?;
    admin.rows("DELETE FROM oidc.revocation WHERE provider = 'undone'")?;
    stage().accepted("undone", &signed(&good("undone")), "the row deleted")
}

#[test]
fn functions_may_be_granted_and_public_may_not() -> Result<()> {
    stage().trio("guard")?;
    stage().trio("guarded")?;
    let admin = stage().admin()?;
    let guard = session("guard")?;
    let calls = [
        "SELECT oidc.revoke('guarded', 'guarded')",
        "SELECT oidc.end_sessions('guarded', 'guarded')",
        "SELECT oidc.reinstate('guarded', 'guarded')",
        "SELECT oidc.end_identity('guarded', 'guarded', true)",
    ];
    for sql in calls {
        assert_eq!(guard.error(sql)?.code, "42501", "{sql}");
    }
    admin.rows(
        "GRANT EXECUTE ON FUNCTION oidc.revoke(text, text, text, timestamptz), oidc.reinstate(text, text) TO guard",
    )?;
    let victim = session("guarded")?;
    assert_eq!(guard.value(calls[0])?, some("1"));
    let by = "SELECT created_by FROM oidc.revocation WHERE provider = 'guarded'";
    assert_eq!(admin.value(by)?, some("guard"));
    told_of_its_end(&victim, REVOKED)?;
    assert_eq!(guard.value(calls[2])?, some("t"));
    for sql in [calls[1], calls[3], "SELECT * FROM oidc.revocation", "DELETE FROM oidc.revocation"] {
        assert_eq!(guard.error(sql)?.code, "42501", "{sql}");
    }
    Ok(())
}

/// Logins without pause while the identity is revoked: whoever was accepted by the policy of before is ended.
#[test]
fn n136_login_in_flight_is_caught() -> Result<()> {
    stage().trio("flight")?;
    let admin = stage().admin()?;
    let token = signed(&good("flight"));
    for round in 0..10 {
        let stop = AtomicBool::new(false);
        let left: Result<usize> = thread::scope(|scope| {
            let logins: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        let mut sessions = Vec::new();
                        while !stop.load(Ordering::Relaxed) && sessions.len() < 8 {
                            match stage().login("flight", &token).connect() {
                                Ok(Ok(session)) => sessions.push(session),
                                // Refused, or ended before it was ready.
                                _ => break,
                            }
                        }
                        sessions
                    })
                })
                .collect();
            until("logins are under way", SOON, || {
                let count = admin.value("SELECT count(*) FROM oidc.session WHERE provider = 'flight'")?;
                Ok(count.unwrap_or_default().parse::<usize>()? > 3)
            })?;
            admin.rows("SELECT oidc.revoke('flight', 'flight')")?;
            stop.store(true, Ordering::Relaxed);
            let sessions: Vec<_> =
                logins.into_iter().flat_map(|login| login.join().unwrap_or_default()).collect();
            until("nobody is left", SOON_ENOUGH, || {
                Ok(admin.value("SELECT count(*) FROM oidc.session WHERE provider = 'flight'")? == some("0"))
            })
            .with_context(|| format!("round {round}"))?;
            for session in &sessions {
                let goes_on = matches!(session.try_rows("SELECT 1"), Ok(Ok(_)));
                ensure!(!goes_on, "round {round}: a session goes on");
            }
            Ok(sessions.len())
        });
        ensure!(left? > 0, "round {round}: nobody got in before");
        admin.rows("SELECT oidc.reinstate('flight', 'flight')")?;
    }
    Ok(())
}
