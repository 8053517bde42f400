//! No piece of a token is ever written down (n120).
//!
//! 1. The search finds a piece that is there, and no shorter one.
//! 2. With everything logged that can be, no 12 characters of any token, good, half good, forged, malformed, oversized or
//!    in a wrong message, and nothing of what is inside a refused one, are in
//!    - what the client is told,
//!    - any table or view that a superuser can read: pg_stat_activity, pg_stat_statements, all of schema oidc,
//!    - the command lines of the server's processes, also while a login waits,
//!    - the log, and every other file of the cluster.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::Path;
use std::thread;

use anyhow::{Context, Result, ensure};
use pg_oidc_test::client::Session;
use pg_oidc_test::issuer::{Behaviour, DISCOVERY, Issuer};
use pg_oidc_test::keys::keys;
use pg_oidc_test::psql::Way;
use pg_oidc_test::token::{Token, tampered};
use pg_oidc_test::wire::{ASKED, Wire};
use serde_json::json;

use crate::scene::{SOON, Stage, good, provider_sql};

/// Pieces of this length must not be found; a shorter one may be a coincidence.
const PIECE: usize = 12;

/// In every header and payload that must not be seen in clear text either.
const PLANTED: &str = "planted-in-a-token";

/// All tokens of the run, and what is planted in them, by their pieces.
struct Hunt {
    pieces: HashSet<[u8; PIECE]>,
}

/// A character of a compact token.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

impl Hunt {
    fn new() -> Self {
        let mut hunt = Self { pieces: HashSet::new() };
        hunt.know(PLANTED);
        hunt
    }

    fn know(&mut self, token: &str) {
        self.pieces.extend(windows(token.as_bytes()).copied());
    }

    /// The first piece that is there.
    fn found(&self, bytes: &[u8]) -> Option<String> {
        let hit = windows(bytes).find(|window| self.pieces.contains(*window))?;
        Some(String::from_utf8_lossy(hit).into_owned())
    }

    fn nowhere_in(&self, what: &str, bytes: impl AsRef<[u8]>) -> Result<()> {
        let hit = self.found(bytes.as_ref());
        ensure!(hit.is_none(), "{hit:?} of a token is in {what}");
        Ok(())
    }
}

/// All runs of [`PIECE`] characters of tokens.
fn windows(bytes: &[u8]) -> impl Iterator<Item = &[u8; PIECE]> {
    bytes
        .split(|byte| !is_token(*byte))
        .flat_map(|run| run.windows(PIECE))
        .filter_map(|run| run.try_into().ok())
}

#[test]
fn search_finds_what_is_there() {
    let token = good("secret").sign(&keys().ec);
    let mut hunt = Hunt::new();
    hunt.know(&token);
    for at in 0..token.len() - PIECE {
        assert!(hunt.found(format!("…{} …", &token[at..at + PIECE]).as_bytes()).is_some(), "at {at}");
        assert!(hunt.found(format!("…{} …", &token[at..at + PIECE - 1]).as_bytes()).is_none(), "at {at}");
    }
    assert!(hunt.found(format!("…{PLANTED}").as_bytes()).is_some());
}

/// Everything that a server can be told to log.
const EVERYTHING: [(&str, &str); 14] = [
    ("shared_preload_libraries", "pg_oidc,pg_stat_statements"),
    ("pg_stat_statements.track", "all"),
    ("pg_oidc.wait_timeout", "2s"),
    ("log_min_messages", "debug5"),
    ("log_min_error_statement", "debug5"),
    ("log_error_verbosity", "verbose"),
    ("log_connections", "on"),
    ("log_disconnections", "on"),
    ("log_statement", "all"),
    ("log_duration", "on"),
    ("log_hostname", "on"),
    ("log_replication_commands", "on"),
    ("debug_print_parse", "on"),
    ("debug_print_plan", "on"),
];

fn planted() -> Token {
    good("secret").claim("planted", json!(PLANTED)).header("x-planted", json!(PLANTED))
}

