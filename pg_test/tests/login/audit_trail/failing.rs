//! The table cannot be written: logins go on.

use anyhow::{Result, ensure};
use pg_oidc_test::cluster::until;
use pg_oidc_test::keys::keys;
use pg_oidc_test::psql::Way;
use pg_oidc_test::wire::{Heard, Wire};
use serde_json::json;

use super::{figure, logins};
use crate::scene::{SOON, Stage, good};
use crate::stage::{calm, reasons};

const SAID: &str = "could not write logins to oidc.audit_log";

/// Makes the table unwritable, logs in, mends it: the logins get there.
fn comes_later(break_it: &str, mend_it: &str) -> Result<()> {
    let stage = Stage::start()?;
    stage.trio("later")?;
    let (admin, other) = (stage.admin()?, stage.admin()?);
    let mark = stage.cluster.log_mark();
    admin.rows(break_it)?;
    let token = good("later").sign(&keys().ec);
    stage.session("later", &token)?;
    stage.refused("later", "no token", "token_malformed", "no token")?;
    stage.cluster.await_log_since(mark, SAID, SOON)?;
    // A change of the policy counts as ever, which the same worker sees to.
    other.rows("UPDATE oidc.provider SET enabled = false WHERE name = 'later'").or_else(|error| {
        // Where the change itself cannot be recorded it fails.
        if break_it.contains("RENAME") || break_it.contains("LOCK") { Ok(Vec::new()) } else { Err(error) }
    })?;
    admin.rows(mend_it)?;
    let rows = logins(&admin, "later", 3)?;
    let reasons: Vec<_> = rows.iter().map(|row| row["outcome"].as_str().unwrap_or_default()).collect();
    assert_eq!(reasons, ["accepted", "refused", "refused"]);
    assert_eq!((figure(&admin, "audit_events_dropped")?, figure(&admin, "audit_events_waiting")?), (0, 0));
    calm(&stage.cluster, &[&token])
}

#[test]
fn f028_table_refuses_rows() -> Result<()> {
    comes_later(
        "ALTER TABLE oidc.audit_log ADD CONSTRAINT never CHECK (event <> 'login') NOT VALID",
        "ALTER TABLE oidc.audit_log DROP CONSTRAINT never",
    )
}

#[test]
fn f028_table_is_gone() -> Result<()> {
    comes_later(
        "ALTER TABLE oidc.audit_log RENAME TO elsewhere",
        "ALTER TABLE oidc.elsewhere RENAME TO audit_log",
    )
}

/// There is room for some 500 with so many groups.
const MANY: usize = 1_200;
const GROUPS: usize = 400;

#[test]
fn f022_table_is_locked_until_the_queue_is_full() -> Result<()> {
    let stage = Stage::with(|builder| builder.guarded("local all all trust"))?;
    stage.trio("held")?;
    let (holder, admin) = (stage.admin()?, stage.admin()?);
    admin.rows("INSERT INTO oidc.role_mapping (provider, match, role) VALUES ('held', '{\"groups\": \"x\"}', 'held')")?;
    holder.rows("BEGIN; LOCK TABLE oidc.audit_log IN ACCESS EXCLUSIVE MODE")?;
    let mark = stage.cluster.log_mark();
    let groups: Vec<String> = (0..GROUPS).map(|number| format!("group-{number:08}")).collect();
    let stranger = good("held").claim("sub", json!("nobody")).claim("groups", json!(groups)).sign(&keys().ec);
    super::flood::pour(&stage.cluster, "held", [&stranger; 2], MANY)?;
    let dropped = figure(&admin, "audit_events_dropped")?;
    ensure!(dropped > 0, "the queue held all of {MANY}");
    assert_eq!(reasons(&stage.cluster, mark, "held").len(), MANY, "lines in the server log");
    // A good login and a change of the policy do not wait.
    let token = good("held").sign(&keys().ec);
    assert_eq!(Wire::log_in(&stage.cluster, Way::Socket, "held", &token)?, Heard::Ready);
    let warned = admin.rows("SELECT status, detail FROM oidc.doctor() WHERE name = 'audit_queue'")?;
    ensure!(warned.len() == 2 && format!("{warned:?}").contains("warn"), "{warned:?}");

    holder.rows("COMMIT")?;
    until("the queue is empty", SOON, || Ok(figure(&admin, "audit_events_waiting")? == 0))?;
    let rows: i64 = admin
        .value("SELECT count(*) FROM oidc.audit_log WHERE event = 'login'")?
        .unwrap_or_default()
        .parse()?;
    let dropped = figure(&admin, "audit_events_dropped")?;
    println!("{MANY} refused logins with the table locked: {rows} rows, {dropped} dropped");
    assert_eq!(usize::try_from(rows + dropped)?, MANY + 1);
    assert_eq!(figure(&admin, "audit_events_stored")?, rows);
    stage.cluster.await_log_since(mark, "logins are not in oidc.audit_log", SOON)?;
    calm(&stage.cluster, &[&token])
}

#[test]
fn a_restart_keeps_what_was_written() -> Result<()> {
    let stage = Stage::start()?;
    stage.trio("stopped")?;
    stage.session("stopped", &good("stopped").sign(&keys().ec))?;
    stage.cluster.stop()?;
    stage.cluster.start()?;
    let admin = stage.admin()?;
    // Written when the server stopped, if not before.
    assert_eq!(logins(&admin, "stopped", 1)?.len(), 1);
    assert_eq!(figure(&admin, "audit_events_stored")?, 0, "counts begin anew");
    Ok(())
}

#[test]
fn f023_f024_a_standby_keeps_none_and_promotion_begins() -> Result<()> {
    let stage = Stage::start()?;
    stage.trio("replica")?;
    let token = good("replica").sign(&keys().ec);
    stage.cluster.stop()?;
    stage.cluster.write("data/standby.signal", "")?;
    stage.cluster.start()?;
    let (admin, mark) = (stage.admin()?, stage.cluster.log_mark());
    assert_eq!(admin.value("SELECT pg_is_in_recovery()")?.as_deref(), Some("t"));
    stage.session("replica", &token)?;
    stage.refused("replica", "no token", "token_malformed", "on the standby")?;
    assert_eq!(reasons(&stage.cluster, mark, "replica").len(), 2, "by two clients");
    for metric in ["audit_events_waiting", "audit_events_stored", "audit_events_dropped"] {
        assert_eq!(figure(&admin, metric)?, 0, "{metric}");
    }
    let counted = "SELECT sum(value) FROM oidc.stat WHERE metric = 'logins'";
    assert_eq!(admin.value(counted)?.as_deref(), Some("3"));

    assert_eq!(admin.value("SELECT pg_promote()")?.as_deref(), Some("t"));
    stage.session("replica", &token)?;
    assert_eq!(logins(&admin, "replica", 1)?.len(), 1);
    ensure!(!stage.cluster.log_since(mark).contains(SAID), "it tried to write on the standby");
    calm(&stage.cluster, &[&token])
}
