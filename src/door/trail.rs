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

use crate::events::{self, Event, Outcome};
use crate::fail_point::fail_point;
use crate::pg::port::Connection;
use crate::pg::startup;
use crate::session::Grant;
use pg_oidc_core::account::Account;
use pg_oidc_core::decision::Replication;
use pg_oidc_core::refusal::Refusal;

pub(super) fn accepted(connection: &Connection, account: &Account, grant: &Grant) {
    note(connection, account, Outcome::Accepted, |event| {
        event.set(c"outcome", "accepted");
        event.set(c"role", grant.role());
        event.set(c"session_user", grant.decision.role.as_str());
        event.set(c"current_user", grant.role());
        event.set(c"rule_id", grant.decision.rule_id.to_string());
    });
}

pub(super) fn refused(connection: &Connection, account: &Account, refusal: &Refusal) {
    note(connection, account, Outcome::Refused(refusal), |event| {
        event.set(c"outcome", "refused");
        event.set(c"reason", refusal.code());
        event.set_some(c"rule_id", refusal.rule().map(|id| id.to_string()));
    });
}

fn note(connection: &Connection, account: &Account, outcome: Outcome<'_>, ending: impl FnOnce(&mut Event)) {
    fail_point("login_auditing");
    let provider = account.provider.as_deref().or(match outcome {
        Outcome::Refused(refusal) => refusal.provider(),
        Outcome::Accepted => None,
    });
    // Nothing can be written there; its server log has a line for every login.
    if startup::is_standby() {
        events::note(provider, outcome, None);
        return;
    }
    let mut event = Event::default();
    event.set(c"time", startup::now().to_string());
    event.set(c"event", "login");
    ending(&mut event);
    event.set(c"requested_user", connection.user.as_str());
    event.set(c"database", connection.database.as_str());
    event.set_some(c"client_address", connection.address.map(|address| address.to_string()));
    event.set(c"tls", connection.tls.to_string());
    event.set(c"application_name", connection.application_name.as_str());
    event.set(c"pid", std::process::id().to_string());
    event.set_some(c"provider", provider);
    event.set_some(c"kid", account.kid.as_deref());
    event.set_some(c"subject", account.subject.as_deref());
    event.set_some(c"identity", account.identity.as_deref());
    event.set_some(c"token_id", account.token_id.as_deref());
    let replication = if connection.replication == Replication::None { "" } else { "\"replication\":true," };
    event.set_some(
        c"facts",
        account.facts.as_ref().map(|claims| format!("{{{replication}\"claims\":{claims}}}")),
    );
    events::note(provider, outcome, Some(&event));
    fail_point("login_audited");
}
