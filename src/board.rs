//! The notice board: shared memory in which workers publish policy and keyring, and logins read them in place.
//!
//! Each image lives in one of two halves ([`Halves`]), read under one lock. It is validated before it is copied in, and
//! read unchecked afterwards, here alone.
//!
//! With `pg/`, the only file that holds unsafe code.

use crate::events;
use crate::key_requests::KeyRequests;
pub(crate) use crate::key_requests::Wish;
pub(crate) use crate::pg::halves::Fill;
use crate::pg::halves::{ALIGNMENT, Halves};
use crate::pg::shmem::{self, Condition, Held, Lock};
use crate::pg::slots;
use crate::requests;
use crate::settings;
use pg_oidc_core::image::{
    self, ArchivedKeyringImage, ArchivedPolicyImage, KeyringImage, PolicyImage, ProviderKeys,
};
use pg_oidc_core::people::Granted;
use rkyv::util::AlignedVec;
use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// The name of its segment and its lock.
const NAME: &CStr = c"pg_oidc";
/// The share of the board that the two halves of the keyring get; the policy gets the rest.
const KEYRING_SHARE: usize = 4;
/// How long a new reader steps back for a writer: shared takers overtake a waiting exclusive one (lwlock.c).
const STEP_BACK: Duration = Duration::from_micros(200);
const STEPS_BACK: u32 = 25;

/// Where the registry worker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    /// Nothing published yet: wait.
    Starting = 0,
    /// No such database, or no extension in it: waiting cannot mend that.
    Absent = 1,
    /// A policy is published.
    Present = 2,
    /// The policy of this number cannot be published: too large, or over a limit.
    Overflow = 3,
}

/// A worker as the board knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Staff {
    Registry,
    Keyring,
}

#[repr(C)]
struct Header {
    lock: Lock,
    changed: Condition,
    /// Policy changes committed so far, from 1; a login waits until this number is published.
    asked: AtomicU64,
    /// The number that the policy is published under; stays the same where nothing counts, as on a standby.
    published: AtomicU64,
    state: AtomicU8,
    /// Which workers core has given a slot, one bit each.
    hired: AtomicU32,
    turning: AtomicBool,
    /// The last registry worker could not connect to its database.
    missed: AtomicBool,
    latches: [AtomicUsize; 2],
    key_requests: KeyRequests,
    policy: Halves,
    keyring: Halves,
}

static BOARD: AtomicPtr<Header> = AtomicPtr::new(std::ptr::null_mut());

/// Asks for the board's memory; for shmem_request_hook.
pub(crate) fn request() {
    shmem::request(NAME, settings::shared_memory());
    slots::request();
    shmem::request(events::NAME, size_of::<events::Queue>());
    shmem::request(requests::NAME, size_of::<requests::Desk>());
}

/// Makes or finds the board; for shmem_startup_hook. `hired` says which workers core has taken.
///
/// After a crash the postmaster makes all shared memory anew, and this runs again: an empty board, which admits
/// nobody until the workers have published.
pub(crate) fn start(hired: &[Staff]) {
    slots::start();
    let (start, new) = shmem::attach(NAME, settings::shared_memory());
    let header = start.cast::<Header>();
    // SAFETY: atomics and one lock.
    let (queue, fresh) = unsafe { shmem::attach_one::<events::Queue>(events::NAME) };
    events::open(queue, fresh);
    // SAFETY: as above.
    let (desk, fresh) = unsafe { shmem::attach_one::<requests::Desk>(requests::NAME) };
    requests::open(desk, fresh);
    BOARD.store(header, Ordering::Release);
    if !new {
        return;
    }
    // SAFETY: the segment is new, zeroed, at least 1 MB (the setting's lower bound) and ours alone until backends
    // are forked; zero is valid for every atomic in it.
    let header = unsafe {
        shmem::init_condition(&raw mut (*header).changed);
        &*header
    };
    header.lock.find(NAME);
    let first = (start as usize + size_of::<Header>()).next_multiple_of(ALIGNMENT);
    let room = start as usize + settings::shared_memory() - first;
    let keyring = room / KEYRING_SHARE / 2 / ALIGNMENT * ALIGNMENT;
    let policy = (room / 2 - keyring) / ALIGNMENT * ALIGNMENT;
    // SAFETY: one after the other in what follows the header, at multiples of 64; nobody else has seen it yet.
    unsafe {
        header.policy.lay_out(first, policy);
        header.keyring.lay_out(first + 2 * policy, keyring);
    }
    header.asked.store(1, Ordering::Release);
    // An empty keyring, so that there always is one to read. Neither lock nor broadcast: the postmaster has no PGPROC.
    let empty = KeyringImage::build(Vec::new()).map_err(|error| error.to_string());
    if let Ok(bytes) = empty.and_then(|keyring| encode_keyring(&keyring)) {
        let _ = header.keyring.fill(&bytes).map(|half| header.keyring.flip(half, bytes.len()));
    }
    for staff in hired {
        header.hired.fetch_or(1 << *staff as u32, Ordering::AcqRel);
    }
}

