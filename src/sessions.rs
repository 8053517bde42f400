//! Live token sessions: who is in, until when, and why one is ended.
//!
//! A login writes its slot while its decision still holds the board's lock, shared. The publisher turns the policy
//! under that lock, exclusive, and looks through the slots afterwards: whoever was decided upon by the old policy is
//! among them. So nobody slips through between decision and session.

use crate::events::{self, Event};
use crate::pg::port::Connection;
use crate::pg::report;
use crate::pg::slots::{self, Kind, Slot};
use crate::pg::startup;
use crate::requests;
use crate::turned_away;
use pg_oidc_core::decision::Decision;
use pg_oidc_core::standing::{Cause, Ground};
use std::ffi::CStr;
use std::fmt::Write;

/// Prepares this process for [`enter`]; before the board's lock is taken.
pub(crate) fn prepare() {
    slots::prepare(left, words);
}

/// Writes down the session that this decision opens at `now`, in microseconds since 1970. Only copies. False: this
/// process cannot have a session.
pub(crate) fn enter(decision: &Decision, connection: &Connection, now: i64) -> bool {
    slots::enter(|slot| {
        slot.since = now;
        slot.ends_at = decision.end.map_or(i64::MAX, |end| end.at);
        slot.ends_by_token = decision.end.is_some_and(|end| end.by_token);
        slot.dated = decision.issued_at.is_some();
        slot.issued_at = decision.issued_at.unwrap_or_default();
        slot.login = if decision.person.is_some() { Kind::Coming } else { Kind::Role };
        let given = decision.person.iter().flat_map(|person| &person.given).map(|given| given.rule_id);
        slot.rules.set(std::iter::once(decision.rule_id).chain(given.filter(|id| *id != decision.rule_id)));
        slot.provider.set(&decision.provider);
        slot.role.set(&decision.role);
        slot.database.set(&connection.database);
        slot.subject.set(&decision.subject);
        slot.identity.set(&decision.identity);
        if let Some(address) = connection.address {
            let _ = write!(slot.address, "{address}");
        }
    })
}

/// Notes which role the person of this session has, and which roles it was given by which rules.
pub(crate) fn settle(person: u32, roles: &[u32], rules: &[i64]) {
    slots::change(|slot| {
        slot.login = Kind::Person;
        slot.person = person;
        slot.rules.set(rules.iter().copied());
        slot.roles.set(roles.iter().copied());
    });
}

/// Whether no live session stands in the way of taking memberships from a person's role: one that was given the role,
/// or one that is not known to have been given others.
pub(crate) fn can_lose(person: u32, role: u32, provider: &str, subject: &str) -> bool {
    let mut free = true;
    slots::each(|slot| {
        free &= match slot.login {
            Kind::Role => true,
            Kind::Coming => slot.provider.get() != provider || slot.subject.get() != subject,
            Kind::Person => slot.person != person || !slot.roles.get().contains(&role),
        };
    });
    free
}

/// Ends every session whose time is over at `now`, and those that `lost` says have lost their ground. Gives the time
/// of the next end. `lost` runs under a lock: it only looks.
pub(crate) fn end_over(now: i64, lost: impl Fn(&Ground<'_>) -> Option<Cause>) -> i64 {
    let mut next = i64::MAX;
    slots::each(|slot| {
        if slot.cause == 0 {
            match over(slot, now).or_else(|| lost(&ground(slot))) {
                Some(cause) => slot.cause = cause as u8,
                None => {
                    next = next.min(slot.ends_at);
                    return;
                }
            }
        }
        // Each time, not only the first: another signal does no harm.
        slots::terminate(slot);
    });
    next
}

/// Ends the sessions of an identity at once, all but this one, and gives how many.
pub(crate) fn end_identity(provider: &str, subject: &str, cause: Cause) -> i32 {
    let mut ended = 0;
    slots::each(|slot| {
        let named = slot.provider.get() == provider && slot.subject.get() == subject;
        // This one has yet to commit; the worker ends it then.
        if named && slot.pid != slots::my_pid() {
            if slot.cause == 0 {
                slot.cause = cause as u8;
            }
            slots::terminate(slot);
            ended += 1;
        }
    });
    ended
}

/// Copies of all live sessions.
pub(crate) fn live() -> Vec<Slot> {
    slots::copies()
}

fn over(slot: &Slot, now: i64) -> Option<Cause> {
    let cause = if slot.ends_by_token { Cause::Token } else { Cause::Limit };
    (slot.ends_at <= now).then_some(cause)
}

fn ground(slot: &Slot) -> Ground<'_> {
    Ground {
        provider: slot.provider.get(),
        subject: slot.subject.get(),
        rules: slot.rules.get(),
        person: (slot.login == Kind::Person).then_some(slot.person),
        issued_at: slot.dated.then_some(slot.issued_at),
    }
}

/// In the session's own process, when it exits: the cause is logged once, and is an event.
fn left(slot: &Slot) {
    requests::abandon();
    if let Some(cause) = Cause::of(slot.cause) {
        if !startup::is_standby() {
            events::put(&event(slot, cause));
        }
        report::log(&format!(
            "OIDC session ended: cause={} role={:?} identity={:?} provider={:?} subject={:?} rule={} database={:?}",
            cause.code(),
            slot.role.get(),
            slot.identity.get(),
            slot.provider.get(),
            slot.subject.get(),
            rule_id(slot),
            slot.database.get(),
        ));
    } else {
        turned_away::note(slot);
    }
}

/// The rule that gave its first role.
pub(crate) fn rule_id(slot: &Slot) -> i64 {
    slot.rules.get().first().copied().unwrap_or_default()
}

fn event(slot: &Slot, cause: Cause) -> Event {
    let mut event = Event::default();
    event.set(c"time", startup::now().to_string());
    event.set(c"event", "session_end");
    event.set(c"outcome", "ended");
    event.set(c"reason", cause.code());
    event.set(c"provider", slot.provider.get());
    event.set(c"subject", slot.subject.get());
    event.set(c"identity", slot.identity.get());
    event.set(c"role", slot.role.get());
    event.set(c"rule_id", rule_id(slot).to_string());
    event.set(c"database", slot.database.get());
    event.set_some(c"client_address", Some(slot.address.get()).filter(|address| !address.is_empty()));
    event.set(c"pid", slot.pid.to_string());
    event
}

/// What the client of a session that is ended is told: detail and hint.
fn words(cause: u8) -> Option<(&'static CStr, &'static CStr)> {
    let fresh = c"Connect again with a fresh token.";
    Some(match Cause::of(cause)? {
        Cause::Token => (c"The OIDC token of the session has expired.", fresh),
        Cause::Limit => (c"The time of the OIDC token session is over.", fresh),
        Cause::Provider => {
            (c"The OIDC token session was ended: its provider is gone or disabled.", c"Ask the administrator.")
        }
        Cause::Rule => (
            c"The OIDC token session was ended: the rule that gave its role is gone, disabled or past its time.",
            c"Connect again with a fresh token, if another rule gives the role.",
        ),
        Cause::Revoked => {
            (c"The OIDC token session was ended: its identity is revoked.", c"Ask the administrator.")
        }
        Cause::Binding => (
            c"The OIDC token session was ended: the role is not bound to its identity any more.",
            c"Ask the administrator.",
        ),
        Cause::Ended => (c"All OIDC token sessions of this identity were ended.", fresh),
    })
}
