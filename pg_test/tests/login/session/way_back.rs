//! n132: a token session plants no way back in without a token.
//!
//! 1. A password, plain or hashed, for its own role or another, by any statement and protocol: refused.
//! 2. ALTER ROLE … SET and RESET in every form: refused, and so in DO, functions, prepared statements.
//! 3. What plants nothing is as ever: PASSWORD NULL, SET, other utility statements, with errors as core gives them.
//! 4. A superuser's token session, and sessions without a token, are not touched.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use pg_oidc_test::client::{Session, Told};
use pg_oidc_test::keys::keys;
use pg_oidc_test::program;
use serde_json::json;

use super::{some, stage};
use crate::scene::{good, rule_with};

const PASSWORD: &str = "cannot set a password in a session that an OIDC token opened";
const SETTINGS: &str = "cannot change the settings of roles in a session that an OIDC token opened";
const SCRAM: &str = "SCRAM-SHA-256$4096:AAAAAAAAAAAAAAAAAAAAAA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:\
                     AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// A token session of a role of this name.
fn session(name: &str) -> Result<Session> {
    stage().trio(name)?;
    stage().session(name, &good(name).sign(&keys().ec))
}

fn is_refused(told: &Told, message: &str, about: &str) -> Result<()> {
    ensure!(told.severity == "ERROR" && told.code == "42501", "{about}: {told:?}");
    ensure!(told.message == message, "{about}: {told:?}");
    ensure!(told.detail.is_some() && told.hint.is_some(), "{about}: {told:?}");
    Ok(())
}

/// What is stored of a role: whether it has a password, and its settings.
fn stored(name: &str) -> Result<Vec<Vec<Option<String>>>> {
    let sql = format!(
        "SELECT a.rolpassword, s.setconfig::text FROM pg_authid a LEFT JOIN pg_db_role_setting s ON s.setrole = a.oid \
          WHERE a.rolname = '{name}'"
    );
    stage().admin()?.rows(&sql)
}

fn passwords(name: &str) -> Vec<String> {
    let mut all: Vec<String> = ["CURRENT_USER", "SESSION_USER", "CURRENT_ROLE", name]
        .iter()
        .flat_map(|who| {
            [
                format!("ALTER ROLE {who} PASSWORD 'secret'"),
                format!("ALTER USER {who} WITH ENCRYPTED PASSWORD 'secret'"),
                format!("ALTER ROLE {who} PASSWORD '{SCRAM}'"),
            ]
        })
        .collect();
    all.push(format!("ALTER ROLE {name} PASSWORD ''"));
    all.push("ALTER ROLE CURRENT_USER PASSWORD 'md5aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'".to_owned());
    all
}

fn settings(name: &str) -> Vec<String> {
    let database = "IN DATABASE postgres";
    vec![
        format!("ALTER ROLE {name} SET search_path = evil"),
        "ALTER ROLE CURRENT_USER SET search_path = evil".to_owned(),
        "ALTER USER SESSION_USER SET search_path TO DEFAULT".to_owned(),
        format!("ALTER ROLE {name} {database} SET search_path = evil"),
        "ALTER ROLE CURRENT_ROLE SET role = 'postgres'".to_owned(),
        "ALTER ROLE CURRENT_USER SET work_mem FROM CURRENT".to_owned(),
        "ALTER ROLE ALL SET search_path = evil".to_owned(),
        format!("ALTER ROLE ALL {database} SET search_path = evil"),
        format!("ALTER ROLE {name} RESET search_path"),
        format!("ALTER ROLE {name} RESET ALL"),
        format!("ALTER ROLE {name} {database} RESET ALL"),
        "ALTER ROLE ALL RESET ALL".to_owned(),
    ]
}

/// The statement by itself and in all that can hold it.
fn wrapped(statement: &str) -> [String; 6] {
    [
        statement.to_owned(),
        format!("BEGIN; SAVEPOINT s; {statement}"),
        format!("DO $do$ BEGIN {statement}; END $do$"),
        format!("DO $do$ BEGIN EXECUTE $stmt${statement}$stmt$; END $do$"),
        format!(
            "CREATE FUNCTION pg_temp.plant() RETURNS void LANGUAGE sql AS $f$ {statement} $f$; SELECT pg_temp.plant()"
        ),
        format!(
            "CREATE PROCEDURE pg_temp.plant() LANGUAGE plpgsql AS $f$ BEGIN {statement}; END $f$; CALL pg_temp.plant()"
        ),
    ]
}

#[test]
fn n132_neither_password_nor_settings() -> Result<()> {
    let name = "planter";
    let session = session(name)?;
    let plain = stored(name)?;
    for (statements, message) in [(passwords(name), PASSWORD), (settings(name), SETTINGS)] {
        for statement in statements {
            for sql in wrapped(&statement) {
                is_refused(&session.error(&sql)?, message, &sql)?;
                session.rows("ROLLBACK")?;
            }
            is_refused(&session.extended_error(&statement)?, message, &statement)?;
            assert_eq!(stored(name)?, plain, "{statement}");
        }
    }
    // A block that goes on after the error has not done it either.
    let caught = "DO $do$ BEGIN ALTER ROLE CURRENT_USER SET search_path = evil; \
                  EXCEPTION WHEN insufficient_privilege THEN NULL; END $do$";
    session.rows(caught)?;
    // Nor does RESET of what we have set make room.
    for sql in ["RESET ALL", "RESET ROLE", "DISCARD ALL"] {
        session.rows(sql)?;
    }
    is_refused(&session.error("ALTER ROLE CURRENT_USER PASSWORD 'x'")?, PASSWORD, "after DISCARD ALL")?;
    assert_eq!(stored(name)?, plain);
    Ok(())
}

