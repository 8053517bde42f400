//! The hooks that core calls, each a thin `extern` function around a safe one.

use super::port::{self, Connection, Line};
use super::report::{self, Outward};
use super::{guc, server, wire};
use once_cell::sync::OnceCell;
use pg_oidc_core::oauth_line::OauthLine;
use pg_oidc_core::refusal::Refusal;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;
use pgrx::pg_sys::panic::CaughtError;
use pgrx::{PgTryBuilder, pg_guard, pg_sys};
use std::os::raw::c_int;
use std::panic::AssertUnwindSafe;

const STATUS_OK: c_int = 0;

/// What the door makes of a client on a guarded line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Admit,
    Refuse(Outward),
    /// The client went away: the backend ends in silence.
    Leave,
}

/// Judges the client of a guarded line, asking for the password by the last argument.
type Judge = fn(&Connection, Line, &dyn Fn() -> wire::Answer) -> Verdict;

/// Judges a bearer token on an `oauth` line, and gives the identity that it admits.
type Validate = fn(&Connection, &OauthLine, &[u8]) -> Option<String>;

/// The doors.
#[derive(Clone, Copy)]
pub(crate) struct Door {
    pub(crate) judge: Judge,
    /// Notes a client whose judgement failed by a panic or an ERROR.
    pub(crate) failed: fn(&Connection),
    #[cfg_attr(not(feature = "pg18"), expect(dead_code, reason = "validators came with 18"))]
    pub(crate) validate: Validate,
    /// Begins the session that `validate` admitted in this process.
    #[cfg_attr(not(feature = "pg18"), expect(dead_code, reason = "validators came with 18"))]
    pub(crate) finish: fn(&Connection) -> Verdict,
}

/// What is run when shared memory is asked for and when it is there.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) request: fn(),
    pub(crate) start: fn(),
}

static DOOR: OnceCell<Door> = OnceCell::new();
static MEMORY: OnceCell<Memory> = OnceCell::new();
static PREVIOUS_AUTHENTICATION: OnceCell<server::ClientAuthentication_hook_type> = OnceCell::new();
static PREVIOUS_REQUEST: OnceCell<pg_sys::shmem_request_hook_type> = OnceCell::new();
static PREVIOUS_STARTUP: OnceCell<pg_sys::shmem_startup_hook_type> = OnceCell::new();

/// Installs the shared memory hooks and, with a guarded file or where there are validators (18), the
/// ClientAuthentication hook and the lock behind it.
///
/// The latter is installed in `shmem_request_hook`, after every library's `_PG_init` (miscinit.c,
/// process_shmem_requests), so that ours is the outermost and runs last, whatever the order of the libraries.
pub(crate) fn install(memory: Memory, door: Door) {
    if MEMORY.set(memory).is_err() {
        return;
    }
    if guc::is_guarded() || cfg!(feature = "pg18") {
        let _ = DOOR.set(door);
        guc::lock_session_authorization();
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        super::false_record::drop_it();
    }
    // SAFETY: _PG_init under shared_preload_libraries: one process, one thread; the previous hooks are kept.
    unsafe {
        let _ = PREVIOUS_REQUEST.set(pg_sys::shmem_request_hook);
        pg_sys::shmem_request_hook = Some(shmem_request);
        let _ = PREVIOUS_STARTUP.set(pg_sys::shmem_startup_hook);
        pg_sys::shmem_startup_hook = Some(shmem_startup);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn shmem_request() {
    if let Some(Some(previous)) = PREVIOUS_REQUEST.get() {
        // SAFETY: a hook of another library, with its own arguments.
        unsafe { pg_guard_ffi_boundary(|| previous()) }
    }
    if let Some(memory) = MEMORY.get() {
        (memory.request)();
    }
    if DOOR.get().is_some() {
        // SAFETY: the postmaster, before any backend is forked.
        unsafe {
            let _ = PREVIOUS_AUTHENTICATION.set(server::ClientAuthentication_hook);
            server::ClientAuthentication_hook = Some(client_authentication);
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn shmem_startup() {
    if let Some(Some(previous)) = PREVIOUS_STARTUP.get() {
        // SAFETY: as above.
        unsafe { pg_guard_ffi_boundary(|| previous()) }
    }
    if let Some(memory) = MEMORY.get() {
        (memory.start)();
    }
}

/// Runs after core's own method with its status, for every connection. It can only turn success into refusal.
#[pg_guard]
unsafe extern "C-unwind" fn client_authentication(port: *mut server::Port, status: c_int) {
    if let Some(Some(previous)) = PREVIOUS_AUTHENTICATION.get() {
        // SAFETY: the previous hook with core's own arguments; an error in it becomes a panic here and goes on
        // from the guard of this function.
        unsafe { pg_guard_ffi_boundary(|| previous(port, status)) }
    }
    let Some(door) = DOOR.get() else { return };
    // A failed status (a wrong client certificate, a lost client) is refused by core; nothing is asked then.
    if status != STATUS_OK {
        return;
    }
    // SAFETY: `port` is core's, and PostmasterContext is alive until InitPostgres returns.
    let (connection, line) = unsafe { (port::connection(port), port::line(port)) };
    if line == Line::Other {
        return;
    }
    // SAFETY: core has read the startup packet and no message is half read.
    let ask = || unsafe { wire::ask_password(port) };
    let verdict = safely(door, &connection, || match line {
        #[cfg(feature = "pg18")]
        Line::Bearer => (door.finish)(&connection),
        _ => (door.judge)(&connection, line, &ask),
    });
    match verdict.unwrap_or(Verdict::Refuse(Outward::Refused)) {
        Verdict::Admit => guc::note_decision(),
        Verdict::Refuse(outward) => report::refuse(&connection, outward),
        Verdict::Leave => report::leave(),
    }
}

/// What `judge` gives; None if it failed by a panic or an ERROR, which is noted.
pub(super) fn safely<T>(door: &Door, connection: &Connection, judge: impl FnOnce() -> T) -> Option<T> {
    PgTryBuilder::new(AssertUnwindSafe(|| Some(judge())))
        .catch_others(|error| {
            report::log_refusal(connection, &Refusal::InternalError);
            report::log(&format!("OIDC login failed internally: {:?}", safe_text(&error)));
            // What failed may be this very thing, and nothing may come out of here.
            let noted = AssertUnwindSafe(|| (door.failed)(connection));
            PgTryBuilder::new(noted).catch_others(|_| ()).execute();
            None
        })
        .execute()
}

/// The doors, in a process of a server that loaded this library at its start.
#[cfg(feature = "pg18")]
pub(super) fn door() -> Option<&'static Door> {
    DOOR.get()
}

/// What of an error may be logged: the text of a Rust panic may hold a piece of a token, its place cannot.
pub(crate) fn safe_text(error: &CaughtError) -> String {
    match error {
        CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => report.message().to_owned(),
        CaughtError::RustPanic { ereport, .. } => {
            format!("internal error at {}:{}", ereport.file(), ereport.line_number())
        }
    }
}
