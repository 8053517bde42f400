//! What a verified token gives in this database to who asked for that role.

use std::net::IpAddr;

use crate::effort::Effort;
use crate::image::{ArchivedPolicyEntry, ArchivedPolicyImage};
use crate::person::{self, Person, Who};
use crate::refusal::Refusal;
use crate::revocation;
use crate::rules::{ArchivedEffect, ArchivedRule};
use crate::session_limit::{self, End, SessionLimit};
use crate::subject::Subject;
use crate::verify::Verified;

pub use crate::selection::{Selected, Selection, is_current, select};

/// Kind of connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replication {
    /// An ordinary one.
    None,
    /// Physical replication, base backups: no database, and all of them.
    Physical,
    /// `replication=database`.
    Database,
}

/// What the client asks for in its startup packet, where it comes from, and when.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The user name, already cut to 63 bytes by the server.
    pub user: &'a str,
    /// The database name.
    pub database: &'a str,
    /// The oid of the role of that name, 0 if there is none. A rule written for another oid is inactive.
    pub role_oid: u32,
    /// The client's address; None: a Unix-domain socket.
    pub address: Option<IpAddr>,
    /// Whether it is a replication connection.
    pub replication: Replication,
    /// The time, in microseconds since the Unix epoch.
    pub now: i64,
}

/// A role that a rule gives, as far as claims and confines say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The rule.
    pub rule_id: i64,
    /// The name of the role.
    pub role: String,
    /// The oid that it must have; None: whatever it has, for a name made of the token.
    pub role_oid: Option<u32>,
    /// Whether it may be privileged.
    pub allow_privileged: bool,
    pub(crate) limit: SessionLimit,
}

impl Given {
    pub(crate) fn by(rule: &ArchivedRule, role: &str, role_oid: Option<u32>) -> Given {
        Given {
            rule_id: rule.id.to_native(),
            role: role.to_owned(),
            role_oid,
            allow_privileged: rule.allow_privileged,
            limit: rule.session_limit.to_native(),
        }
    }
}

/// A granted login. Only [`decide`] makes one.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decision {
    /// The name of the provider.
    pub provider: String,
    /// The claim `sub`.
    pub subject: String,
    /// The identity claim.
    pub identity: String,
    /// The role that is logged in with: one that a rule gives, or a person's own.
    pub role: String,
    /// Its oid when the decision was made; 0: it is to be made.
    pub role_oid: u32,
    /// The rule that gave the role; of an identity login, that which gave the first role.
    pub rule_id: i64,
    /// Whether a rule allows the role to be a privileged one.
    pub allow_privileged: bool,
    /// What an identity login gives; None: it is a role login.
    pub person: Option<Person>,
    /// The claim `iat`, in microseconds since the Unix epoch.
    pub issued_at: Option<i64>,
    /// When the session ends by itself: the tighter `session_limit` of provider and rule.
    pub end: Option<End>,
    /// The claim `exp`, in microseconds since the Unix epoch.
    pub expires_at: i64,
    /// All claims, as compact JSON.
    pub claims: String,
}

impl std::fmt::Debug for Decision {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Decision")
            .field("provider", &self.provider)
            .field("role", &self.role)
            .field("rule_id", &self.rule_id)
            .finish_non_exhaustive()
    }
}

/// Looks the caller up in the rules. Runs under the board lock: it only compares, and copies out the result.
///
/// # Errors
/// [`Refusal`]: the provider changed since the token was verified, a rule denies, no rule matches, or none of those
/// that match gives the requested role.
pub fn decide(
    policy: &ArchivedPolicyImage,
    verified: &Verified,
    request: &Request<'_>,
) -> Result<Decision, Refusal> {
    let entry = current(policy, verified)?;
    revocation::check(entry, &verified.subject, verified.issued_at, request.now)?;
    let effort = Effort::new();
    let subject = Subject::new(&verified.claims, verified.email_trusted, &effort);
    denied(entry, &subject, request)?;
    let (first, person) = match giving(policy, entry, &subject, request)? {
        Giving::By(rule) => (Given::by(rule, request.user, None), None),
        Giving::Not { stale } => {
            let who = Who { subject: &verified.subject, identity: &verified.identity };
            let person = person::decide(policy, entry, who, &subject, request)?
                .ok_or_else(|| why_not(stale, entry, &subject, request))?;
            (person.given.first().cloned().ok_or(Refusal::NoRule)?, Some(person))
        }
    };
    let given = person.as_ref().map_or(std::slice::from_ref(&first), |person| person.given.as_slice());
    Ok(Decision {
        provider: verified.provider.clone(),
        subject: verified.subject.clone(),
        identity: verified.identity.clone(),
        role: request.user.to_owned(),
        role_oid: request.role_oid,
        rule_id: first.rule_id,
        allow_privileged: given.iter().any(|given| given.allow_privileged),
        issued_at: verified.issued_at,
        end: end(entry, given, verified, request.now),
        expires_at: verified.expires_at,
        claims: verified.claims_text.clone(),
        person,
    })
}

