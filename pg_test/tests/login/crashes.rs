//! Processes that die, and a server that is to end or to change while a worker waits for an issuer.
//!
//! 1. `f007` Both workers terminated: they come back, logins go on meanwhile, a rule committed meanwhile counts.
//! 2. `f006`, `f010` A worker or a backend killed with signal 9: the board is filled again, logins work again,
//!    and bad tokens are refused all the time.
//!    (With synchronous_commit on: else the crash itself takes the last rules away.)
//! 3. `f010` An empty board lets nobody in.
//! 4. `f012` A fast or smart stop during a fetch that hangs: under 5 s.
//! 5. `f017` CREATE and DROP DATABASE during a fetch that hangs: under 5 s.

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pg_oidc_test::cluster::{Cluster, until};
use pg_oidc_test::issuer::{Behaviour, DISCOVERY, Issuer, JWKS};
use pg_oidc_test::program;
use pg_oidc_test::psql::Way;
use pg_oidc_test::wire::{Heard, Wire};

use crate::stage::{SOON, accepted, admit, builder, calm, furnished, good, lets_in, reasons, silent, token};

/// What is to be done soon although an issuer hangs.
const PROMPT: Duration = Duration::from_secs(5);

/// The process ids of the keyring worker and the registry worker, as far as they run. By the names of processes:
/// the keyring worker has no database and so no row in pg_stat_activity.
pub(crate) fn workers(cluster: &Cluster) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for name in ["pg_oidc keyring", "pg_oidc registry"] {
        found.extend(worker(cluster, name)?);
    }
    Ok(found)
}

fn worker(cluster: &Cluster, name: &str) -> Result<Option<String>> {
    let data = cluster.file("data");
    for entry in std::fs::read_dir("/proc")? {
        // Processes come and go while this looks at them.
        let process = entry?.path();
        let title = std::fs::read(process.join("cmdline")).unwrap_or_default();
        let is_it = String::from_utf8_lossy(&title).contains(&format!("postgres: {name}"));
        if is_it && std::fs::read_link(process.join("cwd")).is_ok_and(|at| at == data) {
            return Ok(process.file_name().map(|pid| pid.to_string_lossy().into_owned()));
        }
    }
    Ok(None)
}

fn kill(signal: &str, pid: &str) -> Result<()> {
    program::output(Command::new("kill").args([signal, pid])).map(drop)
}

/// A session of the superuser that does nothing but be there.
fn idle(cluster: &Cluster, sql: &str) -> Result<Child> {
    let mut psql = cluster.login("postgres").way(Way::Socket).command()?;
    psql.args(["-c", sql]).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(psql.spawn()?)
}

#[test]
fn f007_workers_terminated() -> Result<()> {
    let cluster = furnished(builder()?, &["guest", "other"])?;
    let before = workers(&cluster)?;
    assert_eq!(before.len(), 2);
    let mark = cluster.log_mark();
    before.iter().try_for_each(|pid| kill("-TERM", pid))?;
    // The board is what logins read: they need no worker.
    let mut logins = 0;
    until("both workers are back", SOON, || {
        lets_in(&cluster, &good(&cluster, "guest"), "guest")?;
        logins += 1;
        let now: BTreeSet<_> = workers(&cluster)?.into_iter().collect();
        Ok(now.len() == 2 && before.iter().all(|pid| !now.contains(pid)))
    })?;
    assert_eq!((accepted(&cluster, mark, "guest"), reasons(&cluster, mark, "guest").len()), (logins, 0));

    // A change while the registry worker is away counts at the next login all the same: the login waits.
    let registry = workers(&cluster)?.pop().context("no registry worker")?;
    let ended = format!("SELECT pg_terminate_backend({registry}, 5000)");
    assert_eq!(cluster.admin_value(&ended)?, "t");
    admit(&cluster, "late")?;
    cluster.admin("DELETE FROM oidc.role_mapping WHERE role = 'other'")?;
    lets_in(&cluster, &good(&cluster, "late"), "late")?;
    let heard = Wire::log_in(&cluster, Way::Tls, "other", &token("other"))?;
    ensure!(matches!(heard, Heard::Error(_)), "{heard:?}");
    assert_eq!(reasons(&cluster, mark, "other"), ["no_rule"]);
    calm(&cluster, &[&token("guest")])
}

