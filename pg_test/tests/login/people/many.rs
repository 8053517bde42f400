//! Many logins.
//!
//! 1. a thousand logins of people to whom nothing new happens write nothing: no new row version, no worker asked
//! 2. n109: 50 first logins of one person at once are one role and 50 sessions
//! 3. n109: a hundred people at once, more than there are places for requests, all come in

use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use pg_oidc_test::cluster::{Cluster, until};
use pg_oidc_test::psql::Way;
use pg_oidc_test::wire::{Heard, Wire};

use super::{column, furnish, login, memberships, token};
use crate::stage::{SOON, builder, calm};

fn stage() -> Result<Cluster> {
    let builder = builder()?.setting("max_connections", "150").setting("autovacuum", "off");
    let cluster =
        builder.setting("pg_oidc.wait_timeout", "30s").setting("authentication_timeout", "60s").start()?;
    furnish(&cluster)?;
    Ok(cluster)
}

/// Every version of every row that a login could have written, and how often the tables were written to.
fn versions(cluster: &Cluster) -> Result<Vec<String>> {
    let tables = [
        "pg_authid",
        "pg_auth_members",
        "oidc.identity_role",
        "oidc.granted_membership",
        "oidc.policy_state",
    ];
    let mut seen = Vec::new();
    for table in tables {
        let rows = format!("SELECT concat_ws(' ', '{table}', ctid, xmin, xmax) FROM {table} ORDER BY ctid");
        seen.extend(column(cluster, &rows)?);
    }
    let written = "SELECT concat_ws(' ', relid::regclass, n_tup_ins, n_tup_upd, n_tup_del) FROM pg_stat_all_tables \
                    WHERE relname IN ('pg_authid', 'pg_auth_members', 'identity_role', 'granted_membership') ORDER BY 1";
    seen.extend(column(cluster, written)?);
    Ok(seen)
}

/// What each of these many threads gives.
fn at_once<T: Send>(count: usize, one: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    thread::scope(|scope| {
        let one = &one;
        let threads: Vec<_> = (0..count).map(|number| scope.spawn(move || one(number))).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a client panicked"))?).collect()
    })
}

/// A session that is in, held open.
fn held(cluster: &Cluster, person: &str, groups: &[&str]) -> Result<Wire> {
    let (mut wire, _) = Wire::begin(cluster, Way::Tls, person)?;
    wire.password(&token(person, groups))?;
    let outcome = wire.outcome()?;
    ensure!(outcome == Heard::Ready, "{person}: {outcome:?}");
    Ok(wire)
}

#[test]
fn thousand_logins_that_change_nothing_write_nothing() -> Result<()> {
    let cluster = stage()?;
    let people: Vec<String> = (0..8).map(|number| format!("p{number}")).collect();
    for person in &people {
        drop(login(&cluster, person, &["analyst", "writer"]).run("SELECT 1")?);
    }
    // The statistics of the first logins arrive a little later.
    until("the first logins are counted", SOON, || {
        let counted = "SELECT n_tup_ins FROM pg_stat_all_tables WHERE relname = 'granted_membership'";
        Ok(cluster.admin_value(counted)? == "16")
    })?;
    let before = versions(&cluster)?;
    let edition = "SELECT value FROM oidc.stat WHERE metric = 'policy_publications'";
    let published = column(&cluster, edition)?;
    at_once(people.len(), |number| {
        let person = people.get(number).context("no such person")?;
        for _ in 0..125 {
            drop(held(&cluster, person, &["analyst", "writer"])?);
        }
        Ok(())
    })?;
    assert_eq!(versions(&cluster)?, before);
    assert_eq!(column(&cluster, edition)?, published);
    let logins = cluster.log().matches("OIDC login accepted: role=\"analyst\"").count();
    assert_eq!(logins, 1008);
    calm(&cluster, &[])
}

#[test]
fn n109_fifty_first_logins_of_one_person() -> Result<()> {
    let cluster = stage()?;
    let sessions = at_once(50, |_| held(&cluster, "ann", &["analyst", "writer"]))?;
    assert_eq!(sessions.len(), 50);
    assert_eq!(cluster.admin_value("SELECT count(*) FROM oidc.session WHERE role = 'ann'")?, "50");
    assert_eq!(cluster.admin_value("SELECT count(*) FROM oidc.identity_role")?, "1");
    assert_eq!(memberships(&cluster, "ann")?, ["analyst", "writer"]);
    let made =
        "SELECT count(*) FROM oidc.audit_log WHERE after->>'role' = 'ann' AND after->>'subject' = 'sub-ann'";
    assert_eq!(cluster.admin_value(made)?, "1");
    drop(sessions);
    calm(&cluster, &[])
}

#[test]
fn n109_a_hundred_people_at_once() -> Result<()> {
    let cluster = stage()?;
    let sessions = at_once(100, |number| held(&cluster, &format!("q{number}"), &["analyst"]))?;
    assert_eq!(sessions.len(), 100);
    assert_eq!(cluster.admin_value("SELECT count(DISTINCT role) FROM oidc.session")?, "100");
    assert_eq!(cluster.admin_value("SELECT count(*) FROM oidc.identity_role WHERE made_by_us")?, "100");
    assert_eq!(cluster.admin_value("SELECT count(*) FROM oidc.granted_membership")?, "100");
    let waiting = "SELECT value FROM oidc.stat WHERE metric = 'worker_requests_waiting'";
    assert_eq!(cluster.admin_value(waiting)?, "0");
    drop(sessions);
    calm(&cluster, &[])
}
