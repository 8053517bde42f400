//! The checks of rules, of the roles that they give and of what they match.

use anyhow::{Result, ensure};
use pg_oidc_test::client::Session;
use serde_json::{Value, json};

use super::{findings, finds, provoked, well};
use crate::scene::{rule_with, text};

/// The columns of a rule that denies.
const DENY: [(&str, &str); 2] = [("role", "NULL"), ("effect", "'deny'")];

/// A rule of `main` that gives role `main` to whom these claims match; gives its number.
fn insert(admin: &Session, claims: &Value, columns: &[(&str, &str)]) -> Result<String> {
    Ok(admin.value(&rule_with("main", claims, "main", columns))?.unwrap_or_default())
}

/// The same, and what the doctor says to it.
fn rule(admin: &Session, claims: &Value, columns: &[(&str, &str)]) -> Result<(String, Vec<String>)> {
    Ok((insert(admin, claims, columns)?, findings(admin)?))
}

fn delete(admin: &Session, id: &str) -> Result<()> {
    admin.rows(&format!("DELETE FROM oidc.role_mapping WHERE id = {id}"))?;
    finds(admin, &[])
}

#[test]
fn rules_that_do_not_compile() -> Result<()> {
    let stage = well(|builder| builder)?;
    let admin = stage.admin()?;
    let unchecked = |sql: &str| {
        admin.rows(&format!(
            "ALTER TABLE oidc.role_mapping DISABLE TRIGGER check_row, DISABLE TRIGGER check_stored_row; {sql}; \
             ALTER TABLE oidc.role_mapping ENABLE ALWAYS TRIGGER check_row, ENABLE ALWAYS TRIGGER check_stored_row"
        ))
    };
    unchecked(
        "INSERT INTO oidc.role_mapping (provider, match, role, role_oid) VALUES ('main', '[]', 'main', 'main'::regrole)",
    )?;
    let allow = "rule_rows fail: Rule 2 does not compile and gives nothing: \"match\" must be a JSON object";
    let found = findings(&admin)?;
    ensure!(matches!(&found[..], [one] if one.starts_with(allow)), "{found:?}");
    unchecked("INSERT INTO oidc.role_mapping (provider, match, effect) VALUES ('main', '7', 'deny')")?;
    let deny =
        "rule_rows fail: Rule 3 denies and does not compile; every login of provider \"main\" is refused: ";
    let found = findings(&admin)?;
    ensure!(matches!(&found[..], [one, two] if one.starts_with(allow) && two.starts_with(deny)), "{found:?}");
    admin.rows("UPDATE oidc.role_mapping SET enabled = false, match = '{\"sub\": \"x\"}' WHERE id > 1")?;
    finds(&admin, &[])
}

#[test]
fn roles_that_a_token_does_not_open() -> Result<()> {
    let stage = well(|builder| builder)?;
    let admin = stage.admin()?;
    let cases = [
        ("ALTER ROLE main NOLOGIN", "ALTER ROLE main LOGIN", "The role is not permitted to log in."),
        (
            "ALTER ROLE main VALID UNTIL 'yesterday'",
            "ALTER ROLE main VALID UNTIL 'infinity'",
            "The role is past its VALID UNTIL.",
        ),
        (
            "ALTER ROLE main BYPASSRLS",
            "ALTER ROLE main NOBYPASSRLS",
            "The role is privileged, and the rule does not say allow_privileged. The role \"main\" has BYPASSRLS.",
        ),
        ("ALTER ROLE main RENAME TO other", "ALTER ROLE other RENAME TO main", "The role does not exist."),
        (
            "DROP ROLE main; CREATE ROLE main LOGIN",
            "UPDATE oidc.role_mapping SET role = role",
            "The role was dropped and made anew since the rule was written; write the rule again.",
        ),
    ];
    for (change, back, problem) in cases {
        let found = format!("rule_roles fail: Rule 1 gives nothing, for role \"main\": {problem}");
        provoked(&admin, change, back, &[&found])?;
    }
    // What is not in use is not looked at.
    admin.rows("ALTER ROLE main NOLOGIN; UPDATE oidc.role_mapping SET enabled = false")?;
    admin.rows("UPDATE oidc.provider SET enabled = false")?;
    finds(&admin, &[])
}

#[test]
fn privileged_roles_that_are_allowed() -> Result<()> {
    let stage = well(|builder| builder)?;
    let admin = stage.admin()?;
    let allow = |yes: bool| format!("UPDATE oidc.role_mapping SET allow_privileged = {yes}");
    let idle = "rule_privileges warn: Rule 1 says allow_privileged, which role \"main\" does not need.";
    provoked(&admin, &allow(true), &allow(false), &[idle])?;
    provoked(
        &admin,
        &format!("ALTER ROLE main CREATEROLE; {}", allow(true)),
        &format!("ALTER ROLE main NOCREATEROLE; {}", allow(false)),
        &["rule_privileges warn: Rule 1 gives a privileged role: role \"main\" has CREATEROLE."],
    )
}

#[test]
fn roles_without_connect() -> Result<()> {
    let stage = well(|builder| builder)?;
    let admin = stage.admin()?;
    admin.rows("CREATE DATABASE closed")?;
    admin.rows("REVOKE CONNECT ON DATABASE closed FROM PUBLIC")?;
    finds(&admin, &[])?;
    let found =
        "rule_connect fail: Rule 1 gives nothing: role \"main\" has CONNECT on none of its databases.";
    let only = |databases: &str| format!("UPDATE oidc.role_mapping SET databases = {databases}");
    provoked(&admin, &only("'{closed}'"), &only("'{closed, postgres}'"), &[found])?;
    admin.rows(&only("'{closed}'"))?;
    admin.rows("CREATE ROLE door; GRANT CONNECT ON DATABASE closed TO door; GRANT door TO main")?;
    finds(&admin, &[])?;
    // All databases, and none of them open.
    admin.rows(&only("NULL"))?;
    provoked(
        &admin,
        "REVOKE door FROM main; REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC",
        "GRANT CONNECT ON DATABASE postgres TO PUBLIC",
        &[found],
    )
}

