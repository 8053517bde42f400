//! What a background worker needs of core: registration, its wait, its transactions, its end.

use super::{hooks, server, startup};
use pgrx::bgworkers::{BackgroundWorkerBuilder, BgWorkerStartTime};
#[cfg(not(feature = "pg18"))]
use pgrx::pg_sys::pqsignal;
#[cfg(feature = "pg18")]
use pgrx::pg_sys::pqsignal_be as pqsignal; // the name behind 18's macro (port.h)
use pgrx::{PgTryBuilder, pg_guard, pg_sys};
use std::ffi::{CStr, CString};
use std::os::fd::RawFd;
use std::os::raw::c_int;
use std::panic::{AssertUnwindSafe, UnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long core waits before it starts a worker again that ended with status 1.
const RESTART_AFTER: Duration = Duration::from_secs(2);

/// One background worker.
pub(crate) struct Spec {
    pub(crate) name: &'static str,
    pub(crate) function: &'static str,
}

/// Registers a worker that starts with the server, on a standby too, and is started again after each end.
pub(crate) fn register(spec: &Spec) {
    BackgroundWorkerBuilder::new(spec.name)
        .set_library("pg_oidc")
        .set_function(spec.function)
        .set_restart_time(Some(RESTART_AFTER))
        .enable_spi_access()
        // After enable_spi_access, which moves the start to RecoveryFinished: a standby needs its workers.
        .set_start_time(BgWorkerStartTime::ConsistentState)
        .load();
}

/// Whether core took the worker: with no slot left (max_worker_processes) it only logs and goes on.
///
/// For shmem_startup_hook in the postmaster: BackgroundWorkerList holds every registered worker (bgworker.c), and
/// all of them get a slot.
pub(crate) fn registered(spec: &Spec) -> bool {
    // SAFETY: bgworker_internals.h: a list of RegisteredBgWorker by their rw_lnode.
    unsafe {
        let mut node = server::BackgroundWorkerList.head.next;
        // 15 to 17: a list that ends in null; 18: a ring that ends at its head.
        let end = (&raw const server::BackgroundWorkerList).cast();
        while !node.is_null() && !std::ptr::eq(node, end) {
            let offset = std::mem::offset_of!(server::RegisteredBgWorker, rw_lnode);
            let worker = &(*node.byte_sub(offset).cast::<server::RegisteredBgWorker>()).rw_worker;
            let library = CStr::from_ptr(worker.bgw_library_name.as_ptr());
            let function = CStr::from_ptr(worker.bgw_function_name.as_ptr());
            if library == c"pg_oidc" && function.to_bytes() == spec.function.as_bytes() {
                return true;
            }
            node = (*node).next;
        }
        false
    }
}

/// Handlers that only set flags and the latch (interrupt.c), then signals on. The default SIGTERM handler of
/// workers raises FATAL inside the handler and is never used.
pub(crate) fn start() {
    // SAFETY: bgworker.c starts workers with signals blocked, for exactly this.
    unsafe {
        pqsignal(pg_sys::SIGHUP as c_int, Some(server::SignalHandlerForConfigReload));
        pqsignal(pg_sys::SIGTERM as c_int, Some(server::SignalHandlerForShutdownRequest));
        pg_sys::BackgroundWorkerUnblockSignals();
    }
}

/// Why a worker woke up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wake {
    /// The latch, the socket or the time: there may be work.
    Work,
    /// Told to stop.
    Stop,
}