/// The tightest limit of the provider and of every rule that gives a role: the session may change from one to another.
fn end(entry: &ArchivedPolicyEntry, given: &[Given], verified: &Verified, now: i64) -> Option<End> {
    let token_end = verified.expires_at.saturating_add(entry.provider.checks.clock_skew.to_native());
    let rules = given.iter().map(|given| given.limit);
    std::iter::once(entry.provider.session_limit.to_native())
        .chain(rules)
        .map(|limit| limit.end(now, token_end))
        .fold(None, session_limit::tightest)
}

/// The provider as it was when the token was verified.
fn current<'a>(
    policy: &'a ArchivedPolicyImage,
    verified: &Verified,
) -> Result<&'a ArchivedPolicyEntry, Refusal> {
    let entry = policy.entry(&verified.issuer).ok_or(Refusal::IssuerUnknown)?;
    if !entry.provider.enabled {
        return Err(Refusal::ProviderDisabled { provider: verified.provider.clone() });
    }
    if entry.provider.revision.to_native() != verified.revision {
        return Err(Refusal::PolicyChanged);
    }
    Ok(entry)
}

pub(crate) fn denied(
    entry: &ArchivedPolicyEntry,
    subject: &Subject<'_>,
    request: &Request<'_>,
) -> Result<(), Refusal> {
    if let Some(rule) = entry.broken_denial.as_ref() {
        return Err(Refusal::BrokenDenyRule { rule: rule.to_native() });
    }
    let subject = subject.denied();
    match entry.denials.first(&subject, |rule| rule.counts(&subject, request)) {
        Some(rule) => Err(Refusal::DeniedByRule { rule: rule.id.to_native() }),
        // Nobody knows whom the patterns that were not tried would have refused.
        None if subject.effort.is_spent() => Err(Refusal::PatternsTooCostly),
        None => Ok(()),
    }
}

/// Whether a rule gives the requested role.
pub(crate) enum Giving<'a> {
    /// This one does, before all others.
    By(&'a ArchivedRule),
    /// None does; `stale`: one would, if the role were still the one that it was written for.
    Not { stale: bool },
}

/// The first rule that gives the requested role. None gives a role that is somebody's own.
///
/// # Errors
/// [`Refusal::PatternsTooCostly`].
pub(crate) fn giving<'a>(
    policy: &ArchivedPolicyImage,
    entry: &'a ArchivedPolicyEntry,
    subject: &Subject<'_>,
    request: &Request<'_>,
) -> Result<Giving<'a>, Refusal> {
    let personal = policy.is_personal(request.role_oid) || policy.is_personal_name(request.user);
    let mut stale = false;
    let gives = entry.allows.first(subject, |rule| {
        // The name first: it is the cheapest to compare.
        let named = match &rule.effect {
            ArchivedEffect::Role { name, oid } => (name.as_str() == request.user).then(|| oid.to_native()),
            ArchivedEffect::Derived(template) => template.may_give(request.user).then_some(request.role_oid),
            ArchivedEffect::Deny => None,
        };
        let named = named.filter(|_| !personal);
        let counts = named.is_some() && rule.counts(subject, request) && rule.gives(subject, request.user);
        // A role that was dropped and made anew is another one.
        let fresh = request.role_oid != 0 && named == Some(request.role_oid);
        stale |= counts && !fresh;
        counts && fresh
    });
    if subject.effort.is_spent() {
        return Err(Refusal::PatternsTooCostly);
    }
    Ok(gives.map_or(Giving::Not { stale }, Giving::By))
}

/// Why a login that no rule gives its role, and that is no identity login, is refused. Looks through all rules again:
/// after everything else.
pub(crate) fn why_not(
    stale: bool,
    entry: &ArchivedPolicyEntry,
    subject: &Subject<'_>,
    request: &Request<'_>,
) -> Refusal {
    let counts = || entry.allows.first(subject, |rule| rule.counts(subject, request)).is_some();
    if stale {
        if request.role_oid == 0 { Refusal::RoleMissing } else { Refusal::RoleReplaced }
    } else if counts() {
        Refusal::UserNotMapped
    } else if request.replication != Replication::None {
        Refusal::ReplicationRefused
    } else {
        Refusal::NoRule
    }
}
