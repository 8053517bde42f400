//! Tests of the yard itself: what the login tests rely on must hold before they mean anything.
//!
//! 1. A cluster starts, answers over TLS, plain TCP and the unix socket, restarts and reloads.
//! 2. Two clusters run side by side.
//! 3. A server that does not start is an error that shows its log.
//! 4. A dropped cluster leaves neither a process nor a folder.
//! 5. Nor does one whose test process is killed with signal 9.
//! 6. The provider gives tokens of each kind and counts the requests it had.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pg_oidc_test::cluster::{Cluster, until};
use pg_oidc_test::extension::Server;
use pg_oidc_test::provider::{AUDIENCE, Client, Provider};
use pg_oidc_test::psql::Way;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(15);

fn plain() -> Result<Cluster> {
    Cluster::builder(Server::shared()?).plain().start()
}

/// The server's process, from the first line of its postmaster.pid.
fn postmaster(cluster: &Path) -> Result<String> {
    let text = std::fs::read_to_string(cluster.join("data/postmaster.pid"))?;
    Ok(text.lines().next().context("postmaster.pid is empty")?.to_owned())
}

/// A process that has ended, but was not yet waited for by its parent, has no working directory any more.
fn is_gone(folder: &Path, pid: &str) -> bool {
    !folder.exists() && std::fs::read_link(Path::new("/proc").join(pid).join("cwd")).is_err()
}

#[test]
fn a_cluster_answers_in_every_way() -> Result<()> {
    let cluster = plain()?;
    cluster.admin("CREATE ROLE bob LOGIN PASSWORD 'secret'; CREATE DATABASE app")?;
    let bob = || cluster.login("bob").password("secret").database("app");
    let question = "SELECT current_user, ssl, client_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let rows = |way| anyhow::Ok(bob().way(way).run(question)?.rows());
    assert_eq!(rows(Way::Tls)?, [["bob", "t", ""]]);
    assert_eq!(rows(Way::Plain)?, [["bob", "f", ""]]);
    assert_eq!(rows(Way::Socket)?, [["bob", "f", ""]]);
    assert_eq!(bob().client_certificate().run(question)?.rows(), [["bob", "t", "/CN=client"]]);
    assert_eq!(bob().options("-c work_mem=1MB").run("SHOW work_mem")?.rows(), [["1MB"]]);

    let wrong = cluster.login("bob").password("wrong").run("SELECT 1")?;
    assert_eq!(wrong.code, Some(2));
    assert_eq!(wrong.refusal(), Some("FATAL:  password authentication failed for user \"bob\""));

    assert_eq!(
        cluster.admin("SELECT 1 WHERE false; SELECT ''; SELECT 1, ''; SELECT 2")?,
        [vec![""], vec!["1", ""], vec!["2"]]
    );

    cluster.set("work_mem", "2MB")?;
    cluster.reload()?;
    assert_eq!(bob().run("SHOW work_mem")?.rows(), [["2MB"]]);
    cluster.restart()?;
    assert_eq!(bob().run("SHOW work_mem")?.rows(), [["2MB"]]);
    Ok(())
}

#[test]
fn clusters_run_side_by_side() -> Result<()> {
    let (one, other) = (plain()?, plain()?);
    assert_ne!(one.port(), other.port());
    assert_ne!(one.admin_value("SHOW data_directory")?, other.admin_value("SHOW data_directory")?);
    Ok(())
}

#[test]
fn a_failed_start_shows_the_log() -> Result<()> {
    let cluster = plain()?;
    cluster.stop()?;
    assert!(!cluster.is_running());
    cluster.set("ssl_cert_file", "nowhere.pem")?;
    let error = cluster.start().err().context("the server started without its certificate")?;
    ensure!(error.to_string().contains("could not load server certificate file"), "{error}");
    Ok(())
}

#[test]
fn a_dropped_cluster_leaves_nothing() -> Result<()> {
    let cluster = plain()?;
    let folder = cluster.folder().to_owned();
    let pid = postmaster(&folder)?;
    drop(cluster);
    assert!(is_gone(&folder, &pid));
    Ok(())
}

/// Tells the child of the test below where to say what it holds.
const TELL: &str = "PG_OIDC_TEST_TELL";

#[test]
fn a_killed_process_leaves_nothing() -> Result<()> {
    if let Some(tell) = std::env::var_os(TELL) {
        return hold_a_cluster(&PathBuf::from(tell));
    }
    let told = std::env::temp_dir().join(format!("pg_oidc-told-{}", std::process::id()));
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--exact", "a_killed_process_leaves_nothing"])
        .env(TELL, &told)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    until("the child has its cluster", Duration::from_secs(600), || {
        ensure!(child.try_wait()?.is_none(), "the child ended");
        Ok(told.exists())
    })?;
    let folder = PathBuf::from(std::fs::read_to_string(&told)?);
    std::fs::remove_file(&told)?;
    let pid = postmaster(&folder)?;
    assert!(!is_gone(&folder, &pid));
    child.kill()?;
    child.wait()?;
    until("the cluster of a killed process is gone", SOON, || Ok(is_gone(&folder, &pid)))
}

/// What the child does: makes a cluster, says where, and waits to be killed.
fn hold_a_cluster(tell: &Path) -> Result<()> {
    let cluster = plain()?;
    // Written beside and moved, so that whoever waits for the file never finds half of it.
    let draft = tell.with_extension("draft");
    std::fs::write(&draft, cluster.folder().as_os_str().as_encoded_bytes())?;
    std::fs::rename(draft, tell)?;
    loop {
        std::thread::park();
    }
}

/// One part of a token, decoded.
fn part(token: &str, number: usize) -> Result<Value> {
    let part = token.split('.').nth(number).context("no such part")?;
    Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part)?)?)
}

#[test]
fn the_provider_gives_tokens_and_counts_requests() -> Result<()> {
    pg_oidc_test::tools::prepare_provider()?;
    let mut builder =
        Provider::builder().client(Client::new("old").age(100).audience("https://other.example"));
    for algorithm in ["RS256", "ES256", "EdDSA"] {
        let client = Client::new(algorithm).algorithm(algorithm).claims(json!({ "groups": ["a"] }));
        builder = builder.client(client);
    }
    let provider = builder.lifetime(50).start()?;
    for algorithm in ["RS256", "ES256", "EdDSA"] {
        let token = provider.token(algorithm)?;
        let (header, claims) = (part(&token, 0)?, part(&token, 1)?);
        assert_eq!(header["alg"], algorithm);
        assert_eq!(header["typ"], "at+jwt");
        assert_eq!(claims["iss"], provider.issuer());
        assert_eq!(claims["aud"], AUDIENCE);
        assert_eq!(claims["sub"], algorithm);
        assert_eq!(claims["groups"], json!(["a"]));
    }
    let old = part(&provider.token("old")?, 1)?;
    assert_eq!(old["aud"], "https://other.example");
    ensure!(old["exp"].as_i64() < Some(pg_oidc_test::token::now()), "not expired: {old}");
    assert_eq!(provider.requests(), ["POST /token"; 4]);
    Ok(())
}
