//! No piece of a token is ever written down (n120).
//!
//! 1. The search finds a piece that is there.
//! 2. With everything logged that can be, no 12 characters of any token, good or bad, are in the log, in what
//!    other sessions see, or on a command line.

use std::collections::HashSet;

use anyhow::{Context, Result, ensure};
use pg_oidc_test::keys::keys;
use pg_oidc_test::token::tampered;
use serde_json::json;

use crate::scene::{Stage, good};

/// Pieces of this length must not be found; a shorter one may be a coincidence.
const PIECE: usize = 12;

/// The first piece of any token that is in the text.
fn found(tokens: &[String], text: &str) -> Option<String> {
    let parts = tokens.iter().flat_map(|token| token.split(['.', ' ']));
    let pieces: HashSet<&[u8]> = parts.flat_map(|part| part.as_bytes().windows(PIECE)).collect();
    let hit = text.as_bytes().windows(PIECE).find(|window| pieces.contains(window))?;
    Some(String::from_utf8_lossy(hit).into_owned())
}

#[test]
fn search_finds_what_is_there() {
    let tokens = [good("secret").sign(&keys().ec)];
    let (_, signature) = tokens[0].rsplit_once('.').unwrap_or_default();
    assert!(found(&tokens, &format!("… {} …", &signature[20..32])).is_some());
    assert!(found(&tokens, &format!("… {} …", &signature[20..31])).is_none());
}

#[test]
fn n120_no_piece_of_a_token_is_written_down() -> Result<()> {
    let everything = [
        ("log_min_messages", "debug5"),
        ("log_connections", "on"),
        ("log_disconnections", "on"),
        ("log_statement", "all"),
        ("log_duration", "on"),
        ("log_error_verbosity", "verbose"),
        ("log_hostname", "on"),
    ];
    let stage = Stage::with(|builder| {
        everything.into_iter().fold(builder, |builder, (name, value)| builder.setting(name, value))
    })?;
    stage.trio("secret")?;
    let (admin, key) = (stage.admin()?, &keys().rsa);
    let token = good("secret").claim("planted", json!("a claim that only this session may see")).sign(key);

    // While it is open: what others see of a session, and of the processes of the machine.
    let session = stage.session("secret", &token)?;
    ensure!(session.value("SELECT oidc.claim('planted')")?.is_some(), "the session has its claims");
    let seen = admin.rows("SELECT s::text FROM pg_stat_activity s")?;
    let settings = admin.rows("SELECT s::text FROM pg_settings s")?;
    ensure!(format!("{seen:?}").contains("secret"), "the session is not in pg_stat_activity");
    let lines = command_lines()?;
    ensure!(lines.contains("postgres: secret postgres "), "the session has no command line");
    let tokens = [token.clone()];
    for text in [format!("{seen:?}"), format!("{settings:?}"), lines] {
        assert_eq!(found(&tokens, &text), None);
        ensure!(!text.contains("only this session may see"), "a claim is to be seen by others");
    }
    drop(session);

    let bad = [
        good("secret").expired().sign(key),
        good("secret").audience("other").sign(key),
        good("secret").issuer("https://stranger.example").sign(key),
        good("secret").header("kid", json!("planted-kid-in-the-header")).sign(key),
        good("secret").header("alg", json!("planted-alg-in-the-header")).sign(key),
        good("secret").header("crit", json!(["planted-crit-in-the-header"])).sign(key),
        good("secret").raw_payload("{\"planted\": broken json in the payload").sign(key),
        good("secret").raw_payload([0xff, 0xfe, 0x00]).sign(key),
        good("secret").claim("pad", json!("x".repeat(20_000))).sign(key),
        good("secret").sign(&keys().other_rsa),
        good("nobody").issuer("https://secret.example").sign(key),
        tampered(&token, |claims| drop(claims.insert("more".to_owned(), json!(1)))),
        format!("{token}.{token}"),
        format!("Bearer {token}"),
        token.replace('.', " "),
        "a password that is no token at all".to_owned(),
    ];
    for bad in &bad {
        let seen = stage.login("secret", bad).run("SELECT 1")?;
        ensure!(seen.refusal().is_some(), "this was not refused: {bad}");
        ensure!(stage.login("secret", bad).connect()?.is_err(), "this was not refused: {bad}");
    }
    stage.accepted("secret", &token, "at last")?;
    stage.cluster.stop()?;
    let log = stage.cluster.log();
    ensure!(log.matches("OIDC login refused").count() == 2 * bad.len(), "not every refusal is in the log");
    ensure!(log.contains("DEBUG:"), "the log is not verbose");
    let tokens: Vec<String> = [token].into_iter().chain(bad).collect();
    assert_eq!(found(&tokens, &log), None);
    for planted in ["planted-", "broken json", "only this session may see"] {
        let line = log.lines().find(|line| line.contains(planted));
        ensure!(line.is_none(), "{}", line.context(planted)?);
    }
    Ok(())
}

/// The command lines of all processes that we may see.
fn command_lines() -> Result<String> {
    let mut all = String::new();
    for process in std::fs::read_dir("/proc")? {
        // A process may be gone by now, or not be one.
        let line = std::fs::read(process?.path().join("cmdline")).unwrap_or_default();
        all.push_str(&String::from_utf8_lossy(&line).replace('\0', " "));
        all.push('\n');
    }
    Ok(all)
}
