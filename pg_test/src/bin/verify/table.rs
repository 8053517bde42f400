//! The table at the end: what is tested, one row for each file of tests, by server.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

use pg_oidc_test::workspace;

/// Characters of a file's description.
const LONGEST: usize = 76;
/// What stands where nothing was run.
const NOTHING: &str = "–";

/// A second door: the version that has it, and its name.
pub(super) struct SecondDoor {
    pub(super) major: u32,
    pub(super) name: &'static str,
}

/// The OAUTHBEARER door.
pub(super) const SECOND_DOOR: SecondDoor = SecondDoor { major: 18, name: "oauth" };

/// One run of the tests: on which version, through which door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) major: u32,
    pub(super) second_door: bool,
}

impl Column {
    /// The columns for these versions.
    pub(super) fn all(majors: &[u32]) -> Vec<Self> {
        let first = majors.iter().map(|major| Self { major: *major, second_door: false });
        let second = majors.contains(&SECOND_DOOR.major);
        let second = second.then_some(Self { major: SECOND_DOOR.major, second_door: true });
        first.chain(second).collect()
    }

    /// As in `18 oauth`.
    pub(super) fn name(self) -> String {
        let door = if self.second_door { SECOND_DOOR.name } else { "" };
        format!("{} {door}", self.major).trim_end().to_owned()
    }
}

/// How a test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Passed,
    Failed,
    /// It said that it does not apply to this server.
    Skipped,
}

/// Tests of one file on one server.
#[derive(Default, Clone, Copy)]
struct Cell {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Cell {
    fn text(self) -> String {
        let parts = [(self.passed, ""), (self.failed, " failed"), (self.skipped, " skipped")];
        let parts: Vec<String> = parts
            .iter()
            .filter(|(number, _)| *number > 0)
            .map(|(number, word)| format!("{number}{word}"))
            .collect();
        if parts.is_empty() { NOTHING.to_owned() } else { parts.join(", ") }
    }
}

/// What was counted, by file of tests and by column.
#[derive(Default)]
pub(super) struct Table {
    rows: BTreeMap<String, BTreeMap<String, Cell>>,
}

impl Table {
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Counts a test of this file in this run.
    pub(super) fn count(&mut self, row: &str, column: Column, outcome: Outcome) {
        let row = self.rows.entry(row.to_owned()).or_default();
        let cell = row.entry(column.name()).or_default();
        match outcome {
            Outcome::Passed => cell.passed += 1,
            Outcome::Failed => cell.failed += 1,
            Outcome::Skipped => cell.skipped += 1,
        }
    }

    /// The table in plain text, with a column for each of these versions, and the sums.
    pub(super) fn text(&self, majors: &[u32]) -> String {
        let columns: Vec<String> = Column::all(majors).into_iter().map(Column::name).collect();
        let cells = |row: &BTreeMap<String, Cell>| -> Vec<String> {
            columns.iter().map(|column| row.get(column).copied().unwrap_or_default().text()).collect()
        };
        let mut lines = vec![("".to_owned(), columns.clone(), String::new())];
        lines.extend(self.rows.iter().map(|(name, row)| (name.clone(), cells(row), description(name))));
        lines.push(("all".to_owned(), cells(&self.sums()), String::new()));

        let first = lines.iter().map(|line| line.0.chars().count()).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = lines.iter().filter_map(|line| line.1.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns.len()).map(width).collect();
        let mut text = String::new();
        for (name, cells, about) in &lines {
            let mut line = format!("  {name:<first$}");
            for (cell, width) in cells.iter().zip(&widths) {
                let _ = write!(line, "  {cell:>width$}");
            }
            let _ = write!(line, "  {about}");
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text.trim_end().to_owned()
    }

    fn sums(&self) -> BTreeMap<String, Cell> {
        let mut sums: BTreeMap<String, Cell> = BTreeMap::new();
        for (column, cell) in self.rows.values().flatten() {
            let sum = sums.entry(column.clone()).or_default();
            sum.passed += cell.passed;
            sum.failed += cell.failed;
            sum.skipped += cell.skipped;
        }
        sums
    }
}

/// The first sentence of a file of tests.
fn description(name: &str) -> String {
    let tests = workspace().join("pg_test/tests");
    let files = [tests.join("login").join(format!("{name}.rs")), tests.join(format!("{name}.rs"))];
    let Some(text) = files.iter().find_map(|file| fs::read_to_string(file).ok()) else {
        return String::new();
    };
    let lines = text.lines().map_while(|line| line.strip_prefix("//! "));
    let said = lines.collect::<Vec<_>>().join(" ");
    let sentence = said.split(". ").next().unwrap_or_default().trim_end_matches('.');
    if sentence.chars().count() <= LONGEST {
        return sentence.to_owned();
    }
    let cut: String = sentence.chars().take(LONGEST).collect();
    format!("{}…", cut.rsplit_once(' ').map_or(cut.as_str(), |(whole, _)| whole))
}
