//! Which roles a token may open a session in.
//!
//! 1. n101: privileged roles only where the rule says so; roles that only read are not privileged.
//! 2. n102: names that no token gives; n103: names that are cut on the way; n106: names with quotes and the like, which
//!    a DBA may give.
//! 3. n107: past VALID UNTIL.
//! 4. n108: NOLOGIN, missing, dropped and made again, renamed.

use anyhow::{Result, ensure};
use pg_oidc_test::psql::Way;
use pg_oidc_test::wire::{Heard, Wire};
use serde_json::json;

use super::{next_login, stage, token, without_rule};
use crate::scene::{SOON, Stage, rule_sql};

/// Ends of names that a statement or a line of the log could stumble over.
pub(super) const AWKWARD: [&str; 12] = [
    "\"",
    "\"\"; DROP SCHEMA oidc CASCADE; --",
    "'",
    "''; SELECT 1; --",
    ";",
    "\\",
    "\\x",
    "$$",
    "$1",
    "%s",
    "two\nlines",
    " -c role=postgres",
];

/// A provider, a role and a rule of this name.
fn trio(name: &str) -> Result<&'static Stage> {
    stage().trio(name)?;
    Ok(stage())
}

#[test]
fn n101_privileged_roles() -> Result<()> {
    let stage = trio("n101")?;
    let (admin, token) = (stage.admin()?, token("n101"));
    admin
        .rows("CREATE ROLE n101_middle; CREATE ROLE n101_boss SUPERUSER; CREATE ROLE n101_quiet NOINHERIT")?;
    let allowed = |yes: bool| {
        let sql = format!("UPDATE oidc.role_mapping SET allow_privileged = {yes} WHERE provider = 'n101'");
        admin.rows(&sql)
    };
    assert_eq!(next_login(stage, "n101", &token)?, None, "an ordinary role");
    let privileges = [
        ("ALTER ROLE n101 SUPERUSER", "ALTER ROLE n101 NOSUPERUSER"),
        ("ALTER ROLE n101 CREATEROLE", "ALTER ROLE n101 NOCREATEROLE"),
        ("ALTER ROLE n101 REPLICATION", "ALTER ROLE n101 NOREPLICATION"),
        ("ALTER ROLE n101 BYPASSRLS", "ALTER ROLE n101 NOBYPASSRLS"),
        ("GRANT pg_read_server_files TO n101", "REVOKE pg_read_server_files FROM n101"),
        ("GRANT pg_write_server_files TO n101", "REVOKE pg_write_server_files FROM n101"),
        ("GRANT pg_execute_server_program TO n101", "REVOKE pg_execute_server_program FROM n101"),
        ("GRANT pg_signal_backend TO n101", "REVOKE pg_signal_backend FROM n101"),
        ("GRANT pg_write_all_data TO n101", "REVOKE pg_write_all_data FROM n101"),
        (
            "GRANT pg_execute_server_program TO n101_middle; GRANT n101_middle TO n101",
            "REVOKE n101_middle FROM n101",
        ),
        (
            "GRANT n101_middle TO n101_quiet; GRANT n101_quiet TO n101; ALTER ROLE n101 NOINHERIT",
            "REVOKE n101_quiet FROM n101; ALTER ROLE n101 INHERIT",
        ),
        ("GRANT n101_boss TO n101", "REVOKE n101_boss FROM n101"),
        ("ALTER DATABASE postgres OWNER TO n101", "ALTER DATABASE postgres OWNER TO postgres"),
        (
            "GRANT n101_quiet TO n101; REVOKE n101_middle FROM n101_quiet; ALTER DATABASE postgres OWNER TO n101_quiet",
            "ALTER DATABASE postgres OWNER TO postgres",
        ),
    ];
    for (privilege, back) in privileges {
        admin.rows(privilege)?;
        stage.refused("n101", &token, "role_privileged", privilege)?;
        allowed(true)?;
        stage.accepted("n101", &token, format!("{privilege}, allowed"))?;
        allowed(false)?;
        admin.rows(back)?;
        assert_eq!(next_login(stage, "n101", &token)?, None, "{back}");
    }
    Ok(())
}

