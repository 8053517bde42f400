//! What must never happen, on demand: each step of a login and of a worker fails, by a Rust panic and by an ERROR.
//!
//! 1. `f001` A step of a login: that login is refused with the line of every refusal, byte for byte; the log and the audit
//!    say `internal_error`; sessions that are there go on, the list of sessions holds no ghost, the next login is fine.
//! 2. `f001` The same where the login was to be refused anyway.
//! 3. `f007`, `f008` A step of a worker: it ends with status 1 and comes back, or goes on; logins are accepted, or asked to
//!    try again; once the step is whole again, all is as before.
//! 4. `n136` A login is held between its decision and its session, and loses its ground meanwhile: it does not become a
//!    session. Held before the decision it is refused.
//! 5. Each fail point of the source is in one of the lists here.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use pg_oidc_test::cluster::{Cluster, until};
use pg_oidc_test::issuer::Issuer;
use pg_oidc_test::keys::{jwks, keys};
use pg_oidc_test::psql::Way;
use pg_oidc_test::token::Token;
use pg_oidc_test::wire::{Heard, Wire};
use pg_oidc_test::workspace;

use crate::stage::{SOON, builder, calm, furnished, good, lets_in, line, reasons, token};

const LOGIN: [&str; 11] = [
    "login_asking",
    "login_asked",
    "login_parsed",
    "login_policy_awaited",
    "login_key_selected",
    "login_verified",
    "login_deciding",
    "login_decided",
    "login_claims",
    "login_auditing",
    "login_audited",
];
/// Where the registry worker fails, and whether it ends by that.
const REGISTRY: [(&str, bool); 7] = [
    ("registry_connected", true),
    ("registry_reading", true),
    ("registry_read", false),
    ("registry_publishing", true),
    ("registry_ending", true),
    ("registry_keeping", false),
    ("registry_auditing", true),
];
const KEYRING: [&str; 3] = ["keyring_fetching", "keyring_fetched", "keyring_publishing"];
const ACTIONS: [&str; 2] = ["panic", "error"];

/// Sets what fails, from the next login on.
fn fail(cluster: &Cluster, what: &str) -> Result<()> {
    cluster.set("pg_oidc.fail_point", what)?;
    cluster.reload()
}

/// The bytes with which a login with this password is refused.
fn refusal(cluster: &Cluster, user: &str, password: &str) -> Result<Vec<u8>> {
    match Wire::log_in(cluster, Way::Tls, user, password)? {
        Heard::Error(refused) => Ok(refused.bytes),
        other => bail!("{other:?} instead of a refusal"),
    }
}

/// Who the postmaster is, and since when.
fn postmaster(cluster: &Cluster) -> Result<(String, String)> {
    let pid = fs::read_to_string(cluster.file("data/postmaster.pid"))?;
    let pid = pid.lines().next().unwrap_or_default().to_owned();
    Ok((pid, cluster.admin_value("SELECT pg_postmaster_start_time()")?))
}

fn sessions(cluster: &Cluster) -> Result<String> {
    cluster.admin_value("SELECT count(*) FROM oidc.session")
}

