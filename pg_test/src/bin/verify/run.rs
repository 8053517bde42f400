//! The tests, run by `cargo test` and counted one by one.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use pg_oidc_test::extension::{Server, server_variable};
use pg_oidc_test::postgres::Choice;
use pg_oidc_test::terminal::Step;
use pg_oidc_test::{SKIPPED, door, program};

use super::checks::cargo;
use super::table::{Column, Outcome, SECOND_DOOR};
use super::{Tally, copy_of};

/// The packages whose tests know of no server: they are run once.
const SERVERLESS: [&str; 2] = ["pg_oidc_core", "pg_oidc_net"];
/// The package that has the tests to be run on each server; the extension itself is tested from outside, by these.
const OUTSIDE: &str = "pg_oidc_test";
/// Lines of a failed test program's output that are repeated at the end.
const SHOWN: usize = 200;

/// Builds all test programs and runs them: first what needs no server, then the others on each of `majors`.
pub(super) fn all(tally: &mut Tally, majors: &[u32], copies: &[Server]) -> Result<()> {
    let mut built = false;
    tally.check("Building the tests", |step| {
        let mut build = cargo(&["test", "--no-run"]);
        let packages = [SERVERLESS.as_slice(), &[OUTSIDE]].concat();
        program::watched(build.args(named(&packages)), |line| step.note(line))?;
        built = true;
        Ok(())
    });
    if !built {
        bail!("the tests were not run, as they could not be built");
    }
    tests(tally, &named(&SERVERLESS), None, copies)?;
    tests(tally, &["--package", OUTSIDE, "--lib"], None, copies)?;
    for column in Column::all(majors) {
        let copy = copy_of(copies, column.major);
        let run =
            copy.and_then(|_| tests(tally, &["--package", OUTSIDE, "--test", "*"], Some(column), copies));
        if let Err(error) = run {
            tally.failed += 1;
            tally.failures.push(format!("{error:#}"));
        }
    }
    Ok(())
}

fn named<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    packages.iter().flat_map(|package| ["--package", package]).collect()
}

/// Runs the tests that cargo chooses by these words, in one column of the table or without a server, and counts every
/// test by itself.
fn tests(tally: &mut Tally, chosen: &[&str], column: Option<Column>, copies: &[Server]) -> Result<()> {
    let mut command = cargo(&["test", "--no-fail-fast"]);
    // What passing tests say is shown too: whether they were skipped.
    command.args(chosen).env("RUST_BACKTRACE", "0").args(["--", "--show-output"]);
    for copy in copies {
        command.env(server_variable(copy.major()), copy.root());
    }
    if column.is_some_and(|column| column.second_door) {
        command.args(door::BEHIND_BOTH);
        command.args(door::ONLY_BY_PASSWORD.iter().flat_map(|(test, _)| ["--skip", test]));
    }
    column.map_or(Choice::Machine, |column| Choice::Major(column.major)).hand_on(&mut command);
    if column.is_some_and(|column| column.second_door) {
        command.env(door::DOOR_VARIABLE, SECOND_DOOR.name);
    }

    let mut run = Run { tally, column, suite: None, failed: 0 };
    let (success, _) =
        program::followed(&mut command, |line| run.see(line)).context("could not run the tests")?;
    run.close();
    if !success && run.failed == 0 {
        bail!("cargo test failed, though no test did");
    }
    Ok(())
}

/// One test program that runs.
struct Suite {
    name: String,
    step: Step,
    said: Vec<String>,
    /// Passed and failed, once it has said so.
    counts: Option<(u64, u64)>,
    ended: BTreeMap<String, Outcome>,
    /// The test whose output follows.
    of: String,
}

/// What `cargo test` has said so far.
struct Run<'a> {
    tally: &'a mut Tally,
    column: Option<Column>,
    suite: Option<Suite>,
    failed: u64,
}

