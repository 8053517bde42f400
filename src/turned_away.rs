//! Logins that were accepted here and then failed: core has the last word on NOLOGIN, CONNECT, connection limits and what
//! else InitPostgres looks at after the ClientAuthentication hook.

use crate::events::{self, Event};
use crate::pg::slots::Slot;
use crate::pg::{report, startup};
use crate::sessions;
use crate::tallies::{Means, Outcome, TURNED_AWAY};
use std::cell::RefCell;

thread_local! {
    /// The event of the login that this process has accepted; None in it where nothing can be written. Empty: none was.
    static ACCEPTED: RefCell<Option<Option<Event>>> = const { RefCell::new(None) };
}

/// Keeps the event of an accepted login, in case that core turns it away.
pub(crate) fn expect(event: Option<Event>) {
    ACCEPTED.set(Some(event));
}

/// The login is refused here after all, and that is noted.
pub(crate) fn forget() {
    ACCEPTED.set(None);
}

/// Notes that this process, which leaves, was turned away by core, if it was.
pub(crate) fn note(slot: &Slot) {
    let Some(accepted) = ACCEPTED.take() else { return };
    if !startup::is_starting() {
        return;
    }
    let event = accepted.as_ref().map(|accepted| {
        let mut event = Event::default();
        for (column, value) in accepted.values() {
            match column.to_bytes() {
                b"time" => event.set(column, startup::now().to_string()),
                b"outcome" => event.set(column, "failed"),
                _ => event.set(column, value),
            }
        }
        event.set(c"reason", TURNED_AWAY);
        event
    });
    events::note(Means::Token, Some(slot.provider.get()), Outcome::Failed, event.as_ref());
    report::log(&format!(
        "OIDC login failed after it was accepted: reason={TURNED_AWAY} role={:?} identity={:?} provider={:?} subject={:?} \
         rule={} database={:?}",
        slot.role.get(),
        slot.identity.get(),
        slot.provider.get(),
        slot.subject.get(),
        sessions::rule_id(slot),
        slot.database.get(),
    ));
}
