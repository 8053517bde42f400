//! Rows of `oidc.identity_role` and `oidc.granted_membership`, written by hand.

use anyhow::Result;
use pg_oidc_test::cluster::until;
use pg_oidc_test::psql::Way;

use super::{comes, some, stage, token};
use crate::scene::SOON;

const BIND: &str = "INSERT INTO oidc.identity_role (provider, subject, role) VALUES";

#[test]
fn a_role_that_exists_is_bound() -> Result<()> {
    let (stage, admin) = stage()?;
    admin.rows("CREATE ROLE ada LOGIN NOINHERIT; CREATE ROLE eve LOGIN NOINHERIT")?;
    stage.refused("ada", &token("ada"), "role_not_bound", "an existing role is never taken")?;
    // Whatever oid is given, it is the role's own.
    admin.rows(&format!("{BIND} ('corp', 'ada', 'ada')"))?;
    admin.rows("UPDATE oidc.identity_role SET role_oid = 10")?;
    let row = "SELECT role_oid = 'ada'::regrole, made_by_us, last_login IS NULL FROM oidc.identity_role";
    assert_eq!(admin.rows(row)?, [[some("t"), some("f"), some("t")]]);
    comes(&stage, "ada")?;
    until("it is noted that she came", SOON, || Ok(admin.rows(row)? == [[some("t"), some("f"), some("f")]]))?;
    // Her coming is no change.
    let events = "SELECT event, role, subject FROM oidc.audit_log WHERE event LIKE 'binding%' ORDER BY id";
    assert_eq!(admin.rows(events)?, [["binding_created", "ada", "ada"].map(some)]);
    // Hers alone, and hers instead of the one that the pattern names.
    stage.refused("ada", &token("eve"), "user_not_mapped", "somebody else")?;
    admin.rows("UPDATE oidc.identity_role SET role = 'eve'")?;
    stage.refused("ada", &token("ada"), "user_not_mapped", "she has another role")?;
    stage.refused("eve", &token("eve"), "identity_mismatch", "it is ada's now")?;
    let seen = stage.login("eve", &token("ada")).run("SELECT session_user, current_user")?;
    assert_eq!(seen.rows(), [["eve", "staff"]], "{seen:?}");
    Ok(())
}

#[test]
fn a_role_that_is_missing_is_warned_of() -> Result<()> {
    let (stage, admin) = stage()?;
    let bind = format!("{BIND} ('corp', 'late', 'late')");
    let seen = stage.cluster.login("postgres").way(Way::Socket).run(&bind)?;
    assert!(seen.ok() && seen.stderr.contains("WARNING:  role \"late\" does not exist"), "{seen:?}");
    assert!(seen.stderr.contains("DETAIL:  Nobody logs in with it until"), "{seen:?}");
    stage.refused("late", &token("late"), "role_missing", "it is bound, and never made")?;
    admin.rows("CREATE ROLE late LOGIN NOINHERIT")?;
    stage.refused("late", &token("late"), "role_replaced", "the row is of before")?;
    admin.rows("UPDATE oidc.identity_role SET role = role")?;
    comes(&stage, "late")?;
    admin.rows("REVOKE staff FROM late; DROP ROLE late; CREATE ROLE late LOGIN NOINHERIT")?;
    stage.refused("late", &token("late"), "role_replaced", "made anew")
}

#[test]
fn rows_that_are_refused() -> Result<()> {
    let (_stage, admin) = stage()?;
    let (long_role, long_subject) = ("x".repeat(64), "x".repeat(2049));
    for (subject, role, message) in [
        ("a", "", "\"role\" must have 1 to 63 bytes"),
        ("a", &long_role, "\"role\" must have 1 to 63 bytes"),
        ("a", "public", "role name \"public\" is reserved"),
        ("a", "none", "role name \"none\" is reserved"),
        ("a", "pg_monitor", "role name \"pg_monitor\" is reserved"),
        ("a", "pg_", "role name \"pg_\" is reserved"),
        ("", "a", "\"subject\" must have 1 to 2048 bytes"),
        (&long_subject, "a", "\"subject\" must have 1 to 2048 bytes"),
    ] {
        let told = admin.error(&format!("{BIND} ('corp', '{subject}', '{role}')"))?;
        assert_eq!((told.code.as_str(), told.message.as_str()), ("23514", message));
    }
    let told = admin.error(&format!("{BIND} ('nobody', 'a', 'a')"))?;
    assert_eq!(told.code, "23503");
    let told = admin.error(&format!("{BIND} ('corp', 'a', NULL)"))?;
    assert_eq!(told.code, "23502");
    // Nor as a replica would write them.
    admin.rows("SET session_replication_role = replica")?;
    for (table, row) in [("identity_role", "('corp', 'a', 'pg_x')"), ("identity_role", "('corp', '', 'a')")] {
        let told =
            admin.error(&format!("INSERT INTO oidc.{table} (provider, subject, role) VALUES {row}"))?;
        assert_eq!(told.code, "23514");
    }
    admin.rows("RESET session_replication_role")?;
    // As near as can be.
    let (role, subject) = ("x".repeat(63), "x".repeat(2048));
    admin.rows(&format!(
        "{BIND} ('corp', '{subject}', '{role}'), ('corp', 'b', 'pgx'), ('corp', 'c', 'Public')"
    ))?;
    let told = admin.error(&format!("{BIND} ('corp', 'd', 'pgx')"))?;
    assert_eq!(told.code, "23505", "one role, one person");
    let told = admin.error("UPDATE oidc.identity_role SET role = 'pg_x' WHERE subject = 'b'")?;
    assert_eq!(told.code, "23514");
    assert_eq!(admin.value("SELECT count(*) FROM oidc.identity_role")?, some("3"));
    Ok(())
}

