//! `cargo verify [--pg N | --all]`: everything that must hold before a change is good, and nothing else to run, on the
//! machine's PostgreSQL, on version N, or on 15 to 18, one after the other.
//!
//! Installs what it needs, then: format, dependencies, clippy, documentation, the extension built for each server and
//! put into a copy of it, every test. The extension is built beside the checks: they lock different halves of the
//! target folder. No test runs beside a build: some await things that a busy machine is late with.
//!
//! At the end stands a table, by what is tested and by server. The last line is `N passed, N failed`; each check and
//! each test counts one.

mod checks;
mod run;
mod table;

use std::process::ExitCode;
use std::sync::mpsc::{Receiver, channel};
use std::thread::Scope;

use anyhow::{Context, Result, bail};
use pg_oidc_test::extension::{self, Server};
use pg_oidc_test::postgres::{Choice, Postgres, SUPPORTED};
use pg_oidc_test::terminal::{Step, faint, heading, say};
use pg_oidc_test::{machine, tools};

use table::Table;

/// What has been counted so far, and what is to be shown of the failures.
#[derive(Default)]
struct Tally {
    passed: u64,
    failed: u64,
    failures: Vec<String>,
    table: Table,
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
    let majors = match Choice::of_arguments(std::env::args().skip(1)) {
        Ok((Choice::Machine, others)) if others == ["--all"] => SUPPORTED.collect(),
        Ok((Choice::Machine, others)) if others.is_empty() => vec![*SUPPORTED.start()],
        Ok((Choice::Major(major), others)) if others.is_empty() => vec![major],
        _ => {
            eprintln!("usage: cargo verify [--pg 15|16|17|18 | --all]");
            return ExitCode::from(2);
        }
    };
    let mut tally = Tally::default();
    if let Err(error) = verify(&mut tally, &majors) {
        tally.failed += 1;
        tally.failures.push(format!("{error:#}"));
    }
    if !tally.failures.is_empty() {
        heading("What failed");
        for failure in &tally.failures {
            say(&format!("\n{failure}"));
        }
    }
    if !tally.table.is_empty() {
        heading("What was tested, by server");
        say(&tally.table.text(&majors));
    }
    say("");
    say(&format!("{} passed, {} failed", tally.passed, tally.failed));
    if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Tests these major versions, with what their tests need beside them.
fn verify(tally: &mut Tally, majors: &[u32]) -> Result<()> {
    heading("What the run needs");
    let mut needed = majors.to_vec();
    for major in majors.iter().flat_map(|major| extension::beside(*major)) {
        if !needed.contains(&major) {
            needed.push(major);
        }
    }
    for major in &needed {
        machine::prepare(Choice::Major(*major))?;
    }
    tools::prepare_pgrx()?;
    tools::prepare_provider()?;
    let servers =
        needed.iter().map(|major| Postgres::find(Choice::Major(*major))).collect::<Result<Vec<_>>>()?;
    let tested: Vec<&Postgres> = servers.iter().take(majors.len()).collect();
    for postgres in &servers {
        say(&faint(&format!("  PostgreSQL {}", postgres.version())));
    }

    std::thread::scope(|scope| {
        let copies = build_beside(scope, &servers);
        heading("Checks");
        checks::all(tally, &tested);
        heading("Tests");
        let copies = joined(tally, &servers, &copies);
        run::all(tally, majors, &copies)
    })
}

/// Builds the extension in release for each server and puts it into a copy of that, while the checks run.
fn build_beside<'scope>(
    scope: &'scope Scope<'scope, '_>,
    servers: &'scope [Postgres],
) -> Receiver<Result<Server>> {
    let (built, copies) = channel();
    scope.spawn(move || {
        for postgres in servers {
            let package = extension::build(postgres, extension::Use::Test, |_| {});
            // Nobody listens any more where the checks panicked.
            let _ = built.send(package.and_then(|package| Server::copy(postgres, Some(&package))));
        }
    });
    copies
}

/// The copies that could be made, in the order of the servers.
fn joined(tally: &mut Tally, servers: &[Postgres], copies: &Receiver<Result<Server>>) -> Vec<Server> {
    let mut made = Vec::new();
    for postgres in servers {
        let label =
            format!("The extension in a copy of PostgreSQL {} (begun at the start)", postgres.version());
        tally.check(&label, |_| {
            made.push(copies.recv().context("the build panicked")??);
            Ok(())
        });
    }
    made
}

/// The copy of this major version.
fn copy_of(copies: &[Server], major: u32) -> Result<&Server> {
    let Some(server) = copies.iter().find(|server| server.major() == major) else {
        bail!("PostgreSQL {major} was not tested: what the tests need was not built");
    };
    Ok(server)
}
