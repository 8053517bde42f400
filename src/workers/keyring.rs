//! The keyring worker: the only place with HTTP. Fetches every provider's keys and publishes the keyring.
//!
//! It uses no database: what it needs of the policy stands on the board. HTTP runs on the fetcher's own thread,
//! which never runs Postgres code; this thread only hands requests over and is woken by a socket.

use super::fetching::{Network, Source, Step};
use super::key_trail::{self, Trail};
use crate::board::{self, Staff, Wish};
use crate::fail_point::fail_point;
use crate::pg::worker::Wake;
use crate::pg::{report, startup, worker};
use crate::settings;
use pg_oidc_core::image::KeyringImage;
use pg_oidc_core::provider::Provider;
use pg_oidc_net::Fetcher;
use pgrx::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// The longest sleep: a safety net only, since publications and answers wake this worker.
const NAP: Duration = Duration::from_secs(60);
/// How long the fetcher's thread may take to end.
const FAREWELL: Duration = Duration::from_secs(1);

/// Providers by the fingerprint of where their keys come from.
type Sources = BTreeMap<u64, Source>;

#[pg_guard]
#[allow(unsafe_code, reason = "core finds a worker's function by its name")]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pg_oidc_keyring_main(_argument: pg_sys::Datum) {
    // The thread is started with every signal blocked, before this worker unblocks its own.
    let mut fetcher = match worker::without_signals(Fetcher::start) {
        Ok(fetcher) => fetcher,
        Err(error) => {
            report::warning(
                "could not start the thread that fetches OIDC keys",
                Some(&format!("{error}.")),
                None,
            );
            worker::end();
        }
    };
    worker::start();
    worker::connect(None);
    board::sign_in(Staff::Keyring);
    worker::at_exit(|| board::sign_out(Staff::Keyring));
    let mut sources = Sources::new();
    let mut followed = None;
    let mut trail = Trail::default();
    loop {
        let mut changed = follow_policy(&mut sources, &mut followed);
        changed |= take_answers(&mut sources, &mut fetcher);
        take_requests(&mut sources);
        ask(&mut sources, &fetcher);
        if changed {
            fail_point("keyring_publishing");
            publish(&mut sources);
            trail.tell(&sources);
            alarm(&mut sources);
        }
        if worker::wait(until_next(&sources), Some(fetcher.wake_fd())) == Wake::Stop {
            fetcher.stop(FAREWELL);
            worker::end();
        }
        if !fetcher.is_alive() {
            report::warning(
                "the thread that fetches OIDC keys has ended, the worker starts again",
                None,
                None,
            );
            worker::end();
        }
    }
}

/// Takes over the providers of a new policy; keys of those that stay are kept. True if any came or went.
///
/// Where no policy is published (none yet, absent, too large), what was fetched is kept: nobody can use it without
/// a policy, and good logins need it as soon as there is one again.
fn follow_policy(sources: &mut Sources, followed: &mut Option<u64>) -> bool {
    let edition = board::policy_edition();
    if *followed == Some(edition) {
        return false;
    }
    *followed = Some(edition);
    let mut wanted = BTreeSet::new();
    let mut new = Vec::new();
    // Under the lock only what is new is copied; keys are parsed afterwards.
    let published = board::read(|policy, keyring| {
        for provider in policy.providers().filter(|provider| provider.enabled) {
            let key_source = provider.key_source.to_native();
            wanted.insert(key_source);
            if let Some(source) = sources.get_mut(&key_source) {
                source.call(provider.name.as_str());
            } else {
                // What an earlier life of this worker has published is as good as it was.
                let known = keyring
                    .entry(key_source)
                    .and_then(|known| rkyv::deserialize::<_, rkyv::rancor::Error>(known).ok());
                // Archived by the registry worker with the same types: this cannot fail.
                let provider = rkyv::deserialize::<Provider, rkyv::rancor::Error>(provider).ok();
                new.extend(provider.map(|provider| (provider, known)));
            }
        }
    });
    if published.is_none() {
        return false;
    }
    let before = sources.len();
    sources.retain(|key_source, _| wanted.contains(key_source));
    let changed = sources.len() != before || !new.is_empty();
    let now = Instant::now();
    sources.extend(new.into_iter().map(|(provider, known)| {
        let source = Source::new(provider, known, now);
        (source.key_source(), source)
    }));
    changed
}

