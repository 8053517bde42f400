//! The checks of people's own roles: passwords, powers, bindings, memberships, what carries CONNECT and settings.

use anyhow::{Result, ensure};
use pg_oidc_test::client::Session;
use pg_oidc_test::keys::keys;
use serde_json::json;

use super::{findings, finds, provoked, well};
use crate::scene::{Stage, good};

/// As [`well`], with a provider `main` that makes roles of subjects, and a person who has come in: `ann`, with the role
/// `main`, which nobody can ask for.
fn peopled() -> Result<(Stage, Session)> {
    let stage = well(|builder| builder)?;
    let admin = stage.admin()?;
    admin.rows(
        "UPDATE oidc.provider SET identity_pattern = '(.+)', identity_role = '\\1', auto_provision = true; \
         UPDATE oidc.role_mapping SET match = '{\"groups\": \"staff\"}'; ALTER ROLE main NOLOGIN",
    )?;
    let token = good("main").claim("sub", json!("ann")).groups(&["staff"]).sign(&keys().ec);
    let seen = stage.login("ann", &token).run("SELECT session_user, current_user")?;
    ensure!(seen.rows() == [["ann", "main"]], "{seen:?}");
    Ok((stage, admin))
}

fn before_16(admin: &Session) -> Result<bool> {
    Ok(admin.value("SELECT current_setting('server_version_num')::int < 160000")?.as_deref() == Some("t"))
}

#[test]
fn a_role_without_login_is_given_to_people() -> Result<()> {
    let (_stage, admin) = peopled()?;
    finds(&admin, &[])?;
    let found = "rule_roles fail: Rule 1 gives nothing, for role \"main\": The role is privileged, and the rule does not \
                 say allow_privileged. The role \"main\" has CREATEROLE.";
    provoked(&admin, "ALTER ROLE main CREATEROLE", "ALTER ROLE main NOCREATEROLE", &[found])?;
    // Without people nobody could be given it.
    admin.rows("DELETE FROM oidc.granted_membership; DELETE FROM oidc.identity_role")?;
    admin.rows("DROP ROLE ann; UPDATE oidc.provider SET auto_provision = false")?;
    finds(
        &admin,
        &["rule_roles fail: Rule 1 gives nothing, for role \"main\": The role is not permitted to log in."],
    )
}

#[test]
fn passwords() -> Result<()> {
    let (stage, admin) = peopled()?;
    let own = "token_passwords fail: Role \"ann\", the own role of \"ann\", has a password.";
    provoked(&admin, "ALTER ROLE ann PASSWORD 'x'", "ALTER ROLE ann PASSWORD NULL", &[own])?;
    let given = "token_passwords fail: Role \"main\", which rule 1 gives, has a password.";
    let (set, unset) = ("ALTER ROLE main PASSWORD 'x'", "ALTER ROLE main PASSWORD NULL");
    provoked(&admin, set, unset, &[given])?;
    // Somebody else's, and that of a rule that does not count.
    admin.rows("CREATE ROLE stranger PASSWORD 'x'")?;
    finds(&admin, &[])?;
    // While both are meant to work.
    admin.rows(set)?;
    stage.cluster.set("pg_oidc.password_fallback", "on")?;
    stage.cluster.reload()?;
    let admin = stage.admin()?;
    ensure!(!findings(&admin)?.iter().any(|found| found.contains("token_passwords")));
    admin.rows("ALTER ROLE ann PASSWORD 'x'")?;
    ensure!(findings(&admin)?.iter().any(|found| found == own), "a person's is never meant to work");
    Ok(())
}

#[test]
fn n113_an_identity_that_passes_to_somebody_else() -> Result<()> {
    let (_stage, admin) = peopled()?;
    let found = "identity_claims warn: Provider \"main\" takes the identity from \"preferred_username\", which can change, \
                 or pass to somebody else, who is then refused as long as the first one has her role.";
    let set = |claim: &str| format!("UPDATE oidc.provider SET identity_claim = '{claim}'");
    provoked(&admin, &set("preferred_username"), &set("sub"), &[found])
}

