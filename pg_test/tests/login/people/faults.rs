//! First logins while the worker cannot work. Who needs nothing of it comes in.
//!
//! 1. f022 Bindings and ledger locked: first logins are told to try again within the bound, and work afterwards.
//! 2. f029 The worker stopped; f007 terminated; f006 killed: likewise, and nothing is left half done.
//! 3. The board is nearly full: nobody new is made, lest nobody at all comes in.
//! 4. Logins that are given up free their places, and nobody is made for them.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pg_oidc_test::cluster::{Cluster, until};
use pg_oidc_test::program;
use pg_oidc_test::psql::Way;
use pg_oidc_test::wire::{Heard, Wire};

use super::{exists, furnish, login, memberships, session, token, users};
use crate::crashes::workers;
use crate::stage::{SOON, builder, calm, reasons};

/// How long a login waits at most, and how much later a busy machine may say so.
const WAIT: Duration = Duration::from_secs(2);
const LATE: Duration = Duration::from_secs(5);

fn stage() -> Result<Cluster> {
    let cluster =
        builder()?.setting("pg_oidc.wait_timeout", "2s").setting("max_connections", "120").start()?;
    furnish(&cluster)?;
    drop(session(&cluster, "old", &["analyst"])?);
    Ok(cluster)
}

/// The login is told to try again, in time, for this reason.
fn told_to_retry(cluster: &Cluster, person: &str, reason: &str) -> Result<()> {
    let (mark, start) = (cluster.log_mark(), Instant::now());
    let told = super::told(&login(cluster, person, &["analyst"]))?;
    let took = start.elapsed();
    assert_eq!((told.severity.as_str(), told.code.as_str()), ("FATAL", "57P03"), "{told:?}");
    assert_eq!(reasons(cluster, mark, person), [reason]);
    ensure!(took < WAIT + LATE, "after {took:?}");
    Ok(())
}

/// Who needs nothing comes in without waiting for the worker.
fn old_comes(cluster: &Cluster) -> Result<()> {
    for _ in 0..3 {
        let session = session(cluster, "old", &["analyst"])?;
        assert_eq!(users(&session)?, ["old", "analyst"]);
    }
    Ok(())
}

fn signal(signal: &str, pid: &str) -> Result<()> {
    program::output(Command::new("kill").args([signal, pid])).map(drop)
}

/// The registry worker, once it is there.
fn registry(cluster: &Cluster) -> Result<String> {
    let mut found = Vec::new();
    until("both workers are there", SOON, || {
        found = workers(cluster)?;
        Ok(found.len() == 2)
    })?;
    found.pop().context("no registry worker")
}

#[test]
fn f022_tables_that_are_locked() -> Result<()> {
    let cluster = stage()?;
    let admin = cluster.admin_session()?;
    for tables in
        ["oidc.identity_role", "oidc.granted_membership", "oidc.identity_role, oidc.granted_membership"]
    {
        admin.rows(&format!("BEGIN; LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE"))?;
        old_comes(&cluster)?;
        told_to_retry(&cluster, "new", "provisioning_behind")?;
        ensure!(!exists(&cluster, "new")?);
        admin.rows("COMMIT")?;
    }
    assert_eq!(users(&session(&cluster, "new", &["analyst"])?)?, ["new", "analyst"]);
    // A role that is locked by somebody who alters it.
    admin.rows("BEGIN; LOCK TABLE pg_auth_members IN SHARE ROW EXCLUSIVE MODE")?;
    old_comes(&cluster)?;
    told_to_retry(&cluster, "new2", "provisioning_behind")?;
    admin.rows("COMMIT")?;
    drop(session(&cluster, "new2", &["analyst"])?);
    calm(&cluster, &[&token("new", &["analyst"])])
}

#[test]
fn f029_worker_that_is_stopped() -> Result<()> {
    let cluster = stage()?;
    let worker = registry(&cluster)?;
    signal("-STOP", &worker)?;
    let outcome = old_comes(&cluster).and_then(|()| told_to_retry(&cluster, "new", "provisioning_behind"));
    signal("-CONT", &worker)?;
    outcome?;
    assert_eq!(users(&session(&cluster, "new", &["analyst"])?)?, ["new", "analyst"]);
    // It was not made for the login that had given up.
    let granted = "SELECT count(*) FROM oidc.audit_log WHERE after->>'subject' = 'sub-new'";
    assert_eq!(cluster.admin_value(granted)?, "1");
    calm(&cluster, &[])
}

