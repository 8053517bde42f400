//! n142: a client that chooses its role itself. Its last choice counts, whatever way it is written in, within the bounds
//! of the login; names of any kind come through whole.
//!
//! 1. `-crole=x`, `-c role=x`, `--role=x`, several, beside other options
//! 2. the startup key `role`, alone and beside options
//! 3. names with blanks, quotes, backslashes, tabs and other alphabets, as the first role and as a choice

use anyhow::{Context, Result, ensure};
use pg_oidc_test::cluster::Cluster;
use pg_oidc_test::psql::Way;
use pg_oidc_test::wire::{Heard, Wire};

use super::{cluster, login, may, session, token, told, users};
use crate::scene::{admitted, quoted};

const ALL: [&str; 2] = ["analyst", "writer"];

#[test]
fn n142_options() -> Result<()> {
    let cluster = cluster()?;
    for (options, current) in [
        ("-c role=writer", "writer"),
        ("-crole=writer", "writer"),
        ("--role=writer", "writer"),
        ("-c ROLE=writer", "writer"),
        ("-c role=analyst -c role=writer", "writer"),
        ("-c role=writer --role=analyst", "analyst"),
        ("-c role=writer -c search_path=x", "writer"),
        ("-c search_path=x -c geqo=off", "analyst"),
        ("  -c\trole=writer ", "writer"),
        ("-c role=none", "greta"),
        ("-c role=writer -c role=none", "greta"),
        ("-c role=greta", "greta"),
        ("", "analyst"),
    ] {
        let session = admitted(&login(cluster, "greta", &ALL).options(options)).context(options)?;
        assert_eq!(users(&session)?, ["greta", current], "{options:?}");
        session.rows("SET ROLE NONE; RESET ROLE")?;
        assert_eq!(users(&session)?, ["greta", current], "{options:?}");
        session.rows("DISCARD ALL")?;
        assert_eq!(users(&session)?, ["greta", current], "{options:?}");
    }
    for options in [
        "-c role=auditor",
        "-crole=auditor",
        "--role=auditor",
        "-c role=writer -c role=auditor",
        "-c role=auditor -c role=writer",
        "-c role=postgres",
    ] {
        let told = told(&login(cluster, "greta", &ALL).options(options)).context(options)?;
        assert_eq!((told.severity.as_str(), told.code.as_str()), ("FATAL", "42501"), "{options}: {told:?}");
    }
    let nobody = told(&login(cluster, "greta", &ALL).options("-c role=nobody_at_all"))?;
    assert_eq!(nobody.code, "22023", "{nobody:?}");
    Ok(())
}

/// Logs in with these startup parameters and runs SQL that raises unless the current user is this one.
fn starts_as(cluster: &Cluster, parameters: &[(&str, &str)], current: &str) -> Result<Heard> {
    let mut wire = Wire::connect(cluster, Way::Tls)?;
    let all = [&[("user", "herta"), ("database", "postgres")], parameters].concat();
    wire.startup(&all)?;
    wire.hear()?;
    wire.password(&token("herta", &ALL))?;
    match wire.outcome()? {
        Heard::Ready => {}
        other => return Ok(other),
    }
    let sql = format!("SELECT 1 / (current_user = {} AND session_user = 'herta')::int\0", quoted(current));
    wire.message(b'Q', i32::try_from(sql.len() + 4)?, sql.as_bytes())?;
    wire.outcome()
}

#[test]
fn n142_startup_key() -> Result<()> {
    let cluster = cluster()?;
    for (parameters, current) in [
        (&[][..], "analyst"),
        (&[("role", "writer")][..], "writer"),
        (&[("role", "none")][..], "herta"),
        (&[("role", "writer"), ("role", "analyst")][..], "analyst"),
        // Core takes options first, then the keys.
        (&[("role", "writer"), ("options", "-c role=analyst")][..], "writer"),
        (&[("options", "-c role=writer")][..], "writer"),
        (&[("application_name", "role"), ("search_path", "role")][..], "analyst"),
    ] {
        assert_eq!(starts_as(cluster, parameters, current)?, Heard::Ready, "{parameters:?}");
        let other = starts_as(cluster, parameters, "auditor")?;
        ensure!(matches!(other, Heard::Error(_)), "the check itself: {parameters:?}");
    }
    for parameters in [
        &[("role", "auditor")][..],
        &[("role", "postgres")][..],
        &[("role", "auditor"), ("role", "analyst")][..],
        &[("role", "auditor"), ("options", "-c role=analyst")][..],
    ] {
        match starts_as(cluster, parameters, "analyst")? {
            Heard::Error(refused) => assert_eq!(refused.field('C'), "42501", "{parameters:?}"),
            other => anyhow::bail!("{parameters:?}: {other:?}"),
        }
    }
    Ok(())
}

#[test]
fn n142_names_of_any_kind() -> Result<()> {
    let cluster = cluster()?;
    let names = [
        "two words",
        " blanks  around ",
        "it's \"quoted\"",
        "back\\slash\\\\es\\ x",
        "tab\there",
        "line\nbreak\r\u{b}\u{c}",
        "ünï-cödé 角色",
        "-c role=writer",
        "x -crole=auditor",
        "role=writer",
        "None",
        "$user",
        "'",
    ];
    for (number, name) in names.iter().enumerate() {
        let group = format!("odd{number}");
        let role = name.replace('"', "\"\"");
        cluster.admin_session()?.rows(&format!(
            "CREATE ROLE \"{role}\"; INSERT INTO oidc.role_mapping (provider, match, role, priority) \
             VALUES ('corp', '{{\"groups\": \"{group}\"}}', {}, 5)",
            quoted(name)
        ))?;
        let person = format!("odd-{number}");
        let first = session(cluster, &person, &[&group, "analyst"]).with_context(|| format!("{name:?}"))?;
        assert_eq!(users(&first)?, [person.as_str(), *name]);
        may(&first, "analyst")?;
        first.rows("RESET ROLE")?;
        assert_eq!(users(&first)?, [person.as_str(), *name]);
        // As a choice, escaped as libpq's manual says.
        let escaped: String = name
            .chars()
            .flat_map(|c| (c == '\\' || c.is_whitespace()).then_some('\\').into_iter().chain([c]))
            .collect();
        cluster.admin("UPDATE oidc.role_mapping SET priority = 500 WHERE priority = 5")?;
        let chosen = login(cluster, &person, &[&group, "analyst"]).options(format!("-c role={escaped}"));
        assert_eq!(users(&admitted(&chosen)?)?, [person.as_str(), *name]);
        let plain = session(cluster, &person, &[&group, "analyst"])?;
        assert_eq!(users(&plain)?, [person.as_str(), "analyst"]);
        let without = told(&login(cluster, &person, &["analyst"]).options(format!("-c role={escaped}")))?;
        assert_eq!(without.code, "42501", "{name:?}: {without:?}");
    }
    Ok(())
}