/// Whether this process has a board: the library was preloaded.
pub(crate) fn exists() -> bool {
    !BOARD.load(Ordering::Acquire).is_null()
}

/// The number of the newest committed change of the policy.
pub(crate) fn asked() -> u64 {
    header().map_or(0, |board| board.asked.load(Ordering::SeqCst))
}

/// Notes a committed change and wakes the registry worker.
pub(crate) fn ask() {
    if let Some(board) = header() {
        board.asked.fetch_add(1, Ordering::SeqCst);
        wake(Staff::Registry);
    }
}

/// The number under which the policy is published; 0 before the first.
pub(crate) fn policy_generation() -> u64 {
    header().map_or(0, |board| board.published.load(Ordering::SeqCst))
}

/// How often a policy has been published since the server started.
pub(crate) fn policy_edition() -> u64 {
    header().map_or(0, |board| board.policy.editions.load(Ordering::SeqCst))
}

/// How often a keyring has been published since the server started.
pub(crate) fn keyring_edition() -> u64 {
    header().map_or(0, |board| board.keyring.editions.load(Ordering::SeqCst))
}

/// How full the halves of policy and keyring are; None where there is no board.
pub(crate) fn fills() -> Option<[Fill; 2]> {
    header().map(|board| [board.policy.fill_level(), board.keyring.fill_level()])
}

/// A copy of the published keyring. Not for logins: it copies every key.
pub(crate) fn keyring() -> Vec<ProviderKeys> {
    let Some(board) = header() else { return Vec::new() };
    let held = step_in(board);
    // SAFETY: as in `read`.
    let copy = board.keyring.active_bytes().and_then(|bytes| unsafe {
        let archived = rkyv::access_unchecked::<ArchivedKeyringImage>(bytes);
        rkyv::deserialize::<KeyringImage, rkyv::rancor::Error>(archived).ok()
    });
    drop(held);
    copy.map(KeyringImage::into_providers).unwrap_or_default()
}

/// The lock, shared, after a writer who waits for it.
fn step_in(board: &Header) -> Held {
    for _ in 0..STEPS_BACK {
        if !board.turning.load(Ordering::Acquire) {
            break;
        }
        std::thread::sleep(STEP_BACK);
    }
    board.lock.shared()
}

/// Copies of both published images, of one moment.
pub(crate) struct Copy {
    policy: AlignedVec,
    keyring: AlignedVec,
}

/// Copies what is published, to be looked at without the lock; None where [`read`] gives None. Not for logins.
pub(crate) fn copy() -> Option<Copy> {
    let board = header()?;
    let (mut policy, mut keyring) = (AlignedVec::new(), AlignedVec::new());
    // Before the lock: under it nothing is allocated.
    policy.reserve(board.policy.capacity.load(Ordering::Relaxed));
    keyring.reserve(board.keyring.capacity.load(Ordering::Relaxed));
    let held = step_in(board);
    let both = board.policy.active_bytes().zip(board.keyring.active_bytes());
    let found = both.map(|(policy_bytes, keyring_bytes)| {
        policy.extend_from_slice(policy_bytes);
        keyring.extend_from_slice(keyring_bytes);
    });
    drop(held);
    found.map(|()| Copy { policy, keyring })
}

