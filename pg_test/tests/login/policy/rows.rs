//! Rows that are refused, at INSERT and at UPDATE, with message, detail and hint.
//!
//! 1. Providers that cannot be right.
//! 2. Rules that cannot be right, column by column, and columns that do not go together.

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

/// Core's own words for a null in a column that must have a value.
fn is_null(told: &Told, column: &str) {
    assert_eq!(told.code, "23502", "{told:?}");
    assert!(told.message.starts_with(&format!("null value in column \"{column}\" ")), "{told:?}");
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
        ("required_claims", "'{\"a\": {\"like\": \"*\"}}'", "has the unknown operator \"like\""),
        ("required_claims", "'{\"a\": {\"regex\": \"(\"}}'", "that cannot be compiled"),
        ("accepted_typ", "'{}'", "\"accepted_typ\" must not be empty"),
        ("clock_skew", "'301 s'", "\"clock_skew\" must be between 0 and 300 seconds"),
        ("clock_skew", "'-1 s'", "\"clock_skew\" must be between 0 and 300 seconds"),
        ("max_token_age", "'0'", "\"max_token_age\" must be positive"),
        ("max_stale", "'59 s'", "\"max_stale\" must be at least 60 seconds"),
        ("identity_pattern", "'(.+)'", "\"identity_pattern\" and \"identity_role\" must be set together"),
        ("identity_role", "'\\1'", "\"identity_pattern\" and \"identity_role\" must be set together"),
        ("auto_provision", "true", "\"auto_provision\" needs \"identity_pattern\" and \"identity_role\""),
        ("base_role", "''", "\"base_role\" must have 1 to 63 bytes"),
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
        ("match", "'{\"a\": [1]}'", "member \"a\" of \"match\" must not be an array"),
        ("match", "'{\"a\": {}}'", "has an empty object"),
        ("match", "'{\"a\": {\"any\": [1], \"not\": 1}}'", "has more than one operator in one object"),
        ("match", "'{\"a\": {\"like\": \"x%\"}}'", "has the unknown operator \"like\""),
        ("match", "'{\"a\": {\"any\": []}}'", "can never match"),
        ("match", "'{\"a\": {\"exists\": 1}}'", "operator \"exists\" with a value of the wrong type"),
        ("match", "'{\"a\": {\"glob\": 1}}'", "operator \"glob\" with a value of the wrong type"),
        ("match", "'{\"a\": {\"regex\": \"a)|(?:b\"}}'", "has a regular expression that cannot be compiled"),
        ("match", "'{\"a\": {\"regex\": \"(?x)a #\"}}'", "has a regular expression that cannot be compiled"),
        (
            "match",
            "'{\"a\": {\"not\": {\"regex\": \"(?!a)\"}}}'",
            "has a regular expression that cannot be compiled",
        ),
        ("match", "'{\"scope\": \"a b\"}'", "can never match"),
        ("match", "'{\"scope\": {\"any\": [\"a\", \"a b\"]}}'", "can never match"),
        ("role", "NULL", "a rule that allows must name a role"),
        ("role", "'team-\\1'", "role \"team-\\\\1\" needs exactly one regular expression"),
        ("role", "'team-\\2'", "role \"team-\\\\2\" refers to another group than \\1"),
        ("effect", "'deny'", "a rule that denies must not name a role"),
        ("replication", "NULL", "\"replication\" of a rule that allows must be true or false"),
        ("addresses", "'{}'", "\"addresses\" must hold at least one network"),
        ("addresses", "'{NULL}'", "\"addresses\" must not contain nulls"),
        ("addresses", "'{10.0.0.0/8,10.0.0.0/8}'", "\"addresses\" contains \"10.0.0.0/8\" twice"),
        ("valid_from", "'infinity'", "\"valid_until\" must be later than \"valid_from\""),
        ("valid_until", "'-infinity'", "\"valid_until\" must be later than \"valid_from\""),
        ("databases", "'{\"\"}'", "\"databases\" must name at least one database"),
        ("databases", "'{a,a}'", "\"databases\" contains \"a\" twice"),
        ("databases", "'{}'", "\"databases\" must name at least one database"),
        ("databases", "'{NULL}'", "\"databases\" must not contain nulls"),
        ("effect", "'maybe'", "\"effect\" must be 'allow' or 'deny'"),
    ];
    for (column, value, message) in columns {
        let told = refused_in_rule(&admin, "wrongrule", column, value)?;
        ensure!(told.message.contains(message), "{column} = {value}: {told:?}");
        assert_eq!(told.code, "23514", "{column} = {value}: {told:?}");
    }
    for column in ["provider", "match", "effect", "priority", "allow_privileged", "enabled"] {
        is_null(&refused_in_rule(&admin, "wrongrule", column, "NULL")?, column);
    }
    let told = admin.error(&rule_sql("wrongrule_nowhere", &json!({}), "wrongrule"))?;
    assert_eq!(told.code, "23503", "{told:?}");
    let told = admin.error("DELETE FROM oidc.provider WHERE name = 'wrongrule'")?;
    assert_eq!(told.code, "23503", "{told:?}");
    stage().accepted("wrongrule", &super::token("wrongrule"), "after all these")
}

