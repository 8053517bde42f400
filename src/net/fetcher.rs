//! The thread on which everything of this crate happens, and the one way to and from it.
//!
//! The caller's own thread runs PostgreSQL's code and must neither block here nor be interrupted from here.
//! So requests go out through a queue, results come back through another, and a byte on a socket wakes
//! whoever sleeps in WaitLatchOrSocket.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, mpsc as queue};

use crate::exchange::fetch;
use crate::trust::Trust;
use crate::{FetchError, Request, Response};

/// Exchanges in progress at once. Each holds a socket and at most a few hundred kB, and a backend may have
/// as few as 1,024 open files. The next ones wait their turn, in order and without their limit running: it
/// measures the provider, not us. So even 1,000 providers that all hang are each asked within 40 seconds.
const IN_FLIGHT: usize = 128;

/// Names being resolved at once: a resolution outlives its request when the name server is silent, and those
/// left behind must not keep the others waiting.
const RESOLVING: usize = 2 * IN_FLIGHT;

/// How long an idle resolver thread stays. Between refreshes there is normally none.
const RESOLVER_IDLE: Duration = Duration::from_secs(5);

type Outcome = Result<Response, FetchError>;

/// The fetcher's thread has ended; the request was not taken. Start a new [`Fetcher`] or end the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

impl std::fmt::Display for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the fetcher thread has ended")
    }
}

impl std::error::Error for Gone {}

/// Owns the thread. Dropping it ends the thread too, without waiting; [`Fetcher::stop`] waits.
pub struct Fetcher {
    requests: queue::UnboundedSender<(u64, Request)>,
    results: mpsc::Receiver<(u64, Outcome)>,
    wake: UnixStream,
    alive: Arc<AtomicBool>,
    ended: mpsc::Receiver<()>,
    thread: JoinHandle<()>,
}

impl Fetcher {
    /// Starts the thread.
    ///
    /// All signals must be blocked in the calling thread: the new thread, and the resolver threads that it
    /// starts in turn, inherit the mask, so every signal goes to the thread that PostgreSQL's handlers
    /// expect. The caller restores its own mask afterwards.
    ///
    /// # Errors
    /// No file descriptor or no thread is to be had.
    pub fn start() -> io::Result<Self> {
        let (wake, bell) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        bell.set_nonblocking(true)?;
        // Built here, so that failure is an error and not a dead thread.
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(RESOLVING)
            .thread_keep_alive(RESOLVER_IDLE)
            .thread_name("pg_oidc resolve")
            .build()?;
        let (requests, inbox) = queue::unbounded_channel();
        let (outbox, results) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let alive = Arc::new(AtomicBool::new(true));
        let house = House { alive: Arc::clone(&alive), bell: Arc::new(bell), outbox, _end: end };
        let thread =
            thread::Builder::new().name("pg_oidc net".to_owned()).spawn(move || house.run(runtime, inbox))?;
        Ok(Self { requests, results, wake, alive, ended, thread })
    }

    /// Becomes readable when a result waits, and when the thread has died. Valid as long as the `Fetcher`;
    /// only for waiting on, never for reading.
    pub fn wake_fd(&self) -> RawFd {
        self.wake.as_raw_fd()
    }

    /// Hands a request over, without blocking. Exactly one result with this `id` comes back, unless the
    /// thread dies. Nothing bounds the queue: the caller has at most one request in flight per provider.
    ///
    /// # Errors
    /// [`Gone`] when the thread has died.
    pub fn submit(&self, id: u64, request: Request) -> Result<(), Gone> {
        self.requests.send((id, request)).map_err(|_| Gone)
    }

    /// Takes every waiting result and empties the wake-up socket, without blocking.
    pub fn results(&mut self) -> Vec<(u64, Outcome)> {
        // First the bytes, then the results: a result that comes in between leaves its byte behind.
        let mut bytes = [0; 256];
        loop {
            match self.wake.read(&mut bytes) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.results.try_iter().collect()
    }

    /// False once the thread has died. Look at it after every wake-up: [`Fetcher::wake_fd`] then stays
    /// readable for good, and requests without a result will have none.
    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire) && !self.thread.is_finished()
    }

    /// Ends every exchange and the thread, and waits for it at most `limit`. A thread that takes longer, or
    /// a resolver thread that the C library holds, ends with the process.
    pub fn stop(self, limit: Duration) {
        drop(self.requests);
        // Nothing is ever sent: the channel closes as the thread's last act.
        if self.ended.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Disconnected) {
            // A panic has been reported on standard error already.
            let _ = self.thread.join();
        }
    }
}