#[test]
fn n132_password_command_of_psql() -> Result<()> {
    let name = "typist";
    stage().trio(name)?;
    let login = stage().login(name, &good(name).sign(&keys().ec));
    let psql = login.command()?;
    // Without a terminal psql asks on standard input.
    let mut alone = Command::new("setsid");
    alone.arg("-w").arg(psql.get_program()).args(psql.get_args()).args(["-c", "\\password"]);
    alone.env_clear().envs(psql.get_envs().filter_map(|(name, value)| Some((name, value?)))).current_dir("/");
    let seen = program::fed(&mut alone, "secret\nsecret\n")?;
    let stderr = String::from_utf8_lossy(&seen.stderr);
    ensure!(!seen.status.success() && stderr.contains(PASSWORD), "{seen:?}");
    assert_eq!(stored(name)?, [[None, None]]);
    Ok(())
}

#[test]
fn n132_roles_that_may_create_roles() -> Result<()> {
    let name = "creator";
    stage().provider(name)?;
    let admin = stage().admin()?;
    admin.rows("CREATE ROLE creator LOGIN CREATEROLE; CREATE ROLE other_role LOGIN")?;
    admin.rows(&rule_with(name, &json!({ "sub": name }), name, &[("allow_privileged", "true")]))?;
    let session = stage().session(name, &good(name).sign(&keys().ec))?;
    for sql in [
        "CREATE ROLE planted LOGIN PASSWORD 'secret'",
        "CREATE USER planted PASSWORD 'secret'",
        "CREATE GROUP planted PASSWORD 'secret'",
        "ALTER ROLE other_role PASSWORD 'secret'",
    ] {
        is_refused(&session.error(sql)?, PASSWORD, sql)?;
    }
    is_refused(&session.error("ALTER ROLE other_role SET search_path = evil")?, SETTINGS, "another role")?;
    assert_eq!(admin.value("SELECT count(*) FROM pg_roles WHERE rolname = 'planted'")?, some("0"));
    // What is no way back in is as ever.
    session.rows("CREATE ROLE without_password LOGIN; ALTER ROLE without_password CONNECTION LIMIT 1")?;
    session.rows("DROP ROLE without_password")?;
    Ok(())
}

#[test]
fn n132_what_plants_nothing_is_as_ever() -> Result<()> {
    let name = "harmless";
    let session = session(name)?;
    stage().admin()?.rows("GRANT CREATE ON SCHEMA public TO harmless; ALTER ROLE harmless PASSWORD 'old'")?;
    session.rows("ALTER ROLE CURRENT_USER PASSWORD NULL")?;
    assert_eq!(stored(name)?, [[None, None]]);
    session.rows("SET search_path = public; SET LOCAL work_mem = '1MB'; RESET search_path")?;
    session.rows("CREATE TABLE harmless (n int CONSTRAINT once UNIQUE); INSERT INTO harmless VALUES (1)")?;
    // Errors that pass through the hook keep what core has put in them.
    let told = session.error("DO $$ BEGIN INSERT INTO harmless VALUES (1); END $$")?;
    ensure!(told.code == "23505" && told.place.2.as_deref() == Some("_bt_check_unique"), "{told:?}");
    let caught = "DO $out$ DECLARE name text; context text; BEGIN \
        BEGIN EXECUTE $do$DO $in$ BEGIN INSERT INTO harmless VALUES (1); END $in$$do$; EXCEPTION WHEN unique_violation THEN \
        GET STACKED DIAGNOSTICS name = CONSTRAINT_NAME, context = PG_EXCEPTION_CONTEXT; END; \
        IF name IS DISTINCT FROM 'once' OR context NOT LIKE '%inline_code_block%inline_code_block%' THEN \
        RAISE 'lost: % %', name, context; END IF; END $out$";
    session.rows(caught)?;
    session.rows("DROP TABLE harmless")?;
    Ok(())
}

#[test]
fn n132_superusers_and_others_are_not_touched() -> Result<()> {
    let name = "chief";
    stage().provider(name)?;
    let admin = stage().admin()?;
    admin.rows("CREATE ROLE chief LOGIN SUPERUSER; CREATE ROLE scrammed LOGIN PASSWORD 'secret'")?;
    admin.rows(&rule_with(name, &json!({ "sub": name }), name, &[("allow_privileged", "true")]))?;
    let chief = stage().session(name, &good(name).sign(&keys().ec))?;
    chief.rows("ALTER ROLE scrammed PASSWORD 'other'; ALTER ROLE scrammed SET work_mem = '1MB'")?;
    chief.rows("ALTER ROLE scrammed RESET ALL; CREATE ROLE planted_by_chief PASSWORD 'x'")?;
    // One that only acts as a superuser is not one.
    admin.rows("CREATE FUNCTION plant() RETURNS void LANGUAGE sql SECURITY DEFINER AS 'ALTER ROLE scrammed SET role = 1'")?;
    let name = "borrower";
    let session = session(name)?;
    is_refused(&session.error("SELECT plant()")?, SETTINGS, "SECURITY DEFINER")?;

    let own = stage().cluster.login("scrammed").password("other");
    let own = own.connect()?.map_err(|told| anyhow::anyhow!("{told:?}")).context("a session by password")?;
    own.rows("ALTER ROLE scrammed PASSWORD 'third'; ALTER ROLE scrammed SET work_mem = '2MB'")?;
    own.rows("ALTER ROLE scrammed RESET ALL")?;
    Ok(())
}
