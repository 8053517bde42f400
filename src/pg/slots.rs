//! The slots of live token sessions in shared memory: one for each backend that the server can have, found by the
//! number of its PGPROC, so that no backend ever looks for a free one.
//!
//! All of them are behind one lock, which is the last in the order of locks: the board's may be held, none is taken
//! under it. A backend clears its slot under the lock when it exits, before core gives up its PGPROC, and a signal is
//! sent only under it: the process that gets the signal is the one that the slot names.

use super::shmem::{self, Held, Lock};
use once_cell::sync::OnceCell;
use pg_oidc_core::limits;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;
use pgrx::{pg_guard, pg_sys};
use std::ffi::CStr;
use std::fmt;
use std::os::raw::c_int;
use std::sync::atomic::{AtomicPtr, Ordering};

const NAME: &CStr = c"pg_oidc sessions";

/// A live token session. Zero is a value: a free slot. Times are in microseconds since 1970.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Slot {
    /// 0: the slot is free.
    pub(crate) pid: i32,
    /// Why the session is being ended, as core's number of the cause; 0: it is not.
    pub(crate) cause: u8,
    /// What ends it at `ends_at` is the end of its token.
    pub(crate) ends_by_token: bool,
    /// `issued_at` was in the token.
    pub(crate) dated: bool,
    pub(crate) since: i64,
    /// `i64::MAX`: no end.
    pub(crate) ends_at: i64,
    pub(crate) issued_at: i64,
    /// What the session logged in as.
    pub(crate) login: Kind,
    /// The person's own role of a [`Kind::Person`].
    pub(crate) person: u32,
    /// The rules that gave its roles, the first of which counts for people who look.
    pub(crate) rules: List<i64>,
    /// The roles that they gave a [`Kind::Person`], by oid.
    pub(crate) roles: List<u32>,
    pub(crate) provider: Text<64>,
    pub(crate) role: Text<64>,
    pub(crate) database: Text<64>,
    /// The client's address; empty for a Unix-domain socket.
    pub(crate) address: Text<64>,
    pub(crate) subject: Text<2048>,
    pub(crate) identity: Text<2048>,
}

/// What a session logged in as. Zero is a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A role that a rule gives.
    Role = 0,
    /// A person whose role is still being looked at.
    Coming = 1,
    /// A person.
    Person = 2,
}

/// At most as many elements as one login gives roles.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct List<T> {
    len: u16,
    elements: [T; limits::GIVEN_ROLES],
}

impl<T: Copy> List<T> {
    /// Takes what fits, and not more.
    pub(crate) fn set(&mut self, elements: impl IntoIterator<Item = T>) {
        self.len = 0;
        for (place, element) in self.elements.iter_mut().zip(elements) {
            *place = element;
            self.len += 1;
        }
    }

    pub(crate) fn get(&self) -> &[T] {
        self.elements.get(..usize::from(self.len)).unwrap_or_default()
    }
}

/// Text of at most so many bytes. All that a slot holds is bounded by names of core's and by the limits of a token.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Text<const BYTES: usize> {
    len: u16,
    bytes: [u8; BYTES],
}

impl<const BYTES: usize> Text<BYTES> {
    pub(crate) fn set(&mut self, text: &str) {
        self.len = 0;
        let _ = fmt::Write::write_str(self, text);
    }

    pub(crate) fn get(&self) -> &str {
        self.bytes.get(..usize::from(self.len)).and_then(|text| str::from_utf8(text).ok()).unwrap_or_default()
    }
}

impl<const BYTES: usize> fmt::Write for Text<BYTES> {
    /// Cuts what does not fit, between characters.
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            let start = usize::from(self.len);
            let Some(room) = self.bytes.get_mut(start..start + character.len_utf8()) else { break };
            character.encode_utf8(room);
            self.len += character.len_utf8() as u16;
        }
        Ok(())
    }
}

impl Slot {
    /// A slot that nobody uses.
    pub(crate) fn free() -> Slot {
        // SAFETY: integers, bools, bytes and a kind, for all of which zero is a value.
        unsafe { std::mem::zeroed() }
    }
}

#[repr(C)]
struct Table {
    lock: Lock,
    first: AtomicPtr<Slot>,
}