#[test]
fn powers_of_a_persons_own_role() -> Result<()> {
    let (_stage, admin) = peopled()?;
    admin.rows("CREATE ROLE strong CREATEROLE; CREATE ROLE weak; CREATE ROLE between")?;
    let cases = [
        ("ALTER ROLE ann SUPERUSER", "ALTER ROLE ann NOSUPERUSER", "it is a superuser"),
        ("ALTER ROLE ann CREATEROLE", "ALTER ROLE ann NOCREATEROLE", "it has CREATEROLE"),
        ("ALTER ROLE ann REPLICATION", "ALTER ROLE ann NOREPLICATION", "it has REPLICATION"),
        ("ALTER ROLE ann BYPASSRLS", "ALTER ROLE ann NOBYPASSRLS", "it has BYPASSRLS"),
        (
            "ALTER DATABASE postgres OWNER TO ann",
            "ALTER DATABASE postgres OWNER TO postgres",
            "it owns the policy database",
        ),
        ("GRANT strong TO ann", "REVOKE strong FROM ann", "role \"strong\" has CREATEROLE"),
        (
            "GRANT pg_write_all_data TO weak; GRANT weak TO ann",
            "REVOKE weak FROM ann; REVOKE pg_write_all_data FROM weak",
            "role \"pg_write_all_data\" is a predefined role with powers",
        ),
    ];
    for (change, back, power) in cases {
        let found =
            format!("person_privileges fail: Role \"ann\", the own role of \"ann\", is privileged: {power}.");
        provoked(&admin, change, back, &[&found])?;
    }
    admin.rows("GRANT weak TO ann")?;
    finds(&admin, &[])?;
    if before_16(&admin)? {
        let inherits = "person_privileges fail: Role \"ann\", the own role of \"ann\", is privileged: it inherits, so that \
                        she would have more than her token gives, and is refused.";
        provoked(&admin, "ALTER ROLE ann INHERIT", "ALTER ROLE ann NOINHERIT", &[inherits])?;
    }
    // Where a rule means it to be so.
    admin.rows("ALTER ROLE ann CREATEROLE; UPDATE oidc.role_mapping SET allow_privileged = true")?;
    let found = findings(&admin)?;
    let meant =
        "person_privileges warn: Role \"ann\", the own role of \"ann\", is privileged: it has CREATEROLE.";
    ensure!(found.iter().any(|found| found == meant), "{found:?}");
    Ok(())
}

#[test]
fn bindings_without_their_role() -> Result<()> {
    let (_stage, admin) = peopled()?;
    provoked(
        &admin,
        "ALTER ROLE ann RENAME TO anna",
        "ALTER ROLE anna RENAME TO ann",
        &[
            "person_bindings fail: Role \"ann\", the own role of \"ann\", is now called \"anna\": she is refused.",
        ],
    )?;
    admin.rows("REVOKE main FROM ann; DELETE FROM oidc.granted_membership")?;
    provoked(
        &admin,
        "DROP ROLE ann",
        "CREATE ROLE ann LOGIN NOINHERIT; UPDATE oidc.identity_role SET role = role",
        &["person_bindings fail: Role \"ann\", the own role of \"ann\", does not exist: she is refused."],
    )?;
    provoked(
        &admin,
        "DROP ROLE ann; CREATE ROLE ann LOGIN NOINHERIT",
        "UPDATE oidc.identity_role SET role = role",
        &[
            "person_bindings fail: Role \"ann\", the own role of \"ann\", was made anew since: she is refused.",
        ],
    )
}

#[test]
fn rules_that_give_a_persons_own_role() -> Result<()> {
    let (_stage, admin) = peopled()?;
    provoked(
        &admin,
        "INSERT INTO oidc.role_mapping (provider, match, role) VALUES ('main', '{\"sub\": \"bob\"}', 'ann')",
        "DELETE FROM oidc.role_mapping WHERE role = 'ann'",
        &["person_rules fail: Rule 2 gives nothing: role \"ann\" is the own role of \"ann\"."],
    )
}

#[test]
fn memberships_that_are_gone() -> Result<()> {
    let (_stage, admin) = peopled()?;
    provoked(
        &admin,
        "REVOKE main FROM ann",
        "GRANT main TO ann",
        &["person_memberships warn: Role \"ann\" is not a member of \"main\" any more."],
    )
}

