//! Finding the rules that may match a token without looking at the others.
//!
//! A rule matches only if all its members do, so it is enough to find it by one of them: the one that the fewest
//! rules share. A token then costs one binary search for each value of each claim that rules look at, and one full
//! comparison for each rule found, however many rules there are.

use std::collections::HashMap;

use rkyv::{Archive, Deserialize, Serialize};

use crate::matching::{Member, ScalarRef, Subject};
use crate::path::ClaimPath;
use crate::rules::Rule;

/// The index over the rules of one provider, by their position in that provider's list.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, Default)]
pub(crate) struct Index {
    /// The claims that some rule is found by.
    paths: Vec<ClaimPath>,
    /// Sorted.
    postings: Vec<Posting>,
    /// Rules without members, which match every token.
    always: Vec<u32>,
}

/// One rule, found by the hash of a claim and its value. A collision only costs a comparison.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Posting {
    hash: u64,
    rule: u32,
}

impl Index {
    pub(crate) fn build(rules: &[Rule]) -> Index {
        let mut shared_by: HashMap<u64, usize> = HashMap::new();
        for member in rules.iter().flat_map(|rule| &rule.members) {
            let count = shared_by.entry(member_hash(member)).or_default();
            *count = count.saturating_add(1);
        }
        let mut index = Index::default();
        for (rule, number) in rules.iter().zip(0_u32..) {
            let rarest =
                rule.members.iter().min_by_key(|member| shared_by.get(&member_hash(member)).copied());
            match rarest {
                Some(member) => {
                    index.postings.push(Posting { hash: member_hash(member), rule: number });
                    index.paths.push(member.path.clone());
                }
                None => index.always.push(number),
            }
        }
        index.paths.sort_unstable();
        index.paths.dedup();
        index.postings.sort_unstable();
        index
    }
}

impl ArchivedIndex {
    /// Calls `found` with the position of every rule that may match, some perhaps more than once.
    pub(crate) fn candidates(&self, subject: &Subject<'_>, mut found: impl FnMut(u32)) {
        for rule in self.always.iter() {
            found(rule.to_native());
        }
        for path in self.paths.iter() {
            subject.any_value(path.steps(), |value| {
                let wanted = hash(path.steps(), value);
                let first = self.postings.partition_point(|posting| posting.hash.to_native() < wanted);
                let postings = self.postings.get(first..).unwrap_or_default();
                for posting in postings.iter().take_while(|posting| posting.hash.to_native() == wanted) {
                    found(posting.rule.to_native());
                }
                false
            });
        }
    }
}

fn member_hash(member: &Member) -> u64 {
    hash(member.path.steps(), member.value.borrowed())
}

/// FNV-1a, 64 bits: the table is built by a DBA's rules, so nobody gains by colliding.
fn hash<'a>(steps: impl Iterator<Item = &'a str>, value: ScalarRef<'_>) -> u64 {
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
    match value {
        ScalarRef::Null => feed(b"z"),
        ScalarRef::Bool(value) => feed(&[b'b', u8::from(value)]),
        ScalarRef::Number(number) => {
            feed(b"n");
            feed(number.as_bytes());
        }
        ScalarRef::String(text) => {
            feed(b"s");
            feed(text.as_bytes());
        }
    }
    state
}
