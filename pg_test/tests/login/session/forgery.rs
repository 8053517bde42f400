//! n134: nobody but the login itself sets what a session knows of its token.
//!
//! 1. By startup options: of a client with a token, of a superuser, by PGOPTIONS.
//! 2. In a session: SET in every form, set_config, functions with SET, RESET ALL, DISCARD ALL, as anybody and
//!    as a superuser; where there is a token all stays, where there is none nothing comes.
//! 3. For later sessions: ALTER ROLE, ALTER DATABASE, ALTER SYSTEM, GRANT SET ON PARAMETER.
//! 4. In postgresql.conf, read again and at a start.

use anyhow::{Result, ensure};
use pg_oidc_test::client::Session;
use pg_oidc_test::keys::keys;
use pg_oidc_test::psql::Way;

use super::{session_in, some, stage};
use crate::scene::{SOON, Stage, good};

const SETTINGS: [&str; 3] = ["pg_oidc.identity", "pg_oidc.provider", "pg_oidc.claims"];
const FACTS: &str = "SELECT oidc.identity(), oidc.provider(), oidc.claim('sub')";
/// What one would want to be: JSON, so that it could be claims too.
const FORGED: &str = "{\"sub\":\"boss\"}";

/// The session is that of the token of this name, or of none.
fn is_of(session: &Session, name: Option<&str>, after: &str) -> Result<()> {
    let fact = name.map(str::to_owned);
    let rows = session.rows(FACTS)?;
    ensure!(rows == [[fact.clone(), fact.clone(), fact.clone()]], "after {after}: {rows:?}");
    // Nor is it to be seen in the settings themselves, which policies should not but may read.
    let bare = session.value("SELECT coalesce(current_setting('pg_oidc.identity', true), '')")?;
    ensure!(bare == Some(name.unwrap_or_default().to_owned()), "after {after}: {bare:?}");
    Ok(())
}

/// Everything that one may try in a session.
fn attempts(setting: &str) -> Vec<String> {
    vec![
        format!("SET {setting} = '{FORGED}'"),
        format!("SET SESSION {setting} TO '{FORGED}'"),
        format!("SET LOCAL {setting} = '{FORGED}'"),
        format!("SET {setting} TO DEFAULT"),
        format!("SET {setting} = ''"),
        format!("SET \"{}\" = '{FORGED}'", setting.to_uppercase()),
        format!("SELECT set_config('{setting}', '{FORGED}', false)"),
        format!("SELECT set_config('{setting}', '{FORGED}', true)"),
        format!("SELECT set_config('{setting}', NULL, false)"),
        format!("UPDATE pg_settings SET setting = '{FORGED}' WHERE name = '{setting}'"),
        format!("RESET {setting}"),
        "RESET ALL".to_owned(),
        "DISCARD ALL".to_owned(),
        "SET SESSION AUTHORIZATION DEFAULT".to_owned(),
        "SET ROLE NONE".to_owned(),
        format!(
            "DO $do$ BEGIN PERFORM set_config('{setting}', 'x', false); EXCEPTION WHEN OTHERS THEN NULL; END $do$"
        ),
        format!(
            "CREATE FUNCTION pg_temp.forge() RETURNS text LANGUAGE sql SET {setting} = 'x' \
             AS 'SELECT oidc.identity()'"
        ),
        format!("ALTER ROLE CURRENT_USER SET {setting} = 'x'"),
    ]
}

#[test]
fn n134_in_a_session() -> Result<()> {
    stage().trio("sealed")?;
    let (token, none) = (session_in("postgres", "sealed", &good("sealed"))?, stage().admin()?);
    is_of(&token, Some("sealed"), "the login")?;
    is_of(&none, None, "the login")?;
    for (session, name) in [(&token, Some("sealed")), (&none, None)] {
        for setting in SETTINGS {
            for attempt in attempts(setting) {
                let outcome = session.try_rows(&attempt)?;
                is_of(session, name, &attempt)?;
                let direct = attempt.starts_with("SET ") && attempt.contains(FORGED);
                ensure!(!direct || outcome.is_err(), "{attempt} was not refused");
                // The same within a transaction, committed or not.
                session.rows("BEGIN; SAVEPOINT s")?;
                if session.try_rows(&attempt)?.is_ok() {
                    is_of(session, name, &attempt)?;
                } else {
                    session.rows("ROLLBACK TO s")?;
                    is_of(session, name, &attempt)?;
                }
                session.rows("COMMIT")?;
                is_of(session, name, &attempt)?;
            }
        }
    }
    Ok(())
}

