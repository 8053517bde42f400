//! Events of logins, taken from the ring in shared memory into `oidc.audit_log`, and events that are old, taken out of it.
//!
//! Nothing waits for this. While the table cannot be written (disk full, locked, no such table, a standby), events stay
//! in the ring as long as there is room; then they are only counted, and stand in the server log alone.

use super::registry;
use crate::events::{self, Batch, Event, LOG};
use crate::fail_point::fail_point;
use crate::pg::append::append;
use crate::pg::{catalog, report, startup, worker};
use crate::settings;
use pgrx::prelude::*;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fmt::Write as _;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

/// Events that are written in one transaction.
const BATCH: usize = 512;
/// Transactions in a row, before the worker looks at its other work.
const BATCHES: usize = 4;
/// How long to wait after events could not be written.
const PAUSE: Duration = Duration::from_secs(1);
/// How often the log says that they cannot be written.
const SAY: Duration = Duration::from_secs(60);
/// How long a lock on the table may hold the worker, which has other things to do.
const LOCK_TIMEOUT: &CStr = c"100ms";

/// How often old events are looked for.
const SWEEP: Duration = Duration::from_secs(60 * 60);
/// Events that are deleted in one transaction.
const OLD: i64 = 1000;

/// Where the worker stands with the audit table.
#[derive(Default)]
pub(super) struct Auditor {
    not_before: Option<Instant>,
    said_at: Option<Instant>,
    /// When old events were last looked for, and with which retention.
    swept: Option<(Instant, Option<Duration>)>,
    given_up: u64,
}

impl Auditor {
    /// Writes what waits, and deletes what is old. True: there is more to do.
    pub(super) fn audit(&mut self) -> bool {
        let pausing = self.not_before.is_some_and(|end| Instant::now() < end);
        if pausing || startup::is_standby() {
            return false;
        }
        worker::set(c"lock_timeout", LOCK_TIMEOUT);
        let more = (0..BATCHES).all(|_| self.store()) | self.sweep();
        worker::set(c"lock_timeout", registry::LOCK_TIMEOUT);
        self.count();
        more
    }

    /// Writes what waits when the server is about to stop.
    pub(super) fn last(&mut self) {
        self.not_before = None;
        while !startup::is_standby() && self.audit() {}
    }

    /// Writes a batch. True: it was a full one.
    fn store(&mut self) -> bool {
        let Some(batch) = events::oldest(BATCH) else { return false };
        fail_point("registry_auditing");
        match worker::transaction(|| write(&batch)) {
            Ok(Ok(Written::All)) => {
                events::done(&batch);
                last_logins(&batch);
                (self.not_before, self.said_at) = (None, None);
                batch.events.len() == BATCH
            }
            Ok(Ok(Written::NoTable)) => self.fail("The extension has no table \"oidc.audit_log\""),
            // Every login is refused for that, and its line says so.
            Ok(Ok(Written::NoExtension)) => {
                self.not_before = Some(Instant::now() + PAUSE);
                false
            }
            Ok(Err(error)) | Err(error) => self.fail(&error),
        }
    }

    fn fail(&mut self, error: &str) -> bool {
        self.not_before = Some(Instant::now() + PAUSE);
        if self.said_at.is_none_or(|at| at.elapsed() >= SAY) {
            self.said_at = Some(Instant::now());
            report::warning(
                "could not write logins to oidc.audit_log",
                Some(&format!("{error}. Logins go on, and each has its line in the server log.")),
                None,
            );
        }
        false
    }

    /// Deletes some of the events that are older than `pg_oidc.audit_retention`. True: there may be more of them.
    fn sweep(&mut self) -> bool {
        let retention = settings::audit_retention();
        if self.swept.is_some_and(|(at, known)| known == retention && at.elapsed() < SWEEP) {
            return false;
        }
        let deleted = match retention {
            None => Ok(Ok(0)),
            Some(age) => worker::transaction(move || delete_older(age)),
        };
        match deleted {
            Ok(Ok(count)) if count == OLD => return true,
            Ok(Ok(_)) => {}
            Ok(Err(error)) | Err(error) => report::warning(
                "could not delete old events from oidc.audit_log",
                Some(&format!("{error}. They are deleted later.")),
                None,
            ),
        }
        self.swept = Some((Instant::now(), retention));
        false
    }

    /// Says how many events were given up, once for each time that there was no room.
    fn count(&mut self) {
        let dropped = events::level().map_or(0, |level| level.dropped);
        if dropped > self.given_up {
            let now = dropped - self.given_up;
            report::warning(
                &format!("{now} logins are not in oidc.audit_log"),
                Some(
                    "There was no room in shared memory for their events. Each has its line in the server log.",
                ),
                None,
            );
        }
        self.given_up = dropped;
    }
}

/// What became of a batch.
enum Written {
    All,
    NoTable,
    NoExtension,
}

