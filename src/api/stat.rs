//! What is counted since the server started.

use super::must_be_preloaded;
use crate::board;
use crate::events;
use crate::requests;
use crate::tallies::Means;

/// One figure: what it counts, of which provider, outcome and reason, and how much.
type Figure = (&'static str, Option<String>, Option<&'static str>, Option<&'static str>, i64);

fn figures() -> Vec<Figure> {
    let logins = events::counts().into_iter().map(|count| {
        let metric = if count.means == Means::Token { "logins" } else { "password_logins" };
        (metric, count.provider, Some(count.outcome), count.reason, number(count.count))
    });
    let mut figures: Vec<Figure> = logins.collect();
    let mut add = |name, value: u64| figures.push((name, None, None, None, number(value)));
    if let Some(level) = events::level() {
        add("logins_uncounted", level.uncounted);
        add("login_waits", level.waits);
        let [failed, succeeded] = level.fetches;
        add("key_fetches", succeeded);
        add("key_fetches_failed", failed);
        add("audit_events_stored", level.stored);
        add("audit_events_waiting", level.waiting);
        add("audit_events_dropped", level.dropped);
        add("audit_queue_bytes", level.bytes);
        add("audit_queue_capacity", level.capacity);
    }
    add("worker_requests_waiting", requests::waiting() as u64);
    if let Some([policy, keyring]) = board::fills() {
        add("policy_bytes", policy.bytes as u64);
        add("policy_capacity", policy.capacity as u64);
        add("keyring_bytes", keyring.bytes as u64);
        add("keyring_capacity", keyring.capacity as u64);
    }
    add("policy_publications", board::policy_edition());
    add("keyring_publications", board::keyring_edition());
    figures
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[pgrx::pg_schema]
mod oidc {
    use super::*;
    use pgrx::prelude::*;

    /// All figures of this moment.
    #[pg_extern(volatile)]
    #[allow(clippy::type_complexity, reason = "the columns of the view")]
    fn stat_rows() -> TableIterator<
        'static,
        (
            name!(metric, &'static str),
            name!(provider, Option<String>),
            name!(outcome, Option<&'static str>),
            name!(reason, Option<&'static str>),
            name!(value, i64),
        ),
    > {
        must_be_preloaded();
        TableIterator::new(figures())
    }
}