impl Copy {
    pub(crate) fn policy(&self) -> &ArchivedPolicyImage {
        // SAFETY: as in `read`: bytes that were checked when they were published, in a vector aligned to 16.
        unsafe { rkyv::access_unchecked::<ArchivedPolicyImage>(&self.policy) }
    }

    pub(crate) fn keyring(&self) -> &ArchivedKeyringImage {
        // SAFETY: as in `policy`.
        unsafe { rkyv::access_unchecked::<ArchivedKeyringImage>(&self.keyring) }
    }
}

/// Whether core gave the worker a slot at this start.
pub(crate) fn hired(staff: Staff) -> bool {
    header().is_some_and(|board| board.hired.load(Ordering::Acquire) & (1 << staff as u32) != 0)
}

/// Where the registry worker stands.
pub(crate) fn state() -> State {
    match header().map(|board| board.state.load(Ordering::SeqCst)) {
        Some(state) if state == State::Present as u8 => State::Present,
        Some(state) if state == State::Absent as u8 => State::Absent,
        Some(state) if state == State::Overflow as u8 => State::Overflow,
        _ => State::Starting,
    }
}

/// Says that there is no policy to be had, under number `generation`, and wakes waiters.
pub(crate) fn publish_absence(generation: u64) {
    take_down(State::Absent, generation);
}

/// Says that the policy of number `generation` cannot be published: nobody is let in by an older one.
pub(crate) fn publish_overflow(generation: u64) {
    take_down(State::Overflow, generation);
}

fn take_down(state: State, generation: u64) {
    let Some(board) = header() else { return };
    let held = board.lock.exclusive();
    board.policy.empty();
    board.state.store(state as u8, Ordering::SeqCst);
    board.published.store(generation, Ordering::SeqCst);
    drop(held);
    tell(board);
}

/// Publishes a policy image under number `generation`, then wakes logins and the keyring worker.
///
/// # Errors
/// An image that does not fit; what was published stays, under its old number.
pub(crate) fn publish_policy(bytes: &[u8], generation: u64) -> Result<(), Fill> {
    publish(
        bytes,
        |board| &board.policy,
        |board| {
            board.state.store(State::Present as u8, Ordering::SeqCst);
            board.published.store(generation, Ordering::SeqCst);
        },
    )?;
    wake(Staff::Keyring);
    Ok(())
}

/// Publishes a keyring image and wakes logins that wait for keys.
///
/// # Errors
/// As [`publish_policy`].
pub(crate) fn publish_keyring(bytes: &[u8]) -> Result<(), Fill> {
    publish(bytes, |board| &board.keyring, |_| {})
}

/// Reads both images in place. Under the lock, so `look` only looks: no wait, no I/O, nothing that can raise.
///
/// None while either was never published, and where there is no policy.
pub(crate) fn read<R>(look: impl FnOnce(&ArchivedPolicyImage, &ArchivedKeyringImage) -> R) -> Option<R> {
    let board = header()?;
    let held = step_in(board);
    let policy = board.policy.active_bytes();
    let keyring = board.keyring.active_bytes();
    // SAFETY: `publish` is the only writer of a half's length, and every caller hands it bytes that core's
    // `check_*` accepted; the half starts at a multiple of 64 and does not move while the lock is held.
    let result = policy.zip(keyring).map(|(policy, keyring)| unsafe {
        look(
            rkyv::access_unchecked::<ArchivedPolicyImage>(policy),
            rkyv::access_unchecked::<ArchivedKeyringImage>(keyring),
        )
    });
    drop(held);
    result
}

/// Whether pg_oidc made `member` a member of `role`, by oid. Where there is no policy to ask, it counts as if.
pub(crate) fn has_granted(member: u32, role: u32) -> bool {
    read(|policy, _| policy.has_granted(Granted { member, role })).unwrap_or(true)
}

