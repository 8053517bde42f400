//! The checks of the server: library, workers, what is published, sizes, settings.

use anyhow::{Context as _, Result, ensure};
use pg_oidc_test::cluster::until;
use pg_oidc_test::keys::keys;
use serde_json::{Value, json};

use super::{findings, finds, provoked, well};
use crate::scene::{SOON, Stage, rule_with};

#[test]
fn versions() -> Result<()> {
    let stage = well(|builder| builder)?;
    let admin = stage.admin()?;
    let version = admin.value("SELECT extversion FROM pg_extension WHERE extname = 'pg_oidc'")?;
    let version = version.unwrap_or_default();
    let set = |to: &str| format!("UPDATE pg_extension SET extversion = '{to}' WHERE extname = 'pg_oidc'");
    let found = format!(
        "library_version fail: The extension in database \"postgres\" is of version 0.0.9, the library of version {version}."
    );
    provoked(&admin, &set("0.0.9"), &set(&version), &[&found])
}

#[test]
fn policy_database_that_does_not_exist() -> Result<()> {
    let stage = Stage::with(|builder| {
        builder.setting("pg_oidc.allow_http", "off").setting("pg_oidc.database", "policy")
    })?;
    let missing = "policy_database fail: Database \"policy\", which is to hold the policy, does not exist.";
    let absent = "policy_published fail: The registry worker finds no extension in the policy database: every token \
                  is refused.";
    // Where there is no database to wait for, the registry worker publishes nothing.
    let found = findings(&stage.admin()?)?;
    assert_eq!(found.first().map(String::as_str), Some(missing));
    ensure!(found.iter().any(|found| found.starts_with("policy_published fail:")), "{found:?}");

    // A database without the extension: the worker is there and says so.
    stage.admin()?.rows("CREATE DATABASE policy")?;
    let elsewhere = "policy_database fail: This is database \"postgres\", the policy is in \"policy\": providers and \
                     rules are not checked here.";
    until("the registry worker has connected", SOON, || {
        Ok(findings(&stage.admin()?)? == [elsewhere, absent])
    })?;
    let policy = stage.cluster.admin_session_in("policy")?;
    policy.rows("CREATE EXTENSION pg_oidc")?;
    finds(&policy, &[])
}

#[test]
fn settings() -> Result<()> {
    let stage =
        well(|builder| builder.setting("pg_oidc.allow_http", "on").setting("pg_oidc.wait_timeout", "30s"))?;
    let http = "allow_http warn: Keys of issuers on the loopback interface may be fetched without TLS.";
    finds(&stage.admin()?, &[http])?;
    stage.cluster.set("pg_oidc.wait_timeout", "31s")?;
    stage.cluster.reload()?;
    let wait = "wait_timeout warn: \"pg_oidc.wait_timeout\" is 31000 ms; only half of authentication_timeout, 30000 \
                ms, counts.";
    finds(&stage.admin()?, &[wait, http])?;
    stage.cluster.set("pg_oidc.password_fallback", "on")?;
    stage.cluster.reload()?;
    let passwords = "password_fallback warn: Where a token is asked for, the stored password of a role opens a session \
                     too, whatever the policy says.";
    finds(&stage.admin()?, &[wait, http, passwords])
}

#[test]
fn no_slot_for_the_workers() -> Result<()> {
    let stage = Stage::with(|builder| {
        builder.setting("pg_oidc.allow_http", "off").setting("max_worker_processes", "0")
    })?;
    let admin = stage.admin()?;
    finds(
        &admin,
        &[
            "workers fail: Worker \"pg_oidc registry\" has no slot to run in.",
            "workers fail: Worker \"pg_oidc keyring\" has no slot to run in.",
            "policy_published fail: No policy was published since the server started.",
        ],
    )?;
    let hint = admin.value("SELECT hint FROM oidc.doctor() WHERE name = 'workers'")?;
    assert_eq!(hint.as_deref(), Some("Raise \"max_worker_processes\" (now 0) and restart the server."));
    drop(admin);
    stage.cluster.set("max_worker_processes", "3")?;
    stage.cluster.restart()?;
    finds(&stage.admin()?, &[])
}

#[test]
fn a_worker_that_does_not_run() -> Result<()> {
    let stage = well(|builder| builder)?;
    let admin = stage.admin()?;
    for worker in ["pg_oidc registry", "pg_oidc keyring"] {
        let end = format!(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE backend_type = '{worker}'"
        );
        // It is started again after two seconds, in which this machine may do other things.
        until("its absence is seen", SOON, || {
            admin.rows(&end)?;
            Ok(findings(&admin)? == [format!("workers fail: Worker \"{worker}\" is not running.")])
        })?;
        until("it is back", SOON, || Ok(findings(&admin)?.is_empty()))?;
    }
    Ok(())
}

