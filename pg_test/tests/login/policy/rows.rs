//! Rows that are refused, at INSERT and at UPDATE, with message, detail and hint.
//!
//! 1. Columns of a provider that are not acted on yet.
//! 2. Columns and operators of a rule that are not acted on yet.
//! 3. Tables that are not acted on yet.
//! 4. Providers that cannot be right.
//! 5. Rules that cannot be right.

use anyhow::{Result, ensure};
use pg_oidc_test::client::{Session, Told};
use pg_oidc_test::keys::{jwks, keys};
use serde_json::json;

use super::stage;
use crate::scene::{issuer, provider_sql, rule_sql, rule_with, text};

/// Tries a column at INSERT and at UPDATE; both are refused in the same words, which are given.
fn refused_column(
    admin: &Session,
    insert: &str,
    table: &str,
    key: &str,
    column: &str,
    value: &str,
) -> Result<Told> {
    let inserted = admin.error(insert)?;
    let updated = admin.error(&format!("UPDATE {table} SET {column} = {value} WHERE {key}"))?;
    let words = |told: &Told| (told.code.clone(), told.message.clone(), told.hint.clone());
    ensure!(words(&inserted) == words(&updated), "{column} = {value}: {inserted:?} and {updated:?}");
    assert_eq!(inserted.severity, "ERROR");
    Ok(inserted)
}

fn refused_in_provider(admin: &Session, name: &str, column: &str, value: &str) -> Result<Told> {
    let keys = text(&jwks(&[&keys().ec]));
    let other = format!("{name}x");
    let sql = provider_sql(&other, &issuer(&other), &[("jwks", keys.as_str()), (column, value)]);
    let row = format!("name = '{name}'");
    refused_column(admin, &sql, "oidc.provider", &row, column, value)
}

fn refused_in_rule(admin: &Session, name: &str, column: &str, value: &str) -> Result<Told> {
    let sql = rule_with(name, &json!({}), name, &[(column, value)]);
    refused_column(admin, &sql, "oidc.role_mapping", &format!("provider = '{name}'"), column, value)
}

fn is_clear(told: &Told, message: &str) {
    assert_eq!(told.message, message);
    assert!(told.detail.is_some() && told.hint.is_some(), "{told:?}");
    assert_eq!(told.code, "23514", "{told:?}");
}

/// Core's own words for a null in a column that must have a value.
fn is_null(told: &Told, column: &str) {
    assert_eq!(told.code, "23502", "{told:?}");
    assert!(told.message.starts_with(&format!("null value in column \"{column}\" ")), "{told:?}");
}

#[test]
fn provider_columns_not_acted_on() -> Result<()> {
    stage().trio("soon")?;
    let admin = stage().admin()?;
    let columns = [
        ("identity_pattern", "'^(.*)@corp\\.example$'"),
        ("identity_role", "'\\1'"),
        ("auto_provision", "true"),
        ("base_role", "'soon'"),
        ("session_limit", "'token'"),
        ("session_limit", "'8 hours'"),
        ("session_limit", "'None'"),
        ("session_limit", "''"),
    ];
    for (column, value) in columns {
        let told = refused_in_provider(&admin, "soon", column, value)?;
        is_clear(&told, &format!("\"{column}\" is not supported yet"));
    }
    admin
        .rows("UPDATE oidc.provider SET session_limit = 'none', auto_provision = false WHERE name = 'soon'")
        .map(drop)
}

#[test]
fn rule_columns_not_acted_on() -> Result<()> {
    stage().trio("soonrule")?;
    let admin = stage().admin()?;
    let columns = [
        ("effect", "'deny'", "\"effect\" deny"),
        ("role", "'team-\\1'", "a backslash in \"role\""),
        ("replication", "true", "\"replication\""),
        ("addresses", "'{10.0.0.0/8}'", "\"addresses\""),
        ("valid_from", "now()", "\"valid_from\""),
        ("valid_until", "'infinity'", "\"valid_until\""),
        ("session_limit", "'token'", "\"session_limit\""),
        ("match", "'{\"ref\": {\"glob\": \"refs/*\"}}'", "operator \"glob\" in member \"ref\" of \"match\""),
        ("match", "'{\"g\": {\"regex\": \"pg-(.+)\"}}'", "operator \"regex\" in member \"g\" of \"match\""),
        ("match", "'{\"amr\": {\"any\": [\"mfa\"]}}'", "operator \"any\" in member \"amr\" of \"match\""),
        ("match", "'{\"env\": {\"not\": \"dev\"}}'", "operator \"not\" in member \"env\" of \"match\""),
        ("match", "'{\"t\": {\"exists\": true}}'", "operator \"exists\" in member \"t\" of \"match\""),
        ("match", "'{\"t\": {}}'", "an empty object in member \"t\" of \"match\""),
        ("match", "'{\"t\": {\"a\": 1, \"b\": 2}}'", "operators \"a\", \"b\" in member \"t\" of \"match\""),
    ];
    for (column, value, what) in columns {
        let told = refused_in_rule(&admin, "soonrule", column, value)?;
        is_clear(&told, &format!("{what} is not supported yet"));
    }
    admin.rows("UPDATE oidc.role_mapping SET session_limit = 'none' WHERE provider = 'soonrule'").map(drop)
}