#[test]
fn f001_every_step_of_a_login() -> Result<()> {
    let cluster = furnished(builder()?, &["guest"])?;
    let before = postmaster(&cluster)?;
    let session = good(&cluster, "guest").connect()?.map_err(|told| anyhow::anyhow!("{told:?}"))?;
    let constant = refusal(&cluster, "guest", "x")?;
    for action in ACTIONS {
        for point in LOGIN {
            let about = || format!("{point}={action}");
            fail(&cluster, &about())?;
            let mark = cluster.log_mark();
            let told = refusal(&cluster, "guest", &token("guest")).with_context(about)?;
            assert_eq!(told, constant, "{}", about());
            assert_eq!(reasons(&cluster, mark, "guest"), ["internal_error"], "{}", about());
            cluster.await_log_since(mark, "OIDC login failed internally: ", SOON)?;
            // Only a place stands there, or the message of core's.
            ensure!(!cluster.log_since(mark).contains("RUST_BACKTRACE"), "{}", about());
            until("the list of sessions holds no ghost", SOON, || Ok(sessions(&cluster)? == "1"))
                .with_context(about)?;
            fail(&cluster, "")?;
            lets_in(&cluster, &good(&cluster, "guest"), "guest").with_context(about)?;
            assert_eq!(session.value("SELECT oidc.identity()")?.as_deref(), Some("job"), "{}", about());
        }
    }
    // All of them but those where the audit itself fails.
    let audited = "SELECT count(*) FROM oidc.audit_log WHERE reason = 'internal_error'";
    until("the audit has them", SOON, || Ok(cluster.admin_value(audited)? == "20"))?;
    assert_eq!(postmaster(&cluster)?, before);
    calm(&cluster, &[&token("guest")])
}

#[test]
fn f001_a_refusal_that_fails() -> Result<()> {
    let cluster = furnished(builder()?, &["guest"])?;
    let constant = refusal(&cluster, "guest", "x")?;
    let bad = Token::for_user("job").groups(&["strangers"]).sign(&keys().ec);
    for action in ACTIONS {
        for point in ["login_auditing", "login_audited"] {
            fail(&cluster, &format!("{point}={action}"))?;
            let mark = cluster.log_mark();
            assert_eq!(refusal(&cluster, "guest", &bad)?, constant, "{point}={action}");
            assert_eq!(reasons(&cluster, mark, "guest"), ["no_rule", "internal_error"]);
        }
    }
    fail(&cluster, "")?;
    lets_in(&cluster, &good(&cluster, "guest"), "guest")?;
    calm(&cluster, &[&token("guest"), &bad])
}

/// A login while a worker is not itself: accepted, or told to try again.
fn accepted_or_later(cluster: &Cluster) -> Result<()> {
    let mark = cluster.log_mark();
    match Wire::log_in(cluster, Way::Tls, "guest", &token("guest"))? {
        Heard::Ready => Ok(()),
        Heard::Error(refused) => {
            let reasons = reasons(cluster, mark, "guest");
            ensure!(refused.field('C') == "57P03", "{refused:?} for {reasons:?}");
            Ok(())
        }
        other => bail!("{other:?}"),
    }
}

/// Ends a worker, which core starts again.
fn terminate(cluster: &Cluster, worker: &str) -> Result<()> {
    let sql = format!(
        "SELECT coalesce(bool_and(pg_terminate_backend(pid, 5000)), true) FROM pg_stat_activity \
          WHERE backend_type = '{worker}'"
    );
    assert_eq!(cluster.admin_value(&sql)?, "t");
    Ok(())
}

/// Lets a worker fail at this point, and gives what it has logged until everything was well again.
fn worker_fails(cluster: &Cluster, worker: &str, point: &str, action: &str) -> Result<String> {
    let mark = cluster.log_mark();
    fail(cluster, &format!("{point}={action}"))?;
    // A start, a login to audit, a change to read, keys to fetch.
    terminate(cluster, worker)?;
    accepted_or_later(cluster)?;
    cluster.admin("UPDATE oidc.role_mapping SET comment = clock_timestamp()::text")?;
    cluster.admin("SELECT oidc.refresh_keys()")?;
    until("it fails", SOON, || {
        accepted_or_later(cluster)?;
        let log = cluster.log_since(mark);
        // A worker that goes on says of a panic only where it was.
        let said = [format!("fail point {point}"), "internal error at src/fail_point.rs".to_owned()];
        Ok(said.iter().any(|text| log.contains(text)))
    })?;
    accepted_or_later(cluster)?;
    fail(cluster, "")?;
    until("logins are as before", SOON, || {
        let heard = Wire::log_in(cluster, Way::Tls, "guest", &token("guest"))?;
        let there = format!("SELECT count(*) FROM pg_stat_activity WHERE backend_type = '{worker}'");
        Ok(heard == Heard::Ready && cluster.admin_value(&there)? == "1")
    })?;
    Ok(cluster.log_since(mark))
}

