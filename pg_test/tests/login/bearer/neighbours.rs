//! Other libraries: validators beside ours, and hooks over ours.

use anyhow::{Result, ensure};
use pg_oidc_test::cluster::VALIDATORS;
use pg_oidc_test::door;
use pg_oidc_test::psql::Way;
use pg_oidc_test::token::ISSUER;
use pg_oidc_test::wire::{Heard, Wire};

use super::{at_the_door, here, login, refusal, session};
use crate::libraries::{LAST, Source, library};
use crate::stage::{SOON, calm, furnished, token};

/// A validator that admits whoever comes with the token `sesame`, as `ali`.
const SESAME: Source = ("sesame", include_str!("sesame.c"));

#[test]
fn n133_lines_of_another_validator() -> Result<()> {
    if !here("n133_lines_of_another_validator")? {
        return Ok(());
    }
    let sesame = library(SESAME)?;
    let theirs = door::method(ISSUER).replace("validator=pg_oidc", &format!("validator=\"{sesame}\""));
    let line = format!("hostssl all ali 127.0.0.1/32 {theirs}");
    let builder = at_the_door(&[&line])?.setting(VALIDATORS, &format!("pg_oidc,{sesame}"));
    let cluster = furnished(builder, &["guest", "ali"])?;
    let mark = cluster.log_mark();
    let seen = login(&cluster, "ali", "sesame").run("SELECT current_user, system_user, oidc.identity()")?;
    assert_eq!(seen.rows(), [["ali", "oauth:ali", ""]], "{seen:?} {}", cluster.log_since(mark));
    // A token of ours is none of theirs, and theirs is none of ours.
    let ended = Wire::bear(&cluster, Way::Tls, "ali", &token("ali"))?;
    ensure!(matches!(ended.heard, Heard::Error(_)), "{ended:?}");
    ensure!(!cluster.log_since(mark).contains("OIDC login"), "{}", cluster.log_since(mark));
    refusal(&cluster, "guest", "sesame", "token_malformed")?;
    session(&cluster, "guest", &token("guest"))?;
    calm(&cluster, &[&token("guest")])
}

#[test]
fn n133_a_library_over_our_hook() -> Result<()> {
    if !here("n133_a_library_over_our_hook")? {
        return Ok(());
    }
    let last = library(LAST)?;
    for file in ["", pg_oidc_test::cluster::GUARDED_FILE] {
        let native = format!("hostssl all guest 127.0.0.1/32 {}", door::method(ISSUER));
        let builder = at_the_door(&[])?.native(&native).setting("pg_oidc.hba_file", file);
        let builder = builder.setting("shared_preload_libraries", &format!("pg_oidc,{last}"));
        let cluster = furnished(builder, &["guest"])?;
        let mark = cluster.log_mark();
        let ended = Wire::bear(&cluster, Way::Tls, "guest", &token("guest"))?;
        ensure!(matches!(ended.heard, Heard::Error(_)), "in, and our hook was never called");
        cluster.await_log_since(mark, "reason=door_bypassed", SOON)?;
        // The other way round ours is the last one again.
        cluster.set("shared_preload_libraries", &format!("{last},pg_oidc"))?;
        cluster.restart()?;
        session(&cluster, "guest", &token("guest"))?;
        calm(&cluster, &[&token("guest")])?;
    }
    Ok(())
}
