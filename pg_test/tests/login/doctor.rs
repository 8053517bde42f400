//! `oidc.doctor()`: each check is provoked by what it is for, and quiet without it.
//!
//! 1. On a server that is set up well every check is `ok`, and says so in a sentence without a hint.
//! 2. Where the library is not preloaded, and in another database, it answers too; so it does for whom EXECUTE was
//!    granted, and for nobody else.
//! 3. More than twenty findings of one check are counted. A part that cannot be looked at does not hide the others.
//! 4. The server: versions, workers, what is published, settings: [`server`].
//! 5. The HBA files and TLS: [`hba`].
//! 6. Tables, providers (n113), keys, sizes against limits: [`policy`].
//! 7. Rules and their roles: [`rules`].
//! 8. People's own roles, their bindings and memberships: [`people`].

mod hba;
mod people;
mod policy;
mod rules;
mod server;

use anyhow::{Result, ensure};
use pg_oidc_test::client::Session;
use pg_oidc_test::cluster::{Builder, Cluster, until};
use pg_oidc_test::extension::Server;
use pg_oidc_test::keys::keys;
use serde_json::json;

use crate::scene::{SOON, Stage, good, rule_with};

/// Every check, in the order in which they are shown.
const CHECKS: [&str; 49] = [
    "library_preloaded",
    "library_version",
    "policy_database",
    "wait_timeout",
    "allow_http",
    "password_fallback",
    "workers",
    "policy_published",
    "policy_size",
    "keyring_size",
    "audit_queue",
    "guarded_file",
    "native_hba_file",
    "tls",
    "hba_errors",
    "token_lines",
    "included_token_lines",
    "useless_lines",
    "administrator_line",
    "table_triggers",
    "table_owners",
    "public_rights",
    "provider_count",
    "rule_count",
    "pattern_rules",
    "provider_rows",
    "provider_use",
    "identity_claims",
    "plain_http",
    "provider_keys",
    "key_fetches",
    "rule_rows",
    "rule_databases",
    "rule_validity",
    "rule_roles",
    "rule_privileges",
    "rule_connect",
    "open_patterns",
    "repeated_rules",
    "denied_rules",
    "deny_all",
    "token_passwords",
    "person_privileges",
    "person_bindings",
    "person_rules",
    "person_memberships",
    "base_roles",
    "person_connect",
    "person_settings",
];

/// A server that is set up as a real one should be, with one provider, one role and one rule named `main`.
fn well(change: impl FnOnce(Builder) -> Builder) -> Result<Stage> {
    let stage = Stage::with(|builder| change(builder.setting("pg_oidc.allow_http", "off")))?;
    stage.trio("main")?;
    let admin = stage.admin()?;
    let lacking = "SELECT count(*) FROM oidc.doctor() WHERE name = 'provider_keys' AND status = 'fail'";
    until("keys are published", SOON, || Ok(admin.value(lacking)?.as_deref() == Some("0")))?;
    Ok(stage)
}

/// What the doctor finds, as `name status: detail`; nothing where all is well.
fn findings(admin: &Session) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for row in admin.rows("SELECT name, status, detail, hint FROM oidc.doctor()")? {
        let [Some(name), Some(status), Some(detail), hint] = row.as_slice() else {
            anyhow::bail!("a row with a null: {row:?}")
        };
        let well = status == "ok";
        ensure!(well == hint.is_none(), "a hint if, and only if, there is something to do: {row:?}");
        ensure!(well || ["warn", "fail"].contains(&status.as_str()), "{row:?}");
        if !well {
            found.push(format!("{name} {status}: {detail}"));
        }
    }
    Ok(found)
}

/// The doctor finds just this.
fn finds(admin: &Session, wanted: &[&str]) -> Result<()> {
    assert_eq!(findings(admin)?, wanted);
    Ok(())
}

/// The doctor finds just this after one change, and nothing after the other.
fn provoked(admin: &Session, change: &str, back: &str, wanted: &[&str]) -> Result<()> {
    admin.rows(change)?;
    finds(admin, wanted)?;
    admin.rows(back)?;
    finds(admin, &[])
}

#[test]
fn all_is_well() -> Result<()> {
    let stage = well(|builder| builder)?;
    let admin = stage.admin()?;
    finds(&admin, &[])?;
    let rows = admin.rows("SELECT name, detail FROM oidc.doctor()")?;
    let names: Vec<&str> = rows.iter().filter_map(|row| row.first()?.as_deref()).collect();
    assert_eq!(names, CHECKS);
    for row in &rows {
        ensure!(row.iter().flatten().all(|text| !text.is_empty()), "{row:?}");
    }
    // It writes nothing: it can be asked where nothing can be written.
    admin.rows("BEGIN READ ONLY; SELECT * FROM oidc.doctor(); COMMIT")?;
    // What a session sets is not what it looks at.
    admin.rows(
        "SET standard_conforming_strings = off; SET search_path = ''; SET escape_string_warning = off",
    )?;
    finds(&admin, &[])
}