/// A cluster with a provider whose keys are fetched, beside the usual one.
fn with_issuer(issuer: &Issuer) -> Result<Cluster> {
    let cluster = furnished(builder()?.setting("pg_oidc.wait_timeout", "300ms"), &["guest"])?;
    issuer.set_jwks(jwks(&[&keys().rsa]));
    let row = format!("'fetched', '{}', '{{warehouse}}'", issuer.url());
    cluster.admin(&format!("INSERT INTO oidc.provider (name, issuer, audiences) VALUES ({row})"))?;
    Ok(cluster)
}

fn each_worker_point(worker: &str, points: &[(&str, bool)]) -> Result<()> {
    let issuer = Issuer::start()?;
    let cluster = with_issuer(&issuer)?;
    until("the first login", SOON, || {
        Ok(Wire::log_in(&cluster, Way::Tls, "guest", &token("guest"))? == Heard::Ready)
    })?;
    let before = postmaster(&cluster)?;
    let session = good(&cluster, "guest").connect()?.map_err(|told| anyhow::anyhow!("{told:?}"))?;
    for action in ACTIONS {
        for (point, ends) in points {
            let about = || format!("{point}={action}");
            let log = worker_fails(&cluster, worker, point, action).with_context(about)?;
            let failed: Vec<&str> =
                log.lines().filter(|line| line.contains(&format!("ERROR:  fail point {point}"))).collect();
            assert_eq!(failed.is_empty(), !ends, "{}: {log}", about());
            for line in failed {
                let pid = line.split(['[', ']']).nth(1).unwrap_or_default();
                let ended = format!("\"{worker}\" (PID {pid}) exited with exit code 1");
                ensure!(log.contains(&ended), "{}: {log}", about());
            }
            ensure!(!log.contains("exited with exit code 0"), "{}: {log}", about());
            assert_eq!(session.value("SELECT 1")?.as_deref(), Some("1"), "{}", about());
        }
    }
    lets_in(&cluster, &good(&cluster, "guest"), "guest")?;
    assert_eq!(postmaster(&cluster)?, before);
    calm(&cluster, &[&token("guest")])
}

#[test]
fn f007_f008_every_step_of_the_registry_worker() -> Result<()> {
    each_worker_point("pg_oidc registry", &REGISTRY)
}

#[test]
fn f007_f008_every_step_of_the_keyring_worker() -> Result<()> {
    each_worker_point("pg_oidc keyring", &KEYRING.map(|point| (point, true)))
}

/// What takes away the ground of the session of `job`, and what gives it back.
const LOSSES: [(&str, &str, &str, &str); 4] = [
    (
        "SELECT oidc.revoke('test', 'job')",
        "SELECT oidc.reinstate('test', 'job')",
        "identity_revoked",
        "identity_revoked",
    ),
    (
        "UPDATE oidc.role_mapping SET enabled = false",
        "UPDATE oidc.role_mapping SET enabled = true",
        "rule_gone",
        "no_rule",
    ),
    (
        "UPDATE oidc.provider SET enabled = false",
        "UPDATE oidc.provider SET enabled = true",
        "provider_gone",
        "provider_disabled",
    ),
    (
        "DELETE FROM oidc.role_mapping",
        "INSERT INTO oidc.role_mapping (provider, match, role) VALUES ('test', '{\"groups\": \"guest\"}', 'guest')",
        "rule_gone",
        "no_rule",
    ),
];

/// A login that is held at this point.
fn held(cluster: &Cluster, point: &str) -> Result<Wire> {
    let go = cluster.file(&format!("data/{point}.go"));
    if go.exists() {
        fs::remove_file(go)?;
    }
    fail(cluster, &format!("{point}=wait"))?;
    let mark = cluster.log_mark();
    let (mut wire, _) = Wire::begin(cluster, Way::Tls, "guest")?;
    wire.password(&token("guest"))?;
    cluster.await_log_since(mark, &format!("fail point {point} is reached"), SOON)?;
    Ok(wire)
}

