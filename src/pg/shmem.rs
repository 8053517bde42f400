//! Shared memory, its lock, its condition variable and other processes' latches.

use pgrx::pg_sys;
use std::ffi::CStr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::{Duration, Instant};

/// Asks for a segment of `bytes` of shared memory and one lock, both of this name; for shmem_request_hook.
pub(crate) fn request(name: &CStr, bytes: usize) {
    // SAFETY: ipci.c and lwlock.c allow both inside shmem_request_hook.
    unsafe {
        pg_sys::RequestAddinShmemSpace(bytes);
        pg_sys::RequestNamedLWLockTranche(name.as_ptr(), 1);
    }
}

/// The segment asked for, zeroed when it is new, and whether it is new; for shmem_startup_hook.
pub(crate) fn attach(name: &CStr, bytes: usize) -> (*mut u8, bool) {
    let mut found = false;
    // SAFETY: shmem.c: under AddinShmemInitLock, with the size that was asked for; never null (it raises).
    unsafe {
        let lock = &raw mut (*pg_sys::MainLWLockArray.add(ADDIN_SHMEM_INIT_LOCK)).lock;
        pg_sys::LWLockAcquire(lock, pg_sys::LWLockMode::LW_EXCLUSIVE);
        let start = pg_sys::ShmemInitStruct(name.as_ptr(), bytes, &raw mut found).cast::<u8>();
        if !found {
            std::ptr::write_bytes(start, 0, bytes);
        }
        pg_sys::LWLockRelease(lock);
        (start, !found)
    }
}

/// As [`attach`], for a segment that is one value.
///
/// # Safety
/// `S` is made of atomics and [`Lock`]s alone: zero is a value of it, and every process may use it at once.
pub(crate) unsafe fn attach_one<S: Sync + 'static>(name: &CStr) -> (&'static S, bool) {
    let (start, new) = attach(name, size_of::<S>());
    // SAFETY: as large as `S`, zeroed when new and aligned to a cache line (shmem.c); it lives as long as this
    // process. The rest is by the caller.
    (unsafe { &*start.cast::<S>() }, new)
}

/// AddinShmemInitLock in lwlocknames.h, the same in 15 to 18.
const ADDIN_SHMEM_INIT_LOCK: usize = 21;

/// The lock that was asked for, kept in shared memory beside what it guards: its address is the same in every
/// process of the server, and found anew when shared memory is made anew after a crash.
pub(crate) struct Lock(AtomicPtr<pg_sys::LWLock>);

/// A lock that is held; dropping it lets go. At FATAL core lets go itself (proc.c, ProcKill).
pub(crate) struct Held(*mut pg_sys::LWLock);

impl Lock {
    /// Finds the lock of the segment of this name; once, by the process that makes it.
    pub(crate) fn find(&self, name: &CStr) {
        // SAFETY: lwlock.c: the tranche was asked for under this name; raises where it was not.
        let lock = unsafe { &raw mut (*pg_sys::GetNamedLWLockTranche(name.as_ptr())).lock };
        self.0.store(lock, Ordering::Release);
    }

    pub(crate) fn shared(&self) -> Held {
        self.take(pg_sys::LWLockMode::LW_SHARED)
    }

    pub(crate) fn exclusive(&self) -> Held {
        self.take(pg_sys::LWLockMode::LW_EXCLUSIVE)
    }

    fn take(&self, mode: pg_sys::LWLockMode::Type) -> Held {
        let lock = self.0.load(Ordering::Acquire);
        // SAFETY: a lock of shared memory, by a process with a PGPROC. Interrupts are held until it is let go.
        unsafe { pg_sys::LWLockAcquire(lock, mode) };
        Held(lock)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: taken by `take` in this process and not let go since.
        unsafe { pg_sys::LWLockRelease(self.0) }
    }
}

/// A condition variable inside shared memory.
pub(crate) type Condition = pg_sys::ConditionVariable;

/// Makes a condition variable usable; once, by the process that makes the segment.
///
/// # Safety
/// `condition` points into shared memory that no other process uses yet.
pub(crate) unsafe fn init_condition(condition: *mut Condition) {
    // SAFETY: by the caller.
    unsafe { pg_sys::ConditionVariableInit(condition) }
}

/// Wakes everyone who waits.
///
/// # Safety
/// `condition` points to an initialised condition variable in shared memory.
pub(crate) unsafe fn broadcast(condition: *mut Condition) {
    // SAFETY: by the caller.
    unsafe { pg_sys::ConditionVariableBroadcast(condition) }
}

/// Waits until `reached` gives true, at most `limit`; gives whether it did.
///
/// Interrupts are served: authentication_timeout and a shutdown end the wait, and with it this backend.
///
/// # Safety
/// As [`broadcast`], and the caller holds no lock.
pub(crate) unsafe fn wait_until(
    condition: *mut Condition,
    limit: Duration,
    mut reached: impl FnMut() -> bool,
) -> bool {
    if reached() {
        return true;
    }
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let ms = left.as_millis().clamp(1, 1_000) as i64;
        // SAFETY: condition_variable.c: the first call prepares, so the test is repeated before the next sleep
        // and no broadcast is lost. It may raise by CHECK_FOR_INTERRUPTS.
        unsafe { pg_sys::ConditionVariableTimedSleep(condition, ms, pg_sys::PG_WAIT_EXTENSION) };
        if reached() {
            break;
        }
    }
    // SAFETY: leaves the queue if this process is in it.
    unsafe { pg_sys::ConditionVariableCancelSleep() };
    reached()
}

/// This process's latch, as an address that means the same in every process of the server (it lies in PGPROC).
pub(crate) fn my_latch() -> usize {
    // SAFETY: set by InitProcess in every process that calls this.
    unsafe { pg_sys::MyLatch as usize }
}

/// Sets the latch at `address`, or does nothing for 0. A process that has ended since is woken for nothing.
///
/// # Safety
/// `address` is 0 or came from [`my_latch`] of a process of this server since its shared memory was made.
pub(crate) unsafe fn set_latch(address: usize) {
    if address != 0 {
        // SAFETY: latches of PGPROC live as long as shared memory (proc.c); latch.h allows SetLatch by anyone.
        unsafe { pg_sys::SetLatch(address as *mut pg_sys::Latch) }
    }
}