#[test]
fn base_roles() -> Result<()> {
    let (_stage, admin) = peopled()?;
    let base = |role: &str| format!("UPDATE oidc.provider SET base_role = {role}");
    provoked(
        &admin,
        &base("'everybody'"),
        &base("NULL"),
        &["base_roles warn: Role \"everybody\", the base_role of provider \"main\", does not exist."],
    )?;
    admin.rows("CREATE ROLE everybody")?;
    let power = "base_roles fail: Role \"everybody\", the base_role of provider \"main\", is privileged, and its people \
                 are refused: role \"everybody\" has BYPASSRLS.";
    provoked(
        &admin,
        &format!("ALTER ROLE everybody BYPASSRLS; {}", base("'everybody'")),
        &format!("ALTER ROLE everybody NOBYPASSRLS; {}", base("NULL")),
        &[power],
    )?;
    if before_16(&admin)? {
        let carries_nothing = "base_roles warn: Role \"everybody\", the base_role of provider \"main\", gives its people no \
                               CONNECT: before PostgreSQL 16 their roles inherit nothing.";
        provoked(&admin, &base("'everybody'"), &base("NULL"), &[carries_nothing])?;
    } else {
        admin.rows(&base("'everybody'"))?;
        finds(&admin, &[])?;
    }
    Ok(())
}

#[test]
fn n138_people_without_connect() -> Result<()> {
    let (_stage, admin) = peopled()?;
    admin.rows("CREATE DATABASE app")?;
    admin.rows("CREATE DATABASE other")?;
    admin.rows("CREATE ROLE everybody; GRANT CONNECT ON DATABASE app TO everybody")?;
    finds(&admin, &[])?;
    let found = "person_connect warn: People of provider \"main\" have no CONNECT on database \"app\", unless it is granted \
                 to each of them.";
    let (close, open) =
        ("REVOKE CONNECT ON DATABASE app FROM PUBLIC", "GRANT CONNECT ON DATABASE app TO PUBLIC");
    provoked(&admin, close, open, &[found])?;
    admin.rows(close)?;
    // Not where no rule counts.
    let only = |databases: &str| format!("UPDATE oidc.role_mapping SET databases = {databases}");
    provoked(&admin, &only("'{app}'"), &only("'{postgres, other}'"), &[found])?;
    admin.rows(&only("'{app}'"))?;
    if before_16(&admin)? {
        // No base role helps there. Those who are bound may each have it.
        admin.rows("UPDATE oidc.provider SET auto_provision = false")?;
        finds(&admin, &[found])?;
        admin.rows("GRANT CONNECT ON DATABASE app TO ann")?;
    } else {
        admin.rows("UPDATE oidc.provider SET base_role = 'everybody'")?;
    }
    finds(&admin, &[])
}

#[test]
fn settings_that_do_not_count() -> Result<()> {
    let (_stage, admin) = peopled()?;
    let cases = [
        (
            "ALTER ROLE main SET work_mem = '8MB'",
            "ALTER ROLE main RESET ALL",
            "settings of its own (ALTER ROLE … SET)",
        ),
        (
            "ALTER ROLE main IN DATABASE postgres SET work_mem = '8MB'",
            "ALTER ROLE main IN DATABASE postgres RESET ALL",
            "settings of its own (ALTER ROLE … SET)",
        ),
        ("ALTER ROLE main CONNECTION LIMIT 3", "ALTER ROLE main CONNECTION LIMIT -1", "CONNECTION LIMIT 3"),
        (
            "SET timezone = 'UTC'; ALTER ROLE main VALID UNTIL '2020-01-01'",
            "ALTER ROLE main VALID UNTIL 'infinity'",
            "VALID UNTIL '2020-01-01 00:00:00+00'",
        ),
    ];
    for (change, back, what) in cases {
        let found = format!(
            "person_settings warn: Role \"main\" has {what}, which does not count for people who log in as themselves."
        );
        provoked(&admin, change, back, &[&found])?;
    }
    // A person's own settings count.
    admin.rows("ALTER ROLE ann SET work_mem = '8MB'; ALTER ROLE ann CONNECTION LIMIT 3")?;
    finds(&admin, &[])
}
