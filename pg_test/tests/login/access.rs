//! `oidc.access`: who gets what, in words. One server.
//!
//! 1. One row a rule that counts, denials first, then by priority; each column reads as it is.
//! 2. Rules that are disabled, and those of disabled providers, are not there.
//! 3. n128: PUBLIC may not read it. SELECT on it is enough, and shows nothing but its rows.
//! 4. n135: the words need no library that is preloaded.

use anyhow::{Result, ensure};
use pg_oidc_test::cluster::Cluster;
use pg_oidc_test::extension::Server;
use serde_json::{Value, json};

use crate::scene::{Stage, good, rule_with};

const COLUMNS: &str = "provider, effect, condition, role, databases, addresses, validity, comment";

fn rows(session: &pg_oidc_test::client::Session) -> Result<Vec<Vec<String>>> {
    let rows = session.rows("SELECT * FROM oidc.access")?;
    Ok(rows
        .into_iter()
        .map(|row| row.into_iter().map(|value| value.unwrap_or("-".to_owned())).collect())
        .collect())
}

#[test]
fn who_gets_what() -> Result<()> {
    let stage = Stage::start()?;
    let admin = stage.admin()?;
    admin.rows("CREATE ROLE analyst LOGIN; CREATE ROLE reader LOGIN; CREATE ROLE \"db-eu\" LOGIN; CREATE ROLE walsender LOGIN REPLICATION")?;
    for name in ["corp", "ci", "off"] {
        stage.provider(name)?;
    }
    admin.rows("UPDATE oidc.provider SET enabled = false WHERE name = 'off'")?;
    let rule = |provider: &str, claims: Value, role: &str, columns: &[(&str, &str)]| -> Result<()> {
        admin.rows(&rule_with(provider, &claims, role, columns)).map(drop)
    };
    rule(
        "corp",
        json!({ "groups": "analytics-read" }),
        "analyst",
        &[("comment", "'the analysts'"), ("databases", "'{app,\"Sales, EU\",all}'")],
    )?;
    rule(
        "corp",
        json!({ "groups": { "regex": "pg-(.+)" } }),
        "db-\\1",
        &[("priority", "50"), ("addresses", "'{10.0.0.0/8,::1/128}'")],
    )?;
    rule(
        "corp",
        json!({ "env": { "not": { "any": ["prod", "test"] } } }),
        "",
        &[("role", "NULL"), ("effect", "'deny'"), ("priority", "900"), ("replication", "NULL")],
    )?;
    rule(
        "corp",
        json!({}),
        "reader",
        &[("valid_from", "'2001-01-01 00:00+00'"), ("valid_until", "'2901-01-01 00:00+00'")],
    )?;
    rule(
        "corp",
        json!({ "sub": "x" }),
        "reader",
        &[("valid_until", "'2901-01-01 00:00+00'"), ("valid_from", "'-infinity'")],
    )?;
    rule(
        "corp",
        json!({ "sub": "y" }),
        "reader",
        &[("valid_from", "'2001-01-01 00:00+00'"), ("valid_until", "'infinity'")],
    )?;
    rule("corp", json!({ "sub": "off" }), "reader", &[("enabled", "false")])?;
    rule("off", json!({}), "reader", &[])?;
    rule(
        "ci",
        json!({ "ref": { "glob": "refs/heads/release-*" } }),
        "walsender",
        &[("replication", "true"), ("allow_privileged", "true")],
    )?;
    admin.rows("SET timezone = 'UTC'")?;
    let expected = [
        [
            "ci",
            "allow",
            "ref like \"refs/heads/release-*\"",
            "walsender",
            "all (replication)",
            "all",
            "always",
            "-",
        ],
        [
            "corp",
            "deny",
            "env is none of \"prod\", \"test\"",
            "-",
            "all (also replication)",
            "all",
            "always",
            "-",
        ],
        [
            "corp",
            "allow",
            "groups matches \"pg-(.+)\"",
            "db-\\1",
            "all",
            "10.0.0.0/8, ::1/128",
            "always",
            "-",
        ],
        [
            "corp",
            "allow",
            "groups has \"analytics-read\"",
            "analyst",
            "app, \"Sales, EU\", \"all\"",
            "all",
            "always",
            "the analysts",
        ],
        [
            "corp",
            "allow",
            "every token",
            "reader",
            "all",
            "all",
            "from 2001-01-01 00:00:00+00 until 2901-01-01 00:00:00+00",
            "-",
        ],
        ["corp", "allow", "sub is \"x\"", "reader", "all", "all", "until 2901-01-01 00:00:00+00", "-"],
        ["corp", "allow", "sub is \"y\"", "reader", "all", "all", "from 2001-01-01 00:00:00+00", "-"],
    ];
    assert_eq!(rows(&admin)?, expected);
    let names = "SELECT string_agg(attname, ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'oidc.access'::regclass";
    assert_eq!(admin.value(names)?.as_deref(), Some(COLUMNS));
    let described = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'oidc.access'::regclass \
                     AND col_description(attrelid, attnum) IS NULL";
    assert_eq!(admin.value(described)?.as_deref(), Some("0"));

    // SELECT is enough; whoever has it sees what the view shows, and no other rule through a function of her own.
    let guest = stage
        .session("reader", &good("corp").claim("env", json!("prod")).sign(&pg_oidc_test::keys::keys().ec))?;
    let told = guest.error("SELECT * FROM oidc.access")?;
    assert_eq!(told.code, "42501", "{told:?}");
    admin.rows("GRANT SELECT ON oidc.access TO reader; CREATE SCHEMA mine AUTHORIZATION reader")?;
    guest.rows("SET timezone = 'UTC'")?;
    assert_eq!(rows(&guest)?, expected);
    guest.rows(
        "CREATE TABLE mine.seen (condition text); \
         CREATE FUNCTION mine.leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS \
         'BEGIN INSERT INTO mine.seen VALUES ($1); RETURN true; END'; \
         SELECT * FROM oidc.access WHERE mine.leak(condition)",
    )?;
    let seen = guest.value("SELECT string_agg(condition, ';') FROM mine.seen")?.unwrap_or_default();
    ensure!(seen.contains("every token") && !seen.contains("off"), "{seen}");
    let told = guest.error("SELECT * FROM oidc.role_mapping")?;
    assert_eq!(told.code, "42501", "{told:?}");
    Ok(())
}