#[test]
fn n101_roles_that_only_read() -> Result<()> {
    let stage = trio("n101r")?;
    let (admin, token) = (stage.admin()?, token("n101r"));
    for role in
        ["pg_monitor", "pg_read_all_data", "pg_read_all_settings", "pg_read_all_stats", "pg_stat_scan_tables"]
    {
        admin.rows(&format!("GRANT {role} TO n101r"))?;
        stage.accepted("n101r", &token, role)?;
    }
    Ok(())
}

#[test]
fn n101_superuser_of_the_cluster() -> Result<()> {
    let stage = trio("n101p")?;
    stage.admin()?.rows(&rule_sql("n101p", &json!({ "sub": "n101p" }), "postgres"))?;
    stage.refused("postgres", &token("n101p"), "role_privileged", "the bootstrap superuser")?;
    stage.accepted("n101p", &token("n101p"), "the role beside it")
}

#[test]
fn n102_names_that_no_token_gives() -> Result<()> {
    let stage = without_rule("n102")?;
    let admin = stage.admin()?;
    let long = "x".repeat(64);
    for name in ["", "public", "none", "pg_x", "pg_monitor", "pg_", &long] {
        let told = admin.error(&rule_sql("n102", &json!({}), name))?;
        assert_eq!(told.code, "23514", "{name}: {told:?}");
        ensure!(told.detail.is_some(), "{name}: {told:?}");
    }
    // Near by, and names like any other.
    let (longest, wide) = ("n102".repeat(15) + "123", "é".repeat(31) + "x");
    assert_eq!((longest.len(), wide.len()), (63, 63));
    for name in ["n102_Public", "n102 none", "n102\"quoted'", "pgx_n102", &longest, &wide] {
        admin.rows(&format!("CREATE ROLE \"{}\" LOGIN", name.replace('"', "\"\"")))?;
        admin.rows(&rule_sql("n102", &json!({ "sub": "n102" }), name))?;
        assert_eq!(next_login(stage, name, &token("n102"))?, None, "{name}");
    }
    Ok(())
}

#[test]
fn n107_valid_until() -> Result<()> {
    let stage = trio("n107")?;
    let (admin, token) = (stage.admin()?, token("n107"));
    for past in ["2020-01-01", "-infinity", "yesterday"] {
        admin.rows(&format!("ALTER ROLE n107 VALID UNTIL '{past}'"))?;
        stage.refused("n107", &token, "role_expired", past)?;
    }
    for future in ["tomorrow", "infinity"] {
        admin.rows(&format!("ALTER ROLE n107 VALID UNTIL '{future}'"))?;
        assert_eq!(next_login(stage, "n107", &token)?, None, "{future}");
    }
    Ok(())
}

#[test]
fn n108_roles_that_cannot_log_in() -> Result<()> {
    let stage = trio("n108")?;
    let (admin, token) = (stage.admin()?, token("n108"));
    admin.rows("ALTER ROLE n108 NOLOGIN")?;
    stage.refused("n108", &token, "role_cannot_login", "NOLOGIN")?;
    admin.rows("ALTER ROLE n108 LOGIN")?;
    assert_eq!(next_login(stage, "n108", &token)?, None);

    admin.rows("ALTER ROLE n108 RENAME TO n108_new")?;
    stage.refused("n108", &token, "role_missing", "renamed")?;
    stage.refused("n108_new", &token, "user_not_mapped", "its new name")?;
    admin.rows("ALTER ROLE n108_new RENAME TO n108")?;
    assert_eq!(next_login(stage, "n108", &token)?, None);

    admin.rows("DROP ROLE n108")?;
    stage.refused("n108", &token, "role_missing", "dropped")?;
    admin.rows("CREATE ROLE n108 LOGIN")?;
    stage.refused("n108", &token, "role_replaced", "made again")?;
    // An oid that is given does not count; writing the rule again does.
    admin.rows("UPDATE oidc.role_mapping SET role_oid = 10 WHERE provider = 'n108'")?;
    assert_eq!(next_login(stage, "n108", &token)?, None);
    let same = "SELECT role_oid = role::regrole FROM oidc.role_mapping WHERE provider = 'n108'";
    assert_eq!(admin.value(same)?.as_deref(), Some("t"));
    Ok(())
}

