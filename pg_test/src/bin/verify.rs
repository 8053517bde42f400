//! `cargo verify`: everything that must hold before a change is good, and nothing else to run.
//!
//! Installs what it needs, then: format, dependencies, clippy, documentation, the extension built and put
//! into a copy of the server, every test. The extension is built beside the checks: they lock different
//! halves of the target folder. The last line is `N passed, N failed`; each check and each test counts one.

use std::process::{Command, ExitCode};
use std::thread::{Scope, ScopedJoinHandle};

use anyhow::{Context, Result, bail, ensure};
use pg_oidc_test::extension::{self, SERVER_VARIABLE, Server};
use pg_oidc_test::postgres::Postgres;
use pg_oidc_test::terminal::{Step, faint, heading, say};
use pg_oidc_test::{machine, program, tools, workspace};

/// The packages that have tests; the extension itself is tested from outside, by the last of them.
const TESTED: [&str; 3] = ["pg_oidc_core", "pg_oidc_net", "pg_oidc_test"];
/// The packages that must never know of PostgreSQL.
const PURE: [&str; 2] = ["pg_oidc_core", "pg_oidc_net"];
/// Lines of a failed test program's output that are repeated at the end.
const SHOWN: usize = 200;

/// Private items are documented too, so a link to one leads somewhere.
const RUSTDOCFLAGS: &str = "-D warnings -A rustdoc::private_intra_doc_links";

/// What has been counted so far, and what is to be shown of the failures.
#[derive(Default)]
struct Tally {
    passed: u64,
    failed: u64,
    failures: Vec<String>,
}

impl Tally {
    /// Runs one check and counts it.
    fn check(&mut self, label: &str, run: impl FnOnce(&Step) -> Result<()>) {
        let step = Step::begin(label);
        match run(&step) {
            Ok(()) => {
                self.passed += 1;
                step.done();
            }
            Err(error) => {
                self.failed += 1;
                self.failures.push(format!("{label}: {error:#}"));
                step.failed("");
            }
        }
    }
}

fn main() -> ExitCode {
    if std::env::args().len() > 1 {
        eprintln!("usage: cargo verify");
        return ExitCode::from(2);
    }
    let mut tally = Tally::default();
    if let Err(error) = verify(&mut tally) {
        tally.failed += 1;
        tally.failures.push(format!("{error:#}"));
    }
    if !tally.failures.is_empty() {
        heading("What failed");
        for failure in &tally.failures {
            say(&format!("\n{failure}"));
        }
    }
    say("");
    say(&format!("{} passed, {} failed", tally.passed, tally.failed));
    if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn verify(tally: &mut Tally) -> Result<()> {
    heading("What the run needs");
    machine::prepare()?;
    tools::prepare_pgrx()?;
    tools::prepare_provider()?;
    let postgres = Postgres::of_machine()?;
    say(&faint(&format!("  PostgreSQL {}", postgres.version())));

    std::thread::scope(|scope| {
        let server = build_beside(scope, &postgres);
        heading("Checks");
        checks(tally, &postgres);
        heading("Tests");
        let server = joined(tally, server);
        tests(tally, server.as_ref())
    })
}

/// Builds the extension in release and puts it into a copy of the server, while the checks run.
fn build_beside<'scope>(
    scope: &'scope Scope<'scope, '_>,
    postgres: &'scope Postgres,
) -> ScopedJoinHandle<'scope, Result<Server>> {
    scope.spawn(|| {
        let package = extension::build(postgres, extension::Use::Test, |_| {})?;
        Server::copy(postgres, Some(&package))
    })
}

fn joined(tally: &mut Tally, server: ScopedJoinHandle<'_, Result<Server>>) -> Option<Server> {
    let mut built = None;
    tally.check("The extension in a copy of the server (begun at the start)", |_| {
        let Ok(server) = server.join() else { bail!("the build panicked") };
        built = Some(server?);
        Ok(())
    });
    built
}

fn cargo(words: &[&str]) -> Command {
    let mut cargo = program::command("cargo");
    cargo.args(words).current_dir(workspace()).env("CARGO_TERM_COLOR", "never");
    cargo
}

/// The features that build for this server, and for no other; with what only tests have.
fn features(postgres: &Postgres) -> [String; 2] {
    [
        "--no-default-features".to_owned(),
        format!("--features=pg_oidc/pg{},pg_oidc/fail_points", postgres.major()),
    ]
}

