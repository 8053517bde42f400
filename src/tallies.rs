//! How often logins ended how, by provider; a part of the segment of the events, behind its lock.

use pg_oidc_core::refusal::Refusal;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Pairs of provider and reason that are counted apart: far more than a server meets.
const TALLIES: usize = 1024;
/// Words of a provider's name beside its counts: it has at most 63 bytes.
const SHOWN_WORDS: usize = 8;

/// What a login came with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Means {
    Token,
    /// The role's stored password, under `pg_oidc.password_fallback`.
    Password,
}

/// How a login ended, as it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome<'a> {
    Accepted,
    Refused(&'a Refusal),
    /// Accepted, and then turned away by core.
    Failed,
}

/// The reason of a login that was accepted and failed.
pub(crate) const TURNED_AWAY: &str = "turned_away";

/// Beside the number of an outcome: it was a login by password.
const BY_PASSWORD: u32 = 1 << 31;
/// The number of [`Outcome::Failed`]; below are the places of refusals.
const FAILED: u32 = 1 << 30;

/// In shared memory, where zeroed bytes are no counts.
#[repr(C)]
pub(crate) struct Tallies {
    list: [Tally; TALLIES],
    /// Logins whose provider and reason found no place in the list.
    uncounted: AtomicU64,
}

/// How often logins of one provider ended in one way.
#[repr(C)]
struct Tally {
    /// The hash of provider and ending; 0: free.
    key: AtomicU64,
    count: AtomicU64,
    /// 0: accepted; [`FAILED`]; else the place in [`Refusal::ALL`], from 1. With [`BY_PASSWORD`].
    ending: AtomicU32,
    provider: [AtomicU64; SHOWN_WORDS],
}

/// One line of the counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) means: Means,
    /// None: no configured provider's issuer was named.
    pub(crate) provider: Option<String>,
    pub(crate) outcome: &'static str,
    /// None: accepted.
    pub(crate) reason: Option<&'static str>,
    pub(crate) count: u64,
}

/// What a login is counted under, or a tally as it was copied.
pub(crate) struct Entry {
    key: u64,
    count: u64,
    ending: u32,
    provider: [u64; SHOWN_WORDS],
}

/// Room for copies of all tallies.
pub(crate) fn room() -> Vec<Entry> {
    Vec::with_capacity(TALLIES)
}

impl Tallies {
    /// Counts one login. Under the lock.
    pub(crate) fn count(&self, entry: &Entry) {
        for at in 0..TALLIES as u64 {
            let tally = &self.list[(entry.key.wrapping_add(at) % TALLIES as u64) as usize];
            match tally.key.load(Ordering::Relaxed) {
                0 => {
                    tally.key.store(entry.key, Ordering::Relaxed);
                    tally.ending.store(entry.ending, Ordering::Relaxed);
                    for (place, word) in tally.provider.iter().zip(entry.provider) {
                        place.store(word, Ordering::Relaxed);
                    }
                }
                known if known != entry.key => continue,
                _ => {}
            }
            tally.count.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.uncounted.fetch_add(1, Ordering::Relaxed);
    }

    /// Copies what is counted into a [`room`]. Under the lock, where it allocates nothing.
    pub(crate) fn copy(&self, room: &mut Vec<Entry>) {
        for tally in self.list.iter().filter(|tally| tally.key.load(Ordering::Relaxed) != 0) {
            let mut provider = [0; SHOWN_WORDS];
            for (word, place) in provider.iter_mut().zip(&tally.provider) {
                *word = place.load(Ordering::Relaxed);
            }
            room.push(Entry {
                key: tally.key.load(Ordering::Relaxed),
                count: tally.count.load(Ordering::Relaxed),
                ending: tally.ending.load(Ordering::Relaxed),
                provider,
            });
        }
    }

    pub(crate) fn uncounted(&self) -> u64 {
        self.uncounted.load(Ordering::Relaxed)
    }
}

impl Entry {
    pub(crate) fn new(means: Means, provider: Option<&str>, outcome: Outcome<'_>) -> Entry {
        let ending = outcome.number() | if means == Means::Password { BY_PASSWORD } else { 0 };
        Entry { key: key(provider, ending), count: 0, ending, provider: shown(provider.unwrap_or_default()) }
    }

    pub(crate) fn describe(&self) -> Count {
        let bytes: Vec<u8> =
            self.provider.iter().flat_map(|word| word.to_le_bytes()).filter(|byte| *byte != 0).collect();
        let (outcome, reason) = ended(self.ending & !BY_PASSWORD);
        Count {
            means: if self.ending & BY_PASSWORD == 0 { Means::Token } else { Means::Password },
            provider: (!bytes.is_empty()).then(|| String::from_utf8_lossy(&bytes).into_owned()),
            outcome,
            reason,
            count: self.count,
        }
    }
}

impl Outcome<'_> {
    fn number(self) -> u32 {
        let refusal = match self {
            Outcome::Accepted => return 0,
            Outcome::Failed => return FAILED,
            Outcome::Refused(refusal) => refusal,
        };
        let place = Refusal::ALL.iter().zip(1..).find(|((code, ..), _)| *code == refusal.code());
        place.map_or(0, |(_, place)| place)
    }
}

/// What the number of an outcome says: the outcome, and the reason if it has one.
fn ended(number: u32) -> (&'static str, Option<&'static str>) {
    match number {
        0 => ("accepted", None),
        FAILED => ("failed", Some(TURNED_AWAY)),
        place => {
            let place = usize::try_from(place).ok().and_then(|place| place.checked_sub(1));
            ("refused", place.and_then(|place| Refusal::ALL.get(place)).map(|(code, ..)| *code))
        }
    }
}

/// Never 0.
fn key(provider: Option<&str>, ending: u32) -> u64 {
    let mut hasher = DefaultHasher::new();
    (provider, ending).hash(&mut hasher);
    hasher.finish().max(1)
}

/// A name as it is kept; a longer one, which no provider has, would be cut between two characters.
fn shown(name: &str) -> [u64; SHOWN_WORDS] {
    let end = (0..=name.len().min(SHOWN_WORDS * 8)).rev().find(|end| name.is_char_boundary(*end));
    let mut words = [0; SHOWN_WORDS];
    for (word, chunk) in words.iter_mut().zip(name.as_bytes()[..end.unwrap_or(0)].chunks(8)) {
        let mut bytes = [0; 8];
        bytes[..chunk.len()].copy_from_slice(chunk);
        *word = u64::from_le_bytes(bytes);
    }
    words
}