fn take_answers(sources: &mut Sources, fetcher: &mut Fetcher) -> bool {
    let mut changed = false;
    for (ticket, answer) in fetcher.results() {
        fail_point("keyring_fetched");
        // A provider that went away meanwhile has no use for its answer.
        let Some(source) = sources.values_mut().find(|source| source.ticket() == ticket) else { continue };
        match source.take(answer, &network(), Instant::now(), startup::now()) {
            // A fetcher that is gone is noticed by the loop.
            Step::Ask(request) => {
                let _ = fetcher.submit(source.ticket(), request);
            }
            Step::Publish => changed = true,
            Step::Failed { why } => {
                changed = true;
                report::warning(
                    &format!("could not fetch the keys of OIDC provider {:?}", source.name()),
                    Some(&why),
                    None,
                );
            }
        }
    }
    changed
}

fn take_requests(sources: &mut Sources) {
    let (now, wall) = (Instant::now(), startup::now());
    for (key_source, wish) in board::take_key_requests() {
        let Some(source) = sources.get_mut(&key_source) else { continue };
        match wish {
            Wish::Login => source.hurry(now, wall),
            Wish::Administrator => source.order(now),
        }
    }
}

fn ask(sources: &mut Sources, fetcher: &Fetcher) {
    let now = Instant::now();
    for source in sources.values_mut() {
        if source.due().is_some_and(|due| due <= now) {
            fail_point("keyring_fetching");
            let request = source.begin(&network());
            let _ = fetcher.submit(source.ticket(), request);
        }
    }
}

/// Publishes the keyring. New sets that do not fit are given up one by one, the largest first: an issuer that sends too
/// much must not keep the keys of the others from changing.
fn publish(sources: &mut Sources) {
    const HINT: Option<&str> = Some("Raise \"pg_oidc.shared_memory\" and restart the server.");
    while let Err(why) = put_up(sources) {
        let largest = sources.values_mut().max_by_key(|source| source.unpublished());
        let Some(source) = largest.filter(|source| source.unpublished().is_some()) else {
            let message = "the keys of the OIDC providers cannot be published, those published before stay";
            report::warning(message, Some(&why), HINT);
            return;
        };
        source.give_up(Instant::now(), startup::now());
        let message = format!(
            "the keys of OIDC provider {:?} do not fit into shared memory, the old ones stay",
            source.name()
        );
        report::warning(&message, Some(&why), HINT);
    }
    sources.values_mut().for_each(Source::settle);
}

fn put_up(sources: &Sources) -> Result<(), String> {
    let (now, wall) = (Instant::now(), startup::now());
    let entries = sources.values().filter_map(|source| source.published(now, wall)).collect();
    let image = KeyringImage::build(entries).map_err(|error| format!("{error}."))?;
    let bytes = board::encode_keyring(&image).map_err(|error| format!("{error}."))?;
    board::publish_keyring(&bytes).map_err(|too_large| too_large.to_string())
}

fn alarm(sources: &mut Sources) {
    for source in sources.values_mut() {
        let alarms = source.alarms();
        for alarm in &alarms {
            report::warning(
                &format!(
                    "the key set of OIDC provider {:?} holds a key that must not be there",
                    source.name()
                ),
                Some(&alarm.sentence()),
                Some("The key is never used; its other keys are. Tell the issuer."),
            );
        }
        key_trail::leaked(source.name(), &alarms);
    }
}

fn network() -> Network {
    Network { allow_http: settings::allow_http(), proxy: settings::http_proxy() }
}

fn until_next(sources: &Sources) -> Duration {
    let now = Instant::now();
    sources
        .values()
        .filter_map(Source::due)
        .min()
        .map_or(NAP, |due| due.saturating_duration_since(now).clamp(Duration::from_millis(10), NAP))
}
