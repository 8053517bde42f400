//! The keys of one provider: where they come from, what is asked next and when, what came.

use crate::events;
use pg_oidc_core::image::ProviderKeys;
use pg_oidc_core::keys::{JwksError, Key, KeyProblem, KeyReport, ParsedJwks, parse_jwks};
use pg_oidc_core::provider::Provider;
use pg_oidc_core::{discovery, limits};
use pg_oidc_net::{FetchError, Request, Response};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One attempt in all: discovery and keys, each with name, connection and answer.
const LIMIT: Duration = Duration::from_secs(5);
/// How often keys are fetched where the provider says nothing of their age.
const USUAL_AGE: Duration = Duration::from_secs(300);
/// What a provider may ask for: not more often than every minute, not more seldom than every day.
const AGES: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(24 * 3600));
/// The pause after a failure, doubled each time; up to a quarter of it is added by chance.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(240));

/// The number of the next request. An answer is taken by who asked for it: a provider that went away and came back
/// has no use for what it was told in its earlier life.
static TICKETS: AtomicU64 = AtomicU64::new(1);

/// Where keys come from that were kept across a restart, as `oidc.key` says it.
pub(super) const CACHE: &str = "cache";

/// How the outside is reached, read from the settings for each round.
pub(super) struct Network {
    pub(super) allow_http: bool,
    pub(super) proxy: Option<String>,
}

/// One provider's keys and how they are got.
pub(super) struct Source {
    provider: Provider,
    stage: Stage,
    due: Instant,
    /// When the attempt under way is given up.
    end: Instant,
    failures: u32,
    /// An administrator has asked while an attempt was under way.
    again: bool,
    /// The request that is under way.
    ticket: u64,
    held: Held,
    /// What stood before the set in hand, until that is published.
    before: Option<Before>,
    /// What the issuer should be told of the last set that came, used or not.
    grave: Vec<Grave>,
    /// What was last said of it.
    alarmed: Vec<Grave>,
    /// The key set that is being asked for.
    asked: String,
    last_error: Option<(&'static str, String)>,
    /// When an attempt has last ended, well or not; None before the first.
    attempted_at: Option<i64>,
}

/// A key set in hand.
#[derive(Default)]
struct Held {
    keys: Vec<Key>,
    reports: Vec<KeyReport>,
    origin: String,
    etag: Option<String>,
    /// When it was fetched, in microseconds since 1970.
    fetched_at: i64,
}

/// What to go back to where there is no room for a new set.
struct Before {
    held: Held,
    failures: u32,
    /// The size of the new set, as it came.
    bytes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Idle,
    Discovering,
    Fetching,
}

/// What an answer means for the keyring.
pub(super) enum Step {
    /// Ask this next, at once.
    Ask(Request),
    /// The keys, or their age, changed: publish.
    Publish,
    /// The attempt failed; what was there stays, and waiting logins are told by a publication. Safe for the log.
    Failed { why: String },
}

impl Source {
    /// `published`: what stands on the board for this very source of keys.
    pub(super) fn new(mut provider: Provider, published: Option<ProviderKeys>, now: Instant) -> Source {
        let kept = provider.kept.take();
        let mut source = Source {
            provider,
            stage: Stage::Idle,
            due: now,
            end: now,
            failures: 0,
            again: false,
            ticket: 0,
            held: Held::default(),
            before: None,
            grave: Vec::new(),
            alarmed: Vec::new(),
            asked: String::new(),
            last_error: None,
            attempted_at: None,
        };
        if let Some(jwks) = source.provider.jwks.clone() {
            // The row was compiled with the same function: it has a usable key.
            source.take_set(&jwks, "jwks", 0);
            source.attempted_at = Some(0);
        } else if let Some(published) = published.filter(|published| !published.keys.is_empty()) {
            source.held = Held {
                keys: published.keys,
                reports: published.reports,
                origin: published.origin,
                etag: None,
                fetched_at: published.fetched_at,
            };
            source.attempted_at = Some(published.attempted_at);
        } else if let Some(kept) = kept
            && source.take_set(&kept.jwks, CACHE, kept.fetched_at)
        {
            // Not asked yet in this life, so a login may ask at once.
            source.attempted_at = Some(0);
        }
        source
    }

    /// What the issuer should be told of its key set: once, not at every fetch of the same set.
    pub(super) fn alarms(&mut self) -> Vec<Grave> {
        if self.alarmed == self.grave {
            return Vec::new();
        }
        self.alarmed.clone_from(&self.grave);
        self.grave.clone()
    }

    /// Takes over a key set that was written down, if it is one; whether it was.
    fn take_set(&mut self, jwks: &str, origin: &str, fetched_at: i64) -> bool {
        let Ok(set) = parse_jwks(jwks.as_bytes(), &self.provider.algorithms) else { return false };
        self.hold(set, Held { origin: origin.to_owned(), fetched_at, ..Held::default() }, jwks.len());
        true
    }

