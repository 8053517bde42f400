//! The README is true.
//!
//! 1. Every reason code stands in it, with its meaning, and no other code does.
//! 2. Its SQL runs as it stands, on a server set up as it says, and the login that it shows works.
//! 3. Every setting stands in it with the default that the server has.
//! 4. People log in as themselves as it says: [`people`].
//! 5. Tenants are kept apart by row-level security, as in its worked example: [`tenants`].

mod people;
mod tenants;

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use pg_oidc_core::refusal::Refusal;
use pg_oidc_test::cluster::Cluster;
use pg_oidc_test::extension::Server;
use pg_oidc_test::keys::{jwks, keys};
use pg_oidc_test::token::Token;
use pg_oidc_test::workspace;

fn readme() -> Result<String> {
    std::fs::read_to_string(workspace().join("README.md")).context("could not read README.md")
}

/// The first cells of the table that starts below `heading`, without their backquotes.
fn first_cells<'a>(text: &'a str, heading: &str) -> Result<Vec<(&'a str, &'a str)>> {
    let section = text.split_once(heading).context("no such heading")?.1;
    let section = section.split("\n## ").next().unwrap_or_default();
    Ok(section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .map(|(first, rest)| (first, rest.trim_end_matches(" |")))
        .collect())
}

#[test]
fn every_reason_stands_in_the_readme() -> Result<()> {
    let text = readme()?;
    let written: BTreeSet<&str> =
        first_cells(&text, "\n## Refusals")?.into_iter().map(|(code, _)| code).collect();
    let real: BTreeSet<&str> = Refusal::ALL.iter().map(|(code, _, _)| *code).collect();
    assert_eq!(written, real);
    Ok(())
}

/// The SQL of the blocks that stand below this mark.
fn blocks<'a>(text: &'a str, mark: &str) -> Result<Vec<&'a str>> {
    text.split(mark)
        .skip(1)
        .map(|below| {
            let block = below.split_once("```sql\n").context("no SQL below a mark")?.1;
            Ok(block.split_once("```").context("a block does not end")?.0)
        })
        .collect()
}

/// A server that is set up as the README says.
fn corp() -> Result<Cluster> {
    let text = readme()?;
    let blocks = blocks(&text, "<!-- run by pg_test/tests/login/readme.rs -->")?;
    let cluster = Cluster::builder(Server::shared()?).start()?;
    cluster.admin(blocks.first().context("no block to run")?)?;
    // The provider of the README is nobody's: its keys are given here, as nothing can be fetched from it.
    let set = jwks(&[&keys().rsa]);
    cluster.admin(&format!("UPDATE oidc.provider SET jwks = '{set}' WHERE name = 'corp'"))?;
    Ok(cluster)
}

#[test]
fn its_sql_and_its_login_work() -> Result<()> {
    let cluster = corp()?;
    let token = Token::for_user("ada")
        .issuer("https://login.corp.example")
        .audience("https://warehouse.corp.example")
        .groups(&["staff", "analytics-read"])
        .sign(&keys().rsa);
    let seen =
        cluster.login("analytics_read").password(&token).run("SELECT current_user, oidc.identity()")?;
    assert_eq!(seen.rows(), [["analytics_read", "ada"]], "{seen:?}");
    Ok(())
}

#[test]
fn every_setting_stands_in_it_with_its_default() -> Result<()> {
    let text = readme()?;
    let cluster = Cluster::builder(Server::shared()?).start()?;
    let real = cluster.admin("SELECT name, context FROM pg_settings WHERE name LIKE 'pg\\_oidc.%'")?;
    let written = first_cells(&text, "\n## Settings")?;
    for setting in &real {
        let [name, context] = setting.as_slice() else { continue };
        let line = written.iter().find(|(known, _)| known == name);
        let (_, rest) = line.with_context(|| format!("{name} is not in the README"))?;
        let when = if context == "postmaster" { "restart" } else { "reload" };
        ensure!(rest.contains(when), "{name}: {rest}");
        // What this cluster does not set itself is at its default.
        let (default, shown) = (rest.split(" | ").next().unwrap_or_default(), show(&cluster, name)?);
        let shown = if shown.is_empty() { "empty".to_owned() } else { shown };
        let configured = ["pg_oidc.hba_file", "pg_oidc.allow_http"].contains(&name.as_str());
        ensure!(configured || default.trim_matches('`') == shown, "{name}: {default} is not {shown}");
    }
    assert_eq!(written.len(), real.len(), "the README names settings that the server does not have");
    Ok(())
}

fn show(cluster: &Cluster, name: &str) -> Result<String> {
    cluster.admin_value(&format!("SHOW {name}"))
}