#[test]
fn a_change_that_is_not_published() -> Result<()> {
    let stage = well(|builder| builder.setting("pg_oidc.wait_timeout", "0"))?;
    let (admin, other) = (stage.admin()?, stage.admin()?);
    // The registry worker cannot read a table that is locked; a change of another one is committed meanwhile.
    other.rows("BEGIN; LOCK oidc.role_mapping IN ACCESS EXCLUSIVE MODE")?;
    admin.rows("UPDATE oidc.provider SET comment = 'x'")?;
    let behind =
        "SELECT detail FROM oidc.doctor_workers() WHERE name = 'policy_published' AND status = 'fail'";
    let said = "The last committed change is not published yet: logins wait for it, then are refused.";
    assert_eq!(admin.value(behind)?.as_deref(), Some(said));
    other.rows("ROLLBACK")?;
    until("it is published", SOON, || Ok(findings(&admin)?.is_empty()))
}

/// Adds rules in steps, until the doctor finds something; gives what it is.
fn rules_until_found(stage: &Stage, known: usize) -> Result<Vec<String>> {
    let admin = stage.admin()?;
    for _ in 0..60 {
        admin.rows(
            "INSERT INTO oidc.role_mapping (provider, match, role) \
             SELECT 'main', jsonb_build_object('groups', 'group-' || last_value + n), 'main' \
               FROM oidc.role_mapping_id_seq, generate_series(1, 100) n",
        )?;
        let found = findings(&admin)?;
        if found.len() > known {
            return Ok(found);
        }
    }
    anyhow::bail!("nothing is found")
}

#[test]
fn a_policy_that_grows() -> Result<()> {
    let stage = well(|builder| builder.setting("pg_oidc.shared_memory", "1MB"))?;
    let found = rules_until_found(&stage, 0)?;
    ensure!(
        matches!(&found[..], [one] if one.starts_with("policy_size warn: The policy takes ")),
        "{found:?}"
    );
    let found = rules_until_found(&stage, 1)?;
    let [published, size] = &found[..] else { anyhow::bail!("{found:?}") };
    assert_eq!(
        published,
        "policy_published fail: The policy is over a limit and is not published: every token is refused."
    );
    ensure!(size.starts_with("policy_size fail: The policy takes "), "{size}");
    // What the hint says mends it.
    let admin = stage.admin()?;
    let hint = admin.value("SELECT hint FROM oidc.doctor() WHERE name = 'policy_size'")?.unwrap_or_default();
    let size = hint.split_once("to ").and_then(|(_, rest)| rest.split_once(' ')).map(|(size, _)| size);
    drop(admin);
    stage.cluster.set("pg_oidc.shared_memory", size.unwrap_or_default())?;
    stage.cluster.restart()?;
    until("all is well", SOON, || Ok(findings(&stage.admin()?)?.is_empty()))
}

#[test]
fn a_keyring_that_grows() -> Result<()> {
    let stage = well(|builder| builder.setting("pg_oidc.shared_memory", "1MB"))?;
    let admin = stage.admin()?;
    let key = keys().rsa.jwk();
    let set = |provider: &str| -> Value {
        let named = |number: u32| {
            let mut key = key.clone();
            key["kid"] = json!(format!("{provider}-{number}"));
            key
        };
        json!({ "keys": (0..60).map(named).collect::<Vec<_>>() })
    };
    let too_large = "the key set does not fit into shared memory";
    let mut warned = false;
    for number in 0..10 {
        let name = format!("provider{number}");
        stage.provider_with(&name, &set(&name), &[])?;
        admin.rows(&rule_with(&name, &json!({ "sub": "x" }), "main", &[]))?;
        let published = format!("SELECT count(*) FROM oidc.key WHERE provider = '{name}' AND usable");
        let lacking = format!("provider_keys fail: Provider \"{name}\" has no usable key: {too_large}");
        let mut found = Vec::new();
        until("its keys are published, or are too many", SOON, || {
            found = findings(&admin)?;
            Ok(found.contains(&lacking) || admin.value(&published)?.as_deref() == Some("60"))
        })
        .with_context(|| format!("{name}: {found:?}"))?;
        if found.contains(&lacking) {
            // The room was said to be short before it was too short.
            ensure!(warned && found.len() == 2, "{found:?}");
            return Ok(());
        }
        warned = findings(&admin)?.iter().any(|found| found.starts_with("keyring_size warn: The keys take "));
    }
    anyhow::bail!("all keys have room")
}
