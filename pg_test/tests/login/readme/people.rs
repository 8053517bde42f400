//! The README's section about people as themselves.

use anyhow::{Context, Result, ensure};
use pg_oidc_test::cluster::Cluster;
use pg_oidc_test::keys::keys;
use pg_oidc_test::token::Token;
use serde_json::json;

use super::{blocks, corp, readme};

const MARK: &str = "<!-- run by pg_test/tests/login/readme/people.rs -->";

/// A token of the README's provider, for a person who is in these groups.
pub(super) fn token(person: &str, groups: &[&str]) -> Token {
    Token::for_user(&format!("00{person}"))
        .issuer("https://login.corp.example")
        .audience("https://warehouse.corp.example")
        .claim("upn", json!(format!("{person}@corp.example")))
        .groups(groups)
}

/// The README's server with people.
pub(super) fn peopled() -> Result<Cluster> {
    let cluster = corp()?;
    let text = readme()?;
    cluster.admin(blocks(&text, MARK)?.first().context("no block")?)?;
    Ok(cluster)
}

#[test]
fn its_people_log_in() -> Result<()> {
    let cluster = peopled()?;
    let ann = token("ann", &["sales"]).sign(&keys().rsa);
    let ask = "SELECT session_user, current_user, oidc.identity()";
    let login = || cluster.login("ann").password(&ann);
    assert_eq!(login().run(ask)?.rows(), [["ann", "sales_read", "ann@corp.example"]]);
    // It looks as it is shown.
    let shown = login().show(&[ask])?.stdout;
    let shown: Vec<&str> = shown.lines().map(str::trim_end).collect();
    ensure!(readme()?.contains(shown.join("\n").trim_end()), "the README does not show {shown:?}");

    let text = readme()?;
    let [_, binding, base] = blocks(&text, MARK)?[..] else { anyhow::bail!("other blocks") };
    cluster.admin(binding)?;
    let ada = Token::claim(token("ada", &["sales"]), "sub", json!("00u1")).sign(&keys().rsa);
    let seen = cluster.login("ada").password(&ada).run("SELECT session_user, current_user")?;
    assert_eq!(seen.rows(), [["ada", "sales_read"]], "{seen:?}");

    cluster.admin(base)?;
    let before_16 = cluster.admin_value("SELECT current_setting('server_version_num')::int < 160000")? == "t";
    assert_eq!(login().run("SELECT 1")?.ok(), !before_16, "what carries CONNECT");
    cluster.admin("GRANT CONNECT ON DATABASE postgres TO ann")?;
    assert_eq!(login().run("SELECT 1")?.rows(), [["1"]]);
    let pruned = "SELECT count(*) FROM oidc.prune_identities('180 days', dry_run => true)";
    assert_eq!(cluster.admin_value(pruned)?, "0");
    Ok(())
}