#[test]
fn not_preloaded() -> Result<()> {
    let cluster = Cluster::builder(Server::shared()?).plain().start()?;
    let stage = Stage { cluster };
    let admin = stage.admin()?;
    admin.rows("CREATE EXTENSION pg_oidc")?;
    let alone = "library_preloaded fail: The library is not preloaded: no token is accepted, and the guarded HBA \
                 file is not in use.";
    finds(&admin, &[alone])?;
    stage.trio("main")?;
    finds(&admin, &[alone])?;
    // The rows are looked at all the same.
    admin.rows("ALTER ROLE main NOLOGIN")?;
    let role =
        "rule_roles fail: Rule 1 gives nothing, for role \"main\": The role is not permitted to log in.";
    finds(&admin, &[alone, role])
}

#[test]
fn another_database() -> Result<()> {
    let stage = well(|builder| builder)?;
    stage.admin()?.rows("CREATE DATABASE other")?;
    let other = stage.cluster.admin_session_in("other")?;
    other.rows("CREATE EXTENSION pg_oidc")?;
    let elsewhere = "policy_database fail: This is database \"other\", the policy is in \"postgres\": providers and \
                     rules are not checked here.";
    finds(&other, &[elsewhere])?;
    // What is wrong with the policy is not told here, what is wrong with the server is.
    stage.admin()?.rows("ALTER ROLE main NOLOGIN")?;
    stage.cluster.set("pg_oidc.require_tls", "off")?;
    stage.cluster.reload()?;
    let tls = "tls warn: \"pg_oidc.require_tls\" is off: whoever reads a token on the network can use it.";
    finds(&stage.cluster.admin_session_in("other")?, &[elsewhere, tls])
}

#[test]
fn only_for_whom_it_was_granted() -> Result<()> {
    let stage = well(|builder| builder)?;
    let admin = stage.admin()?;
    let guest = stage.session("main", &good("main").sign(&keys().ec))?;
    let ask = "SELECT name, status, detail, hint FROM oidc.doctor()";
    assert_eq!(guest.error(ask)?.code, "42501");
    admin.rows("GRANT EXECUTE ON FUNCTION oidc.doctor() TO main")?;
    let pids = "SELECT regexp_replace(detail, 'pid \\d+', 'pid') FROM oidc.doctor()";
    assert_eq!(guest.rows(pids)?, admin.rows(pids)?, "the same answer, to the last word");
    for part in ["doctor_library()", "hba_facts()", "board_facts()", "rule_problem('{}')"] {
        assert_eq!(guest.error(&format!("SELECT * FROM oidc.{part}"))?.code, "42501", "{part}");
    }
    Ok(())
}

#[test]
fn many_findings_are_counted() -> Result<()> {
    let stage = well(|builder| builder)?;
    let admin = stage.admin()?;
    let many = |from: u32, to: u32| {
        let row = "SELECT 'main', jsonb_build_object('sub', n), 'gone_' || n";
        let series = format!("generate_series({from}, {to}) n");
        admin.rows(&format!("INSERT INTO oidc.role_mapping (provider, match, role) {row} FROM {series}"))
    };
    many(1, 20)?;
    let found = findings(&admin)?;
    assert_eq!(found.len(), 20);
    assert_eq!(
        (found.first().map(String::as_str), found.last().map(String::as_str)),
        (
            Some("rule_roles fail: Rule 2 gives nothing, for role \"gone_1\": The role does not exist."),
            Some("rule_roles fail: Rule 21 gives nothing, for role \"gone_20\": The role does not exist."),
        )
    );
    many(21, 25)?;
    let found = findings(&admin)?;
    assert_eq!((found.len(), found.last().map(String::as_str)), (21, Some("rule_roles fail: … and 5 more.")));
    admin.rows("DELETE FROM oidc.role_mapping WHERE role LIKE 'gone%'")?;
    finds(&admin, &[])
}

#[test]
fn a_part_that_cannot_be_looked_at() -> Result<()> {
    let stage = well(|builder| builder)?;
    let admin = stage.admin()?;
    admin.rows(&rule_with("main", &json!({ "sub": "x" }), "main", &[("databases", "'{gone}'")]))?;
    let rule =
        "rule_databases warn: Rule 2 names database \"gone\", which does not exist or takes no connections.";
    admin.rows("ALTER TABLE oidc.provider RENAME TO supplier")?;
    let lacking = "This could not be checked: relation \"oidc.provider\" does not exist.";
    let found = findings(&admin)?;
    for part in ["providers", "keys", "rule_roles", "people"] {
        ensure!(found.contains(&format!("{part} fail: {lacking}")), "{found:?}");
    }
    ensure!(found.iter().any(|found| found == rule), "{found:?}");
    admin.rows("ALTER TABLE oidc.supplier RENAME TO provider")?;
    finds(
        &admin,
        &[
            rule,
            "rule_connect fail: Rule 2 gives nothing: role \"main\" has CONNECT on none of its databases.",
        ],
    )
}