/// What is refused however it is sent.
fn bad(token: &str) -> Vec<String> {
    let (key, padded) = (&keys().rsa, |bytes: usize| planted().claim("pad", json!("x".repeat(bytes))));
    vec![
        planted().expired().sign(key),
        planted().not_yet_valid().sign(key),
        planted().audience(PLANTED).sign(key),
        planted().issuer("https://planted-in-a-token.example").sign(key),
        planted().header("kid", json!(PLANTED)).sign(key),
        planted().header("kid", json!(format!("{PLANTED}\n"))).sign(key),
        planted().header("alg", json!(PLANTED)).sign(key),
        planted().header("typ", json!(PLANTED)).sign(key),
        planted().header("crit", json!([PLANTED])).sign(key),
        planted().claim("sub", json!([PLANTED])).sign(key),
        planted().claim("cnf", json!({ "jkt": PLANTED })).sign(key),
        planted().raw_header(format!("{{\"{PLANTED}\": 1")).sign(key),
        planted().raw_payload(format!("{{\"{PLANTED}\": 1")).sign(key),
        planted().raw_payload(format!("{{\"{PLANTED}\": 1, \"{PLANTED}\": 1}}")).sign(key),
        planted().raw_payload([0xff, 0xfe, 0x00]).sign(key),
        padded(20_000).sign(key),
        padded(48_000).sign(key),
        planted().sign(&keys().other_rsa),
        tampered(token, |claims| drop(claims.insert("more".to_owned(), json!(PLANTED)))),
        format!("{token}.{token}"),
        format!("Bearer {token}"),
        format!("{token}\n"),
        token.replace('.', " "),
        format!("{{\"payload\":\"{token}\"}}"),
        "correct-horse-battery-staple".to_owned(),
    ]
}

#[test]
fn n120_no_piece_of_a_token_is_written_down() -> Result<()> {
    let stage = Stage::with(|builder| {
        EVERYTHING.into_iter().fold(builder, |builder, (name, value)| builder.setting(name, value))
    })?;
    stage.admin()?.rows("CREATE EXTENSION pg_stat_statements")?;
    for name in ["secret", "idle"] {
        stage.trio(name)?;
    }
    stage.admin()?.rows("CREATE ROLE other LOGIN")?;
    let mut hunt = Hunt::new();
    let token = planted().sign(&keys().rsa);
    hunt.know(&token);

    // While it is open: what others see of a session, and of the processes of the machine.
    let session = stage.session("secret", &token)?;
    ensure!(session.value("SELECT oidc.claim('planted')")?.as_deref() == Some(PLANTED), "it has its claims");
    session.rows("SELECT count(*) FROM pg_class, pg_attribute")?;
    let seen = everything(&stage.admin()?)?;
    for there in
        ["pg_stat_activity: ", "pg_stat_statements: ", "oidc.role_mapping: ", "FROM pg_class, pg_attribute"]
    {
        ensure!(seen.contains(there), "{there:?} is not among what was looked at");
    }
    hunt.nowhere_in("a table", &seen)?;
    let lines = command_lines()?;
    ensure!(lines.contains("postgres: secret postgres "), "the session has no command line");
    hunt.nowhere_in("a command line", lines)?;
    drop(session);

    let mut refused = 0;
    for bad in bad(&token) {
        hunt.know(&bad);
        refused += 1;
        refuse(&stage, &hunt, "secret", &bad)?;
    }
    // Half good: nothing is wrong with the token.
    let stranger = planted().claim("sub", json!("nobody")).sign(&keys().rsa);
    hunt.know(&stranger);
    refuse(&stage, &hunt, "secret", &stranger)?;
    refuse(&stage, &hunt, "other", &token)?;
    refuse(&stage, &hunt, NOBODY, &token)?;
    stage.admin()?.rows("ALTER ROLE idle NOLOGIN")?;
    let idle = good("idle").sign(&keys().rsa);
    hunt.know(&idle);
    refuse(&stage, &hunt, "idle", &idle)?;
    refused += 4;
    wrong_messages(&stage, &token)?;
    refused += wait(&stage, &mut hunt)?;
    stage.accepted("secret", &token, "at last")?;
    hunt.nowhere_in("a table at last", everything(&stage.admin()?)?)?;

    stage.cluster.stop()?;
    let log = stage.cluster.log();
    let count = log.matches("OIDC login refused").count();
    ensure!(count >= 2 * refused, "{count} of {} refusals are in the log", 2 * refused);
    ensure!(log.contains("DEBUG:") && log.contains("reason=password_malformed"), "the log is not verbose");
    hunt.nowhere_in("the log", &log)?;
    let files = search(&hunt, stage.cluster.folder(), &stage.cluster.server().template())?;
    ensure!(files > 100, "only {files} files");
    Ok(())
}

/// A role that does not exist.
const NOBODY: &str = "nobody_at_all";