/// Waits for the latch, `socket` (if any) or the time, serves interrupts and a reload; ends with the postmaster.
pub(crate) fn wait(limit: Duration, socket: Option<RawFd>) -> Wake {
    let ms = limit.as_millis().min(3_600_000) as i64;
    let mut events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    if socket.is_some() {
        events |= pg_sys::WL_SOCKET_READABLE;
    }
    // SAFETY: latch.h; the latch is reset before the flags are read. CHECK_FOR_INTERRUPTS serves
    // ProcSignalBarrier, without which CREATE DATABASE elsewhere would hang.
    unsafe {
        pg_sys::WaitLatchOrSocket(
            pg_sys::MyLatch,
            events as c_int,
            socket.unwrap_or(-1),
            ms,
            pg_sys::PG_WAIT_EXTENSION,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
        pgrx::check_for_interrupts!();
        if server::ConfigReloadPending != 0 {
            server::ConfigReloadPending = 0;
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
        if server::ShutdownRequestPending != 0 { Wake::Stop } else { Wake::Work }
    }
}

/// Ends this worker with status 1: core starts it again (status 0 would be for ever).
pub(crate) fn end() -> ! {
    startup::exit(1)
}

static IS_REGISTRY: AtomicBool = AtomicBool::new(false);

/// Notes that this process is the registry worker.
pub(crate) fn be_registry() {
    IS_REGISTRY.store(true, Ordering::Relaxed);
}

/// Whether this process is the registry worker.
pub(crate) fn is_registry() -> bool {
    IS_REGISTRY.load(Ordering::Relaxed)
}

/// Connects this worker to `database` as the bootstrap superuser; where that cannot be, it ends (status 1). With None
/// it sees the shared catalogs only, stands in pg_stat_activity and can be terminated from there.
pub(crate) fn connect(database: Option<&str>) {
    let database = database.map(|name| CString::new(name).unwrap_or_default());
    let name = database.as_ref().map_or(std::ptr::null(), |name| name.as_ptr());
    // SAFETY: bgworker.h; once, before any transaction. `name` outlives the call.
    unsafe { pg_sys::BackgroundWorkerInitializeConnection(name, std::ptr::null(), 0) };
}

/// Sets a setting for this worker alone.
pub(crate) fn set(name: &CStr, value: &CStr) {
    // SAFETY: guc.h; PGC_SUSET is what a superuser's SET has.
    unsafe {
        pg_sys::SetConfigOption(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_OVERRIDE,
        );
    }
}

/// Runs `work` in a REPEATABLE READ transaction, so that all it reads is of one moment.
///
/// # Errors
/// The text of an ERROR that ended it; the transaction is aborted and the worker lives on.
pub(crate) fn transaction<R>(work: impl FnOnce() -> R + UnwindSafe) -> Result<R, String> {
    PgTryBuilder::new(AssertUnwindSafe(|| {
        // SAFETY: xact.c: outside of a transaction here; XactIsoLevel is set before the first snapshot is taken.
        unsafe {
            pg_sys::SetCurrentStatementStartTimestamp();
            pg_sys::StartTransactionCommand();
            pg_sys::XactIsoLevel = pg_sys::XACT_REPEATABLE_READ as c_int;
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        }
        let result = work();
        // SAFETY: the snapshot and the transaction of above.
        unsafe {
            pg_sys::PopActiveSnapshot();
            pg_sys::CommitTransactionCommand();
            // As PostgresMain does between commands: else autovacuum never hears of what a worker writes (pgstat.c).
            pg_sys::pgstat_report_stat(false);
        }
        Ok(result)
    }))
    .catch_others(|error| {
        let text = hooks::safe_text(&error);
        // SAFETY: xact.c: after an ERROR the transaction is aborted as a whole, as PostgresMain does.
        unsafe { pg_sys::AbortCurrentTransaction() };
        Err(text)
    })
    .execute()
}

/// Runs `work` when this process leaves shared memory, however it ends but by a crash.
pub(crate) fn at_exit(work: fn()) {
    // SAFETY: ipc.c; the argument is a function pointer that lives as long as the process.
    unsafe { pg_sys::before_shmem_exit(Some(exiting), pg_sys::Datum::from(work as *const () as usize)) }
}

#[pg_guard]
unsafe extern "C-unwind" fn exiting(_code: c_int, work: pg_sys::Datum) {
    // SAFETY: `work` is the `fn()` that `at_exit` was given.
    let work = unsafe { std::mem::transmute::<usize, fn()>(work.value()) };
    work();
}

/// Blocks every signal in this thread while `work` runs, so that a thread started in it never gets one.
pub(crate) fn without_signals<R>(work: impl FnOnce() -> R) -> R {
    // SAFETY: pthread_sigmask with two sets on the stack; a new thread inherits the mask (signal(7)).
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        let result = work();
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
        result
    }
}
