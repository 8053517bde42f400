//! n123: replication connections, and a database that is only named so.
//!
//! 1. Each kind of rule for each kind of connection: a rule is for replication connections or for ordinary ones, a
//!    physical one has no database, `replication=database` has one.
//! 2. The role must be allowed to be privileged, and have REPLICATION: core asks for that.
//! 3. pg_basebackup, as a real client of physical replication.
//! 4. A denial may be for one kind or for both.

use anyhow::{Context, Result, ensure};
use pg_oidc_test::account::Account;
use pg_oidc_test::cluster::until;
use serde_json::json;

use super::deny::deny_sql;
use super::{next_login, reason, token};
use crate::scene::{SOON, Stage, rule_with};

/// Rules as their columns `replication` and `databases`, and ways to connect as the parameter and the database.
type Pairs = &'static [(&'static str, &'static str)];

const ORDINARY: (&str, &str) = ("false", "postgres");
const NAMED: (&str, &str) = ("false", "replication");
const PHYSICAL: (&str, &str) = ("true", "postgres");
const LOGICAL: (&str, &str) = ("database", "postgres");
const LOGICAL_NAMED: (&str, &str) = ("database", "replication");
const ALL: [(&str, &str); 5] = [ORDINARY, NAMED, PHYSICAL, LOGICAL, LOGICAL_NAMED];

/// A provider, and a role of this name that may replicate.
fn walsender(name: &str) -> Result<&'static Stage> {
    let stage = super::without_rule(name)?;
    stage.admin()?.rows(&format!("ALTER ROLE {name} REPLICATION"))?;
    Ok(stage)
}

/// Why this connection is refused, None if it is admitted.
fn outcome(stage: &Stage, name: &str, (kind, database): (&str, &str)) -> Result<Option<String>> {
    let mark = stage.cluster.log_mark();
    let login = stage.login(name, &token(name)).database(database).parameter(format!("replication={kind}"));
    let seen = login.run(if kind == "false" { "SELECT current_database()" } else { "IDENTIFY_SYSTEM" })?;
    if seen.ok() {
        let row = seen.rows().pop().with_context(|| format!("{seen:?}"))?;
        let database = if kind == "true" { Some("") } else { Some(database) };
        ensure!(row.last().map(String::as_str) == database, "{kind}: {row:?}");
        return Ok(None);
    }
    ensure!(seen.refusal() == Some(&format!("FATAL:  {}", crate::scene::constant_line(name))), "{seen:?}");
    let line = stage.cluster.await_log_since(mark, &format!(" user={name:?} database="), SOON)?;
    let (_, rest) = line.split_once("reason=").with_context(|| line.clone())?;
    Ok(rest.split(' ').next().map(str::to_owned))
}