/// Kills `victim`, and looks at all that logins meet until the server is itself again.
fn survives(cluster: &Cluster, victim: &str) -> Result<()> {
    let mark = cluster.log_mark();
    kill("-KILL", victim)?;
    cluster.await_log_since(mark, "was terminated by signal 9", SOON)?;
    let mut bad = 0;
    let again = until("logins work again", SOON, || {
        // No rule gives this: neither before, nor from a board that is empty or half filled.
        if let Ok(heard) = Wire::log_in(cluster, Way::Tls, "stranger", &token("stranger")) {
            let Heard::Error(refused) = heard else { anyhow::bail!("in from an empty board") };
            ensure!(
                ["28000", "57P03", "57P02", "57P01"].contains(&refused.field('C').as_str()),
                "{refused:?}"
            );
            bad += 1;
        }
        let log = cluster.log_since(mark);
        let again = log.contains("database system is ready to accept connections");
        Ok(matches!(Wire::log_in(cluster, Way::Tls, "guest", &token("guest")), Ok(Heard::Ready)) && again)
    });
    again.with_context(|| program::tail(&cluster.log_since(mark)))?;
    ensure!(bad > 0, "nobody tried");
    assert_eq!(accepted(cluster, mark, "stranger"), 0);
    // By now the board is filled: a role without a rule hears why in the log.
    let mark = cluster.log_mark();
    ensure!(matches!(Wire::log_in(cluster, Way::Tls, "stranger", &token("stranger"))?, Heard::Error(_)));
    assert_eq!(reasons(cluster, mark, "stranger"), ["no_rule"]);
    lets_in(cluster, &good(cluster, "guest"), "guest")
}

/// The log holds one death, the one that the test caused, and no token.
fn one_death(cluster: &Cluster, deaths: usize) -> Result<()> {
    let log = cluster.log();
    assert_eq!(log.matches("was terminated by signal").count(), deaths, "{log}");
    ensure!(!log.contains("PANIC") && !log.contains("panicked"), "{log}");
    silent(&log, &token("guest"))
}

#[test]
fn f006_f010_killed_with_signal_9() -> Result<()> {
    let cluster = furnished(builder()?.setting("synchronous_commit", "on"), &["guest"])?;
    cluster.admin("CREATE ROLE stranger LOGIN")?;
    let mut session = idle(&cluster, "SELECT pg_sleep(600)")?;
    let asleep = "SELECT pid FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)'";
    until("the session is there", SOON, || Ok(!cluster.admin(asleep)?.is_empty()))?;
    survives(&cluster, &cluster.admin_value(asleep)?)?;
    session.wait()?;
    for worker in [0, 1] {
        until("both workers are there", SOON, || Ok(workers(&cluster)?.len() == 2))?;
        let pid = workers(&cluster)?.get(worker).cloned().context("no such worker")?;
        survives(&cluster, &pid)?;
    }
    one_death(&cluster, 3)
}