#[test]
fn f007_worker_that_is_terminated() -> Result<()> {
    let cluster = stage()?;
    for round in 0..3 {
        let person = format!("round{round}");
        let worker = registry(&cluster)?;
        signal("-TERM", &worker)?;
        let outcome = login(&cluster, &person, &["analyst"]).connect()?;
        if let Err(told) = outcome {
            assert_eq!(told.code, "57P03", "{told:?}");
        }
        old_comes(&cluster)?;
        let again =
            until("she comes in", SOON, || Ok(login(&cluster, &person, &["analyst"]).connect()?.is_ok()));
        again.with_context(|| program::tail(&cluster.log()))?;
        assert_eq!(memberships(&cluster, &person)?, ["analyst"]);
    }
    calm(&cluster, &[])
}

#[test]
fn f006_worker_that_is_killed() -> Result<()> {
    let cluster = stage()?;
    let worker = registry(&cluster)?;
    signal("-STOP", &worker)?;
    let mark = cluster.log_mark();
    thread::scope(|scope| {
        // Waits for its answer when the server goes down under it.
        let waits = scope.spawn(|| Wire::log_in(&cluster, Way::Tls, "new", &token("new", &["analyst"])));
        let asked = until("it has asked", SOON, || {
            let waiting = "SELECT value FROM oidc.stat WHERE metric = 'worker_requests_waiting'";
            Ok(cluster.admin_value(waiting)? == "1")
        });
        signal("-KILL", &worker)?;
        let heard = waits.join();
        asked?;
        ensure!(!matches!(heard, Ok(Ok(Heard::Ready))), "in without a role");
        Ok(())
    })?;
    cluster.await_log_since(mark, "database system is ready to accept connections", SOON)?;
    until("she comes in", SOON, || {
        Ok(matches!(Wire::log_in(&cluster, Way::Tls, "new", &token("new", &["analyst"])), Ok(Heard::Ready)))
    })?;
    old_comes(&cluster)?;
    assert_eq!(memberships(&cluster, "new")?, ["analyst"]);
    assert_eq!(cluster.admin_value("SELECT count(*) FROM oidc.identity_role")?, "2");
    Ok(())
}

#[test]
fn board_that_is_nearly_full() -> Result<()> {
    let cluster = builder()?.setting("pg_oidc.shared_memory", "1MB").start()?;
    furnish(&cluster)?;
    drop(session(&cluster, "old", &["analyst"])?);
    let figure = |name: &str| -> Result<u64> {
        Ok(cluster.admin_value(&format!("SELECT value FROM oidc.stat WHERE metric = '{name}'"))?.parse()?)
    };
    let capacity = figure("policy_capacity")?;
    while figure("policy_bytes")? * 10 <= capacity * 9 {
        cluster.admin(
            "INSERT INTO oidc.role_mapping (provider, match, role) \
             SELECT 'corp', jsonb_build_object('groups', 'fills ' || n), 'writer' FROM generate_series(1, 50) n",
        )?;
        // A login waits for the policy of now.
        old_comes(&cluster)?;
    }
    told_to_retry(&cluster, "new", "provisioning_behind")?;
    ensure!(cluster.log().contains("DETAIL:  The shared memory for the policy is nearly full."));
    ensure!(!exists(&cluster, "new")?);
    old_comes(&cluster)?;
    cluster.admin("DELETE FROM oidc.role_mapping WHERE match->>'groups' LIKE 'fills %'")?;
    drop(session(&cluster, "new", &["analyst"])?);
    calm(&cluster, &[])
}

#[test]
fn logins_that_are_given_up_free_their_places() -> Result<()> {
    let cluster = stage()?;
    cluster.set("pg_oidc.wait_timeout", "20s")?;
    cluster.reload()?;
    let worker = registry(&cluster)?;
    signal("-STOP", &worker)?;
    let given_up = || -> Result<()> {
        let waiting = |expected: &str| {
            until(&format!("{expected} requests wait"), SOON, || {
                let waiting = "SELECT value FROM oidc.stat WHERE metric = 'worker_requests_waiting'";
                Ok(cluster.admin_value(waiting)? == expected)
            })
        };
        let mut wires = Vec::new();
        for number in 0..70 {
            let person = format!("given{number}");
            let (mut wire, _) = Wire::begin(&cluster, Way::Tls, &person)?;
            wire.password(&token(&person, &["analyst"]))?;
            wires.push(wire);
        }
        // All places are taken; the others wait for one.
        waiting("64")?;
        drop(wires);
        let ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename IS NULL \
                     AND backend_type = 'client backend' OR usename LIKE 'given%'";
        cluster.admin(ended)?;
        cluster.admin("SELECT count(pg_terminate_backend(pid)) FROM oidc.session")?;
        waiting("0")
    };
    let outcome = given_up();
    signal("-CONT", &worker)?;
    outcome?;
    drop(session(&cluster, "new", &["analyst"])?);
    assert_eq!(cluster.admin_value("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'given%'")?, "0");
    calm(&cluster, &[])
}
