//! What happened at the door, on its way to the audit table, and how often; a part of the board.
//!
//! Logins put their events into a ring in shared memory, and the registry worker takes them out. Where the ring is
//! full, an event is counted and not kept: a login never waits for a table, and its line is in the server log anyway.

use crate::board::{self, Staff};
use crate::pg::append::Table;
use crate::pg::shmem::Lock;
use crate::tallies::{self, Count, Entry, Means, Outcome, Tallies};
use std::ffi::CStr;
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The audit table.
pub(crate) const LOG: Table =
    Table { schema: c"oidc", name: c"audit_log", identity: (c"id", c"audit_log_id_seq") };

/// The name of its segment and its lock.
pub(crate) const NAME: &CStr = c"pg_oidc events";

/// Room in words of eight bytes: 4 MB, some 20,000 logins that were refused before a token was believed, or 500 of which
/// as many claims are kept as may be. The worker takes them out faster than a server can serve them.
const WORDS: u64 = 512 * 1024;
/// The worker is woken when the ring becomes half full; otherwise it looks twice a second.
const HALF: u64 = WORDS / 2;
/// Bytes of one event: subject, identity and facts at their bounds, and room.
const EVENT_BYTES: usize = 24 * 1024;
/// The columns of `oidc.audit_log` that an event may fill.
const COLUMNS: [&CStr; 22] = [
    c"time",
    c"event",
    c"outcome",
    c"reason",
    c"provider",
    c"subject",
    c"identity",
    c"requested_user",
    c"role",
    c"rule_id",
    c"database",
    c"client_address",
    c"tls",
    c"application_name",
    c"kid",
    c"token_id",
    c"pid",
    c"session_user",
    c"current_user",
    c"before",
    c"after",
    c"facts",
];

/// One event: columns of `oidc.audit_log` and their values as text; `time` in microseconds since the Unix epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Event(Vec<(&'static CStr, String)>);

impl Event {
    pub(crate) fn set(&mut self, column: &'static CStr, value: impl Into<String>) {
        self.0.push((column, value.into()));
    }

    pub(crate) fn set_some(&mut self, column: &'static CStr, value: Option<impl Into<String>>) {
        if let Some(value) = value {
            self.set(column, value);
        }
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = (&'static CStr, &str)> {
        self.0.iter().map(|(column, value)| (*column, value.as_str()))
    }

    /// Each value as the number of its column, its length, and itself; None: larger than an event may be.
    fn encode(&self) -> Option<Vec<u64>> {
        let mut bytes = Vec::new();
        for (column, value) in &self.0 {
            let number = COLUMNS.iter().position(|known| known == column)?;
            bytes.push(u8::try_from(number).ok()?);
            bytes.extend(u32::try_from(value.len()).ok()?.to_le_bytes());
            bytes.extend(value.as_bytes());
        }
        let length = u64::try_from(bytes.len()).ok()?;
        let words = bytes.chunks(8).map(|chunk| {
            let mut word = [0; 8];
            word.iter_mut().zip(chunk).for_each(|(place, byte)| *place = *byte);
            u64::from_le_bytes(word)
        });
        (bytes.len() <= EVENT_BYTES).then(|| std::iter::once(length).chain(words).collect())
    }

    fn decode(bytes: &[u8]) -> Option<Event> {
        let mut event = Event::default();
        let mut rest = bytes;
        while let Some((number, after)) = rest.split_first() {
            let (length, after) = after.split_first_chunk()?;
            let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
            let (value, after) = after.split_at_checked(length)?;
            event.set(COLUMNS.get(usize::from(*number))?, std::str::from_utf8(value).ok()?);
            rest = after;
        }
        Some(event)
    }
}

/// In shared memory, where zeroed bytes are an empty ring and no counts.
#[repr(C)]
pub(crate) struct Queue {
    lock: Lock,
    /// Words ever written, and ever taken out; the ring holds what is between.
    written: AtomicU64,
    taken: AtomicU64,
    /// Events that were put in, that were given up, and that are in the table.
    queued: AtomicU64,
    dropped: AtomicU64,
    stored: AtomicU64,
    /// Logins that waited for a worker.
    waits: AtomicU64,
    /// Fetches of keys that failed, and that did not.
    fetches: [AtomicU64; 2],
    tallies: Tallies,
    words: [AtomicU64; WORDS as usize],
}

/// How the ring stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Level {
    pub(crate) waiting: u64,
    pub(crate) bytes: u64,
    pub(crate) capacity: u64,
    pub(crate) stored: u64,
    pub(crate) dropped: u64,
    pub(crate) uncounted: u64,
    pub(crate) waits: u64,
    /// Fetches of keys that failed, and that did not.
    pub(crate) fetches: [u64; 2],
}

/// Events that are to be stored, oldest first.
pub(crate) struct Batch {
    pub(crate) events: Vec<Event>,
    /// What they take, with those that could not be read.
    words: u64,
    records: u64,
}

static QUEUE: RwLock<Option<&'static Queue>> = RwLock::new(None);

/// Makes the ring known to this process, and usable if it is new; for shmem_startup_hook.
pub(crate) fn open(queue: &'static Queue, new: bool) {
    if new {
        queue.lock.find(NAME);
    }
    // Asked for by one thread only; a process that is forked while somebody holds it does not exist.
    if let Ok(mut place) = QUEUE.write() {
        *place = Some(queue);
    }
}

fn queue() -> Option<&'static Queue> {
    QUEUE.read().ok().and_then(|place| *place)
}