#[test]
fn columns_that_do_not_go_together() -> Result<()> {
    stage().trio("together")?;
    let admin = stage().admin()?;
    let group = json!({ "g": { "regex": "pg-(.+)" } });
    let deny = [("effect", "'deny'"), ("role", "NULL")];
    let refused = [
        (
            group.clone(),
            "\\1",
            vec![("allow_privileged", "true")],
            "must not be combined with \"allow_privileged\"",
        ),
        (json!({ "g": { "regex": "pg-.+" } }), "\\1", vec![], "needs a group in the regular expression"),
        (json!({ "g": { "glob": "pg-*" } }), "\\1", vec![], "needs exactly one regular expression"),
        (
            json!({ "g": { "not": { "regex": "(.+)" } } }),
            "\\1",
            vec![],
            "needs exactly one regular expression",
        ),
        (
            json!({ "g": { "any": [{ "regex": "(.+)" }] } }),
            "\\1",
            vec![],
            "needs exactly one regular expression",
        ),
        (json!({ "g": { "regex": "(.+)" }, "h": { "regex": "x" } }), "\\1", vec![], "needs exactly one"),
        (group.clone(), "\\1\\2", vec![], "refers to another group than \\1"),
        (group.clone(), "\\0", vec![], "refers to another group than \\1"),
        (group.clone(), "\\10", vec![], ""),
        (group.clone(), "a b\\1", vec![], "can never be given"),
        (group.clone(), "é\\1", vec![], "can never be given"),
        (group.clone(), "\\x\\1", vec![], "can never be given"),
        (group.clone(), "pg_\\1", vec![], "is reserved"),
        (
            group.clone(),
            "",
            vec![("valid_from", "'2030-01-01'"), ("valid_until", "'2030-01-01'")],
            "must be later",
        ),
        (
            json!({}),
            "",
            [&deny[..], &[("allow_privileged", "true")]].concat(),
            "must not set \"allow_privileged\"",
        ),
        (json!({ "g": { "regex": "(" } }), "", deny.to_vec(), "that cannot be compiled"),
        (json!({ "g": ["x"] }), "", [&deny[..], &[("enabled", "false")]].concat(), "must not be an array"),
    ];
    for (claims, role, columns, message) in refused {
        let role = if role.is_empty() { "together" } else { role };
        let sql = rule_with("together", &claims, role, &columns);
        if message.is_empty() {
            // The group, and a character after it.
            admin.rows(&sql)?;
            continue;
        }
        let told = admin.error(&sql)?;
        ensure!(told.message.contains(message), "{sql}: {told:?}");
        assert_eq!(told.code, "23514", "{sql}: {told:?}");
    }
    let accepted = [
        (group.clone(), "x-\\1", vec![]),
        (group, "together", vec![("allow_privileged", "true")]),
        (json!({}), "", deny.to_vec()),
        (json!({ "nobody": 1 }), "", [&deny[..], &[("replication", "NULL")]].concat()),
        (json!({}), "back\\slash", vec![]),
    ];
    for (claims, role, columns) in accepted {
        admin.rows(&rule_with("together", &claims, role, &columns))?;
    }
    // A network with bits beside its mask is the type's own business.
    let told =
        admin.error("UPDATE oidc.role_mapping SET addresses = '{10.0.0.1/8}' WHERE provider = 'together'")?;
    assert_eq!((told.code.as_str(), told.message.as_str()), ("22P02", "invalid cidr value: \"10.0.0.1/8\""));
    Ok(())
}
