//! The SQL script of this version stands in `sql/` as it is installed, so that a change of the SQL surface is seen in
//! review, and the script of a finished version is never changed.

use anyhow::{Context, Result};
use pg_oidc_test::cluster::Cluster;
use pg_oidc_test::extension::Server;
use pg_oidc_test::workspace;

/// The lines of a script, sorted: pgrx does not promise an order. Comments that name a line of the source are left out.
fn lines(script: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = script
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("-- src/"))
        .collect();
    lines.sort_unstable();
    lines
}

#[test]
fn the_installed_script_is_the_one_in_review() -> Result<()> {
    let cluster = Cluster::builder(Server::shared()?).start()?;
    let folder = cluster.admin_value("SELECT setting FROM pg_config WHERE name = 'SHAREDIR'")?;
    let version =
        cluster.admin_value("SELECT default_version FROM pg_available_extensions WHERE name = 'pg_oidc'")?;
    let name = format!("pg_oidc--{version}.sql");
    let installed = std::fs::read_to_string(format!("{folder}/extension/{name}"))?;
    let reviewed = std::fs::read_to_string(workspace().join("sql").join(&name))
        .with_context(|| format!("sql/{name}: copy what `cargo pgrx package` writes there"))?;
    assert_eq!(lines(&reviewed), lines(&installed), "sql/{name}");
    Ok(())
}