impl Run<'_> {
    fn see(&mut self, line: &str) {
        let text = line.trim();
        if let Some(name) = text.strip_prefix("Running ").or(text.strip_prefix("Doc-tests ")) {
            self.close();
            // "unittests lib.rs (target/debug/deps/pg_oidc_core-1a2b)": the program's name without its hash.
            let name = name.rsplit(['/', '(']).next().unwrap_or(name).trim_end_matches(')');
            let name = name.rsplit_once('-').map_or(name, |(name, _)| name).to_owned();
            let kind = if text.starts_with("Doc") { "examples in the documentation" } else { "tests" };
            let on = self.column.map_or(String::new(), |column| format!(" on PostgreSQL {}", column.name()));
            let step = Step::begin(format!("{name}: {kind}{on}"));
            let (said, ended, of) = (Vec::new(), BTreeMap::new(), String::new());
            self.suite = Some(Suite { name, step, said, counts: None, ended, of });
            return;
        }
        if let Some(suite) = &mut self.suite {
            suite.see(line, text);
        }
    }

    /// Counts the program that ran. One that ended without a result crashed: a failure, with all it said.
    fn close(&mut self) {
        let Some(suite) = self.suite.take() else { return };
        let skipped = suite.ended.values().filter(|outcome| **outcome == Outcome::Skipped).count() as u64;
        let (passed, failed) = suite.counts.unwrap_or((0, 1));
        let passed = passed.saturating_sub(skipped);
        let tally = &mut self.tally;
        tally.passed += passed;
        tally.failed += failed;
        self.failed += failed;
        if let Some(column) = self.column {
            for (test, outcome) in &suite.ended {
                // The tests of the program `login` by module, those of the other programs by program.
                let row = test.split_once("::").map_or(suite.name.as_str(), |(module, _)| module);
                tally.table.count(row, column, *outcome);
            }
            if suite.counts.is_none() {
                tally.table.count(&suite.name, column, Outcome::Failed);
            }
        }
        let apart = if skipped > 0 { format!(", {skipped} skipped") } else { String::new() };
        if failed > 0 {
            tally.failures.push(suite.failures());
            suite.step.failed(&format!("{passed} passed, {failed} failed{apart}"));
        } else if passed + skipped > 0 {
            suite.step.done_with(&format!("{passed} passed{apart}"));
        } else {
            suite.step.dismissed();
        }
    }
}

impl Suite {
    fn see(&mut self, line: &str, text: &str) {
        self.said.push(line.to_owned());
        if let Some(counts) = text.strip_prefix("test result: ") {
            // The last one counts: a failed test may repeat what a test program that it ran had said.
            self.counts = Some((count(counts, " passed"), count(counts, " failed")));
        } else if let Some((test, outcome)) =
            text.strip_prefix("test ").and_then(|test| test.rsplit_once(" ... "))
        {
            let outcome = match outcome {
                "ok" => Outcome::Passed,
                "FAILED" => Outcome::Failed,
                _ => return,
            };
            self.ended.insert(test.to_owned(), outcome);
            self.step.note(&format!("{} {test}", self.ended.len()));
        } else if let Some(test) =
            text.strip_prefix("---- ").and_then(|test| test.strip_suffix(" stdout ----"))
        {
            test.clone_into(&mut self.of);
        } else if text.starts_with(SKIPPED)
            && let Some(outcome @ Outcome::Passed) = self.ended.get_mut(&self.of)
        {
            *outcome = Outcome::Skipped;
        }
    }

    /// What the failed tests said; of a program that crashed, its last words.
    fn failures(&self) -> String {
        let said = self.said.iter().map(String::as_str);
        // What the passing ones said comes before, under a heading of its own.
        let lines: Vec<&str> = if self.counts.is_some() {
            said.skip_while(|line| line.trim() != "failures:").collect()
        } else {
            said.filter(|line| !line.trim_end().ends_with("... ok")).collect()
        };
        let from = lines.len().saturating_sub(SHOWN);
        format!("{}\n{}", self.name, lines.get(from..).unwrap_or_default().join("\n"))
    }
}

/// The number before a word, as in `12 passed; 0 failed`.
fn count(counts: &str, word: &str) -> u64 {
    let before = counts.split(word).next().unwrap_or_default();
    before.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}