/// Asks the keyring worker to fetch the keys of a source again. False: there is no place left, ask again later.
pub(crate) fn request_keys(key_source: u64, wish: Wish) -> bool {
    let Some(board) = header() else { return false };
    let noted = board.key_requests.note(key_source, wish);
    wake(Staff::Keyring);
    noted
}

/// Takes what was asked for; for the keyring worker.
pub(crate) fn take_key_requests() -> Vec<(u64, Wish)> {
    header().map(|board| board.key_requests.take()).unwrap_or_default()
}

/// Waits until `reached` gives true, at most `limit`; woken by every publication.
pub(crate) fn wait_until(limit: Duration, reached: impl FnMut() -> bool) -> bool {
    let Some(board) = header() else { return false };
    // SAFETY: the board's own condition variable, initialised by `start`; no lock is held here.
    unsafe { shmem::wait_until(std::ptr::from_ref(&board.changed).cast_mut(), limit, reached) }
}

/// Wakes everyone who waits, to look again.
pub(crate) fn announce() {
    if let Some(board) = header() {
        tell(board);
    }
}

/// Whether the last registry worker could not connect to its database.
pub(crate) fn database_missed() -> bool {
    header().is_some_and(|board| board.missed.load(Ordering::Acquire))
}

/// Notes that for the next registry worker.
pub(crate) fn miss_database(missed: bool) {
    if let Some(board) = header() {
        board.missed.store(missed, Ordering::Release);
    }
}

/// Makes this process the one that `wake` wakes for `staff`.
pub(crate) fn sign_in(staff: Staff) {
    if let Some(board) = header() {
        board.latches[staff as usize].store(shmem::my_latch(), Ordering::Release);
    }
}

/// Takes that back; a no-op when another process has signed in since.
pub(crate) fn sign_out(staff: Staff) {
    if let Some(board) = header() {
        let _ = board.latches[staff as usize].compare_exchange(
            shmem::my_latch(),
            0,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
    }
}

/// Wakes a worker, if it is there.
pub(crate) fn wake(staff: Staff) {
    if let Some(board) = header() {
        // SAFETY: written by `sign_in` of a process of this server, in shared memory made anew with the server.
        unsafe { shmem::set_latch(board.latches[staff as usize].load(Ordering::Acquire)) }
    }
}

fn publish(
    bytes: &[u8],
    face: impl Fn(&Header) -> &Halves,
    flipped: impl FnOnce(&Header),
) -> Result<(), Fill> {
    let Some(board) = header() else { return Ok(()) };
    let face = face(board);
    let half = face.fill(bytes)?;
    board.turning.store(true, Ordering::Release);
    let held = board.lock.exclusive();
    board.turning.store(false, Ordering::Release);
    face.flip(half, bytes.len());
    flipped(board);
    drop(held);
    tell(board);
    Ok(())
}

fn tell(board: &Header) {
    // SAFETY: as in `wait_until`.
    unsafe { shmem::broadcast(std::ptr::from_ref(&board.changed).cast_mut()) }
}

fn header() -> Option<&'static Header> {
    // SAFETY: null, or the segment that `start` attached to, which lives as long as this process.
    unsafe { BOARD.load(Ordering::Acquire).as_ref() }
}

/// Encodes and validates a policy, ready for [`publish_policy`].
///
/// # Errors
/// Limits of the policy as a whole, or an encoder's failure, as text for the log.
pub(crate) fn encode_policy(policy: &PolicyImage) -> Result<AlignedVec, String> {
    let bytes = image::encode_policy(policy).map_err(|error| error.to_string())?;
    image::check_policy(&bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// Encodes and validates a keyring, ready for [`publish_keyring`].
///
/// # Errors
/// As [`encode_policy`].
pub(crate) fn encode_keyring(keyring: &KeyringImage) -> Result<AlignedVec, String> {
    let bytes = image::encode_keyring(keyring).map_err(|error| error.to_string())?;
    image::check_keyring(&bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}
