//! `f001`: each step of a login fails, on demand, while core waits for the validator's answer and afterwards.

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use pg_oidc_test::bearer::{SASL_CONTINUE, message};
use pg_oidc_test::cluster::{Cluster, until};
use pg_oidc_test::door::Door;
use pg_oidc_test::psql::Way;
use pg_oidc_test::wire::{Heard, Wire};

use super::{at_the_door, here, session};
use crate::stage::{SOON, calm, furnished, reasons, token};

/// Steps before the validator answers, and in the hook that finishes the login.
const STEPS: [&str; 11] = [
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

fn fail(cluster: &Cluster, what: &str) -> Result<()> {
    cluster.set("pg_oidc.fail_point", what)?;
    cluster.reload()
}

#[test]
fn f001_every_step_of_a_login() -> Result<()> {
    if !here("f001_every_step_of_a_login")? {
        return Ok(());
    }
    let cluster = furnished(at_the_door(&[])?, &["guest"])?;
    let postmaster = || fs::read_to_string(cluster.file("data/postmaster.pid"));
    let before = postmaster()?;
    let line = Door::Oauth.refusal("guest");
    let open = session(&cluster, "guest", &token("guest"))?;
    for action in ["panic", "error"] {
        for step in STEPS {
            let about = format!("{step}={action}");
            fail(&cluster, &about)?;
            let mark = cluster.log_mark();
            let ended =
                Wire::bear(&cluster, Way::Tls, "guest", &token("guest")).with_context(|| about.clone())?;
            let Heard::Error(refused) = ended.heard else { bail!("{about}: {ended:?}") };
            assert_eq!(
                (refused.field('M'), refused.field('C')),
                (line.clone(), "28000".to_owned()),
                "{about}"
            );
            assert_eq!(reasons(&cluster, mark, "guest"), ["internal_error"], "{about}");
            ensure!(!cluster.log_since(mark).contains("after it was accepted"), "{about}");
            let listed = "SELECT count(*) FROM oidc.session";
            until("no ghost is listed", SOON, || Ok(cluster.admin_value(listed)? == "1"))?;
            fail(&cluster, "")?;
            session(&cluster, "guest", &token("guest")).with_context(|| about.clone())?;
            assert_eq!(open.value("SELECT oidc.identity()")?.as_deref(), Some("job"), "{about}");
        }
    }
    ensure!(!cluster.log().contains("internal error in OAuth validator module"), "{}", cluster.log());
    assert_eq!(postmaster()?, before);
    calm(&cluster, &[&token("guest")])
}

#[test]
fn n136_revoked_between_the_decision_and_the_session() -> Result<()> {
    if !here("n136_revoked_between_the_decision_and_the_session")? {
        return Ok(());
    }
    let cluster = furnished(at_the_door(&[])?, &["guest"])?;
    fail(&cluster, "login_claims=wait")?;
    let ended = std::thread::scope(|scope| -> Result<_> {
        let login = scope.spawn(|| Wire::bear(&cluster, Way::Tls, "guest", &token("guest")));
        cluster.await_log("fail point login_claims is reached", SOON)?;
        cluster.admin("SELECT oidc.revoke('test', 'job')")?;
        fs::write(cluster.file("data/login_claims.go"), "")?;
        login.join().map_err(|_| anyhow::anyhow!("the login panicked"))
    })?;
    // Its end is said to nobody: core does not speak to a client that it has not let in.
    ensure!(!matches!(&ended, Ok(ended) if ended.heard == Heard::Ready), "in");
    assert_eq!(cluster.admin_value("SELECT count(*) FROM oidc.session")?, "0");
    calm(&cluster, &[&token("guest")])
}

#[test]
fn f001_nothing_holds_the_timeout_after_a_failure() -> Result<()> {
    if !here("f001_nothing_holds_the_timeout_after_a_failure")? {
        return Ok(());
    }
    let cluster = furnished(at_the_door(&[])?.setting("authentication_timeout", "3s"), &["guest"])?;
    for step in ["login_deciding=error", "login_decided=panic", ""] {
        fail(&cluster, step)?;
        let (mut wire, _) = Wire::begin(&cluster, Way::Tls, "guest")?;
        let token = if step.is_empty() { "x".to_owned() } else { token("guest") };
        wire.sasl(&message(&token))?;
        assert_eq!(wire.hear()?, Some(Heard::Authentication(SASL_CONTINUE)), "{step}");
        // The client keeps silent where core waits for its last word.
        assert_eq!(wire.hear_all()?, [], "{step}");
    }
    fail(&cluster, "")?;
    session(&cluster, "guest", &token("guest"))?;
    calm(&cluster, &[&token("guest")])
}
