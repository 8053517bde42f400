//! What is looked at without running anything of ours: format, dependencies, lints, documentation.

use std::process::Command;

use anyhow::{Result, ensure};
use pg_oidc_test::postgres::Postgres;
use pg_oidc_test::terminal::Step;
use pg_oidc_test::{program, tools, workspace};

use super::Tally;

/// The packages that must never know of PostgreSQL.
const PURE: [&str; 2] = ["pg_oidc_core", "pg_oidc_net"];

/// Private items are documented too, so a link to one leads somewhere.
const RUSTDOCFLAGS: &str = "-D warnings -A rustdoc::private_intra_doc_links";

/// A cargo of the workspace, without colours.
pub(super) fn cargo(words: &[&str]) -> Command {
    let mut cargo = program::command("cargo");
    cargo.args(words).current_dir(workspace()).env("CARGO_TERM_COLOR", "never");
    cargo
}

/// Has a cargo command build for this server, and for no other; with what only tests have.
fn build_for(command: &mut Command, postgres: &Postgres) {
    let features = format!("--features=pg_oidc/pg{},pg_oidc/fail_points", postgres.major());
    command.arg("--no-default-features").arg(features);
    command.env("PGRX_PG_CONFIG_PATH", postgres.pg_config());
}

/// Every check. What depends on the server is looked at for the first of them, and clippy for the last one too: between
/// them lie all differences of versions.
pub(super) fn all(tally: &mut Tally, servers: &[&Postgres]) {
    let run = |mut command: Command| {
        move |step: &Step| program::watched(&mut command, |line| step.note(line)).map(drop)
    };

    tally.check("Format", run(cargo(&["fmt", "--all", "--check", "--", "--color", "never"])));
    tally.check("core and net know nothing of PostgreSQL", |_| pure());
    deny(tally);

    let Some((first, others)) = servers.split_first() else { return };
    for postgres in std::iter::once(first).chain(others.last()) {
        let mut clippy = cargo(&["clippy", "--workspace", "--all-targets"]);
        build_for(&mut clippy, postgres);
        clippy.args(["--", "-D", "warnings"]);
        tally.check(&format!("Clippy for PostgreSQL {}, warnings denied", postgres.major()), run(clippy));
    }

    let mut doc = cargo(&["doc", "--workspace", "--no-deps", "--document-private-items"]);
    build_for(&mut doc, first);
    doc.env("RUSTDOCFLAGS", RUSTDOCFLAGS);
    tally.check("Documentation, warnings denied", run(doc));
}

/// core and net can be read, tested and fuzzed with no server, only as long as this holds.
fn pure() -> Result<()> {
    for package in PURE {
        let tree = program::output(&mut cargo(&[
            "tree",
            "--package",
            package,
            "--prefix",
            "none",
            "--edges",
            "all",
        ]))?;
        let pgrx = tree.lines().find(|line| line.starts_with("pgrx"));
        ensure!(pgrx.is_none(), "{package} depends on {}", pgrx.unwrap_or_default());
    }
    Ok(())
}

fn deny(tally: &mut Tally) {
    if let Err(error) = tools::prepare_deny() {
        tally.check("cargo-deny", |_| Err(error));
        return;
    }
    let check = |words: &[&str]| {
        let mut deny = tools::deny()?;
        deny.args(["--all-features", "check", "--hide-inclusion-graph"]).args(words).current_dir(workspace());
        anyhow::Ok(deny)
    };
    tally.check("Licences, bans and sources of all dependencies", |step| {
        let mut command = check(&["licenses", "bans", "sources"])?;
        program::watched(&mut command, |line| step.note(line)).map(drop)
    });

    let step = Step::begin("Advisories against dependencies");
    let run = |mut command: Command| program::followed(&mut command, |line| step.note(line));
    match check(&["advisories"]).and_then(run) {
        Ok((true, _)) => {
            tally.passed += 1;
            step.done();
        }
        Ok((false, text)) if text.contains("failed to fetch advisory database") => {
            step.skipped("not checked: the advisory database cannot be reached from here");
        }
        Ok((false, text)) => {
            tally.failed += 1;
            tally.failures.push(format!("Advisories\n{}", program::tail(&text)));
            step.failed("");
        }
        Err(error) => {
            tally.failed += 1;
            tally.failures.push(format!("Advisories: {error:#}"));
            step.failed("");
        }
    }
}