#[test]
fn tables_not_acted_on() -> Result<()> {
    stage().trio("soontable")?;
    let admin = stage().admin()?;
    let rows = [
        ("revocation", "(provider, subject) VALUES ('soontable', 'x')"),
        ("identity_role", "(provider, subject, role) VALUES ('soontable', 'x', 'x')"),
        ("granted_membership", "(role, member) VALUES ('x', 'y')"),
    ];
    for (table, row) in rows {
        let told = admin.error(&format!("INSERT INTO oidc.{table} {row}"))?;
        assert_eq!(told.message, format!("table \"oidc.{table}\" is not supported yet"));
        assert_eq!(told.code, "0A000");
        ensure!(told.detail.is_some(), "{told:?}");
        admin.rows("SET session_replication_role = replica")?;
        let replica = admin.error(&format!("INSERT INTO oidc.{table} {row}"))?;
        admin.rows("RESET session_replication_role")?;
        assert_eq!(replica, told);
    }
    Ok(())
}

#[test]
fn providers_that_cannot_be_right() -> Result<()> {
    stage().trio("wrong")?;
    let admin = stage().admin()?;
    let columns = [
        ("issuer", "'http://issuer.example'", "issuer"),
        ("issuer", "'issuer.example'", "issuer"),
        ("issuer", "'https://issuer.example/?q=1'", "issuer"),
        ("issuer", "''", "issuer"),
        ("jwks_uri", "'https://issuer.example/jwks'", "\"jwks\" and \"jwks_uri\" exclude each other"),
        ("jwks_uri", "'http://issuer.example/jwks'", "jwks_uri"),
        ("audiences", "'{}'", "\"audiences\" must name at least one audience"),
        ("audiences", "'{\"\"}'", "\"audiences\" must name at least one audience"),
        ("audiences", "'{NULL}'", "\"audiences\" must not contain nulls"),
        ("algorithms", "'{RS257}'", "algorithm \"RS257\" is not supported"),
        ("algorithms", "'{none}'", "algorithm \"none\" is not supported"),
        ("algorithms", "'{}'", "\"algorithms\" must name 1 to 9 algorithms"),
        ("identity_claim", "'/a~2'", "\"identity_claim\" names no claim"),
        ("identity_claim", "''", "\"identity_claim\" names no claim"),
        ("audience_claim", "'/~'", "\"audience_claim\" names no claim"),
        ("groups_claim", "''", "\"groups_claim\" names no claim"),
        ("required_claims", "'[]'", "\"required_claims\" must be a JSON object"),
        ("required_claims", "'{\"a\": {\"glob\": \"*\"}}'", "operator \"glob\""),
        ("accepted_typ", "'{}'", "\"accepted_typ\" must not be empty"),
        ("clock_skew", "'301 s'", "\"clock_skew\" must be between 0 and 300 seconds"),
        ("clock_skew", "'-1 s'", "\"clock_skew\" must be between 0 and 300 seconds"),
        ("max_token_age", "'0'", "\"max_token_age\" must be positive"),
        ("max_stale", "'59 s'", "\"max_stale\" must be at least 60 seconds"),
        ("ca_certificate", "'not PEM'", "\"ca_certificate\" is not a PEM certificate"),
        ("jwks", "'{\"keys\": []}'", "\"jwks\" has no usable key"),
        ("jwks", "'{}'", "\"jwks\" is not an acceptable key set"),
        ("jwks", "'[]'", "\"jwks\" is not an acceptable key set"),
    ];
    for (column, value, message) in columns {
        let told = refused_in_provider(&admin, "wrong", column, value)?;
        ensure!(told.message.contains(message), "{column} = {value}: {told:?}");
        assert_eq!(told.code, "23514", "{column} = {value}: {told:?}");
    }
    for column in ["name", "issuer", "audiences", "algorithms", "identity_claim", "clock_skew", "enabled"] {
        is_null(&refused_in_provider(&admin, "wrong", column, "NULL")?, column);
    }
    let told = admin.error("INSERT INTO oidc.provider (name, issuer) VALUES ('w', 'https://w.example')")?;
    is_null(&told, "audiences");
    let same = provider_sql("wrong2", &issuer("wrong"), &[]);
    assert_eq!(admin.error(&same)?.code, "23505");
    // The row that was there is still as it was.
    stage().accepted("wrong", &super::token("wrong"), "after all these")
}

#[test]
fn rules_that_cannot_be_right() -> Result<()> {
    stage().trio("wrongrule")?;
    let admin = stage().admin()?;
    let columns = [
        ("match", "'[]'", "\"match\" must be a JSON object"),
        ("match", "'\"x\"'", "\"match\" must be a JSON object"),
        ("match", "'null'", "\"match\" must be a JSON object"),
        ("match", "'{\"\": 1}'", "names no claim"),
        ("match", "'{\"/a~\": 1}'", "names no claim"),
        ("match", "'{\"a\": [1]}'", "must be a string, a number, true, false or null"),
        ("match", "'{\"scope\": \"a b\"}'", "can never match"),
        ("role", "NULL", "a rule that allows must name a role"),
        ("databases", "'{}'", "\"databases\" must name at least one database"),
        ("databases", "'{NULL}'", "\"databases\" must not contain nulls"),
        ("effect", "'maybe'", "\"effect\" must be 'allow' or 'deny'"),
    ];
    for (column, value, message) in columns {
        let told = refused_in_rule(&admin, "wrongrule", column, value)?;
        ensure!(told.message.contains(message), "{column} = {value}: {told:?}");
        assert_eq!(told.code, "23514", "{column} = {value}: {told:?}");
    }
    for column in ["provider", "match", "effect", "priority", "replication", "allow_privileged", "enabled"] {
        is_null(&refused_in_rule(&admin, "wrongrule", column, "NULL")?, column);
    }
    let told = admin.error(&rule_sql("wrongrule_nowhere", &json!({}), "wrongrule"))?;
    assert_eq!(told.code, "23503", "{told:?}");
    let told = admin.error("DELETE FROM oidc.provider WHERE name = 'wrongrule'")?;
    assert_eq!(told.code, "23503", "{told:?}");
    stage().accepted("wrongrule", &super::token("wrongrule"), "after all these")
}