#[test]
fn n108_rule_for_a_role_that_is_missing() -> Result<()> {
    let stage = stage();
    stage.provider("n108m")?;
    let (rule, token) = (rule_sql("n108m", &json!({ "sub": "n108m" }), "n108m"), token("n108m"));
    let seen = stage.cluster.login("postgres").way(Way::Socket).run(&rule)?;
    ensure!(seen.ok() && seen.stderr.contains("WARNING:  role \"n108m\" does not exist"), "{seen:?}");
    stage.refused("n108m", &token, "role_missing", "never made")?;
    let admin = stage.admin()?;
    admin.rows("CREATE ROLE n108m LOGIN")?;
    stage.refused("n108m", &token, "role_replaced", "made after the rule")?;
    admin.rows("UPDATE oidc.role_mapping SET role = role WHERE provider = 'n108m'")?;
    assert_eq!(next_login(stage, "n108m", &token)?, None);
    Ok(())
}

#[test]
fn n103_names_that_are_cut_on_the_way() -> Result<()> {
    let stage = without_rule("n103")?;
    let admin = stage.admin()?;
    let (longest, wide) = ("n103".repeat(15) + "abc", "ü".repeat(31) + "x");
    for name in [&longest, &wide] {
        admin.rows(&format!("CREATE ROLE \"{name}\" LOGIN"))?;
        admin.rows(&rule_sql("n103", &json!({ "sub": "n103" }), name))?;
        assert_eq!(next_login(stage, name, &token("n103"))?, None, "{name}");
        // The server cuts what is longer to 63 bytes, and a rule of the DBA's is for the name that is left: it is hers
        // to know. A rule is never written for more.
        let told = admin.error(&rule_sql("n103", &json!({}), &format!("{name}y")))?;
        assert_eq!(told.message, "\"role\" must have 1 to 63 bytes", "{name}");
    }
    // Cut inside of a character it is no name at all.
    let mark = stage.cluster.log_mark();
    let heard = Wire::log_in(&stage.cluster, Way::Tls, &"ü".repeat(32), &token("n103"))?;
    let Heard::Error(refused) = heard else { anyhow::bail!("admitted by half a character") };
    assert_eq!(refused.field('C'), "28000");
    stage.cluster.await_log_since(mark, "OIDC login refused: reason=name_invalid", SOON).map(drop)
}

#[test]
fn n106_names_that_only_a_dba_gives() -> Result<()> {
    let stage = without_rule("n106")?;
    let admin = stage.admin()?;
    for name in AWKWARD {
        let name = format!("n106{name}");
        admin.rows(&format!("CREATE ROLE \"{}\" LOGIN", name.replace('"', "\"\"")))?;
        let told = next_login(stage, &name, &token("n106"))?;
        ensure!(
            told.as_deref().is_some_and(|reason| reason != "internal_error"),
            "{name:?} without a rule: {told:?}"
        );
        admin.rows(&rule_sql("n106", &json!({ "sub": "n106" }), &name))?;
        let seen = stage
            .session(&name, &token("n106"))?
            .rows("SELECT session_user, current_user, oidc.identity()")?;
        assert_eq!(seen, [[Some(name.clone()), Some(name), Some("n106".to_owned())]]);
    }
    Ok(())
}
