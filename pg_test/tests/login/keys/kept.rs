//! Keys that outlive a restart in `oidc.jwks_cache`.
//!
//! 1. f036: after a restart with the issuer down logins work, and `oidc.key` says that the keys are kept ones.
//! 2. They are not taken back where the row meanwhile says that the keys are elsewhere, nor beyond `max_stale`.
//! 3. The table is not dumped, and PUBLIC cannot read it.
//! 4. Where the extension has been dropped, the worker touches no table of that name: it would run somebody's code.

use anyhow::{Result, ensure};
use pg_oidc_test::client::Session;
use pg_oidc_test::cluster::until;
use pg_oidc_test::issuer::JWKS;
use pg_oidc_test::keys::keys;
use pg_oidc_test::program;

use super::{issuer_of, shown, token};
use crate::scene::{SOON, Stage, quoted};

fn until_kept(admin: &Session, name: &str) -> Result<()> {
    let count = format!("SELECT count(*) FROM oidc.jwks_cache WHERE provider = '{name}'");
    until("the keys are kept", SOON, || Ok(admin.value(&count)?.as_deref() == Some("1")))
}

#[test]
fn f036_restart_while_the_issuer_is_down() -> Result<()> {
    let stage = Stage::start()?;
    let issuer = issuer_of(&stage, "kept")?;
    let good = token("kept", &issuer, &keys().ec);
    until_kept(&stage.admin()?, "kept")?;
    issuer.refuse();
    stage.cluster.restart()?;
    stage.accepted("kept", &good, "with the keys that were kept")?;
    stage.refused(
        "kept",
        &token("kept", &issuer, &keys().other_ec),
        "key_unknown",
        "a key that was not kept",
    )?;
    let admin = stage.admin()?;
    assert_eq!(shown(&admin, "kept", "origin")?.as_deref(), Some("cache"));
    ensure!(shown(&admin, "kept", "age")?.is_some(), "it is told how old they are");

    // Elsewhere: other keys, whatever was kept. Back again: the same.
    let elsewhere = quoted(&format!("{}/elsewhere", issuer.url()));
    admin.rows(&format!("UPDATE oidc.provider SET jwks_uri = {elsewhere} WHERE name = 'kept'"))?;
    drop(admin);
    stage.cluster.restart()?;
    until("the first attempt has ended", SOON, || {
        Ok(shown(&stage.admin()?, "kept", "last_error")?.is_some())
    })?;
    stage.refused("kept", &good, "keys_unavailable", "keys of another place")?;
    stage.admin()?.rows("UPDATE oidc.provider SET jwks_uri = NULL WHERE name = 'kept'")?;
    stage.accepted("kept", &good, "keys of this place")?;

    // Too old.
    stage.admin()?.rows(
        "UPDATE oidc.jwks_cache SET fetched_at = fetched_at - interval '2 h'; \
         UPDATE oidc.provider SET max_stale = '1 h' WHERE name = 'kept'",
    )?;
    stage.cluster.restart()?;
    stage.refused("kept", &good, "keys_stale", "older than max_stale")?;
    issuer.accept()?;
    until("it is up again", SOON, || Ok(stage.login("kept", &good).connect()?.is_ok()))?;
    let origin = shown(&stage.admin()?, "kept", "origin")?;
    assert_eq!(origin, Some(format!("{}{JWKS}", issuer.url())));
    Ok(())
}

#[test]
fn cache_is_not_dumped_and_not_public() -> Result<()> {
    let stage = Stage::start()?;
    let issuer = issuer_of(&stage, "private")?;
    until_kept(&stage.admin()?, "private")?;
    let cluster = &stage.cluster;
    let mut dump = cluster.server().command("pg_dump")?;
    dump.arg("-h").arg(cluster.folder()).args(["-U", "postgres", "-d", "postgres", "-p"]);
    let dump = program::output(dump.arg(cluster.port().to_string()))?;
    ensure!(dump.contains("COPY oidc.provider ") && !dump.contains("jwks_cache"), "{dump}");
    let guest = stage.session("private", &token("private", &issuer, &keys().ec))?;
    assert_eq!(guest.error("TABLE oidc.jwks_cache")?.code, "42501");
    Ok(())
}

#[test]
fn schema_of_somebody_else_is_not_touched() -> Result<()> {
    let stage = Stage::start()?;
    let _issuer = issuer_of(&stage, "gone")?;
    let admin = stage.admin()?;
    until_kept(&admin, "gone")?;
    admin.rows("DROP EXTENSION pg_oidc")?;
    admin.rows(
        "CREATE SCHEMA oidc; CREATE TABLE oidc.provider (name text); INSERT INTO oidc.provider VALUES ('gone'); \
         CREATE TABLE oidc.jwks_cache (provider text PRIMARY KEY, body jsonb, fetched_at timestamptz, \
                                       fresh_until timestamptz)",
    )?;
    let worker = "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'pg_oidc registry%'";
    let first = admin.value(worker)?;
    admin.rows(&format!("SELECT pg_terminate_backend(pid) FROM ({worker}) w"))?;
    until("the next worker has looked twice", SOON, || {
        // It looks twice a second.
        let looked = format!("{worker} AND clock_timestamp() > backend_start + interval '1.5 s'");
        let rows: Vec<_> = admin.rows(&looked)?.into_iter().flatten().collect();
        Ok(!rows.is_empty() && !rows.contains(&first))
    })?;
    assert_eq!(admin.value("SELECT count(*) FROM oidc.jwks_cache")?.as_deref(), Some("0"));
    ensure!(!stage.cluster.log().contains("could not keep"), "it tried");
    Ok(())
}