    /// Takes over a key set of so many bytes; where it comes from stands in `held` already.
    fn hold(&mut self, set: ParsedJwks, held: Held, bytes: usize) {
        self.grave = grave(&set.reports);
        let held = Held { keys: set.keys, reports: set.reports, ..held };
        let before = std::mem::replace(&mut self.held, held);
        // One that was never published is nothing to go back to.
        match &mut self.before {
            Some(unpublished) => unpublished.bytes = bytes,
            None => self.before = Some(Before { held: before, failures: self.failures, bytes }),
        }
    }

    /// The size of the set in hand if it is not published yet.
    pub(super) fn unpublished(&self) -> Option<usize> {
        self.before.as_ref().map(|before| before.bytes)
    }

    /// The set in hand is published.
    pub(super) fn settle(&mut self) {
        self.before = None;
    }

    /// There is no room for the set in hand: the one before stands again, and the attempt has failed.
    pub(super) fn give_up(&mut self, now: Instant, wall: i64) {
        if let Some(before) = self.before.take() {
            (self.held, self.failures) = (before.held, before.failures);
            self.fail("no_room", "the key set does not fit into shared memory", now, wall);
        }
    }

    /// The usable keys in hand.
    pub(super) fn keys(&self) -> &[Key] {
        &self.held.keys
    }

    /// Why the last attempt failed, as a code and in words; None: it did not.
    pub(super) fn failure(&self) -> Option<(&'static str, &str)> {
        self.last_error.as_ref().map(|(code, why)| (*code, why.as_str()))
    }

    pub(super) fn name(&self) -> &str {
        &self.provider.name
    }

    /// Takes over the name of today: a provider can be renamed.
    pub(super) fn call(&mut self, name: &str) {
        if self.provider.name != name {
            name.clone_into(&mut self.provider.name);
        }
    }

    pub(super) fn key_source(&self) -> u64 {
        self.provider.key_source
    }

    /// The number of the request that is under way, or of the last one.
    pub(super) fn ticket(&self) -> u64 {
        self.ticket
    }

    /// What to publish; None while the first attempt has not ended.
    pub(super) fn published(&self, now: Instant, wall: i64) -> Option<ProviderKeys> {
        let until_next = self.due().map(|due| due.saturating_duration_since(now).as_micros());
        Some(ProviderKeys {
            name: self.provider.name.clone(),
            key_source: self.provider.key_source,
            fetched_at: self.held.fetched_at,
            attempted_at: self.attempted_at?,
            static_keys: self.is_static(),
            keys: self.held.keys.clone(),
            reports: self.held.reports.clone(),
            origin: self.held.origin.clone(),
            next_fetch_at: until_next.map(|us| wall.saturating_add(i64::try_from(us).unwrap_or(i64::MAX))),
            last_error: self.last_error.as_ref().map(|(_, why)| why.clone()),
        })
    }

    /// When the next request is due; None for static keys and while one is under way.
    pub(super) fn due(&self) -> Option<Instant> {
        (!self.is_static() && self.stage == Stage::Idle).then_some(self.due)
    }

    /// A login asks for newer keys: the next request is due now, unless the last attempt is too recent.
    pub(super) fn hurry(&mut self, now: Instant, wall: i64) {
        let rested =
            self.attempted_at.is_none_or(|last| wall.abs_diff(last) >= limits::FETCH_PAUSE.unsigned_abs());
        if rested {
            self.due = now;
        }
    }

    /// An administrator asks: the next request is due now, or once the one under way has ended, which may have been
    /// answered before.
    pub(super) fn order(&mut self, now: Instant) {
        self.again = self.stage != Stage::Idle;
        self.due = now;
    }

    /// The request that starts a round.
    pub(super) fn begin(&mut self, network: &Network) -> Request {
        self.end = Instant::now() + LIMIT;
        match self.provider.jwks_uri.clone() {
            Some(uri) => self.ask_for_keys(uri, network),
            None => {
                self.stage = Stage::Discovering;
                self.request(discovery::location(&self.provider.issuer), None, network)
            }
        }
    }

    /// Takes the answer to the last request. `wall` is microseconds since 1970.
    pub(super) fn take(
        &mut self,
        answer: Result<Response, FetchError>,
        network: &Network,
        now: Instant,
        wall: i64,
    ) -> Step {
        let step = self.judge(answer, network, now, wall);
        if self.stage == Stage::Idle && std::mem::take(&mut self.again) {
            self.due = now;
        }
        step
    }