fn go(cluster: &Cluster, point: &str) -> Result<()> {
    cluster.write(&format!("data/{point}.go"), "")
}

#[test]
fn n136_ground_lost_between_decision_and_session() -> Result<()> {
    let cluster = furnished(builder()?, &["guest"])?;
    for point in ["login_decided", "login_claims", "login_audited"] {
        // Held for a while it becomes a session all the same.
        let mut wire = held(&cluster, point)?;
        go(&cluster, point)?;
        assert_eq!(wire.outcome()?, Heard::Ready, "{point}");
        drop(wire);
        for (loss, return_, cause, _) in LOSSES {
            let mut wire = held(&cluster, point)?;
            assert_eq!(sessions(&cluster)?, "1", "{point}");
            let mark = cluster.log_mark();
            cluster.admin(loss)?;
            cluster.await_log_since(mark, &format!("OIDC session ended: cause={cause} "), SOON)?;
            go(&cluster, point)?;
            // Its end is said to nobody: core does not speak to a client that it has not let in.
            let outcome = wire.outcome();
            ensure!(!matches!(outcome, Ok(Heard::Ready)), "{point}, {loss}: in");
            assert_eq!(sessions(&cluster)?, "0", "{point}, {loss}");
            cluster.admin(return_)?;
        }
    }
    for point in ["login_verified", "login_deciding"] {
        for (loss, return_, _, reason) in LOSSES {
            let mut wire = held(&cluster, point)?;
            assert_eq!(sessions(&cluster)?, "0", "{point}");
            let mark = cluster.log_mark();
            cluster.admin(loss)?;
            published(&cluster)?;
            go(&cluster, point)?;
            let Heard::Error(refused) = wire.outcome()? else { bail!("{point}, {loss}: in") };
            assert_eq!(refused.field('M'), line("guest"), "{point}, {loss}");
            assert_eq!(reasons(&cluster, mark, "guest"), [reason], "{point}, {loss}");
            cluster.admin(return_)?;
        }
    }
    fail(&cluster, "")?;
    lets_in(&cluster, &good(&cluster, "guest"), "guest")?;
    calm(&cluster, &[&token("guest")])
}

/// Waits until what was committed is published: an explanation waits for that, as a login does.
fn published(cluster: &Cluster) -> Result<()> {
    let sql = "SELECT count(*) FROM oidc.explain_claims('test', '{\"sub\": \"job\"}')";
    cluster.admin_value(sql).map(drop)
}

#[test]
fn each_fail_point_is_tested() -> Result<()> {
    let mut written = BTreeSet::new();
    collect(&workspace().join("src"), &mut written)?;
    let tested = LOGIN.into_iter().chain(REGISTRY.map(|(point, _)| point)).chain(KEYRING);
    assert_eq!(written, tested.map(str::to_owned).collect());
    Ok(())
}

/// The names of the fail points in the Rust files of a folder.
fn collect(folder: &Path, names: &mut BTreeSet<String>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, names)?;
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let text = fs::read_to_string(&path)?;
            let calls = text.split("fail_point(\"").skip(1);
            names.extend(calls.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
        }
    }
    Ok(())
}

#[test]
fn waits_serve_interrupts() -> Result<()> {
    let cluster = furnished(builder()?.setting("authentication_timeout", "2s"), &["guest"])?;
    let mut wire = held(&cluster, "login_decided")?;
    let outcome = wire.outcome();
    ensure!(!matches!(outcome, Ok(Heard::Ready)), "in");
    until("nobody is left", Duration::from_secs(10), || Ok(sessions(&cluster)? == "0"))?;
    calm(&cluster, &[&token("guest")])
}