fn checks(tally: &mut Tally, postgres: &Postgres) {
    let run = |mut command: Command| {
        move |step: &Step| program::watched(&mut command, |line| step.note(line)).map(drop)
    };
    let features = features(postgres);

    tally.check("Format", run(cargo(&["fmt", "--all", "--check", "--", "--color", "never"])));
    tally.check("core and net know nothing of PostgreSQL", |_| pure());
    deny(tally);

    let mut clippy = cargo(&["clippy", "--workspace", "--all-targets"]);
    clippy.args(&features).args(["--", "-D", "warnings"]);
    tally.check("Clippy, warnings denied", run(clippy));

    let mut doc = cargo(&["doc", "--workspace", "--no-deps", "--document-private-items"]);
    doc.args(&features).env("RUSTDOCFLAGS", RUSTDOCFLAGS);
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

/// Builds all test programs, runs them, and counts every test by itself.
fn tests(tally: &mut Tally, server: Option<&Server>) -> Result<()> {
    let tested: Vec<&str> = TESTED.iter().flat_map(|&package| ["--package", package]).collect();
    let mut built = false;
    tally.check("Building the tests", |step| {
        let build = &mut cargo(&["test", "--no-run"]);
        program::watched(build.args(&tested), |line| step.note(line))?;
        built = true;
        Ok(())
    });
    let Some(server) = server.filter(|_| built) else {
        bail!("the tests were not run: what they need was not built");
    };
    let mut command = cargo(&["test", "--no-fail-fast"]);
    command.args(&tested).env(SERVER_VARIABLE, server.root()).env("RUST_BACKTRACE", "0");

    let mut run = Run::default();
    let (success, _) =
        program::followed(&mut command, |line| run.see(line)).context("could not run the tests")?;
    run.close();
    tally.passed += run.passed;
    tally.failed += run.failed;
    tally.failures.append(&mut run.failures);
    if !success && run.failed == 0 {
        bail!("cargo test failed, though no test did");
    }
    Ok(())
}

/// One test program that runs.
struct Suite {
    step: Step,
    said: Vec<String>,
    /// Passed and failed, once it has said so.
    counts: Option<(u64, u64)>,
}

/// What `cargo test` has said so far.
#[derive(Default)]
struct Run {
    suite: Option<Suite>,
    passed: u64,
    failed: u64,
    failures: Vec<String>,
}

impl Run {
    fn see(&mut self, line: &str) {
        let text = line.trim();
        if let Some(name) = text.strip_prefix("Running ").or(text.strip_prefix("Doc-tests ")) {
            self.close();
            // "unittests lib.rs (target/debug/deps/pg_oidc_core-1a2b)": the program's name without its hash.
            let name = name.rsplit(['/', '(']).next().unwrap_or(name).trim_end_matches(')');
            let name = name.rsplit_once('-').map_or(name, |(name, _)| name);
            let kind = if text.starts_with("Doc") { "examples in the documentation" } else { "tests" };
            let step = Step::begin(format!("{name}: {kind}"));
            self.suite = Some(Suite { step, said: Vec::new(), counts: None });
            return;
        }
        let Some(suite) = &mut self.suite else { return };
        suite.said.push(line.to_owned());
        if let Some(counts) = text.strip_prefix("test result: ") {
            // The last one counts: a failed test may repeat what a test program that it ran had said.
            suite.counts = Some((count(counts, " passed"), count(counts, " failed")));
        } else if let Some(test) = text.strip_prefix("test ") {
            suite.step.note(test);
        }
    }

    /// Counts the program that ran. One that ended without a result crashed: a failure, with all it said.
    fn close(&mut self) {
        let Some(Suite { step, said, counts }) = self.suite.take() else { return };
        let (passed, failed) = counts.unwrap_or((0, 1));
        self.passed += passed;
        self.failed += failed;
        if failed > 0 {
            step.failed(&format!("{passed} passed, {failed} failed"));
            let is_news = |line: &&String| !line.trim_end().ends_with("... ok");
            let lines: Vec<&str> = said.iter().filter(is_news).map(String::as_str).collect();
            let from = lines.len().saturating_sub(SHOWN);
            self.failures.push(lines.get(from..).unwrap_or_default().join("\n"));
        } else if passed > 0 {
            step.done_with(&format!("{passed} passed"));
        } else {
            step.dismissed();
        }
    }
}

/// The number before a word, as in `12 passed; 0 failed`.
fn count(counts: &str, word: &str) -> u64 {
    let before = counts.split(word).next().unwrap_or_default();
    before.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}
