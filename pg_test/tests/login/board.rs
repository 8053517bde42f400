//! What logins meet when there is no policy to be had: a refusal at once, with the reason in the log.
//!
//! 1. No extension in the policy database: refused, the superuser's way in works; CREATE EXTENSION and a rule
//!    count without a restart; DROP EXTENSION empties the board and the workers live on.
//! 2. No policy database: the same; once it is made, it counts without a restart.
//! 3. `f009` No slot for a worker: refused at once.
//! 4. A policy that does not fit: refused, the log names the setting; it heals when rules are removed.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use pg_oidc_test::cluster::{Cluster, until};
use pg_oidc_test::psql::Way;
use pg_oidc_test::wire::{Heard, Wire};

use crate::crashes::workers;
use crate::stage::{
    SOON, admit, builder, calm, good, install, install_in, lets_in, line, reasons, rule_in, token,
};

/// Longer than a refusal at once may take, so that one which waited shows.
const WAIT: &str = "25s";
const AT_ONCE: Duration = Duration::from_secs(8);

/// A good token is refused at once, for this reason, with 28000 and the constant line.
fn refused_at_once(cluster: &Cluster, reason: &str) -> Result<()> {
    let mark = cluster.log_mark();
    let began = Instant::now();
    let heard = Wire::log_in(cluster, Way::Tls, "guest", &token("guest"))?;
    let Heard::Error(refused) = heard else { anyhow::bail!("in, in spite of {reason}") };
    ensure!(began.elapsed() < AT_ONCE, "it took {:?}", began.elapsed());
    assert_eq!(reasons(cluster, mark, "guest"), [reason]);
    assert_eq!((refused.field('C'), refused.field('M')), ("28000".into(), line("guest")));
    Ok(())
}

#[test]
fn policy_absent_without_the_extension() -> Result<()> {
    let cluster = builder()?.setting("pg_oidc.wait_timeout", WAIT).start()?;
    cluster.admin("CREATE ROLE guest LOGIN")?;
    until("the registry worker has looked", SOON, || {
        let mark = cluster.log_mark();
        Wire::log_in(&cluster, Way::Tls, "guest", &token("guest"))?;
        Ok(reasons(&cluster, mark, "guest") == ["policy_absent"])
    })?;
    refused_at_once(&cluster, "policy_absent")?;
    let at_work = workers(&cluster)?;
    assert_eq!(at_work.len(), 2);
    for _ in 0..2 {
        install(&cluster)?;
        rule_in(&cluster, "postgres", "guest")?;
        lets_in(&cluster, &good(&cluster, "guest"), "guest")?;
        cluster.admin("DROP EXTENSION pg_oidc")?;
        refused_at_once(&cluster, "policy_absent")?;
        // A schema that somebody else made is no policy, and no reason for a worker to die.
        cluster.admin("CREATE SCHEMA oidc; CREATE TABLE oidc.provider (name text)")?;
        refused_at_once(&cluster, "policy_absent")?;
        cluster.admin("DROP SCHEMA oidc CASCADE")?;
    }
    assert_eq!(workers(&cluster)?, at_work, "the same workers all along");
    calm(&cluster, &[&token("guest")])
}

#[test]
fn policy_absent_without_the_database() -> Result<()> {
    let builder = builder()?.setting("pg_oidc.wait_timeout", WAIT).setting("pg_oidc.database", "policy");
    let cluster = builder.start()?;
    cluster.admin("CREATE ROLE guest LOGIN")?;
    cluster.await_log("database \"policy\" does not exist", SOON)?;
    refused_at_once(&cluster, "policy_absent")?;
    // The extension elsewhere is not the policy, and takes no rows.
    cluster.admin("CREATE EXTENSION pg_oidc")?;
    let seen = cluster
        .login("postgres")
        .way(Way::Socket)
        .run("DELETE FROM oidc.provider; TRUNCATE oidc.role_mapping")?;
    ensure!(seen.stderr.contains("cannot change the OIDC policy in database \"postgres\""), "{seen:?}");
    ensure!(seen.stderr.contains("The policy of this server is in database \"policy\"."), "{seen:?}");
    refused_at_once(&cluster, "policy_absent")?;
    cluster.admin("CREATE DATABASE policy")?;
    install_in(&cluster, "policy")?;
    rule_in(&cluster, "policy", "guest")?;
    until("the registry worker has connected", SOON, || {
        Ok(matches!(Wire::log_in(&cluster, Way::Tls, "guest", &token("guest"))?, Heard::Ready))
    })?;
    lets_in(&cluster, &good(&cluster, "guest"), "guest")?;
    assert_eq!(workers(&cluster)?.len(), 2);
    calm(&cluster, &[&token("guest")])
}

#[test]
fn f009_no_worker_slot() -> Result<()> {
    // Core's own launcher of logical replication takes the first slot.
    for slots in ["0", "1", "2"] {
        let builder = builder()?.setting("max_worker_processes", slots).setting("pg_oidc.wait_timeout", WAIT);
        let cluster = builder.start()?;
        install(&cluster)?;
        admit(&cluster, "guest")?;
        refused_at_once(&cluster, "worker_missing")?;
        cluster.set("max_worker_processes", "3")?;
        cluster.restart()?;
        lets_in(&cluster, &good(&cluster, "guest"), "guest")?;
        calm(&cluster, &[&token("guest")])?;
    }
    Ok(())
}

#[test]
fn policy_overflow() -> Result<()> {
    let builder = builder()?.setting("pg_oidc.shared_memory", "1MB").setting("pg_oidc.wait_timeout", WAIT);
    let cluster = builder.start()?;
    install(&cluster)?;
    admit(&cluster, "guest")?;
    lets_in(&cluster, &good(&cluster, "guest"), "guest")?;
    for _ in 0..2 {
        let mark = cluster.log_mark();
        cluster.admin(
            "INSERT INTO oidc.role_mapping (provider, match, role) \
             SELECT 'test', jsonb_build_object('groups', 'group-' || n), 'guest' FROM generate_series(1, 8000) n",
        )?;
        // Nobody is let in by the policy of before, though it still has the rule.
        refused_at_once(&cluster, "policy_overflow")?;
        refused_at_once(&cluster, "policy_overflow")?;
        let log = cluster.log_since(mark);
        ensure!(log.contains("WARNING:  the OIDC policy does not fit into shared memory"), "{log}");
        ensure!(log.contains("HINT:  Raise \"pg_oidc.shared_memory\""), "{log}");
        cluster.admin("DELETE FROM oidc.role_mapping WHERE match->>'groups' LIKE 'group-%'")?;
        lets_in(&cluster, &good(&cluster, "guest"), "guest")?;
    }
    // What the hint says mends it too.
    cluster.admin(
        "INSERT INTO oidc.role_mapping (provider, match, role) \
         SELECT 'test', jsonb_build_object('groups', 'group-' || n), 'guest' FROM generate_series(1, 8000) n",
    )?;
    refused_at_once(&cluster, "policy_overflow")?;
    cluster.set("pg_oidc.shared_memory", "16MB")?;
    cluster.restart()?;
    lets_in(&cluster, &good(&cluster, "guest"), "guest")?;
    let last = cluster.login("guest").password(token("group-8000"));
    lets_in(&cluster, &last, "guest")?;
    calm(&cluster, &[&token("guest")])
}
