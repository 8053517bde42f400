//! What becomes of the providers' keys, for `oidc.audit_log` and the server log.
//!
//! | event | when | reason |
//! |---|---|---|
//! | keys_changed | keys came or went, with the first fetch too | |
//! | keys_failed | a fetch fails after one that did not, or the first one | what failed |
//! | keys_recovered | a fetch works again | |
//! | keys_leaked | a fetched set holds a key that anybody may sign with | what is wrong with the key |
//!
//! An ordinary fetch is no event. On a standby, which writes nothing, there are only the lines of the log.

use super::fetching::{Grave, Source};
use crate::events::{self, Event};
use crate::pg::{report, startup};
use pg_oidc_core::keys::{Key, KeyProblem};
use std::collections::BTreeMap;

/// Bytes of the list of `kid`s in an event, as JSON: an event has a bound, and 100 of the longest would not fit twice.
const LIST_BYTES: usize = 8 * 1024;

/// What was last told of each source of keys.
#[derive(Default)]
pub(super) struct Trail(BTreeMap<u64, Told>);

struct Told {
    keys: Vec<Key>,
    failing: bool,
}

impl Trail {
    /// Tells what has changed since the last call. What a source starts with is no change: it was kept across a restart,
    /// or stands in the provider's row.
    pub(super) fn tell(&mut self, sources: &BTreeMap<u64, Source>) {
        self.0.retain(|key_source, _| sources.contains_key(key_source));
        for (key_source, source) in sources {
            let told = self
                .0
                .entry(*key_source)
                .or_insert_with(|| Told { keys: source.keys().to_vec(), failing: false });
            // A set that is not published yet may have to be given up.
            if source.unpublished().is_none() && *source.keys() != told.keys[..] {
                changed(source.name(), &told.keys, source.keys());
                told.keys = source.keys().to_vec();
            }
            match source.failure() {
                Some((code, why)) if !told.failing => failed(source.name(), code, why),
                None if told.failing => recovered(source.name()),
                _ => {}
            }
            told.failing = source.failure().is_some();
        }
    }
}

/// Tells which keys of a fetched set anybody may sign with.
pub(super) fn leaked(provider: &str, graves: &[Grave]) {
    for problem in [KeyProblem::PrivateMember, KeyProblem::Symmetric, KeyProblem::RsaRoca] {
        let kids: Vec<_> = graves
            .iter()
            .filter(|grave| grave.problem == problem)
            .map(|grave| grave.kid.as_deref())
            .collect();
        if kids.is_empty() {
            continue;
        }
        let reason = match problem {
            KeyProblem::PrivateMember => "private_key",
            KeyProblem::Symmetric => "symmetric_key",
            _ => "weak_key",
        };
        report::log(&format!(
            "OIDC keys leaked: provider={provider:?} reason={reason} kids={:?}",
            shown(&kids)
        ));
        put("keys_leaked", provider, |event| {
            event.set(c"reason", reason);
            event.set(c"after", list(&kids));
        });
    }
}

fn changed(provider: &str, before: &[Key], after: &[Key]) {
    let missing_in = |other: &[Key], keys: &[Key]| -> Vec<String> {
        shown(&kids(keys.iter().filter(|key| !other.contains(key))))
    };
    let (came, went) = (missing_in(before, after), missing_in(after, before));
    // The same keys in another order.
    if came.is_empty() && went.is_empty() {
        return;
    }
    report::log(&format!("OIDC keys changed: provider={provider:?} came={came:?} went={went:?}"));
    put("keys_changed", provider, |event| {
        event.set(c"before", list(&kids(before.iter())));
        event.set(c"after", list(&kids(after.iter())));
    });
}

fn failed(provider: &str, code: &str, why: &str) {
    report::log(&format!("OIDC keys failed: provider={provider:?} reason={code} detail={why:?}"));
    put("keys_failed", provider, |event| {
        event.set(c"reason", code);
        event.set(c"facts", serde_json::json!({ "detail": why }).to_string());
    });
}

fn recovered(provider: &str) {
    report::log(&format!("OIDC keys recovered: provider={provider:?}"));
    put("keys_recovered", provider, |_| {});
}

fn put(name: &str, provider: &str, describe: impl FnOnce(&mut Event)) {
    if startup::is_standby() {
        return;
    }
    let mut event = Event::default();
    event.set(c"time", startup::now().to_string());
    event.set(c"event", name);
    event.set(c"outcome", "done");
    event.set(c"provider", provider);
    event.set(c"pid", std::process::id().to_string());
    describe(&mut event);
    events::put(&event);
}

fn kids<'a>(keys: impl Iterator<Item = &'a Key>) -> Vec<Option<&'a str>> {
    keys.map(Key::kid).collect()
}

/// As the log shows them; a key without a `kid` as an empty one.
fn shown(kids: &[Option<&str>]) -> Vec<String> {
    kids.iter().map(|kid| kid.unwrap_or_default().to_owned()).collect()
}

/// A JSON array of them, null for a key without one; those that have no place are counted at its end.
fn list(kids: &[Option<&str>]) -> String {
    let mut items = Vec::new();
    let mut bytes = 0;
    for kid in kids {
        let item = serde_json::json!(kid).to_string();
        bytes += item.len() + 1;
        if bytes > LIST_BYTES {
            items.push(format!("\"and {} more\"", kids.len() - items.len()));
            break;
        }
        items.push(item);
    }
    format!("[{}]", items.join(","))
}