    fn judge(
        &mut self,
        answer: Result<Response, FetchError>,
        network: &Network,
        now: Instant,
        wall: i64,
    ) -> Step {
        let stage = std::mem::replace(&mut self.stage, Stage::Idle);
        match (stage, answer) {
            (_, Err(error)) => self.fail(error.code(), &error.to_string(), now, wall),
            (Stage::Discovering, Ok(Response::Fresh { body, .. })) => {
                match discovery::parse(&body, &self.provider.issuer, network.allow_http) {
                    Ok(uri) => Step::Ask(self.ask_for_keys(uri, network)),
                    Err(error) => self.fail("discovery_invalid", &error.to_string(), now, wall),
                }
            }
            (Stage::Fetching, Ok(Response::Fresh { body, etag, max_age })) => {
                match parse_jwks(&body, &self.provider.algorithms) {
                    Ok(set) => {
                        let held = Held { origin: self.asked.clone(), etag, ..Held::default() };
                        self.hold(set, held, body.len());
                        self.succeed(max_age, now, wall)
                    }
                    Err(error) => {
                        let why = error.sentence();
                        if let JwksError::NoUsableKey(reports) = error {
                            self.grave = grave(&reports);
                            // With nothing better in hand, what is wrong with each of its keys is shown.
                            if self.held.keys.is_empty() {
                                (self.held.reports, self.held.origin) = (reports, self.asked.clone());
                            }
                        }
                        self.fail("key_set_invalid", why, now, wall)
                    }
                }
            }
            (Stage::Fetching, Ok(Response::NotModified { max_age })) => self.succeed(max_age, now, wall),
            (Stage::Discovering | Stage::Idle, Ok(_)) => {
                self.fail("answer_invalid", "an unexpected answer", now, wall)
            }
        }
    }

    fn is_static(&self) -> bool {
        self.provider.jwks.is_some()
    }

    fn ask_for_keys(&mut self, uri: String, network: &Network) -> Request {
        // An ETag says that the copy in hand is still good, so it is sent only for the place that it came from.
        let held = &self.held;
        let etag = held.etag.clone().filter(|_| held.origin == uri && !held.keys.is_empty());
        self.stage = Stage::Fetching;
        self.asked.clone_from(&uri);
        self.request(uri, etag, network)
    }

    fn request(&mut self, url: String, etag: Option<String>, network: &Network) -> Request {
        self.ticket = TICKETS.fetch_add(1, Ordering::Relaxed);
        Request {
            url,
            ca_certificate: self.provider.ca_certificate.clone(),
            proxy: network.proxy.clone(),
            allow_http: network.allow_http,
            etag,
            limit: self.end.saturating_duration_since(Instant::now()),
            max_bytes: limits::JWKS_BYTES,
        }
    }

    fn succeed(&mut self, max_age: Option<Duration>, now: Instant, wall: i64) -> Step {
        events::note_fetch(true);
        self.failures = 0;
        self.last_error = None;
        self.held.fetched_at = wall;
        self.attempted_at = Some(wall);
        let age = max_age.unwrap_or(USUAL_AGE).clamp(AGES.0, AGES.1);
        // Before the age ends, and not all servers and providers in the same moment.
        self.due = now + age * (800 + chance(100)) / 1000;
        Step::Publish
    }

    fn fail(&mut self, code: &'static str, why: &str, now: Instant, wall: i64) -> Step {
        events::note_fetch(false);
        let pause = PAUSES.0.saturating_mul(1 << self.failures.min(9)).min(PAUSES.1);
        self.failures = self.failures.saturating_add(1);
        self.due = now + pause * (1000 + chance(250)) / 1000;
        self.attempted_at = Some(wall);
        self.last_error = Some((code, why.to_owned()));
        Step::Failed { why: why.to_owned() }
    }
}

/// A number below `end`, by chance.
fn chance(end: u32) -> u32 {
    // Each of them is seeded anew, the first one by the system.
    let number = RandomState::new().hash_one(0) % u64::from(end);
    u32::try_from(number).unwrap_or(0)
}

/// A key that must not be in any published set: anybody may sign with it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Grave {
    pub(super) kid: Option<String>,
    pub(super) problem: KeyProblem,
}

impl Grave {
    /// As a sentence for the log.
    pub(super) fn sentence(&self) -> String {
        format!("Key {:?}: {}", self.kid.as_deref().unwrap_or(""), self.problem.sentence())
    }
}

fn grave(reports: &[KeyReport]) -> Vec<Grave> {
    let grave = |problem: &KeyProblem| {
        matches!(problem, KeyProblem::PrivateMember | KeyProblem::Symmetric | KeyProblem::RsaRoca)
    };
    let found = |report: &KeyReport| {
        let problem = report.usable.err().filter(grave)?;
        Some(Grave { kid: report.kid.clone(), problem })
    };
    reports.iter().filter_map(found).collect()
}
