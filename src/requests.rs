//! What logins ask of the registry worker, which alone writes: a role for a person, memberships, or that some be taken
//! away; a part of the board.
//!
//! A login puts its request into one of a few places in shared memory, and waits for the answer to stand there. A login
//! that dies meanwhile frees its place when its process exits; a worker that dies leaves requests that the next one takes.

use crate::board::{self, Staff};
use crate::pg::shmem::Lock;
use crate::pg::slots;
use serde::{Deserialize, Serialize};
use std::ffi::CStr;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// The name of its segment and its lock.
pub(crate) const NAME: &CStr = c"pg_oidc requests";

/// Requests at once; a further login waits until a place is free.
const PLACES: usize = 64;
/// Words of eight bytes for one request: a subject at its bound and all the roles that one login can be given.
const WORDS: usize = 1024;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) provider: String,
    pub(crate) subject: String,
    /// The person's own role.
    pub(crate) role: String,
    pub(crate) what: What,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum What {
    /// The role must exist and be a member of these, by oid, and of the base role.
    Admit { make: bool, roles: Vec<u32>, base: Option<u32> },
    /// The role, by oid, need not be a member of these any more.
    Sweep { person: u32, roles: Vec<u32> },
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Answer {
    Done = 1,
    /// The role is bound to another identity, or the identity to another role.
    Mismatch = 2,
    /// The role exists and is nobody's.
    NotBound = 3,
    /// A rule gives a role of that name.
    NamedByRule = 4,
    /// The provider is gone, disabled, or has no roles made any more.
    Unwanted = 5,
    /// It could not be done now; the server log says why.
    Failed = 6,
}

impl Answer {
    const ALL: [Answer; 6] = [
        Answer::Done,
        Answer::Mismatch,
        Answer::NotBound,
        Answer::NamedByRule,
        Answer::Unwanted,
        Answer::Failed,
    ];
}

const FREE: u8 = 0;
const ASKED: u8 = 1;
const TAKEN: u8 = 2;
const ANSWERED: u8 = 3;

/// In shared memory, where zeroed bytes are free places.
#[repr(C)]
pub(crate) struct Desk {
    lock: Lock,
    /// The person's role from which memberships are being taken; 0: none.
    sweeping: AtomicU32,
    /// Memberships may have been granted that the published policy does not know yet.
    granting: AtomicBool,
    /// How often logins on a standby have asked for what the primary has granted, and up to which of these it is
    /// published.
    asked: AtomicU64,
    followed: AtomicU64,
    places: [Place; PLACES],
}

#[repr(C)]
struct Place {
    state: AtomicU8,
    answer: AtomicU8,
    /// The process that waits for the answer; 0: nobody does.
    pid: AtomicU32,
    length: AtomicU64,
    words: [AtomicU64; WORDS],
}

static DESK: RwLock<Option<&'static Desk>> = RwLock::new(None);

/// Makes the desk known to this process, and usable if it is new; for shmem_startup_hook.
pub(crate) fn open(desk: &'static Desk, new: bool) {
    if new {
        desk.lock.find(NAME);
    }
    if let Ok(mut known) = DESK.write() {
        *known = Some(desk);
    }
}

fn desk() -> Option<&'static Desk> {
    DESK.read().ok().and_then(|desk| *desk)
}

impl Place {
    fn state(&self) -> u8 {
        self.state.load(Ordering::Acquire)
    }

    fn clear(&self) {
        self.pid.store(0, Ordering::Relaxed);
        self.state.store(FREE, Ordering::Release);
    }

    fn write(&self, bytes: &[u8]) {
        for (word, chunk) in self.words.iter().zip(bytes.chunks(8)) {
            let mut eight = [0; 8];
            eight.iter_mut().zip(chunk).for_each(|(place, byte)| *place = *byte);
            word.store(u64::from_le_bytes(eight), Ordering::Relaxed);
        }
        self.length.store(u64::try_from(bytes.len()).unwrap_or(0), Ordering::Relaxed);
    }

    fn read(&self) -> Vec<u8> {
        let length = usize::try_from(self.length.load(Ordering::Relaxed)).unwrap_or(0);
        let words = self.words.iter().take(length.div_ceil(8));
        let mut bytes: Vec<u8> = words.flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).collect();
        bytes.truncate(length);
        bytes
    }
}

/// Asks, and waits at most `limit` for a place and the answer. None: there was none in time.
pub(crate) fn ask(request: &Request, limit: Duration) -> Option<Answer> {
    let desk = desk()?;
    let pid = u32::try_from(slots::my_pid()).ok()?;
    let bytes = encode(request)?;
    let mut place = None;
    let mut answer = None;
    board::wait_until(limit, || {
        place = place.or_else(|| put(desk, &bytes, pid));
        answer = place.filter(|place: &&Place| place.state() == ANSWERED).map(|place| {
            let number = place.answer.load(Ordering::Acquire);
            Answer::ALL.into_iter().find(|answer| *answer as u8 == number).unwrap_or(Answer::Failed)
        });
        answer.is_some()
    });
    abandon();
    answer
}

/// Asks for something that nobody waits for. Where there is no place it is not done; the next login asks again.
pub(crate) fn mention(request: &Request) {
    if let (Some(desk), Some(bytes)) = (desk(), encode(request)) {
        put(desk, &bytes, 0);
    }
}

