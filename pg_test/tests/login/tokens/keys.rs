//! Providers that are down, slow, or come back.
//!
//! 1. Down when the server starts: refused at once or after `wait_timeout` at the latest; once it is up, logins
//!    work without a restart.
//! 2. Hanging: refused with the retry line after `wait_timeout`, not before and not much later.
//! 3. Down later: the last good keys serve, through changes of the row too, but not once the keys are said to
//!    be somewhere else.
//! 4. f007: the keys outlive the worker that fetched them, also while the provider is down.
//! 5. A provider that hangs delays no login of another, nor the other's first fetch.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pg_oidc_test::cluster::until;
use pg_oidc_test::issuer::{Behaviour, DISCOVERY, Issuer, JWKS};
use pg_oidc_test::keys::keys;
use pg_oidc_test::program;
use pg_oidc_test::token::Token;
use serde_json::json;

use super::{issuer_with_keys, stage, until_admitted};
use crate::scene::{SOON, Stage, good, provider_sql, quoted};

/// A provider of this name at that issuer, with its role and rule.
fn at(stage: &Stage, name: &str, issuer: &Issuer) -> Result<()> {
    stage.admin()?.rows(&provider_sql(name, &issuer.url(), &[]))?;
    stage.role_and_rule(name, name, &json!({ "sub": name }))
}

fn token(name: &str, issuer: &Issuer) -> String {
    Token::for_user(name).issuer(&issuer.url()).sign(&keys().ec)
}

#[test]
fn down_at_the_start() -> Result<()> {
    let (stage, issuer) =
        (Stage::with(|builder| builder.setting("pg_oidc.wait_timeout", "2s"))?, issuer_with_keys()?);
    issuer.refuse();
    at(&stage, "down", &issuer)?;
    stage.cluster.restart()?;
    for _ in 0..3 {
        let begun = Instant::now();
        let refused = stage.refusal(&stage.login("down", &token("down", &issuer)), "down", "down")?;
        let reasons = ["keys_unavailable", "keys_pending"];
        ensure!(reasons.contains(&refused.reason.as_str()), "{}", refused.line);
        ensure!(begun.elapsed() < Duration::from_secs(8), "it took {:?}", begun.elapsed());
    }
    stage.refused("down", &token("down", &issuer), "keys_unavailable", "after the first attempt")?;
    let warning = stage.cluster.await_log("could not fetch the keys of OIDC provider \"down\"", SOON)?;
    ensure!(warning.contains("WARNING"), "{warning}");
    issuer.accept()?;
    until_admitted(&stage, "down", &token("down", &issuer))?;
    stage.accepted("down", &token("down", &issuer), "it is up again")
}

#[test]
fn hanging_at_the_first_fetch() -> Result<()> {
    let stage = Stage::with(|builder| builder.setting("pg_oidc.wait_timeout", "1s"))?;
    let issuer = issuer_with_keys()?;
    issuer.misbehave(JWKS, Behaviour::Hang);
    at(&stage, "hanging", &issuer)?;
    ensure!(issuer.wait(JWKS, 1, SOON), "the keys were not asked for");
    let begun = Instant::now();
    let refused = stage.refusal(&stage.login("hanging", &token("hanging", &issuer)), "hanging", "hanging")?;
    let elapsed = begun.elapsed();
    assert_eq!((refused.reason.as_str(), refused.told.code.as_str()), ("keys_pending", "57P03"));
    assert_eq!(refused.told.message, "OIDC authentication is not ready, try again");
    ensure!(elapsed >= Duration::from_secs(1) && elapsed < Duration::from_secs(4), "it took {elapsed:?}");
    issuer.behave(JWKS);
    until_admitted(&stage, "hanging", &token("hanging", &issuer))
}

