//! How soon sessions end: `cargo bench -p pg_oidc_test --bench sessions`.
//!
//! 1. From `oidc.revoke` of an identity with 1,000 live sessions until the last one is gone; beside it, what core's own
//!    `pg_terminate_backend` takes for as many.
//! 2. From the end of a session by its `session_limit` until it is gone.
//! 3. From the DELETE of a rule with 100 live sessions until the last one is gone.
//!
//! Prints medians and the longest of each. Asserts nothing about time.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pg_oidc_test::client::Session;
use pg_oidc_test::cluster::Cluster;
use pg_oidc_test::extension::Server;
use pg_oidc_test::keys::{jwks, keys};
use pg_oidc_test::token::{AUDIENCE, Token};

const ISSUER: &str = "https://bench.example";
/// Threads that open sessions.
const THREADS: usize = 8;
const CROWD: usize = 1000;
const ROUNDS: usize = 3;
const GROUP: usize = 100;
const LIMITS: usize = 50;

fn main() -> Result<()> {
    let cluster = Cluster::builder(Server::shared()?)
        .setting("max_connections", "1100")
        .setting("shared_buffers", "16MB")
        .start()?;
    let admin = cluster.admin_session()?;
    let set = jwks(&[&keys().ec]);
    admin.rows(&format!(
        "CREATE EXTENSION pg_oidc; CREATE ROLE guest LOGIN; \
         INSERT INTO oidc.provider (name, issuer, audiences, jwks) VALUES ('bench', '{ISSUER}', '{{{AUDIENCE}}}', '{set}'); \
         INSERT INTO oidc.role_mapping (provider, match, role) VALUES ('bench', '{{\"sub\": \"crowd\"}}', 'guest'); \
         INSERT INTO oidc.role_mapping (provider, match, role, session_limit) \
         VALUES ('bench', '{{\"sub\": \"short\"}}', 'guest', '1 s')"
    ))?;

    let revoke = "SELECT oidc.revoke('bench', 'crowd')";
    let core = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'guest'";
    let rule = "DELETE FROM oidc.role_mapping WHERE match->>'sub' = 'group'";
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        times.push(ended_by(&cluster, &admin, "crowd", CROWD, revoke)?);
        admin.rows("SELECT oidc.reinstate('bench', 'crowd')")?;
    }
    show(&format!("revoke of {CROWD} sessions"), &mut times);
    times.clear();
    for _ in 0..ROUNDS {
        times.push(ended_by(&cluster, &admin, "crowd", CROWD, core)?);
    }
    show(&format!("pg_terminate_backend of {CROWD}, for comparison"), &mut times);
    times.clear();
    for _ in 0..LIMITS {
        times.push(late(&cluster, &admin)?);
    }
    show("after the end by session_limit", &mut times);
    times.clear();
    for _ in 0..ROUNDS {
        admin.rows(
            "INSERT INTO oidc.role_mapping (provider, match, role) VALUES ('bench', '{\"sub\": \"group\"}', 'guest')",
        )?;
        times.push(ended_by(&cluster, &admin, "group", GROUP, rule)?);
    }
    show(&format!("DELETE of the rule of {GROUP} sessions"), &mut times);
    Ok(())
}

fn login(cluster: &Cluster, subject: &str) -> Result<Session> {
    let token = Token::for_user(subject).issuer(ISSUER).sign(&keys().ec);
    cluster.login("guest").password(token).connect()?.map_err(|told| anyhow::anyhow!("{told:?}"))
}

fn open(cluster: &Cluster, subject: &str, count: usize) -> Result<Vec<Session>> {
    thread::scope(|scope| {
        let share = |thread: usize| count / THREADS + usize::from(thread < count % THREADS);
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    (0..share(thread)).map(|_| login(cluster, subject)).collect::<Result<Vec<_>>>()
                })
            })
            .collect();
        let mut all = Vec::new();
        for thread in threads {
            all.extend(thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??);
        }
        Ok(all)
    })
}

/// Opens so many sessions, ends them by this SQL, and gives how long it took until the last backend was gone.
fn ended_by(cluster: &Cluster, admin: &Session, subject: &str, count: usize, sql: &str) -> Result<Duration> {
    let sessions = open(cluster, subject, count)?;
    let live = admin.value("SELECT count(*) FROM oidc.session")?;
    ensure!(live == Some(count.to_string()), "{live:?} sessions");
    let began = Instant::now();
    admin.rows(sql)?;
    // Looked at from inside, and seldom: a look at a thousand backends takes its time too.
    admin.rows(
        "DO $$ BEGIN WHILE EXISTS (SELECT FROM pg_stat_activity WHERE usename = 'guest') LOOP \
           PERFORM pg_sleep(0.005), pg_stat_clear_snapshot(); END LOOP; END $$",
    )?;
    let took = began.elapsed();
    drop(sessions);
    Ok(took)
}

/// How long a session of one second lives after its end, by the server's clock.
fn late(cluster: &Cluster, admin: &Session) -> Result<Duration> {
    let session = login(cluster, "short")?;
    let pid = session.value("SELECT pg_backend_pid()")?.context("no pid")?;
    let end =
        admin.value(&format!("SELECT ends_at FROM oidc.session WHERE pid = {pid}"))?.context("no end")?;
    admin.rows(&format!(
        "DO $$ BEGIN WHILE EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid}) LOOP \
           PERFORM pg_sleep(0.0005), pg_stat_clear_snapshot(); END LOOP; END $$"
    ))?;
    let sql =
        format!("SELECT (extract(epoch FROM clock_timestamp() - '{end}'::timestamptz) * 1000000)::bigint");
    let micros = admin.value(&sql)?.context("no time")?.parse()?;
    drop(session);
    Ok(Duration::from_micros(micros))
}

fn show(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let ms = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1e3);
    let (median, longest) = (ms(times.get(times.len() / 2)), ms(times.last()));
    println!("{what:<48} median {median:>8.1} ms, longest {longest:>8.1} ms, of {}", times.len());
}
