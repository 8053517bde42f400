//! Changes of the policy, each an event in `oidc.audit_log`.
//!
//! The event is written in the transaction of the change: rolled back with it, and where it cannot be written (disk
//! full, table gone) the change fails. Whoever may change a rule needs no right on the log, and nothing that somebody
//! put on the log can alter an event or keep it back: the row is stored past its triggers (`pg::append`).

use crate::events::LOG;
use crate::pg::append::append;
use crate::pg::row::{self, column};
use crate::pg::{catalog, identity, report, startup};
use crate::session;
use pg_oidc_core::claim;
use pgrx::heap_tuple::PgHeapTuple;
use pgrx::{PgSqlErrorCode, PgTrigger, WhoAllocated};
use std::ffi::{CStr, CString};

/// What the tables' rows are called in events, by table.
const NOUNS: [(&str, &str); 5] = [
    ("provider", "provider"),
    ("role_mapping", "rule"),
    ("revocation", "revocation"),
    ("identity_role", "binding"),
    ("granted_membership", "membership"),
];

/// One event: column and value.
struct Event(Vec<(&'static CStr, CString)>);

impl Event {
    fn set(&mut self, column: &'static CStr, value: impl Into<Vec<u8>>) {
        // What comes from core and from SQL holds no NUL.
        self.0.push((column, CString::new(value).unwrap_or_default()));
    }

    fn set_some(&mut self, column: &'static CStr, value: Option<impl Into<Vec<u8>>>) {
        if let Some(value) = value {
            self.set(column, value);
        }
    }

    /// What the changed row says of itself.
    fn describe(&mut self, table: &str, row: &PgHeapTuple<'_, impl WhoAllocated>) {
        match table {
            "provider" => self.set_some(c"provider", column::<String>(row, "name")),
            "role_mapping" => {
                self.set_some(c"provider", column::<String>(row, "provider"));
                self.set_some(c"role", column::<String>(row, "role"));
                self.set_some(c"rule_id", column::<i64>(row, "id").map(|id| id.to_string()));
            }
            "granted_membership" => {
                self.set_some(c"role", column::<String>(row, "role"));
            }
            _ => {
                self.set_some(c"provider", column::<String>(row, "provider"));
                self.set_some(c"subject", column::<String>(row, "subject"));
                if table == "identity_role" {
                    self.set_some(c"role", column::<String>(row, "role"));
                }
            }
        }
    }

    /// Who changes it, and from where.
    fn sign(&mut self) {
        self.set(c"time", startup::timestamp_text());
        self.set(c"session_user", identity::session_user_name());
        self.set(c"current_user", identity::current_user_name());
        self.set(c"database", catalog::current_database());
        self.set(c"pid", std::process::id().to_string());
        self.set(c"application_name", identity::application_name());
        if let Some(peer) = identity::peer() {
            self.set(c"tls", peer.tls.to_string());
            self.set_some(c"client_address", peer.address);
        }
        self.set_some(c"facts", token_facts());
    }
}

/// Whose token opened this session, as JSON: one role may be shared by many. In ASCII, whatever the encoding of the
/// database is.
fn token_facts() -> Option<String> {
    let claims = session::claims()?;
    let subject = claim::text(&claims, "sub").ok().flatten();
    let shown = |value: Option<String>| value.map(|value| value.escape_default().to_string());
    let token = serde_json::json!({
        "provider": shown(session::provider()),
        "subject": shown(subject),
        "identity": shown(session::identity()),
    });
    Some(serde_json::json!({ "token": token }).to_string())
}

/// Writes the event of the change that fired this trigger. An UPDATE that changes nothing is none.
fn record(trigger: &PgTrigger<'_>) {
    let table = trigger.table_name().unwrap_or_default();
    super::must_be_ours(trigger);
    let noun = NOUNS.iter().find(|(name, _)| *name == table).map_or(table.as_str(), |(_, noun)| noun);
    let (before, after) = (trigger.old().map(row::json), trigger.new().map(row::json));
    let verb = match (&before, &after) {
        (Some(before), Some(after)) if before == after => return,
        (Some(_), Some(_)) => "changed",
        (None, Some(_)) => "created",
        (Some(_), None) => "deleted",
        (None, None) => "truncated",
    };
    let mut event = Event(Vec::with_capacity(20));
    event.set(c"event", format!("{noun}_{verb}"));
    event.set(c"outcome", "done");
    if let Some(row) = trigger.new().or_else(|| trigger.old()) {
        event.describe(&table, &row);
    }
    event.set_some(c"before", before);
    event.set_some(c"after", after);
    event.sign();
    if !append(&LOG, &event.0) {
        report::raise(
            PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
            "could not record the change of the OIDC policy",
            Some("There is no table \"oidc.audit_log\"."),
            None,
        );
    }
}

#[pgrx::pg_schema]
mod oidc {
    use super::*;
    use pgrx::prelude::*;

    /// AFTER each change of a table whose changes are audited, TRUNCATE included.
    #[pg_trigger]
    fn audit_change<'a>(
        trigger: &'a PgTrigger<'a>,
    ) -> Result<Option<PgHeapTuple<'a, pgrx::AllocatedByPostgres>>, std::convert::Infallible> {
        record(trigger);
        Ok(None)
    }
}