/// Counts a login, and puts its event, if any, into the ring.
pub(crate) fn note(means: Means, provider: Option<&str>, outcome: Outcome<'_>, event: Option<&Event>) {
    let Some(queue) = queue() else { return };
    // Before the lock: under it nothing is allocated.
    let entry = Entry::new(means, provider, outcome);
    let record = event.map(Event::encode);
    let held = queue.lock.exclusive();
    queue.tallies.count(&entry);
    let reached_half = record.is_some_and(|record| queue.put(record.as_deref()));
    drop(held);
    if reached_half {
        board::wake(Staff::Registry);
    }
}

/// Puts an event into the ring that no login is.
pub(crate) fn put(event: &Event) {
    let Some(queue) = queue() else { return };
    let record = event.encode();
    let held = queue.lock.exclusive();
    let reached_half = queue.put(record.as_deref());
    drop(held);
    if reached_half {
        board::wake(Staff::Registry);
    }
}

/// Counts a login that waits for a worker.
pub(crate) fn note_wait() {
    if let Some(queue) = queue() {
        queue.waits.fetch_add(1, Ordering::Relaxed);
    }
}

/// Counts an attempt to fetch the keys of a provider.
pub(crate) fn note_fetch(succeeded: bool) {
    if let Some(queue) = queue() {
        queue.fetches[usize::from(succeeded)].fetch_add(1, Ordering::Relaxed);
    }
}

/// At most `most` of the oldest events, which stay until they are [`done`]. For the registry worker alone.
pub(crate) fn oldest(most: usize) -> Option<Batch> {
    let queue = queue()?;
    let held = queue.lock.shared();
    let (from, end) = (queue.taken.load(Ordering::Relaxed), queue.written.load(Ordering::Relaxed));
    drop(held);
    // Nobody writes between the two: only this worker moves the first, and writers stay behind the second.
    let mut batch = Batch { events: Vec::new(), words: 0, records: 0 };
    while from + batch.words < end && batch.events.len() < most {
        let length = queue.word(from + batch.words);
        let first = from + batch.words + 1;
        let words = length.div_ceil(8);
        let bytes: Vec<u8> = (first..first + words).flat_map(|at| queue.word(at).to_le_bytes()).collect();
        batch.words += 1 + words;
        batch.records += 1;
        let event = usize::try_from(length).ok().and_then(|length| Event::decode(bytes.get(..length)?));
        batch.events.extend(event);
    }
    (batch.words > 0).then_some(batch)
}

/// The events of the batch are in the table.
pub(crate) fn done(batch: &Batch) {
    let Some(queue) = queue() else { return };
    let held = queue.lock.exclusive();
    queue.taken.fetch_add(batch.words, Ordering::Relaxed);
    queue.stored.fetch_add(batch.records, Ordering::Relaxed);
    drop(held);
}

/// How the ring stands; None where the library is not preloaded.
pub(crate) fn level() -> Option<Level> {
    let queue = queue()?;
    let held = queue.lock.shared();
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let level = Level {
        waiting: load(&queue.queued) - load(&queue.stored),
        bytes: (load(&queue.written) - load(&queue.taken)) * 8,
        capacity: WORDS * 8,
        stored: load(&queue.stored),
        dropped: load(&queue.dropped),
        uncounted: queue.tallies.uncounted(),
        waits: load(&queue.waits),
        fetches: queue.fetches.each_ref().map(load),
    };
    drop(held);
    Some(level)
}

/// How often logins ended how, since the server started.
pub(crate) fn counts() -> Vec<Count> {
    let Some(queue) = queue() else { return Vec::new() };
    // Before the lock: under it nothing is allocated.
    let mut found = tallies::room();
    let held = queue.lock.shared();
    queue.tallies.copy(&mut found);
    drop(held);
    found.iter().map(Entry::describe).collect()
}

impl Queue {
    fn word(&self, at: u64) -> u64 {
        self.words[(at % WORDS) as usize].load(Ordering::Relaxed)
    }

    /// Puts a record in, or gives it up; None: it is too large. Under the lock. True: the ring has just become half full.
    fn put(&self, record: Option<&[u64]>) -> bool {
        let Some(record) = record else { return self.give_up() };
        let (from, taken) = (self.written.load(Ordering::Relaxed), self.taken.load(Ordering::Relaxed));
        let (before, length) = (from - taken, record.len() as u64);
        if before + length > WORDS {
            return self.give_up();
        }
        for (at, word) in (from..).zip(record) {
            self.words[(at % WORDS) as usize].store(*word, Ordering::Relaxed);
        }
        self.written.store(from + length, Ordering::Relaxed);
        self.queued.fetch_add(1, Ordering::Relaxed);
        before < HALF && before + length >= HALF
    }

    fn give_up(&self) -> bool {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_comes_out_as_it_went_in() {
        let mut event = Event::default();
        event.set(c"time", "1");
        event.set(c"subject", "é\"\n");
        event.set(c"reason", "");
        let record = event.encode().unwrap();
        let bytes: Vec<u8> = record[1..].iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(Event::decode(&bytes[..usize::try_from(record[0]).unwrap()]), Some(event.clone()));
        for cut in 1..usize::try_from(record[0]).unwrap() {
            assert_ne!(Event::decode(&bytes[..cut]), Some(event.clone()), "{cut}");
        }
        event.set(c"facts", "x".repeat(EVENT_BYTES));
        assert_eq!(event.encode(), None);
        let mut unknown = Event::default();
        unknown.set(c"id", "1");
        assert_eq!(unknown.encode(), None);
    }
}
