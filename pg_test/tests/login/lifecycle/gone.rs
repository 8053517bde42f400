//! The policy database without its extension, or under another name.
//!
//! 1. f020: DROP EXTENSION: logins are refused, the workers go on in silence, and CREATE EXTENSION starts anew.
//! 2. f018: the policy database is dropped: what its policy gave is ended. One that only cannot be connected to leaves
//!    sessions alone.
//! 3. n140: the policy database is renamed: writes are refused where the server does not look for the policy, and the name
//!    that it looks for is said.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use pg_oidc_test::cluster::{Cluster, until};
use pg_oidc_test::extension::Server;
use pg_oidc_test::keys::keys;
use pg_oidc_test::psql::Way;
use serde_json::json;

use super::{furnish, logins, outcome, settled, token};
use crate::scene::{SOON, Stage, good, rule_sql, rule_with};
use crate::stage::calm;

#[test]
fn f020_dropped_extension() -> Result<()> {
    let stage = Stage::start()?;
    stage.trio("ada")?;
    let admin = stage.admin()?;
    admin.rows(&rule_with("ada", &json!({ "sub": { "regex": "x(.+)" } }), "\\1", &[]))?;
    let token = good("ada").sign(&keys().ed25519);
    stage.accepted("ada", &token, "before")?;
    let workers =
        "SELECT pid, backend_type FROM pg_stat_activity WHERE backend_type LIKE 'pg_oidc%' ORDER BY 2";
    let pids = admin.rows(workers)?;
    assert_eq!(pids.len(), 2, "{pids:?}");
    // Whoever is in is put out: nothing gives her the right to be there any more.
    let inside = stage.session("ada", &token)?;
    let mark = stage.cluster.log_mark();
    admin.rows("DROP EXTENSION pg_oidc")?;
    // The worker looks twice a second.
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(3) {
        stage.refused("ada", &token, "policy_absent", "dropped")?;
    }
    assert_eq!(admin.rows(workers)?, pids, "the workers are others");
    let log = stage.cluster.log_since(mark);
    for pid in pids.iter().filter_map(|row| row.first().cloned().flatten()) {
        let said: Vec<&str> = log.lines().filter(|line| line.contains(&format!("[{pid}]"))).collect();
        ensure!(said.is_empty(), "a worker said {said:?}");
    }
    let told = inside.last_words()?;
    ensure!(told.code == "57P01" && told.detail.is_some(), "{told:?}");

    admin.rows("CREATE EXTENSION pg_oidc")?;
    stage.refused("ada", &token, "issuer_unknown", "nothing of the old policy is left")?;
    stage.provider("ada")?;
    stage.refused("ada", &token, "no_rule", "nor of its rules")?;
    admin.rows(&rule_sql("ada", &json!({ "sub": "ada" }), "ada"))?;
    stage.accepted("ada", &token, "anew")?;
    assert_eq!(admin.rows(workers)?, pids, "the workers are others");
    calm(&stage.cluster, &[&token])
}

#[test]
fn f018_dropped_policy_database_ends_its_sessions() -> Result<()> {
    let cluster = Cluster::builder(Server::shared()?).setting("pg_oidc.database", "first").start()?;
    cluster.admin("CREATE DATABASE first")?;
    let first = cluster.admin_session_in("first")?;
    first.rows("CREATE EXTENSION pg_oidc")?;
    furnish(&first)?;
    settled(&cluster, "first")?;
    let login = cluster.login("reader").password(token("main", "readers"));
    let inside = login.connect()?.map_err(|told| anyhow::anyhow!("{told:?}"))?;

    // The worker cannot come back, and its database is there all the same: nobody loses anything by that.
    let mark = cluster.log_mark();
    cluster.admin("ALTER DATABASE first ALLOW_CONNECTIONS false")?;
    let worker = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE backend_type = 'pg_oidc registry'";
    assert_eq!(cluster.admin_value(worker)?, "1");
    cluster.await_log_since(mark, "is not currently accepting connections", SOON)?;
    until("the worker has looked for its database", SOON, || {
        Ok(cluster.log_since(mark).matches("is not currently accepting connections").count() > 1)
    })?;
    ensure!(inside.value("SELECT 1")?.is_some(), "ended for a database that is there");

    drop(first);
    cluster.admin("DROP DATABASE first WITH (FORCE)")?;
    until("the session is ended", SOON, || {
        Ok(inside.try_rows("SELECT 1").map_or(true, |rows| rows.is_err()))
    })?;
    let line = cluster.await_log("OIDC session ended: cause=provider_gone role=\"reader\"", SOON)?;
    ensure!(line.contains("database=\"postgres\""), "{line}");
    calm(&cluster, &[&token("main", "readers")])
}