fn encode(request: &Request) -> Option<Vec<u8>> {
    serde_json::to_vec(request).ok().filter(|bytes| bytes.len() <= WORDS * 8)
}

fn put(desk: &'static Desk, bytes: &[u8], pid: u32) -> Option<&'static Place> {
    let held = desk.lock.exclusive();
    let place = desk.places.iter().find(|place| place.state() == FREE);
    if let Some(place) = place {
        place.write(bytes);
        place.pid.store(pid, Ordering::Relaxed);
        place.state.store(ASKED, Ordering::Release);
    }
    drop(held);
    if place.is_some() {
        board::wake(Staff::Registry);
    }
    place
}

/// Gives up what this process has asked for; nobody waits for the answer any more.
pub(crate) fn abandon() {
    let (Some(desk), Ok(pid)) = (desk(), u32::try_from(slots::my_pid())) else { return };
    if !desk.places.iter().any(|place| place.pid.load(Ordering::Relaxed) == pid) {
        return;
    }
    let held = desk.lock.exclusive();
    for place in desk.places.iter().filter(|place| place.pid.load(Ordering::Relaxed) == pid) {
        match place.state() {
            // The worker has it in its hands, and clears the place when it is done.
            TAKEN => place.pid.store(0, Ordering::Relaxed),
            _ => place.clear(),
        }
    }
    drop(held);
    board::announce();
}

/// A request in the worker's hands.
pub(crate) struct Taken {
    place: &'static Place,
    pub(crate) request: Request,
}

/// Takes what is asked for. `first`: this worker has just begun, and takes what the one before has left.
pub(crate) fn take(first: bool) -> Vec<Taken> {
    let Some(desk) = desk() else { return Vec::new() };
    let wanted = |state| state == ASKED || (first && state == TAKEN);
    if !desk.places.iter().any(|place| wanted(place.state())) {
        return Vec::new();
    }
    let mut taken = Vec::new();
    let held = desk.lock.exclusive();
    for place in desk.places.iter().filter(|place| wanted(place.state())) {
        place.state.store(TAKEN, Ordering::Release);
        taken.push((place, place.read()));
    }
    drop(held);
    let read = |(place, bytes): (&'static Place, Vec<u8>)| match serde_json::from_slice(&bytes) {
        Ok(request) => Some(Taken { place, request }),
        Err(_) => {
            answer_at(place, Answer::Failed);
            None
        }
    };
    taken.into_iter().filter_map(read).collect()
}

/// Answers a request.
pub(crate) fn answer(taken: &Taken, answer: Answer) {
    answer_at(taken.place, answer);
}

fn answer_at(place: &Place, answer: Answer) {
    let Some(desk) = desk() else { return };
    let held = desk.lock.exclusive();
    if place.pid.load(Ordering::Relaxed) == 0 {
        place.clear();
    } else {
        place.answer.store(answer as u8, Ordering::Relaxed);
        place.state.store(ANSWERED, Ordering::Release);
    }
    drop(held);
    board::announce();
}

/// Says from whose role memberships are about to be taken; 0: from nobody's any more.
pub(crate) fn begin_sweep(person: u32) {
    if let Some(desk) = desk() {
        desk.sweeping.store(person, Ordering::SeqCst);
    }
    if person == 0 {
        board::announce();
    }
}

/// Whether memberships are being taken from this person's role at this moment.
pub(crate) fn is_sweeping(person: u32) -> bool {
    desk().is_some_and(|desk| desk.sweeping.load(Ordering::SeqCst) == person)
}

/// Says that memberships are about to be granted; before the first of them is committed.
pub(crate) fn begin_granting() {
    if let Some(desk) = desk() {
        desk.granting.store(true, Ordering::SeqCst);
    }
}

/// Says that all memberships that were granted are published.
pub(crate) fn end_granting() {
    if let Some(desk) = desk()
        && desk.granting.swap(false, Ordering::SeqCst)
    {
        board::announce();
    }
}

/// Whether there may be memberships of ours that are not published yet. To be asked after memberships were looked at: if
/// it says no then, the published policy knows all of them that are ours.
pub(crate) fn is_granting() -> bool {
    desk().is_some_and(|desk| desk.granting.load(Ordering::SeqCst))
}

/// On a standby: waits at most `limit` until what the primary has granted, as far as it is seen here, is published.
pub(crate) fn follow(limit: Duration) -> bool {
    let Some(desk) = desk() else { return false };
    let asked = desk.asked.fetch_add(1, Ordering::SeqCst).saturating_add(1);
    board::wake(Staff::Registry);
    board::wait_until(limit, || desk.followed.load(Ordering::SeqCst) >= asked)
}

/// How often was asked for it; for the worker, before it looks.
pub(crate) fn asked_to_follow() -> u64 {
    desk().map_or(0, |desk| desk.asked.load(Ordering::SeqCst))
}

/// Says that it is published for those who have asked so far.
pub(crate) fn note_followed(asked: u64) {
    if let Some(desk) = desk()
        && desk.followed.swap(asked, Ordering::SeqCst) != asked
    {
        board::announce();
    }
}

/// How many requests wait for the worker.
pub(crate) fn waiting() -> usize {
    desk().map_or(0, |desk| desk.places.iter().filter(|place| place.state() == ASKED).count())
}