#[test]
fn f010_an_empty_board_lets_nobody_in() -> Result<()> {
    let builder = builder()?.setting("synchronous_commit", "on").setting("max_prepared_transactions", "1");
    let builder = builder.setting("pg_oidc.wait_timeout", "500ms");
    let cluster = furnished(builder, &["guest"])?;
    lets_in(&cluster, &good(&cluster, "guest"), "guest")?;
    // A prepared transaction outlives a crash with its locks: the registry worker cannot read the rules.
    cluster
        .admin("BEGIN; LOCK TABLE oidc.role_mapping IN ACCESS EXCLUSIVE MODE; PREPARE TRANSACTION 'held'")?;
    lets_in(&cluster, &good(&cluster, "guest"), "guest")?;
    let mark = cluster.log_mark();
    let registry = workers(&cluster)?.pop().context("no registry worker")?;
    kill("-KILL", &registry)?;
    cluster.await_log_since(mark, "database system is ready to accept connections", SOON)?;
    for _ in 0..3 {
        let mark = cluster.log_mark();
        let heard = Wire::log_in(&cluster, Way::Tls, "guest", &token("guest"))?;
        let Heard::Error(refused) = heard else { anyhow::bail!("in from an empty board") };
        assert_eq!(reasons(&cluster, mark, "guest"), ["not_ready"]);
        assert_eq!(refused.field('C'), "57P03");
        assert_eq!(refused.field('M'), "OIDC authentication is not ready, try again");
    }
    assert_eq!(accepted(&cluster, mark, "guest"), 0);
    // The lock gone, the board is filled by itself.
    cluster.set("pg_oidc.wait_timeout", "10s")?;
    cluster.reload()?;
    cluster.admin("ROLLBACK PREPARED 'held'")?;
    lets_in(&cluster, &good(&cluster, "guest"), "guest")?;
    one_death(&cluster, 1)
}

/// A furnished cluster whose keyring worker waits for an issuer that hangs at this path.
fn hanging(issuer: &Issuer, path: &str) -> Result<Cluster> {
    issuer.misbehave(path, Behaviour::Hang);
    let cluster = furnished(builder()?, &["guest"])?;
    let row = format!("'slow', '{}', '{{warehouse}}'", issuer.url());
    cluster.admin(&format!("INSERT INTO oidc.provider (name, issuer, audiences) VALUES ({row})"))?;
    ensure!(issuer.wait(path, 1, SOON), "nobody asked");
    Ok(cluster)
}

fn promptly(what: &str, run: impl FnOnce() -> Result<()>) -> Result<()> {
    let began = Instant::now();
    run().with_context(|| what.to_owned())?;
    let took = began.elapsed();
    ensure!(took < PROMPT, "{what} took {took:?}");
    Ok(())
}

#[test]
fn f012_stop_during_a_fetch() -> Result<()> {
    for (path, mode) in [(DISCOVERY, "fast"), (JWKS, "fast"), (JWKS, "smart")] {
        let issuer = Issuer::start()?;
        let cluster = hanging(&issuer, path)?;
        let pids = workers(&cluster)?;
        assert_eq!(pids.len(), 2);
        let mut stop = cluster.server().command("pg_ctl")?;
        stop.args(["-w", "-t", "60", "-s", "-m", mode, "stop", "-D"]).arg(cluster.file("data"));
        promptly(mode, || program::output(&mut stop).map(drop))?;
        ensure!(!cluster.is_running());
        assert_eq!(workers(&cluster)?, [""; 0], "workers of {pids:?} are still there");
        calm(&cluster, &[])?;
    }
    Ok(())
}

#[test]
fn f017_create_database_during_a_fetch() -> Result<()> {
    let issuer = Issuer::start()?;
    let cluster = hanging(&issuer, DISCOVERY)?;
    // DROP DATABASE waits until every process has served its barrier, the workers too.
    for sql in ["CREATE DATABASE app", "DROP DATABASE app", "CREATE DATABASE app STRATEGY file_copy"] {
        promptly(sql, || cluster.admin(sql).map(drop))?;
    }
    promptly("a login", || lets_in(&cluster, &good(&cluster, "guest"), "guest"))?;
    promptly("DROP EXTENSION", || cluster.admin("DROP EXTENSION pg_oidc").map(drop))?;
    assert_eq!(workers(&cluster)?.len(), 2);
    promptly("DROP DATABASE", || cluster.admin("DROP DATABASE app").map(drop))?;
    calm(&cluster, &[])
}