#[test]
fn n128_n140_only_superusers_and_only_there() -> Result<()> {
    let (stage, admin) = stage()?;
    comes(&stage, "ann")?;
    admin.rows("CREATE DATABASE other")?;
    admin.rows("CREATE ROLE clerk; CREATE ROLE mine ADMIN clerk")?;
    let writes = [
        "INSERT INTO oidc.identity_role (provider, subject, role) VALUES ('corp', 'clerk', 'mine')",
        "UPDATE oidc.identity_role SET subject = 'clerk'",
        "DELETE FROM oidc.identity_role",
        "TRUNCATE oidc.identity_role",
        "INSERT INTO oidc.granted_membership (role, member) VALUES ('mine', 'ann')",
        "UPDATE oidc.granted_membership SET keep = true",
        "DELETE FROM oidc.granted_membership",
        "TRUNCATE oidc.granted_membership",
        "SELECT oidc.revoke('corp', 'ann')",
        "SELECT oidc.prune_identities('0')",
    ];
    let rows = "SELECT (SELECT count(*) FROM oidc.identity_role WHERE subject = 'ann'), \
                       (SELECT count(*) FROM oidc.granted_membership WHERE NOT keep)";
    assert_eq!(admin.rows(rows)?, [[some("1"), some("1")]]);
    let as_clerk = |sql: &str| admin.error(&format!("BEGIN; SET LOCAL ROLE clerk; {sql}"));
    let rollback = || admin.rows("ROLLBACK").map(drop);
    for sql in
        ["SELECT * FROM oidc.identity_role", "SELECT * FROM oidc.granted_membership"].iter().chain(&writes)
    {
        let told = as_clerk(sql)?;
        assert_eq!(told.code, "42501", "{sql}: {told:?}");
        rollback()?;
    }
    // A grant is not enough, but for oidc.revoke().
    admin.rows(
        "GRANT ALL ON ALL TABLES IN SCHEMA oidc TO clerk; \
         GRANT EXECUTE ON FUNCTION oidc.prune_identities(interval, boolean), oidc.session_rows() TO clerk",
    )?;
    for sql in writes {
        let told = as_clerk(sql)?;
        assert_eq!(told.code, "42501", "{sql}: {told:?}");
        rollback()?;
    }
    assert_eq!(admin.rows(rows)?, [[some("1"), some("1")]]);

    // Nor in a copy of the policy, where nobody looks: its rows stand for the same roles.
    let other = stage.cluster.admin_session_in("other")?;
    other.rows("CREATE EXTENSION pg_oidc")?;
    other.rows("SET session_replication_role = replica; ALTER TABLE oidc.provider DISABLE TRIGGER USER")?;
    other.rows("ALTER TABLE oidc.identity_role DISABLE TRIGGER USER")?;
    other.rows(
        "INSERT INTO oidc.provider (name, issuer, audiences) VALUES ('corp', 'https://corp.example', '{x}')",
    )?;
    other.rows(
        "INSERT INTO oidc.identity_role VALUES ('corp', 'ann', 'ann', true, '-infinity', 'ann'::regrole)",
    )?;
    other.rows(
        "ALTER TABLE oidc.identity_role ENABLE ALWAYS TRIGGER check_rights, ENABLE ALWAYS TRIGGER check_rights_to_truncate; RESET session_replication_role",
    )?;
    for sql in writes.iter().filter(|sql| !sql.contains("granted") || sql.starts_with("INSERT")) {
        let told = other.error(sql)?;
        assert_eq!(told.code, "55000", "{sql}: {told:?}");
        assert_eq!(told.message, "cannot change the OIDC policy in database \"other\"");
    }
    comes(&stage, "ann")
}