static TABLE: AtomicPtr<Table> = AtomicPtr::new(std::ptr::null_mut());

/// How many slots there are: as many as core has PGPROCs for whatever may serve a client (proc.c).
pub(crate) fn count() -> usize {
    // SAFETY: set by InitializeMaxBackends before any shared memory is asked for (15+).
    usize::try_from(unsafe { pg_sys::MaxBackends }).unwrap_or(0)
}

fn bytes() -> usize {
    size_of::<Table>().next_multiple_of(align_of::<Slot>()) + count() * size_of::<Slot>()
}

/// Asks for the memory; for shmem_request_hook.
pub(crate) fn request() {
    shmem::request(NAME, bytes());
}

/// Makes or finds the slots; for shmem_startup_hook. After a crash they are made anew, all of them free.
pub(crate) fn start() {
    let (start, new) = shmem::attach(NAME, bytes());
    let table = start.cast::<Table>();
    if new {
        let offset = size_of::<Table>().next_multiple_of(align_of::<Slot>());
        // SAFETY: the segment is new, zeroed, as large as `bytes` says, and ours alone until backends are forked.
        unsafe {
            (*table).lock.find(NAME);
            (*table).first.store(start.add(offset).cast(), Ordering::Release);
        }
    }
    TABLE.store(table, Ordering::Release);
}

fn table() -> Option<&'static Table> {
    // SAFETY: null, or the segment that `start` attached to, which lives as long as this process.
    unsafe { TABLE.load(Ordering::Acquire).as_ref() }
}

impl Table {
    /// A slot, while the lock is held exclusively.
    fn slot<'held>(&self, number: usize, _: &'held mut Held) -> Option<&'held mut Slot> {
        // SAFETY: `count` slots follow the table, all of them initialised; exclusive by the lock that is held, and
        // one at a time by the borrow of it.
        (number < count()).then(|| unsafe { &mut *self.first.load(Ordering::Acquire).add(number) })
    }
}

/// This process's slot, if it has a PGPROC.
fn mine() -> Option<usize> {
    // SAFETY: proc.h: set by InitProcess, null or -1 in a process without a PGPROC.
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    let number = unsafe { pg_sys::MyProc.as_ref() }.map(|process| process.pgprocno);
    #[cfg(not(any(feature = "pg15", feature = "pg16")))]
    // SAFETY: as above (17+).
    let number = Some(unsafe { pg_sys::MyProcNumber });
    number.and_then(|number| usize::try_from(number).ok())
}

/// This process's pid, as the server knows it.
pub(crate) fn my_pid() -> i32 {
    // SAFETY: globals.c; set in every process.
    unsafe { pg_sys::MyProcPid }
}

/// What is said to the client of a session that is ended for the cause of this number.
pub(crate) type Words = fn(u8) -> Option<(&'static CStr, &'static CStr)>;

static LEFT: OnceCell<fn(&Slot)> = OnceCell::new();
static WORDS: OnceCell<Words> = OnceCell::new();
static PREVIOUS_LOG: OnceCell<pg_sys::emit_log_hook_type> = OnceCell::new();

/// Prepares this process to have a slot: `left` is called with what was in it when the process exits, and `words` says
/// what its client is told if it is ended. Before any lock is taken; does nothing the second time.
pub(crate) fn prepare(left: fn(&Slot), words: Words) {
    if LEFT.set(left).is_err() {
        return;
    }
    let _ = WORDS.set(words);
    // SAFETY: ipc.c: called before the callbacks registered earlier, ProcKill's among them, so that there still is a
    // PGPROC. elog.h: the hook of this process alone, the previous one is kept.
    unsafe {
        pg_sys::on_shmem_exit(Some(leaving), pg_sys::Datum::from(0));
        let _ = PREVIOUS_LOG.set(pg_sys::emit_log_hook);
        pg_sys::emit_log_hook = Some(tell_why);
    }
}

/// Writes this process's slot. `fill` runs under the lock: it only copies. False: this process has none.
pub(crate) fn enter(fill: impl FnOnce(&mut Slot)) -> bool {
    let (Some(table), Some(number)) = (table(), mine()) else { return false };
    let mut held = table.lock.exclusive();
    let entered = table.slot(number, &mut held).map(|slot| {
        *slot = Slot::free();
        fill(slot);
        slot.pid = my_pid();
    });
    drop(held);
    entered.is_some()
}