/// Whether there is the table of this extension; None: there is no extension. One of that name is somebody else's then.
fn is_there() -> Result<Option<bool>, String> {
    // By the catalogs' rows: looked up by name before there is one, it would be remembered as missing, and the policy
    // is read before core tells otherwise (CommitTransaction calls us before it sends invalidations).
    let query = "SELECT EXISTS (SELECT FROM pg_depend d JOIN pg_class c ON c.oid = d.objid \
                                  JOIN pg_namespace n ON n.oid = c.relnamespace \
                                 WHERE n.nspname = 'oidc' AND c.relname = 'audit_log' \
                                   AND d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_extension'::regclass \
                                   AND d.refobjid = e.oid AND d.deptype = 'e') \
                   FROM pg_extension e WHERE e.extname = 'pg_oidc'";
    Spi::connect(|client| {
        let found = client.select(query, Some(1), &[]).map_err(|error| error.to_string())?;
        if found.is_empty() {
            return Ok(None);
        }
        found.first().get_one::<bool>().map_err(|error| error.to_string())
    })
}

fn write(batch: &Batch) -> Result<Written, String> {
    match is_there()? {
        None => return Ok(Written::NoExtension),
        Some(false) => return Ok(Written::NoTable),
        Some(true) => {}
    }
    let utf8 = catalog::database_is_utf8();
    let all = batch.events.iter().all(|event| append(&LOG, &values(event, utf8)));
    Ok(if all { Written::All } else { Written::NoTable })
}

/// Notes when people last logged in, to the hour. What cannot be written is not missed: it only counts for
/// oidc.prune_identities, which looks at live sessions too.
fn last_logins(batch: &Batch) {
    let mut latest: BTreeMap<(String, String), i64> = BTreeMap::new();
    for event in &batch.events {
        let value = |column| event.values().find(|(name, _)| *name == column).map(|(_, value)| value);
        let accepted = (value(c"event"), value(c"outcome")) == (Some("login"), Some("accepted"));
        if let (true, Some(provider), Some(subject), Some(time)) =
            (accepted, value(c"provider"), value(c"subject"), value(c"time"))
        {
            let time = time.parse().unwrap_or_default();
            let known = latest.entry((provider.to_owned(), subject.to_owned())).or_insert(time);
            *known = time.max(*known);
        }
    }
    if latest.is_empty() {
        return;
    }
    let statement = "UPDATE oidc.identity_role i SET last_login = to_timestamp(l.at / 1000000.0) \
                       FROM unnest($1::text[], $2::text[], $3::bigint[]) l (provider, subject, at) \
                      WHERE i.provider = l.provider AND i.subject = l.subject \
                        AND (i.last_login IS NULL OR i.last_login < to_timestamp(l.at / 1000000.0) - interval '1 hour')";
    let (people, times): (Vec<_>, Vec<_>) = latest.into_iter().unzip();
    let (providers, subjects): (Vec<_>, Vec<_>) = people.into_iter().unzip();
    let _ = worker::transaction(AssertUnwindSafe(|| {
        Spi::connect_mut(|client| {
            client.update(statement, None, &[providers.into(), subjects.into(), times.into()]).map(drop)
        })
    }));
}

fn values(event: &Event, utf8: bool) -> Vec<(&'static CStr, CString)> {
    let text = |column: &CStr, value: &str| -> String {
        if column == c"time" {
            startup::time_text(value.parse().unwrap_or_default())
        } else if utf8 {
            value.to_owned()
        } else {
            // In JSON a backslash has to be one of JSON's own.
            let json = [c"before", c"after", c"facts"].contains(&column);
            in_ascii(value, if json { r"\\" } else { r"\" })
        }
    };
    // A NUL comes neither in a startup packet nor in a token that is judged.
    event.values().map(|(name, value)| (name, CString::new(text(name, value)).unwrap_or_default())).collect()
}

/// Text for a database whose encoding may not have these characters.
fn in_ascii(text: &str, backslash: &str) -> String {
    let mut ascii = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_ascii() {
            ascii.push(character);
        } else {
            let _ = write!(ascii, "{backslash}u{{{:x}}}", u32::from(character));
        }
    }
    ascii
}

fn delete_older(age: Duration) -> Result<i64, String> {
    if is_there()? != Some(true) {
        return Ok(0);
    }
    let statement = "WITH old AS MATERIALIZED (SELECT id FROM oidc.audit_log \
                         WHERE \"time\" < to_timestamp($1 / 1000000.0) ORDER BY \"time\" LIMIT $2), \
                     gone AS (DELETE FROM oidc.audit_log a USING old WHERE a.id = old.id RETURNING 1) \
                     SELECT count(*) FROM gone";
    let before = startup::now().saturating_sub(i64::try_from(age.as_micros()).unwrap_or(i64::MAX));
    Spi::connect_mut(|client| {
        client
            .update(statement, None, &[before.into(), OLD.into()])
            .map_err(|error| error.to_string())?
            .first()
            .get_one::<i64>()
            .map_err(|error| error.to_string())
    })
    .map(|count| count.unwrap_or(0))
}