#[test]
fn down_later() -> Result<()> {
    let (stage, issuer) = (stage(), issuer_with_keys()?);
    at(stage, "later", &issuer)?;
    until_admitted(stage, "later", &token("later", &issuer))?;
    issuer.refuse();
    let admin = stage.admin()?;
    for change in
        ["comment = 'down'", "clock_skew = '20 s'", "audiences = '{warehouse,more}'", "max_stale = '1 h'"]
    {
        stage.accepted("later", &token("later", &issuer), "the last good keys")?;
        admin.rows(&format!("UPDATE oidc.provider SET {change} WHERE name = 'later'"))?;
    }
    stage.accepted("later", &token("later", &issuer), "the last good keys")?;
    // Keys from elsewhere are other keys, and the old ones are none of them.
    let place = quoted(&format!("{}{JWKS}", issuer.url()));
    admin.rows(&format!("UPDATE oidc.provider SET jwks_uri = {place} WHERE name = 'later'"))?;
    let pattern = "could not fetch the keys of OIDC provider \"later\"";
    stage.cluster.await_log(pattern, SOON)?;
    stage.refused("later", &token("later", &issuer), "keys_unavailable", "keys from elsewhere")?;
    issuer.accept()?;
    until_admitted(stage, "later", &token("later", &issuer))
}

/// The process id of the server's keyring worker, which has no database and thus no row in pg_stat_activity.
fn worker(stage: &Stage) -> Result<Option<String>> {
    let postmaster = std::fs::read_to_string(stage.cluster.file("data/postmaster.pid"))?;
    let parent = format!("PPid:\t{}\n", postmaster.lines().next().unwrap_or_default());
    for process in std::fs::read_dir("/proc")? {
        let process = process?;
        // A process may be gone by now, or not be one.
        let read = |file: &str| std::fs::read_to_string(process.path().join(file)).unwrap_or_default();
        if read("cmdline").contains("pg_oidc keyring") && read("status").contains(&parent) {
            return Ok(Some(process.file_name().to_string_lossy().into_owned()));
        }
    }
    Ok(None)
}

#[test]
fn f007_keys_outlive_their_worker() -> Result<()> {
    // Its own server: the worker serves all providers.
    let (stage, issuer) =
        (Stage::with(|builder| builder.setting("pg_oidc.wait_timeout", "1s"))?, issuer_with_keys()?);
    at(&stage, "outlived", &issuer)?;
    until_admitted(&stage, "outlived", &token("outlived", &issuer))?;
    issuer.refuse();
    let (mark, first) = (stage.cluster.log_mark(), worker(&stage)?.context("there is no keyring worker")?);
    program::output(Command::new("kill").args(["-TERM", &first]))?;
    // Until the next worker has tried, and failed, to fetch them.
    until("another worker", SOON, || {
        stage.session("outlived", &token("outlived", &issuer))?;
        Ok(worker(&stage)?.is_some_and(|next| next != first))
    })?;
    stage.cluster.await_log_since(mark, "could not fetch the keys of OIDC provider \"outlived\"", SOON)?;
    stage.accepted("outlived", &token("outlived", &issuer), "after the worker's restart")?;
    issuer.accept()?;
    ensure!(issuer.wait(JWKS, 2, SOON), "the keys were not fetched again");
    stage.accepted("outlived", &token("outlived", &issuer), "after the next fetch")
}

#[test]
fn slow_provider_delays_nobody_else() -> Result<()> {
    let (stage, slow, quick) = (stage(), issuer_with_keys()?, issuer_with_keys()?);
    stage.trio("prompt")?;
    stage.accepted("prompt", &good("prompt").sign(&keys().ec), "before")?;
    slow.misbehave(DISCOVERY, Behaviour::Hang);
    at(stage, "slow", &slow)?;
    ensure!(slow.wait(DISCOVERY, 1, SOON), "the slow provider was not asked");

    let begun = Instant::now();
    at(stage, "quick", &quick)?;
    stage.session("quick", &token("quick", &quick))?;
    for _ in 0..10 {
        stage.session("prompt", &good("prompt").sign(&keys().ec))?;
    }
    // A fetch may take 5 s in all; were anybody to wait for it, this would take as long.
    ensure!(begun.elapsed() < Duration::from_secs(4), "it took {:?}", begun.elapsed());
    ensure!(slow.count(DISCOVERY) == 1, "the slow provider was meanwhile asked again");
    slow.behave(DISCOVERY);
    until_admitted(stage, "slow", &token("slow", &slow))
}
