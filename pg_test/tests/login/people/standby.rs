//! f023, f024: people on a standby, which follows its primary.
//!
//! 1. who exists comes in, with what she is a member of; nobody is made, nobody is granted anything
//! 2. people who come to the primary are known there a moment later, with what is ours and what is not
//! 3. promoted, it makes people

use std::fs;

use anyhow::{Context, Result, ensure};
use pg_oidc_test::account::Account;
use pg_oidc_test::cluster::{Cluster, until};
use pg_oidc_test::extension::SUPERUSER;
use pg_oidc_test::program;

use super::{furnish, login, may, may_not, session, users};
use crate::scene::admitted;
use crate::stage::{SOON, builder, calm, refuses};

/// A standby of this cluster, by streaming.
fn standby(primary: &Cluster) -> Result<Cluster> {
    let standby = builder()?.build()?;
    let data = standby.file("data");
    fs::remove_dir_all(&data)?;
    let (host, port) = (primary.folder().display().to_string(), primary.port().to_string());
    let mut copy = primary.server().command("pg_basebackup")?;
    copy.args(["-h", &host, "-p", &port, "-U", SUPERUSER, "-c", "fast", "-X", "stream", "-D"]).arg(&data);
    program::output(&mut copy)?;
    standby.write("data/standby.signal", "")?;
    standby.set("primary_conninfo", &format!("host={host} port={port} user={SUPERUSER}"))?;
    Account::unprivileged()?.own(&data)?;
    standby.start()?;
    Ok(standby)
}

#[test]
fn f023_standby_follows_and_makes_nobody() -> Result<()> {
    let primary = builder()?.guarded("local replication all peer map=admin").start()?;
    furnish(&primary)?;
    drop(session(&primary, "ann", &["analyst", "writer"])?);
    let standby = standby(&primary)?;
    assert_eq!(standby.admin_value("SELECT pg_is_in_recovery()")?, "t");

    // She exists, and is given what her token says of what she is a member of.
    let reads = session(&standby, "ann", &["analyst"])?;
    assert_eq!(users(&reads)?, ["ann", "analyst"]);
    may_not(&reads, "writer")?;
    may(&session(&standby, "ann", &["analyst", "writer"])?, "writer")?;
    refuses(&standby, &login(&standby, "ann", &["auditor"]), "ann", "provisioning_on_standby")?;
    refuses(&standby, &login(&standby, "bea", &["analyst"]), "bea", "provisioning_on_standby")?;
    refuses(&standby, &login(&standby, "bea", &[]), "bea", "no_rule")?;

    // She comes to the primary, and is known here soon; what another token gave her there is not lent to this one.
    for round in 0..10 {
        let person = format!("carla{round}");
        drop(session(&primary, &person, &["analyst"])?);
        until("the standby knows her", SOON, || {
            Ok(login(&standby, &person, &["analyst"]).connect()?.is_ok())
        })?;
        let there = session(&primary, &person, &["analyst", "auditor"])?;
        let mut tried = 0;
        until("the membership is replayed", SOON, || {
            let here = session(&standby, &person, &["analyst"])?;
            may_not(&here, "auditor")?;
            tried += 1;
            let replayed = format!("SELECT pg_has_role('{person}', 'auditor', 'MEMBER')");
            Ok(standby.admin_value(&replayed)? == "t")
        })?;
        for _ in 0..3 {
            may_not(&session(&standby, &person, &["analyst"])?, "auditor")?;
        }
        ensure!(tried > 0);
        drop(there);
    }
    // A grant by hand counts there too.
    primary.admin("CREATE ROLE by_hand; GRANT by_hand TO ann")?;
    until("the grant is replayed", SOON, || {
        let here = session(&standby, "ann", &["analyst"])?;
        Ok(here.try_rows("SET ROLE by_hand")?.is_ok())
    })?;
    // Bound to another, her session there ends.
    let session_there = session(&standby, "ann", &["analyst"])?;
    primary.admin("UPDATE oidc.identity_role SET subject = 'somebody' WHERE role = 'ann'")?;
    super::ended(&session_there)?;
    refuses(&standby, &login(&standby, "ann", &["analyst"]), "ann", "identity_mismatch")?;

    // f024: promoted, it makes people, and takes away what is surplus.
    primary.stop()?;
    assert_eq!(standby.admin_value("SELECT pg_promote()")?, "t");
    let mark = standby.log_mark();
    let dora = admitted(&login(&standby, "dora", &["analyst"])).context("after the promotion")?;
    assert_eq!(users(&dora)?, ["dora", "analyst"]);
    drop(session(&standby, "carla0", &["analyst"])?);
    super::await_memberships(&standby, "carla0", &["analyst"])?;
    ensure!(!standby.log_since(mark).contains("WARNING"), "{}", standby.log_since(mark));
    calm(&standby, &[])
}
