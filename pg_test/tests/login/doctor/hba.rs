//! The checks of the HBA files and of TLS.

use std::fs;

use anyhow::{Result, ensure};
use pg_oidc_test::cluster::GUARDED_FILE;

use super::{findings, finds, well};
use crate::scene::Stage;

fn path(stage: &Stage, name: &str) -> String {
    stage.cluster.file(&format!("data/{name}")).display().to_string()
}

/// Writes the guarded file, all of it, and tells what the doctor finds in it. The server goes on with the lines of
/// before, as nothing is reloaded.
fn guarded(stage: &Stage, lines: &str) -> Result<Vec<String>> {
    stage.cluster.write(&format!("data/{GUARDED_FILE}"), lines)?;
    findings(&stage.admin()?)
}

const ADMIN: &str = "local all postgres peer map=admin\n";
const TOKEN: &str = "hostssl all all 127.0.0.1/32 trust\n";

#[test]
fn no_guarded_file() -> Result<()> {
    let stage = Stage::with(|builder| {
        let builder = builder.setting("pg_oidc.allow_http", "off").setting("pg_oidc.hba_file", "");
        builder.native("hostnossl all guest 127.0.0.1/32 trust")
    })?;
    let native = path(&stage, "pg_hba.conf");
    let in_use = format!(
        "native_hba_file fail: \"{native}\" is in use and has \"trust\" lines, which admit anyone: line 2."
    );
    finds(
        &stage.admin()?,
        &["guarded_file fail: \"pg_oidc.hba_file\" is empty: no token is asked for.", &in_use],
    )
}

#[test]
fn the_native_file() -> Result<()> {
    let stage = well(|builder| builder)?;
    let native = path(&stage, "pg_hba.conf");
    let found = |lines: &str| -> Result<Vec<String>> {
        stage.cluster.write_native(lines)?;
        findings(&stage.admin()?)
    };
    // The administrator's line is the first.
    assert_eq!(
        found("local all guest trust\nhost all trust 127.0.0.1/32 md5\nhost all all ::1/128 trust\n")?,
        [format!(
            "native_hba_file fail: \"{native}\" rules when pg_oidc is gone, and has \"trust\" lines, which admit \
             anyone: line 2, 4."
        )]
    );
    assert_eq!(
        found("# include this\ninclude_dir \"more\"\n")?,
        [format!(
            "native_hba_file warn: \"{native}\" includes other files, which are not looked at here: line 3."
        )]
    );
    assert_eq!(found("# local all all trust\nlocal include trust peer map=trust\n")?, [""; 0]);
    fs::remove_file(&native)?;
    let gone = findings(&stage.admin()?)?;
    assert_eq!(gone.len(), 1);
    ensure!(gone.iter().all(|gone| gone.starts_with("native_hba_file warn:")), "{gone:?}");
    ensure!(gone.iter().all(|gone| gone.contains("could not be read: No such file")), "{gone:?}");
    Ok(())
}

#[test]
fn tls() -> Result<()> {
    let stage = well(|builder| builder)?;
    stage.cluster.set("pg_oidc.require_tls", "off")?;
    stage.cluster.reload()?;
    let clear = "tls warn: \"pg_oidc.require_tls\" is off: whoever reads a token on the network can use it.";
    finds(&stage.admin()?, &[clear])?;
    stage.cluster.set("pg_oidc.require_tls", "on")?;
    stage.cluster.set("ssl", "off")?;
    stage.cluster.reload()?;
    let off = "tls fail: \"ssl\" is off: tokens are refused on all connections but Unix-domain sockets.";
    let line = "useless_lines warn: Line 2: hostssl record cannot match because SSL is disabled.";
    finds(&stage.admin()?, &[off, line])?;
    // Over Unix-domain sockets alone nothing of this matters.
    stage.cluster.write_guarded("local all all trust\n")?;
    stage.cluster.set("listen_addresses", "")?;
    stage.cluster.restart()?;
    finds(&stage.admin()?, &[])
}

#[test]
fn errors_in_the_guarded_file() -> Result<()> {
    let stage = well(|builder| builder)?;
    let broken = format!("{ADMIN}{TOKEN}hostssl all all everywhere! trustful\n");
    assert_eq!(
        guarded(&stage, &broken)?,
        ["hba_errors fail: Line 3: invalid authentication method \"trustful\"."]
    );
    assert_eq!(guarded(&stage, &format!("{ADMIN}{TOKEN}"))?, [""; 0]);
    fs::remove_file(path(&stage, GUARDED_FILE))?;
    let gone = findings(&stage.admin()?)?;
    assert_eq!(gone.len(), 1);
    ensure!(
        gone.iter().all(|gone| gone.starts_with("hba_lines fail: This could not be checked:")),
        "{gone:?}"
    );
    ensure!(gone.iter().all(|gone| gone.contains(GUARDED_FILE)), "{gone:?}");
    Ok(())
}

#[test]
fn token_lines() -> Result<()> {
    let stage = well(|builder| builder)?;
    let none = format!(
        "token_lines warn: \"{}\" has no \"trust\" line: no token is asked for.",
        path(&stage, GUARDED_FILE)
    );
    assert_eq!(guarded(&stage, &format!("{ADMIN}host all all 127.0.0.1/32 scram-sha-256\n"))?, [none]);
    for line in ["local all all trust", "host all all all trust", TOKEN] {
        assert_eq!(guarded(&stage, &format!("{ADMIN}{line}\n"))?, [""; 0], "{line}");
    }
    Ok(())
}

#[test]
fn lines_that_refuse_everybody() -> Result<()> {
    let stage = well(|builder| builder)?;
    let plain = "hostnossl all all 10.0.0.0/8 trust\n";
    let found = "useless_lines warn: Line 3 is for connections without TLS, on which tokens are refused.";
    assert_eq!(guarded(&stage, &format!("{ADMIN}{TOKEN}{plain}"))?, [found]);
    // Without a token, or where TLS is not asked for, such a line has its use.
    for line in ["hostnossl all all 10.0.0.0/8 scram-sha-256", "hostnossl all all 10.0.0.0/8 reject"] {
        assert_eq!(guarded(&stage, &format!("{ADMIN}{TOKEN}{line}\n"))?, [""; 0], "{line}");
    }
    stage.cluster.set("pg_oidc.require_tls", "off")?;
    stage.cluster.write(&format!("data/{GUARDED_FILE}"), &format!("{ADMIN}{TOKEN}{plain}"))?;
    stage.cluster.reload()?;
    let clear = "tls warn: \"pg_oidc.require_tls\" is off: whoever reads a token on the network can use it.";
    finds(&stage.admin()?, &[clear])
}

#[test]
fn no_way_in_without_a_token() -> Result<()> {
    let stage = well(|builder| builder)?;
    let found =
        ["administrator_line warn: Every connection needs a token: when tokens fail, nobody comes in."];
    for lines in ["local all all trust\n", "host all all all reject\n", ""] {
        assert_eq!(guarded(&stage, &format!("{lines}{TOKEN}"))?, found, "{lines}");
    }
    // A line that another one hides is no way in.
    assert_eq!(guarded(&stage, &format!("local all all trust\n{ADMIN}{TOKEN}"))?, found);
    for lines in [ADMIN, "local all guest trust\nlocal all all peer\n", "hostssl all dba all scram-sha-256\n"]
    {
        assert_eq!(guarded(&stage, &format!("{lines}{TOKEN}"))?, [""; 0], "{lines}");
    }
    Ok(())
}
