//! The library as nothing but a validator, and where it is not preloaded.

use anyhow::{Result, ensure};
use pg_oidc_test::cluster::{GUARDED_FILE, VALIDATORS};
use pg_oidc_test::door;
use pg_oidc_test::psql::Way;
use pg_oidc_test::token::ISSUER;
use pg_oidc_test::wire::{Heard, Wire};

use super::{at_the_door, here, login, refusal};
use crate::stage::{calm, furnished, token};

/// A line for pg_hba.conf.
fn native() -> String {
    format!("hostssl all guest 127.0.0.1/32 {}", door::method(ISSUER))
}

#[test]
fn only_a_validator() -> Result<()> {
    if !here("only_a_validator")? {
        return Ok(());
    }
    let native = format!("{}\nhostssl all trusted 127.0.0.1/32 trust", native());
    let builder = at_the_door(&[])?.setting("pg_oidc.hba_file", "").native(&native);
    let cluster = furnished(builder, &["guest"])?;
    ensure!(cluster.admin_value("SHOW hba_file")?.ends_with("/pg_hba.conf"));
    let seen = login(&cluster, "guest", &token("guest"))
        .run("SELECT current_user, oidc.identity(), (SELECT count(*) FROM oidc.claims())")?;
    assert_eq!(seen.rows(), [["guest", "job", "1"]], "{seen:?} {}", cluster.log());
    refusal(&cluster, "guest", "x", "token_malformed")?;
    // Every other line is core's, trust too.
    cluster.admin("CREATE ROLE trusted LOGIN")?;
    assert_eq!(cluster.login("trusted").run("SELECT current_user")?.rows(), [["trusted"]]);
    calm(&cluster, &[&token("guest")])
}

#[test]
fn not_preloaded() -> Result<()> {
    if !here("not_preloaded")? {
        return Ok(());
    }
    let cluster = furnished(at_the_door(&[])?.native(&native()), &["guest"])?;
    let preload = "shared_preload_libraries";
    cluster.unset(preload)?;
    for name in ["pg_oidc.hba_file", "pg_oidc.database", "pg_oidc.allow_http"] {
        cluster.unset(name)?;
    }
    cluster.restart()?;
    let mark = cluster.log_mark();
    let ended = Wire::bear(&cluster, Way::Tls, "guest", &token("guest"))?;
    let Heard::Error(refused) = ended.heard else { anyhow::bail!("{ended:?}") };
    assert_eq!(refused.field('M'), door::Door::Oauth.refusal("guest"));
    let log = cluster.log_since(mark);
    ensure!(log.contains("LOG:  pg_oidc must be loaded via shared_preload_libraries"), "{log}");
    ensure!(log.contains("HINT:  Add \"pg_oidc\" to \"shared_preload_libraries\""), "{log}");
    calm(&cluster, &[&token("guest")])?;

    // The near miss: loaded in time, it decides. Not named as a validator, the line does not even load.
    cluster.set(preload, "pg_oidc")?;
    cluster.set("pg_oidc.hba_file", GUARDED_FILE)?;
    cluster.restart()?;
    assert_eq!(Wire::bear(&cluster, Way::Tls, "guest", &token("guest"))?.heard, Heard::Ready);
    cluster.unset(VALIDATORS)?;
    ensure!(cluster.restart().is_err(), "core starts with an oauth line and no validator");
    Ok(())
}
