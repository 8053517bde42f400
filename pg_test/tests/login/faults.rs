//! The library or its files are gone: the server refuses to start, or falls back to pg_hba.conf and refuses
//! token users. It fails closed.
//!
//! 1. `f003` The library removed from shared_preload_libraries, overridden by a later line of postgresql.conf,
//!    by ALTER SYSTEM, by an old configuration: nobody comes in with a token, or without.
//! 2. `f004` The guarded file missing, unreadable, or a folder: no start, and the log names it.
//! 3. `f004` The library's file missing: no start, and the log names it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use pg_oidc_test::cluster::{Cluster, GUARDED_FILE};
use pg_oidc_test::extension::Server;
use pg_oidc_test::postgres::Postgres;
use pg_oidc_test::psql::Way;
use pg_oidc_test::wire::{Heard, Wire};

use crate::stage::{accepted, builder, calm, core_refuses, furnished, good, lets_in, reasons, token};

const CONF: &str = "data/postgresql.conf";

/// A token user, by every way: asked as pg_hba.conf says, and refused whatever she holds.
fn shut(cluster: &Cluster, how: &str) -> Result<()> {
    let mark = cluster.log_mark();
    let native = cluster.file("data/pg_hba.conf").display().to_string();
    assert_eq!(cluster.admin_value("SHOW hba_file")?, native, "{how}");
    for way in [Way::Tls, Way::Plain, Way::Socket] {
        let (_, first) = Wire::begin(cluster, way, "guest")?;
        assert_eq!(first, Heard::Authentication(10), "{how}, {way:?}: SASL, and no password in clear text");
        let failed = "password authentication failed for user \"guest\"";
        core_refuses(cluster, &good(cluster, "guest").way(way), "guest", failed)?;
        let nothing = cluster.login("guest").way(way).run("SELECT 1")?;
        assert_eq!(nothing.code, Some(2), "{how}, {way:?}: in with nothing");
    }
    assert_eq!((accepted(cluster, mark, "guest"), reasons(cluster, mark, "guest").len()), (0, 0), "{how}");
    Ok(())
}

#[test]
fn f003_library_removed() -> Result<()> {
    let cluster = furnished(builder()?, &["guest"])?;
    lets_in(&cluster, &good(&cluster, "guest"), "guest")?;
    cluster.unset("shared_preload_libraries")?;
    cluster.restart()?;
    shut(&cluster, "removed")?;
    let seen = cluster.login("postgres").way(Way::Socket).run("SELECT oidc.claims()")?;
    ensure!(seen.stderr.contains("pg_oidc must be loaded via shared_preload_libraries"), "{seen:?}");
    cluster.set("shared_preload_libraries", "pg_oidc")?;
    cluster.restart()?;
    lets_in(&cluster, &good(&cluster, "guest"), "guest")?;
    calm(&cluster, &[&token("guest")])
}

#[test]
fn f003_library_overridden() -> Result<()> {
    let cluster = furnished(builder()?, &["guest"])?;
    let text = fs::read_to_string(cluster.file(CONF))?;
    cluster.write(CONF, &format!("{text}shared_preload_libraries = ''\n"))?;
    cluster.restart()?;
    shut(&cluster, "a later line")?;
    cluster.write(CONF, &text)?;
    cluster.restart()?;
    lets_in(&cluster, &good(&cluster, "guest"), "guest")?;

    cluster.admin("ALTER SYSTEM SET shared_preload_libraries = 'auth_delay'")?;
    // Until the restart nothing has changed, reload or not.
    cluster.reload()?;
    lets_in(&cluster, &good(&cluster, "guest"), "guest")?;
    cluster.restart()?;
    shut(&cluster, "ALTER SYSTEM")?;
    cluster.admin("ALTER SYSTEM RESET shared_preload_libraries")?;
    cluster.restart()?;
    lets_in(&cluster, &good(&cluster, "guest"), "guest")?;

    // A configuration from before pg_oidc knows nothing of it at all.
    let old: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("pg_oidc.") && !line.starts_with("shared_preload"))
        .collect();
    cluster.write(CONF, &(old.join("\n") + "\n"))?;
    cluster.restart()?;
    shut(&cluster, "an old configuration")?;
    calm(&cluster, &[&token("guest")])
}

/// The server does not start, and says this.
fn does_not_start(cluster: &Cluster, says: &[&str]) -> Result<()> {
    let mark = cluster.log_mark();
    ensure!(cluster.start().is_err(), "the server started");
    ensure!(!cluster.is_running());
    let log = cluster.log_since(mark);
    let fatal =
        log.lines().find(|line| line.contains("FATAL:")).with_context(|| format!("no FATAL in {log}"))?;
    for text in says {
        ensure!(fatal.contains(text), "{fatal}");
    }
    Ok(())
}

#[test]
fn f004_guarded_file_missing() -> Result<()> {
    let cluster = furnished(builder()?, &["guest"])?;
    cluster.stop()?;
    let file = cluster.file(&format!("data/{GUARDED_FILE}"));
    let name = file.display().to_string();
    let aside = cluster.file("aside");
    fs::rename(&file, &aside)?;
    does_not_start(&cluster, &["could not read the guarded HBA file", &name, "No such file or directory"])?;
    ensure!(cluster.log().contains("HINT:  Create the file, or start with \"-c shared_preload_libraries=\""));
    fs::create_dir(&file)?;
    does_not_start(&cluster, &["could not read the guarded HBA file", &name, "directory"])?;
    fs::remove_dir(&file)?;
    fs::rename(&aside, &file)?;
    fs::set_permissions(&file, Permissions::from_mode(0o000))?;
    does_not_start(&cluster, &["could not read the guarded HBA file", &name, "Permission denied"])?;
    fs::set_permissions(&file, Permissions::from_mode(0o600))?;
    cluster.start()?;
    lets_in(&cluster, &good(&cluster, "guest"), "guest")?;
    calm(&cluster, &[])
}

#[test]
fn f004_library_file_missing() -> Result<()> {
    // A copy of the server that never had the extension.
    let server = Server::copy(&Postgres::chosen()?, None)?;
    let cluster = Cluster::builder(&server).build()?;
    does_not_start(&cluster, &["could not access file \"pg_oidc\": No such file or directory"])?;
    // The near miss: without the line, it runs.
    cluster.unset("shared_preload_libraries")?;
    cluster.start()?;
    assert_eq!(
        cluster.admin_value("SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_oidc'")?,
        "0"
    );
    Ok(())
}