/// Changes this process's slot, if it has a session. `change` runs under the lock: it only copies.
pub(crate) fn change(change: impl FnOnce(&mut Slot)) {
    let (Some(table), Some(number)) = (table(), mine()) else { return };
    let mut held = table.lock.exclusive();
    if let Some(slot) = table.slot(number, &mut held)
        && slot.pid == my_pid()
    {
        change(slot);
    }
    drop(held);
}

/// Looks at each live session under the lock: `look` only looks, marks and signals.
pub(crate) fn each(mut look: impl FnMut(&mut Slot)) {
    let Some(table) = table() else { return };
    let mut held = table.lock.exclusive();
    for number in 0..count() {
        if let Some(slot) = table.slot(number, &mut held)
            && slot.pid != 0
        {
            look(slot);
        }
    }
    drop(held);
}

/// Copies of all live sessions, each of its own moment.
pub(crate) fn copies() -> Vec<Slot> {
    let mut copies = Vec::new();
    let Some(table) = table() else { return copies };
    for number in 0..count() {
        let mut copy = Slot::free();
        let mut held = table.lock.exclusive();
        if let Some(slot) = table.slot(number, &mut held)
            && slot.pid != 0
        {
            copy = *slot;
        }
        drop(held);
        if copy.pid != 0 {
            copies.push(copy);
        }
    }
    copies
}

/// Ends the session of a slot, as pg_terminate_backend does (signalfuncs.c): with it, what it has started itself.
pub(crate) fn terminate(slot: &mut Slot) {
    // SAFETY: kill(2). The slot is borrowed from under the lock, so its process has not exited and its pid is its own;
    // a backend leads a process group (postmaster.c, setsid) and ends itself at the next interrupt.
    unsafe {
        if libc::kill(-slot.pid, libc::SIGTERM) != 0 {
            libc::kill(slot.pid, libc::SIGTERM);
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn leaving(_code: c_int, _arg: pg_sys::Datum) {
    let (Some(table), Some(number)) = (table(), mine()) else { return };
    let mut last = Slot::free();
    let mut held = table.lock.exclusive();
    if let Some(slot) = table.slot(number, &mut held)
        && slot.pid == my_pid()
    {
        last = *slot;
        slot.pid = 0;
    }
    drop(held);
    if last.pid != 0
        && let Some(left) = LEFT.get()
    {
        left(&last);
    }
}

/// Adds why to what core says when a session is ended. Best effort: elog.h promises nothing about changes, but all of
/// 15 to 18 send the record to the client after this hook.
#[pg_guard]
unsafe extern "C-unwind" fn tell_why(record: *mut pg_sys::ErrorData) {
    // SAFETY: elog.c gives its own record, and frees what is in it (errfinish): copies in its own context.
    unsafe {
        let ended = (*record).elevel == pg_sys::FATAL as c_int
            && (*record).sqlerrcode == pg_sys::errcodes::PgSqlErrorCode::ERRCODE_ADMIN_SHUTDOWN as c_int;
        if ended
            && let Some((detail, hint)) =
                my_cause().and_then(|cause| WORDS.get().and_then(|words| words(cause)))
        {
            (*record).detail = pg_sys::MemoryContextStrdup((*record).assoc_context, detail.as_ptr());
            (*record).hint = pg_sys::MemoryContextStrdup((*record).assoc_context, hint.as_ptr());
        }
    }
    if let Some(Some(previous)) = PREVIOUS_LOG.get() {
        // SAFETY: another library's hook with core's own argument.
        unsafe { pg_guard_ffi_boundary(|| previous(record)) }
    }
}

/// Why this process is being ended by us.
fn my_cause() -> Option<u8> {
    let (table, number) = (table()?, mine().filter(|number| *number < count())?);
    let held = table.lock.shared();
    // SAFETY: as in `Table::slot`; nobody writes while the lock is held shared.
    let (pid, cause) = unsafe {
        let slot = table.first.load(Ordering::Acquire).add(number);
        ((*slot).pid, (*slot).cause)
    };
    drop(held);
    (pid == my_pid() && cause != 0).then_some(cause)
}