#[test]
fn n135_words_need_no_preloaded_library() -> Result<()> {
    let cluster = Cluster::builder(Server::shared()?).plain().start()?;
    let admin = cluster.admin_session()?;
    admin.rows("CREATE EXTENSION pg_oidc; CREATE ROLE reader")?;
    let words = |condition: &str| admin.value(&format!("SELECT oidc.condition_text('{condition}')"));
    assert_eq!(words("{\"n\": 9007199254740993}")?.as_deref(), Some("n is 9007199254740993"));
    // A view must not fail for one row.
    assert_eq!(words("[1, 2]")?.as_deref(), Some("[1, 2]"));
    assert_eq!(words("no JSON")?.as_deref(), Some("no JSON"));
    assert_eq!(admin.value("SELECT oidc.condition_text(NULL)")?, None);
    admin.rows(
        "INSERT INTO oidc.provider (name, issuer, audiences) VALUES ('a', 'https://a.example', '{a}')",
    )?;
    admin.rows(
        "INSERT INTO oidc.role_mapping (provider, match, role) VALUES ('a', '{\"sub\": \"x\"}', 'reader')",
    )?;
    assert_eq!(rows(&admin)?, [["a", "allow", "sub is \"x\"", "reader", "all", "all", "always", "-"]]);
    let document = admin.value("SELECT oidc.export_policy()")?.unwrap_or_default();
    admin.rows("DELETE FROM oidc.role_mapping; DELETE FROM oidc.provider")?;
    let made = admin
        .rows(&format!("SELECT * FROM oidc.apply_policy({}, false)", crate::scene::quoted(&document)))?;
    assert_eq!(made.len(), 2);
    assert_eq!(admin.value("SELECT oidc.export_policy()")?, Some(document));
    Ok(())
}
