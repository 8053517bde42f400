//! Finding the rules that may match a token without looking at the others.
//!
//! A rule matches only if all its members do, so it is enough to find it by one of them: the one that the fewest
//! rules share. A token then costs one binary search for each value of each claim that rules look at, and one full
//! comparison for each rule found, however many rules there are. A pattern is found by the literal that its matches
//! start or end with.

use std::collections::{BTreeMap, HashMap};

use rkyv::{Archive, Deserialize, Serialize};

use crate::matching::{Member, ScalarRef, Test};
use crate::path::ClaimPath;
use crate::rules::Rule;
use crate::subject::Subject;

/// The index over a list of rules, by their position in it.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, Default)]
pub(crate) struct Index {
    /// The claims that some rule is found by.
    paths: Vec<IndexedPath>,
    /// Sorted.
    postings: Vec<Posting>,
    /// Rules without a member to be found by: they are tried on every token.
    always: Vec<u32>,
}

/// A claim, and what of its values is looked up.
#[derive(Archive, Serialize, Deserialize, Debug, Clone)]
struct IndexedPath {
    path: ClaimPath,
    /// Whether whole values are.
    whole: bool,
    /// Lengths in bytes of the starts and of the ends that are; each once.
    starts: Vec<u32>,
    ends: Vec<u32>,
}

/// One rule, found by the hash of a claim and its value. A collision only costs a comparison.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Posting {
    hash: u64,
    rule: u32,
}

/// What a claim must have for a test to hold: itself, or the literal start or end of a pattern.
#[derive(Debug, Clone, Copy)]
enum Key<'a> {
    Whole(ScalarRef<'a>),
    Start(&'a [u8]),
    End(&'a [u8]),
}

impl Index {
    pub(crate) fn build(rules: &[Rule]) -> Index {
        let mut shared_by: HashMap<u64, usize> = HashMap::new();
        for (member, key) in rules.iter().flat_map(|rule| &rule.members).flat_map(|member| {
            keys(&member.test).unwrap_or_default().into_iter().map(move |key| (member, key))
        }) {
            let count = shared_by.entry(hash(member.path.steps(), key)).or_default();
            *count = count.saturating_add(1);
        }
        let cost = |(member, keys): &(&Member, Vec<Key<'_>>)| -> usize {
            keys.iter().filter_map(|key| shared_by.get(&hash(member.path.steps(), *key))).sum()
        };
        let mut index = Index::default();
        let mut paths: BTreeMap<&ClaimPath, IndexedPath> = BTreeMap::new();
        for (rule, number) in rules.iter().zip(0_u32..) {
            let found_by = rule.members.iter().filter_map(|member| Some((member, keys(&member.test)?)));
            let Some((member, keys)) = found_by.min_by_key(cost) else {
                index.always.push(number);
                continue;
            };
            let indexed = paths.entry(&member.path).or_insert_with(|| IndexedPath::new(&member.path));
            for key in keys {
                index.postings.push(Posting { hash: hash(member.path.steps(), key), rule: number });
                indexed.look_up(key);
            }
        }
        index.paths = paths.into_values().collect();
        index.postings.sort_unstable();
        index.postings.dedup();
        index
    }
}

impl IndexedPath {
    fn new(path: &ClaimPath) -> IndexedPath {
        IndexedPath { path: path.clone(), whole: false, starts: Vec::new(), ends: Vec::new() }
    }

    fn look_up(&mut self, key: Key<'_>) {
        let (lengths, literal) = match key {
            Key::Whole(_) => {
                self.whole = true;
                return;
            }
            Key::Start(literal) => (&mut self.starts, literal),
            Key::End(literal) => (&mut self.ends, literal),
        };
        // As long as a match can be, so it always fits.
        let length = u32::try_from(literal.len()).unwrap_or(u32::MAX);
        if let Err(place) = lengths.binary_search(&length) {
            lengths.insert(place, length);
        }
    }
}

/// What the claim must have one of for the test to hold; None: that cannot be said.
fn keys(test: &Test) -> Option<Vec<Key<'_>>> {
    match test {
        Test::Equals(value) => Some(vec![Key::Whole(value.borrowed())]),
        Test::Fits(pattern) => {
            let (start, end) = (pattern.prefix.as_bytes(), pattern.suffix.as_bytes());
            let key = if start.len() >= end.len() { Key::Start(start) } else { Key::End(end) };
            (!start.is_empty() || !end.is_empty()).then(|| vec![key])
        }
        Test::Any(tests) => {
            let all: Option<Vec<_>> = tests.iter().map(keys).collect();
            all.map(|keys| keys.into_iter().flatten().collect())
        }
        Test::Not(_) | Test::Exists(_) => None,
    }
}

impl ArchivedIndex {
    /// Calls `found` with the position of every rule that may match, some perhaps more than once, until it says yes.
    pub(crate) fn any_candidate(&self, subject: &Subject<'_>, mut found: impl FnMut(u32) -> bool) -> bool {
        self.always.iter().any(|rule| found(rule.to_native()))
            || self.paths.iter().any(|indexed| {
                let steps = indexed.path.steps();
                subject.any_value(steps.clone(), |value| {
                    let mut look_up = |key| self.any_posting(hash(steps.clone(), key), &mut found);
                    if indexed.whole && look_up(Key::Whole(value)) {
                        return true;
                    }
                    let ScalarRef::String(text) = value else {
                        return false;
                    };
                    let text = text.as_bytes();
                    let start = |length| text.get(..length).map(Key::Start);
                    let end = |length| text.get(text.len().checked_sub(length)?..).map(Key::End);
                    lengths(&indexed.starts).filter_map(start).any(&mut look_up)
                        || lengths(&indexed.ends).filter_map(end).any(&mut look_up)
                })
            })
    }

    fn any_posting(&self, wanted: u64, found: &mut impl FnMut(u32) -> bool) -> bool {
        let first = self.postings.partition_point(|posting| posting.hash.to_native() < wanted);
        let postings = self.postings.get(first..).unwrap_or_default();
        postings
            .iter()
            .take_while(|posting| posting.hash.to_native() == wanted)
            .any(|posting| found(posting.rule.to_native()))
    }
}

fn lengths(archived: &[rkyv::rend::u32_le]) -> impl Iterator<Item = usize> {
    archived.iter().filter_map(|length| usize::try_from(length.to_native()).ok())
}

/// FNV-1a, 64 bits: the table is built by a DBA's rules, so nobody gains by colliding.
fn hash<'a>(steps: impl Iterator<Item = &'a str>, key: Key<'_>) -> u64 {
    let mut state = 0xcbf2_9ce4_8422_2325;
    let mut feed = |bytes: &[u8]| {
        for byte in bytes {
            state = (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for step in steps {
        feed(step.as_bytes());
        // Never in UTF-8, so no two lists of steps run into one another.
        feed(&[0xff]);
    }
    let (kind, value): (&[u8], &[u8]) = match key {
        Key::Whole(ScalarRef::Null) => (b"z", b""),
        Key::Whole(ScalarRef::Bool(false)) => (b"b", b"0"),
        Key::Whole(ScalarRef::Bool(true)) => (b"b", b"1"),
        Key::Whole(ScalarRef::Number(number)) => (b"n", number.as_bytes()),
        Key::Whole(ScalarRef::String(text)) => (b"s", text.as_bytes()),
        Key::Start(literal) => (b"<", literal),
        Key::End(literal) => (b">", literal),
    };
    feed(kind);
    feed(value);
    state
}
