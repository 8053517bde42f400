//! What still gives a session the right to be there: providers, rules and revocations, as they are now.
//!
//! Made by the worker from the policy that it publishes, and held against every live session afterwards. Only what was
//! the ground of the login counts: a rule that is changed, but still there, keeps its sessions.

use std::collections::HashMap;
use std::fmt;

use crate::image::PolicyImage;
use crate::revocation::{self, Bar, Revocation};

/// Why a session is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Cause {
    /// The token has expired, and `session_limit` is `token`.
    Token = 1,
    /// The time that `session_limit` gives is over.
    Limit = 2,
    /// The provider is gone or disabled.
    Provider = 3,
    /// The rule that gave the role is gone, disabled or past its time.
    Rule = 4,
    /// The identity is revoked.
    Revoked = 5,
    /// All sessions of the identity were ended.
    Ended = 6,
    /// The person's own role is not bound to the identity any more.
    Binding = 7,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Cause; 7] = [
        Cause::Token,
        Cause::Limit,
        Cause::Provider,
        Cause::Rule,
        Cause::Revoked,
        Cause::Ended,
        Cause::Binding,
    ];

    /// The cause of this number.
    pub fn of(number: u8) -> Option<Cause> {
        Cause::ALL.into_iter().find(|cause| *cause as u8 == number)
    }

    /// The stable code: snake_case.
    pub fn code(self) -> &'static str {
        match self {
            Cause::Token => "token_expired",
            Cause::Limit => "session_limit",
            Cause::Provider => "provider_gone",
            Cause::Rule => "rule_gone",
            Cause::Revoked => "identity_revoked",
            Cause::Ended => "sessions_ended",
            Cause::Binding => "binding_gone",
        }
    }
}

/// What of a session its right depends on. Times are in microseconds since the Unix epoch.
#[derive(Debug, Clone, Copy)]
pub struct Ground<'a> {
    /// Name of the provider.
    pub provider: &'a str,
    /// The claim `sub`.
    pub subject: &'a str,
    /// The rules that gave its roles.
    pub rules: &'a [i64],
    /// The person's own role that it logged in with, once that is known.
    pub person: Option<u32>,
    /// The claim `iat`.
    pub issued_at: Option<i64>,
}

/// The policy as sessions depend on it.
#[derive(Default)]
pub struct Standing {
    providers: HashMap<String, Provider>,
}

#[derive(Default)]
struct Provider {
    /// The first time at which each rule that allows does not count any more.
    rules: HashMap<i64, i64>,
    revocations: HashMap<String, Revocation>,
    /// The role that is bound to each subject.
    bindings: HashMap<String, u32>,
}

impl Standing {
    /// What stands in a policy. One without anything stands for no policy at all.
    pub fn of(policy: &PolicyImage) -> Standing {
        let mut standing = Standing::default();
        for entry in policy.entries.iter().filter(|entry| entry.provider.enabled) {
            let rules = entry.allows.rules.iter().map(|rule| (rule.id, rule.confines.valid_until));
            let revocations =
                entry.revocations.iter().map(|revocation| (revocation.subject.clone(), revocation.clone()));
            let bindings = entry.bindings.iter().map(|binding| (binding.subject.clone(), binding.role_oid));
            let provider = Provider {
                rules: rules.collect(),
                revocations: revocations.collect(),
                bindings: bindings.collect(),
            };
            standing.providers.insert(entry.provider.name.clone(), provider);
        }
        standing
    }

    /// Why a session on this ground must end at `now`; None: it may go on. Allocates nothing.
    pub fn lost(&self, ground: &Ground<'_>, now: i64) -> Option<Cause> {
        let Some(provider) = self.providers.get(ground.provider) else {
            return Some(Cause::Provider);
        };
        if let Some(revocation) = provider.revocations.get(ground.subject) {
            match revocation::bar(revocation.until, revocation.tokens_before, ground.issued_at, now) {
                Some(Bar::Revoked) => return Some(Cause::Revoked),
                Some(Bar::Ended) => return Some(Cause::Ended),
                None => {}
            }
        }
        if ground.person.is_some_and(|role| provider.bindings.get(ground.subject) != Some(&role)) {
            return Some(Cause::Binding);
        }
        let over = |rule| provider.rules.get(rule).is_none_or(|valid_until| *valid_until <= now);
        ground.rules.iter().any(over).then_some(Cause::Rule)
    }
}

impl fmt::Debug for Standing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Standing").field("providers", &self.providers.len()).finish()
    }
}
