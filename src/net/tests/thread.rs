//! The thread: one result for each request, wake-ups, ends, signals.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;
use pg_oidc_net::{FetchError, Fetcher, Phase, Request};

use crate::support::{BODY, Server, collect, fresh, get, good, in_child};

fn is_readable(fetcher: &Fetcher) -> bool {
    poll(&mut [PollFd::new(fetcher.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO).unwrap() == 1
}

fn tarpit() -> Server {
    Server::raw(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    })
}

#[test]
fn readable_exactly_while_results_wait() {
    let server = Server::answering(good(""));
    let mut fetcher = Fetcher::start().unwrap();
    assert_eq!(fetcher.wake_fd(), fetcher.as_fd().as_raw_fd());
    assert!(!is_readable(&fetcher));
    assert_eq!(fetcher.results(), []);
    for id in 0..3 {
        fetcher.submit(id, server.request()).unwrap();
        fresh(collect(&mut fetcher, 1).remove(0).1);
        assert!(!is_readable(&fetcher));
        assert_eq!(fetcher.results(), []);
    }
    // The descriptor is closed on exec, as PostgreSQL's own are (archive_command and its kin fork and exec).
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fetcher.wake_fd())).unwrap();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
    assert_ne!(u32::from_str_radix(flags, 8).unwrap() & 0o2_000_000, 0, "{info}");
}

#[test]
fn every_request_has_one_result_and_few_are_in_flight() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let peak = Arc::clone(&most);
    let server = Server::http(move |_, wire| {
        peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(20));
        now.fetch_sub(1, Ordering::SeqCst);
        let _ = wire.write_all(good("").as_bytes());
    });
    let mut fetcher = Fetcher::start().unwrap();
    for id in 0..400 {
        fetcher.submit(id, server.request()).unwrap();
    }
    let results = collect(&mut fetcher, 400);
    let ids: BTreeSet<u64> = results.iter().map(|(id, _)| *id).collect();
    assert_eq!((results.len(), ids.len()), (400, 400));
    assert!(results.into_iter().all(|(_, outcome)| fresh(outcome) == BODY.as_bytes()));
    let most = most.load(Ordering::SeqCst);
    assert!((2..=128).contains(&most), "{most}");
    assert_eq!(fetcher.results(), []);
    fetcher.stop(Duration::from_secs(5));
}

#[test]
fn waiting_for_a_place_does_not_run_the_limit() {
    let (slow, good) = (tarpit(), Server::answering(good("")));
    let limit = Duration::from_millis(300);
    let mut fetcher = Fetcher::start().unwrap();
    for id in 0..128 {
        fetcher.submit(id, Request { limit, ..slow.request() }).unwrap();
    }
    fetcher.submit(128, Request { limit, ..good.request() }).unwrap();
    for (id, outcome) in collect(&mut fetcher, 129) {
        match id {
            128 => assert_eq!(fresh(outcome), BODY.as_bytes()),
            _ => assert_eq!(outcome, Err(FetchError::Timeout(Phase::Answer))),
        }
    }
}

#[test]
fn stop_and_drop_do_not_wait_for_the_network() {
    let slow = tarpit();
    let start = Instant::now();
    let fetcher = Fetcher::start().unwrap();
    for id in 0..200 {
        fetcher.submit(id, slow.request()).unwrap();
    }
    assert!(fetcher.is_alive());
    fetcher.stop(Duration::from_secs(4));
    let fetcher = Fetcher::start().unwrap();
    fetcher.submit(1, slow.request()).unwrap();
    drop(fetcher);
    Fetcher::start().unwrap().stop(Duration::ZERO);
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[test]
fn a_zero_limit_is_a_timeout_and_not_a_hang() {
    let request = Request { limit: Duration::ZERO, ..tarpit().request() };
    assert!(matches!(get(request), Err(FetchError::Timeout(_))));
}

#[test]
fn signals_stay_blocked_on_every_thread_of_ours() {
    in_child("thread::child_has_every_signal_blocked", &[]);
}

#[test]
#[ignore = "run by signals_stay_blocked_on_every_thread_of_ours"]
fn child_has_every_signal_blocked() {
    let server = Server::answering(good(""));
    let before = SigSet::thread_get_mask().unwrap();
    SigSet::all().thread_block().unwrap();
    let mut fetcher = Fetcher::start().unwrap();
    before.thread_set_mask().unwrap();
    // The name makes the C library resolve it, on a thread that stays for some seconds.
    let named = Request { url: format!("http://localhost:{}/", server.port), ..server.request() };
    fetcher.submit(1, named).unwrap();
    fresh(collect(&mut fetcher, 1).remove(0).1);

    let mut found = BTreeSet::new();
    for thread in fs::read_dir("/proc/self/task").unwrap().flatten() {
        let status = fs::read_to_string(thread.path().join("status")).unwrap();
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
        if field("Name:").starts_with("pg_oidc") {
            let blocked = u64::from_str_radix(field("SigBlk:"), 16).unwrap();
            // KILL and STOP cannot be blocked, 32 and 33 are the C library's own.
            let free = [9, 19, 32, 33].iter().fold(0u64, |bits, signal| bits | 1 << (signal - 1));
            assert_eq!(blocked | free, u64::MAX, "{status}");
            found.insert(field("Name:").to_owned());
        }
    }
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["pg_oidc net", "pg_oidc resolve"]);
}
