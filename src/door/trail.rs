//! The event of each login, for the audit table: who asked for what, from where, and how it ended.
//!
//! | column | filled from |
//! |---|---|
//! | requested_user, database, client_address, tls, application_name, pid | the connection |
//! | provider, kid | the policy and the keyring, once the token has found its provider and key |
//! | subject, identity, token_id, facts | the token, once its signature is verified |
//! | reason | the refusal |
//! | role, current_user | the role that an accepted login starts in |
//! | session_user | the role that it logs in with |
//! | rule_id | the rule that gives the role, or the one that denies |

use crate::events::{self, Event};
use crate::fail_point::fail_point;
use crate::pg::port::Connection;
use crate::pg::startup;
use crate::session::Grant;
use crate::tallies::{Means, Outcome};
use crate::turned_away;
use pg_oidc_core::account::Account;
use pg_oidc_core::decision::Replication;
use pg_oidc_core::refusal::Refusal;

pub(super) fn accepted(connection: &Connection, account: &Account, grant: &Grant) {
    fail_point("login_auditing");
    let event = acceptance(connection, account, grant);
    events::note(Means::Token, account.provider.as_deref(), Outcome::Accepted, event.as_ref());
    turned_away::expect(event);
    fail_point("login_audited");
}

/// Core has the next word on a login that the policy grants. The event of it is written only if it comes to nothing.
pub(super) fn granted(connection: &Connection, account: &Account, grant: &Grant) {
    turned_away::expect(acceptance(connection, account, grant));
}

fn acceptance(connection: &Connection, account: &Account, grant: &Grant) -> Option<Event> {
    token_event(connection, account, None).map(|mut event| {
        event.set(c"outcome", "accepted");
        event.set(c"role", grant.role());
        event.set(c"session_user", grant.decision.role.as_str());
        event.set(c"current_user", grant.role());
        event.set(c"rule_id", grant.decision.rule_id.to_string());
        event
    })
}

pub(super) fn refused(connection: &Connection, account: &Account, refusal: &Refusal) {
    turned_away::forget();
    fail_point("login_auditing");
    let event = token_event(connection, account, refusal.provider()).map(|mut event| {
        event.set(c"outcome", "refused");
        event.set(c"reason", refusal.code());
        event.set_some(c"rule_id", refusal.rule().map(|id| id.to_string()));
        event
    });
    let provider = account.provider.as_deref().or(refusal.provider());
    events::note(Means::Token, provider, Outcome::Refused(refusal), event.as_ref());
    fail_point("login_audited");
}

pub(super) fn password_accepted(connection: &Connection) {
    let event = event(connection, "password_login").map(|mut event| {
        event.set(c"outcome", "accepted");
        event.set(c"role", connection.user.as_str());
        event
    });
    events::note(Means::Password, None, Outcome::Accepted, event.as_ref());
}

pub(super) fn password_refused(connection: &Connection, refusal: &Refusal) {
    let event = event(connection, "password_login").map(|mut event| {
        event.set(c"outcome", "refused");
        event.set(c"reason", refusal.code());
        event
    });
    events::note(Means::Password, None, Outcome::Refused(refusal), event.as_ref());
}

/// What is known of the connection; None where nothing can be written: its server log has a line for every login.
fn event(connection: &Connection, name: &str) -> Option<Event> {
    if startup::is_standby() {
        return None;
    }
    let mut event = Event::default();
    event.set(c"time", startup::now().to_string());
    event.set(c"event", name);
    event.set(c"requested_user", connection.user.as_str());
    event.set(c"database", connection.database.as_str());
    event.set_some(c"client_address", connection.address.map(|address| address.to_string()));
    event.set(c"tls", connection.tls.to_string());
    event.set(c"application_name", connection.application_name.as_str());
    event.set(c"pid", std::process::id().to_string());
    Some(event)
}

/// The same and what is known of the token; `named` is the provider that a refusal names.
fn token_event(connection: &Connection, account: &Account, named: Option<&str>) -> Option<Event> {
    let mut event = event(connection, "login")?;
    event.set_some(c"provider", account.provider.as_deref().or(named));
    event.set_some(c"kid", account.kid.as_deref());
    event.set_some(c"subject", account.subject.as_deref());
    event.set_some(c"identity", account.identity.as_deref());
    event.set_some(c"token_id", account.token_id.as_deref());
    let door = if connection.bearer { "\"door\":\"oauth\"," } else { "" };
    let replication = if connection.replication == Replication::None { "" } else { "\"replication\":true," };
    event.set_some(
        c"facts",
        account.facts.as_ref().map(|claims| format!("{{{door}{replication}\"claims\":{claims}}}")),
    );
    Some(event)
}
