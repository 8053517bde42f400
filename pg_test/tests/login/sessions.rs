//! Live token sessions: who is in, and that they end when their time or their right is over.
//!
//! 1. `oidc.session` lists them, joins with pg_stat_activity, and is not for everybody.
//! 2. `session_limit`: by the token, by an interval, not at all; the tighter of provider and rule: [`limit`] (f031,
//!    f032: whatever the session does).
//! 3. A rule that is deleted, disabled or over, a provider that is gone or disabled ends its sessions, and no others:
//!    [`ground`] (n136).
//! 4. `oidc.revoke`, `oidc.reinstate`, `oidc.end_sessions`, and who may call them: [`revoking`] (n112, n136).
//! 5. A thousand sessions are revoked at once; a process that gets the pid of another is not hit; a crash leaves
//!    nothing behind: [`many`] (f010).

mod ground;
mod limit;
mod many;
mod revoking;

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pg_oidc_test::client::{Session, Told};
use pg_oidc_test::cluster::until;
use pg_oidc_test::keys::keys;
use pg_oidc_test::token::Token;

use crate::scene::{SOON, Stage, good};

/// How long after its time a session may live.
const GRACE: Duration = Duration::from_secs(1);

fn stage() -> &'static Stage {
    static STAGE: LazyLock<Stage> = LazyLock::new(|| {
        let stage = Stage::with(|builder| builder.setting("max_prepared_transactions", "5"));
        stage.expect("the server of the session tests")
    });
    &STAGE
}

fn signed(token: &Token) -> String {
    token.sign(&keys().ec)
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// A session with a good token of the trio of this name.
fn session(name: &str) -> Result<Session> {
    stage().session(name, &signed(&good(name)))
}

fn pid(session: &Session) -> Result<String> {
    session.value("SELECT pg_backend_pid()")?.context("no pid")
}

/// Whether the backend of this pid is there.
fn lives(admin: &Session, pid: &str) -> Result<bool> {
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
    Ok(admin.value(&sql)?.as_deref() == Some("1"))
}

/// Waits until the backend is gone, and gives how long that took.
fn gone(admin: &Session, pid: &str, limit: Duration) -> Result<Duration> {
    let start = Instant::now();
    until(&format!("backend {pid} ends"), limit, || Ok(!lives(admin, pid)?))?;
    Ok(start.elapsed())
}

/// The session has been ended, and its client is told so.
fn told_of_its_end(session: &Session, detail: &str) -> Result<()> {
    let told = session.last_words()?;
    says_why(&told, detail)
}

fn says_why(told: &Told, detail: &str) -> Result<()> {
    ensure!((told.severity.as_str(), told.code.as_str()) == ("FATAL", "57P01"), "{told:?}");
    ensure!(told.detail.as_deref() == Some(detail), "{told:?}");
    ensure!(told.hint.is_some(), "{told:?}");
    Ok(())
}

#[test]
fn live_sessions_are_listed() -> Result<()> {
    stage().trio("listed")?;
    let admin = stage().admin()?;
    admin.rows(
        "UPDATE oidc.provider SET session_limit = '2 hours', identity_claim = 'name' WHERE name = 'listed'",
    )?;
    let list = "SELECT s.subject, s.identity, s.role, s.database, host(s.client_address), \
                       (s.ends_at - s.since)::text, a.usename, s.since <= clock_timestamp() \
                  FROM oidc.session s JOIN pg_stat_activity a USING (pid) WHERE s.provider = 'listed'";
    ensure!(admin.rows(list)?.is_empty());
    let token = signed(&good("listed").claim("name", "Ann Ü".into()));
    let session = stage().session("listed", &token)?;
    let row = ["listed", "Ann Ü", "listed", "postgres", "127.0.0.1", "02:00:00", "listed", "t"].map(some);
    assert_eq!(admin.rows(list)?, [row]);
    let own = format!("SELECT pid FROM oidc.session WHERE pid = {}", pid(&session)?);
    assert_eq!(admin.rows(&own)?.len(), 1);

    // Not for everybody.
    for sql in ["SELECT * FROM oidc.session", "SELECT * FROM oidc.session_rows()"] {
        assert_eq!(session.error(sql)?.code, "42501", "{sql}");
    }
    drop(session);
    until("the session leaves the list", SOON, || Ok(admin.rows(list)?.is_empty()))?;

    // A refused login never stands in it.
    stage().refused("listed", &signed(&good("listed")), "identity_invalid", "no name")?;
    ensure!(admin.rows(list)?.is_empty());
    Ok(())
}