#[test]
fn n134_by_startup_options() -> Result<()> {
    stage().trio("optioned")?;
    let token = good("optioned").sign(&keys().ec);
    for setting in SETTINGS {
        for form in ["-c {}=x", "-c{}=x", "--{}=x", "-c {}="] {
            let options = form.replace("{}", setting);
            let asked = stage().login("optioned", &token).options(&options);
            if let Ok(session) = asked.connect()? {
                is_of(&session, Some("optioned"), &options)?;
            }
            let seen = asked.run("SELECT oidc.identity()")?;
            ensure!(!seen.ok() || seen.rows() == [["optioned"]], "{options}: {seen:?}");

            let asked = stage().cluster.login("postgres").way(Way::Socket).options(&options);
            if let Ok(session) = asked.connect()? {
                is_of(&session, None, &options)?;
            }
            let seen = asked.run("SELECT coalesce(oidc.identity(), 'nobody')")?;
            ensure!(!seen.ok() || seen.rows() == [["nobody"]], "{options}: {seen:?}");
        }
    }
    // Options that forge nothing are as good as ever.
    let seen = stage().login("optioned", &token).options("-c work_mem=1MB").run("SHOW work_mem")?;
    assert_eq!(seen.rows(), [["1MB"]]);
    Ok(())
}

#[test]
fn n134_for_later_sessions() -> Result<()> {
    // Its own server: what is tried is meant for all sessions of it.
    let stage = Stage::start()?;
    stage.trio("later")?;
    let (admin, token) = (stage.admin()?, good("later").sign(&keys().ec));
    let later = |after: &str| -> Result<()> {
        is_of(&stage.session("later", &token)?, Some("later"), after)?;
        is_of(&stage.admin()?, None, after)
    };
    for setting in SETTINGS {
        let attempts = [
            format!("ALTER ROLE later SET {setting} = 'x'"),
            format!("ALTER ROLE postgres SET {setting} = 'x'"),
            format!("ALTER ROLE ALL SET {setting} = 'x'"),
            format!("ALTER DATABASE postgres SET {setting} = 'x'"),
            format!("ALTER ROLE postgres IN DATABASE postgres SET {setting} = 'x'"),
            format!("ALTER SYSTEM SET {setting} = 'x'"),
        ];
        for attempt in attempts {
            let refused = admin.try_rows(&attempt)?.is_err();
            stage.cluster.reload()?;
            later(&attempt)?;
            ensure!(refused, "{attempt} was not refused");
        }
        // The right to SET, by whoever may give it, is not the power to.
        let grant = format!("GRANT SET ON PARAMETER {setting} TO later");
        let _ = admin.try_rows(&grant)?;
        let session = stage.session("later", &token)?;
        for attempt in attempts_of_the_granted(setting) {
            let _ = session.try_rows(&attempt)?;
            is_of(&session, Some("later"), &attempt)?;
            later(&attempt)?;
        }
        let options = stage.login("later", &token).options(format!("-c {setting}=x"));
        if let Ok(session) = options.connect()? {
            is_of(&session, Some("later"), "options, with the right to SET")?;
        }
    }
    stage.cluster.restart()?;
    is_of(&stage.session("later", &token)?, Some("later"), "a restart")?;
    is_of(&stage.admin()?, None, "a restart")
}

fn attempts_of_the_granted(setting: &str) -> [String; 3] {
    [
        format!("SET {setting} = 'x'"),
        format!("SELECT set_config('{setting}', 'x', false)"),
        format!("ALTER ROLE later SET {setting} = 'x'"),
    ]
}

#[test]
fn n134_in_the_configuration_file() -> Result<()> {
    let stage = Stage::start()?;
    stage.trio("filed")?;
    let token = good("filed").sign(&keys().ec);
    for setting in SETTINGS {
        let open = stage.session("filed", &token)?;
        stage.cluster.set(setting, "x")?;
        stage.cluster.reload()?;
        is_of(&open, Some("filed"), "a line in the file, read again")?;
        is_of(&stage.session("filed", &token)?, Some("filed"), "a line in the file, read again")?;
        is_of(&stage.admin()?, None, "a line in the file, read again")?;
        let mark = stage.cluster.log_mark();
        stage.cluster.stop()?;
        // A server that does not start with such a line lets nobody in either, as long as it says why.
        if stage.cluster.start().is_ok() {
            is_of(&stage.session("filed", &token)?, Some("filed"), "a line in the file, at the start")?;
            is_of(&stage.admin()?, None, "a line in the file, at the start")?;
        }
        stage.cluster.await_log_since(mark, setting, SOON)?;
        stage.cluster.unset(setting)?;
        if stage.cluster.is_running() { stage.cluster.restart()? } else { stage.cluster.start()? }
    }
    assert_eq!(stage.session("filed", &token)?.value("SELECT oidc.identity()")?, some("filed"));
    Ok(())
}