#[test]
fn n140_renamed_policy_database() -> Result<()> {
    let cluster = Cluster::builder(Server::shared()?).setting("pg_oidc.database", "first").start()?;
    cluster.admin("CREATE DATABASE first")?;
    let first = cluster.admin_session_in("first")?;
    first.rows("CREATE EXTENSION pg_oidc")?;
    furnish(&first)?;
    settled(&cluster, "first")?;
    let login = |database: &str| outcome(&cluster, database, "reader", &token("main", "readers"));
    assert_eq!(login("first")?, None);
    drop(first);
    // Under the server's feet it cannot be renamed: the worker sits in it.
    let rename = |from: &str, to: &str| {
        let sql = format!("ALTER DATABASE {from} RENAME TO {to}");
        cluster.login("postgres").way(Way::Socket).run(&sql)
    };
    let seen = rename("first", "second")?;
    ensure!(!seen.ok() && seen.stderr.contains("is being accessed by other users"), "{seen:?}");
    assert_eq!(login("first")?, None);

    // The server looks for the new name, and finds it as soon as the database has it.
    cluster.set("pg_oidc.database", "second")?;
    cluster.restart()?;
    assert_eq!(login("first")?.as_deref(), Some("policy_absent"));
    refuses_writes(&cluster, "first", "second")?;
    until("the database is renamed", SOON, || Ok(rename("first", "second")?.ok()))?;
    until("the policy counts under its new name", SOON, || {
        let login = cluster.login("reader").password(token("main", "readers")).database("second");
        Ok(login.connect()?.is_ok())
    })?;
    logins(&cluster, "second")?;
    let second = cluster.admin_session_in("second")?;
    second.rows(
        "DELETE FROM oidc.role_mapping WHERE match @> '{\"groups\": \"readers\"}' AND provider = 'main'",
    )?;
    assert_eq!(login("second")?.as_deref(), Some("no_rule"));
    drop(second);

    // The server was not told: writes are refused there, and the name that it looks for is said.
    cluster.set("pg_oidc.database", "first")?;
    cluster.restart()?;
    refuses_writes(&cluster, "second", "first")?;
    assert_eq!(login("second")?.as_deref(), Some("policy_absent"));
    calm(&cluster, &[])
}

/// Writes are refused in this database, and the right one is named.
fn refuses_writes(cluster: &Cluster, here: &str, right: &str) -> Result<()> {
    let session = cluster.admin_session_in(here)?;
    for sql in [
        rule_sql("main", &json!({}), "reader"),
        "UPDATE oidc.role_mapping SET enabled = false WHERE effect = 'deny'".to_owned(),
        "DELETE FROM oidc.role_mapping".to_owned(),
        "TRUNCATE oidc.role_mapping".to_owned(),
        "SELECT * FROM oidc.apply_policy('{\"providers\": [], \"rules\": [], \"bindings\": []}', false)"
            .to_owned(),
    ] {
        let told = session.error(&sql)?;
        ensure!(
            told.message.ends_with(&format!("cannot change the OIDC policy in database \"{here}\"")),
            "{sql}: {told:?}"
        );
        let named = format!("The policy of this server is in database \"{right}\".");
        ensure!(told.detail.as_ref().is_some_and(|detail| detail.starts_with(&named)), "{sql}: {told:?}");
    }
    Ok(())
}