#[test]
fn databases_that_are_not_there() -> Result<()> {
    let stage = well(|builder| builder)?;
    let admin = stage.admin()?;
    let only = |databases: &str| format!("UPDATE oidc.role_mapping SET databases = {databases}");
    provoked(
        &admin,
        &only("'{postgres, warehouse, template0}'"),
        &only("'{postgres}'"),
        &[
            "rule_databases warn: Rule 1 names database \"template0\", which does not exist or takes no connections.",
            "rule_databases warn: Rule 1 names database \"warehouse\", which does not exist or takes no connections.",
        ],
    )
}

#[test]
fn rules_that_are_over() -> Result<()> {
    let stage = well(|builder| builder)?;
    let admin = stage.admin()?;
    let until =
        |time: &str| format!("SET timezone = 'UTC'; UPDATE oidc.role_mapping SET valid_until = {time}");
    provoked(
        &admin,
        &until("'2020-01-02 03:04:05'"),
        &until("'2999-01-01'"),
        &["rule_validity warn: Rule 1 has been over since 2020-01-02 03:04:05+00."],
    )?;
    admin.rows(&until("NULL, valid_from = '2999-01-01'"))?;
    finds(&admin, &[])
}

#[test]
fn patterns_without_an_edge() -> Result<()> {
    let stage = well(|builder| builder)?;
    let admin = stage.admin()?;
    let open = [
        ("regex", ".*"),
        ("regex", "(.*)"),
        ("regex", ".*admin.*"),
        ("regex", ".+-admin-.*?"),
        ("regex", "^(?:.*dba.*)$"),
        ("glob", "*"),
        ("glob", "**"),
        ("glob", "**admin**"),
    ];
    let mut wanted = Vec::new();
    for (kind, pattern) in open {
        for test in [json!({ kind: pattern }), json!({ "any": ["a", { kind: pattern }] })] {
            let id = insert(&admin, &json!({ "groups": test }), &[])?;
            let found = format!("Rule {id}: {kind} \"{pattern}\" fits whatever stands around it.");
            wanted.push(format!("open_patterns warn: {found}"));
        }
    }
    let closed = [
        ("regex", "pg-.*"),
        ("regex", ".*@corp\\.example"),
        ("regex", "\\.*a.*"),
        ("regex", "[.*]"),
        ("glob", "refs/heads/**"),
        ("glob", "**/main"),
        ("glob", "team-*"),
    ];
    for (kind, pattern) in closed {
        insert(&admin, &json!({ "groups": { kind: pattern } }), &[])?;
    }
    // Under "not", and in a rule that denies, the widest is the safest.
    insert(&admin, &json!({ "sub": "x", "groups": { "not": { "regex": ".*admin.*" } } }), &[])?;
    insert(&admin, &json!({ "groups": { "regex": ".*boss.*" } }), &DENY)?;
    assert_eq!(findings(&admin)?, wanted);
    Ok(())
}

#[test]
fn rules_that_say_the_same() -> Result<()> {
    let stage = well(|builder| builder)?;
    let admin = stage.admin()?;
    let claims = json!({ "sub": "main" });
    let (id, found) = rule(&admin, &claims, &[])?;
    assert_eq!(
        found,
        [format!("repeated_rules warn: Rule {id} never decides: rule 1 says the same and comes first.")]
    );
    delete(&admin, &id)?;
    // The one that comes first is by priority.
    let (id, found) = rule(&admin, &claims, &[("priority", "1")])?;
    assert_eq!(
        found,
        [format!("repeated_rules warn: Rule 1 never decides: rule {id} says the same and comes first.")]
    );
    delete(&admin, &id)?;
    for columns in [
        ("databases", "'{postgres}'"),
        ("addresses", "'{10.0.0.0/8}'"),
        ("valid_until", "'2999-01-01'"),
        ("enabled", "false"),
    ] {
        let (id, found) = rule(&admin, &claims, &[columns])?;
        assert_eq!(found, [""; 0], "{columns:?}");
        delete(&admin, &id)?;
    }
    Ok(())
}

#[test]
fn rules_that_deny() -> Result<()> {
    let stage = well(|builder| builder)?;
    let admin = stage.admin()?;
    let (id, found) = rule(&admin, &json!({ "sub": "main" }), &DENY)?;
    assert_eq!(found, [format!("denied_rules warn: Rule 1 allows just what rule {id} denies.")]);
    delete(&admin, &id)?;
    let (id, found) = rule(&admin, &json!({}), &DENY)?;
    assert_eq!(
        found,
        [format!("deny_all warn: Rule {id} matches every token of provider \"main\" and denies.")]
    );
    delete(&admin, &id)?;
    let (_, found) = rule(&admin, &json!({ "sub": "somebody else" }), &DENY)?;
    assert_eq!(found, [""; 0]);
    // What everybody is allowed is no mistake by itself.
    admin.rows(&format!(
        "INSERT INTO oidc.role_mapping (provider, match, role) VALUES ('main', {}, 'main')",
        text(&json!({}))
    ))?;
    finds(&admin, &[])
}