impl AsFd for Fetcher {
    /// [`Fetcher::wake_fd`] for callers that can borrow it.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// What the thread holds.
struct House {
    alive: Arc<AtomicBool>,
    bell: Arc<UnixStream>,
    outbox: mpsc::Sender<(u64, Outcome)>,
    _end: mpsc::Sender<()>,
}

impl House {
    fn run(self, runtime: Runtime, inbox: queue::UnboundedReceiver<(u64, Request)>) {
        // A panic would drop the runtime, and that waits for the resolver threads; this way it never does.
        // One inside a task stays there: tokio catches it and Reply answers in its place.
        let _ = catch_unwind(AssertUnwindSafe(|| runtime.block_on(self.serve(inbox))));
        self.alive.store(false, Ordering::Release);
        runtime.shutdown_background();
        // Dropping the last end of the wake-up socket makes wake_fd() readable, after `alive` is false.
    }

    /// Until the [`Fetcher`] is dropped or stopped.
    async fn serve(&self, mut inbox: queue::UnboundedReceiver<(u64, Request)>) {
        let trust = Arc::new(Trust::default());
        let places = Arc::new(Semaphore::new(IN_FLIGHT));
        while let Some((id, request)) = inbox.recv().await {
            #[cfg(test)]
            tests::drill("loop", &request);
            let reply = Reply { id, outbox: self.outbox.clone(), bell: Arc::clone(&self.bell), sent: false };
            let (trust, places) = (Arc::clone(&trust), Arc::clone(&places));
            tokio::spawn(async move {
                // An error means that the semaphore is closed, which nothing does.
                let _place = places.acquire_owned().await;
                #[cfg(test)]
                tests::drill("task", &request);
                reply.send(fetch(&request, &trust).await);
            });
        }
    }
}

/// The promise of exactly one result: dropped unsent, by a panic or at the end, it says so.
struct Reply {
    id: u64,
    outbox: mpsc::Sender<(u64, Outcome)>,
    bell: Arc<UnixStream>,
    sent: bool,
}

impl Reply {
    fn send(mut self, outcome: Outcome) {
        self.post(outcome);
    }

    fn post(&mut self, outcome: Outcome) {
        self.sent = true;
        // Fails only when the Fetcher is gone, and with it everyone who could want the result.
        let _ = self.outbox.send((self.id, outcome));
        // A full socket is readable already. (Rust writes to sockets with MSG_NOSIGNAL: no SIGPIPE.)
        let _ = (&*self.bell).write(&[1]);
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.sent {
            self.post(Err(FetchError::Internal));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// Panics where a request asks for it, as a bug in a library would.
    pub(super) fn drill(place: &str, request: &Request) {
        assert_ne!(request.url, format!("panic:{place}"), "drill");
    }

    fn request(url: &str) -> Request {
        Request {
            url: url.into(),
            ca_certificate: None,
            proxy: None,
            allow_http: false,
            etag: None,
            limit: Duration::from_secs(5),
            max_bytes: 1,
        }
    }

    fn until(what: impl Fn() -> bool) {
        let start = Instant::now();
        while !what() {
            assert!(start.elapsed() < Duration::from_secs(10), "never happened");
            thread::yield_now();
        }
    }

    #[test]
    fn a_panic_in_a_fetch_is_its_result_and_harms_no_other() {
        let mut fetcher = Fetcher::start().unwrap();
        for (id, url) in ["panic:task", "ftp://idp.example/", "panic:task"].into_iter().enumerate() {
            fetcher.submit(id as u64, request(url)).unwrap();
        }
        let mut results = Vec::new();
        let start = Instant::now();
        while results.len() < 3 && start.elapsed() < Duration::from_secs(10) {
            results.extend(fetcher.results());
        }
        results.sort_by_key(|(id, _)| *id);
        let refused = FetchError::SchemeRefused("a scheme other than https");
        assert_eq!(
            results,
            [(0, Err(FetchError::Internal)), (1, Err(refused)), (2, Err(FetchError::Internal))]
        );
        assert!(fetcher.is_alive());
        fetcher.stop(Duration::from_secs(5));
    }

    #[test]
    fn a_panic_of_the_thread_is_seen_and_wakes_the_caller() {
        let mut fetcher = Fetcher::start().unwrap();
        fetcher.submit(1, request("panic:loop")).unwrap();
        fetcher.wake.set_nonblocking(false).unwrap();
        // Returns, with the end of the stream, only because the thread has let go of its side.
        assert_eq!(fetcher.wake.read(&mut [0; 8]).unwrap(), 0);
        assert!(!fetcher.is_alive());
        until(|| fetcher.submit(2, request("https://idp.example/")) == Err(Gone));
        assert_eq!(fetcher.results(), []);
        fetcher.stop(Duration::from_secs(5));
    }
}