/// The token is refused with both clients, and neither is told anything of it.
fn refuse(stage: &Stage, hunt: &Hunt, user: &str, token: &str) -> Result<()> {
    let login = stage.login(user, token);
    let seen = login.run("SELECT 1")?;
    ensure!(seen.refusal().is_some(), "this was not refused: {token}");
    hunt.nowhere_in("what psql shows", format!("{seen:?}"))?;
    match login.connect()? {
        Ok(_) => anyhow::bail!("this was not refused: {token}"),
        Err(told) => hunt.nowhere_in("what the client is told", format!("{told:?}")),
    }
}

/// Messages of another type, with false lengths, and broken off, all with the token in them.
fn wrong_messages(stage: &Stage, token: &str) -> Result<()> {
    let length = |bytes: usize| i32::try_from(bytes + 4);
    let (text, half) = (token.as_bytes(), &token.as_bytes()[..token.len() / 2]);
    let cases: [(u8, i32, Vec<u8>); 7] = [
        (b'Q', length(text.len() + 1)?, [text, &[0]].concat()),
        (b'p', length(text.len())?, text.to_vec()),
        (b'p', length(text.len() + 2)?, [text, &[0, 0]].concat()),
        (b'p', length(text.len() + 1)?, [half, &[0], &text[half.len()..]].concat()),
        (b'p', length(text.len() + 9)?, text.to_vec()),
        (b'p', i32::MAX, text.to_vec()),
        (b'p', -1, text.to_vec()),
    ];
    for (kind, length, body) in cases {
        let (mut wire, first) = Wire::begin(&stage.cluster, Way::Tls, "secret")?;
        assert_eq!(first, ASKED);
        wire.message(kind, length, &body)?;
        // The server may be gone already.
        drop(wire.end());
        drop(wire.hear_all()?);
    }
    Ok(())
}

/// A login that waits for the keys of an issuer that does not answer; gives how many were refused, by two clients each.
fn wait(stage: &Stage, hunt: &mut Hunt) -> Result<usize> {
    let issuer = Issuer::start()?;
    issuer.misbehave(DISCOVERY, Behaviour::Hang);
    stage.admin()?.rows(&provider_sql("slow", &issuer.url(), &[]))?;
    ensure!(issuer.wait(DISCOVERY, 1, SOON), "the issuer was not asked");
    let token = planted().issuer(&issuer.url()).sign(&keys().rsa);
    hunt.know(&token);
    let hunt = &*hunt;
    thread::scope(|scope| {
        let login = scope.spawn(|| refuse(stage, hunt, "secret", &token));
        let mut waiting = 0;
        while !login.is_finished() {
            let lines = command_lines()?;
            waiting += usize::from(lines.contains("authentication"));
            hunt.nowhere_in("a command line", lines)?;
            hunt.nowhere_in(
                "pg_stat_activity",
                format!("{:?}", stage.admin()?.rows("TABLE pg_stat_activity")?),
            )?;
        }
        ensure!(waiting > 0, "no login was seen to wait");
        login.join().map_err(|_| anyhow::anyhow!("it panicked"))?
    })?;
    Ok(1)
}

/// Every row of every table and view, each after the name of where it is.
fn everything(admin: &Session) -> Result<String> {
    let names = admin.rows(
        "SELECT c.oid::regclass FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'v', 'm', 'p') AND n.nspname IN ('oidc', 'pg_catalog', 'public')",
    )?;
    let mut text = String::new();
    for name in names.into_iter().flatten().flatten() {
        let rows = match admin.try_rows(&format!("SELECT x::text FROM {name} x"))? {
            // From 18 on: which memory is where, which not every machine tells.
            Err(told) if told.message.contains("NUMA") => continue,
            rows => rows.map_err(|told| anyhow::anyhow!("{name}: {told:?}"))?,
        };
        for row in rows {
            writeln!(text, "{name}: {row:?}")?;
        }
    }
    Ok(text)
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

/// Looks into every file of a cluster's folder but those that are as initdb made them; gives their number.
fn search(hunt: &Hunt, folder: &Path, template: &Path) -> Result<usize> {
    let mut files = 0;
    for entry in std::fs::read_dir(folder)? {
        let (name, path) = entry.map(|entry| (entry.file_name(), entry.path()))?;
        if path.is_dir() {
            let below = if name == "data" { template.to_owned() } else { template.join(name) };
            files += search(hunt, &path, &below)?;
        } else if path.is_file() {
            let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
            if std::fs::read(template.join(name)).is_ok_and(|initial| initial == bytes) {
                continue;
            }
            hunt.nowhere_in(&path.display().to_string(), bytes)?;
            files += 1;
        }
    }
    Ok(files)
}