#[test]
fn n123_each_rule_for_each_connection() -> Result<()> {
    let stage = walsender("n123")?;
    let admin = stage.admin()?;
    admin.rows("CREATE DATABASE replication")?;
    let rules = |rules: &[(&str, &str)]| -> Result<()> {
        admin.rows("DELETE FROM oidc.role_mapping WHERE provider = 'n123'")?;
        for (replication, databases) in rules {
            let columns =
                [("replication", *replication), ("databases", *databases), ("allow_privileged", "true")];
            admin.rows(&rule_with("n123", &json!({ "sub": "n123" }), "n123", &columns))?;
        }
        Ok(())
    };
    let cases: [(Pairs, Pairs); 8] = [
        (&[], &[]),
        (&[("false", "NULL")], &[ORDINARY, NAMED]),
        (&[("false", "'{replication}'")], &[NAMED]),
        (&[("true", "NULL")], &[PHYSICAL, LOGICAL, LOGICAL_NAMED]),
        (&[("true", "'{postgres}'")], &[LOGICAL]),
        (&[("true", "'{replication}'")], &[LOGICAL_NAMED]),
        (&[("true", "'{replication}'"), ("false", "'{postgres}'")], &[ORDINARY, LOGICAL_NAMED]),
        (&[("true", "NULL"), ("false", "NULL")], &ALL),
    ];
    for (written, admitted) in cases {
        rules(written)?;
        for way in ALL {
            let expected = match way {
                way if admitted.contains(&way) => None,
                ("false", _) => reason("no_rule"),
                _ => reason("replication_refused"),
            };
            assert_eq!(outcome(stage, "n123", way)?, expected, "{written:?}, {way:?}");
        }
    }
    for kind in ["1", "on", "yes"] {
        let login = stage.login("n123", &token("n123")).parameter(format!("replication={kind}"));
        let seen = login.run("IDENTIFY_SYSTEM")?;
        ensure!(seen.ok(), "{kind}: {seen:?}");
    }
    // A denial is for ordinary connections, for replication, or for both.
    for (replication, denied) in
        [("false", &ALL[..2]), ("true", &ALL[2..]), ("NULL", &ALL[..])] as [(&str, Pairs); 3]
    {
        let id = admin.value(&deny_sql("n123", &json!({}), &[("replication", replication)]))?;
        for way in ALL {
            let expected = if denied.contains(&way) { reason("denied_by_rule") } else { None };
            assert_eq!(outcome(stage, "n123", way)?, expected, "denial {replication}, {way:?}");
        }
        admin.rows(&format!("DELETE FROM oidc.role_mapping WHERE id = {}", id.unwrap_or_default()))?;
    }
    // Without allow_privileged the role is not given, and no rule makes it a role that replicates.
    admin.rows("UPDATE oidc.role_mapping SET allow_privileged = false WHERE provider = 'n123'")?;
    for way in ALL {
        assert_eq!(outcome(stage, "n123", way)?, reason("role_privileged"), "{way:?}");
    }
    admin.rows("ALTER ROLE n123 NOREPLICATION")?;
    for way in [PHYSICAL, LOGICAL] {
        let login = stage.login("n123", &token("n123")).parameter(format!("replication={}", way.0));
        let seen = login.run("IDENTIFY_SYSTEM")?;
        ensure!(!seen.ok() && seen.refusal().is_some(), "{way:?}: {seen:?}");
    }
    assert_eq!(next_login(stage, "n123", &token("n123"))?, None, "an ordinary connection");
    until("the sessions there have ended", SOON, || {
        let sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'replication'";
        Ok(admin.value(sessions)?.as_deref() == Some("0"))
    })?;
    admin.rows("DROP DATABASE replication").map(drop)
}

#[test]
fn n123_base_backup() -> Result<()> {
    let stage = walsender("backup")?;
    let admin = stage.admin()?;
    let columns = [("allow_privileged", "true")];
    admin.rows(&rule_with("backup", &json!({ "sub": "backup" }), "backup", &columns))?;
    let token = token("backup");
    let take = |folder: &str| -> Result<(bool, String)> {
        let mut backup = stage.cluster.server().command("pg_basebackup")?;
        backup.env("PGPASSWORD", &token).env("PGSSLMODE", "require");
        backup.args(["-w", "-h", "127.0.0.1", "-U", "backup", "--checkpoint=fast", "-X", "stream", "-D"]);
        backup.arg(stage.cluster.file(folder)).arg("-p").arg(stage.cluster.port().to_string());
        let output = backup.output()?;
        let got = stage.cluster.file(folder).join("PG_VERSION").exists();
        ensure!(output.status.success() == got, "{output:?}");
        Ok((got, String::from_utf8_lossy(&output.stderr).into_owned()))
    };
    let mark = stage.cluster.log_mark();
    let (got, said) = take("refused")?;
    let constant = "FATAL:  OIDC authentication failed for user \"backup\"";
    ensure!(
        !got && said.contains(constant),
        "pg_basebackup as {} said {said}",
        Account::unprivileged()?.name()
    );
    let pattern = "OIDC login refused: reason=replication_refused user=\"backup\" database=";
    stage.cluster.await_log_since(mark, pattern, SOON)?;
    // A rule for one database is none for all of them.
    let update = |columns: &str| {
        admin.rows(&format!("UPDATE oidc.role_mapping SET {columns} WHERE provider = 'backup'")).map(drop)
    };
    update("replication = true, databases = '{postgres,replication,\"\\\"all\\\"\"}'")?;
    ensure!(!take("refused")?.0, "a rule with databases");
    update("databases = NULL")?;
    let (got, said) = take("taken")?;
    ensure!(got, "{said}");
    update("replication = false")?;
    ensure!(!take("refused")?.0, "for ordinary connections again");
    Ok(())
}
