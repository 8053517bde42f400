//! Identity login: a person asks for her own role, and works in those that the rules give her.
//!
//! | her identity (provider, `sub`) | the role that she asks for | outcome |
//! |---|---|---|
//! | is bound to it | has the oid that it was bound with | she may log in, if a rule gives her a role here |
//! | is bound to it | is missing, or made anew | refused |
//! | is bound to another role | | not an identity login |
//! | is not bound | is not what the provider makes of her identity | not an identity login |
//! | is not bound | is bound to somebody else | refused |
//! | is not bound | exists | refused: an existing role is never taken for hers |
//! | is not bound | does not exist, `auto_provision` is off | refused |
//! | is not bound | does not exist, `auto_provision` is on | it is made, if a rule gives her a role here |

use crate::decision::{Given, Replication, Request};
use crate::image::{ArchivedPolicyEntry, ArchivedPolicyImage};
use crate::limits;
use crate::people::ArchivedBinding;
use crate::refusal::Refusal;
use crate::rules::{ArchivedEffect, ArchivedRule};
use crate::subject::Subject;

/// What an identity login gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The roles that rules give here, by rank, each once; at least one, at most [`limits::GIVEN_ROLES`].
    pub given: Vec<Given>,
    /// Those that they would give in another database or to another address; None: too many to say.
    pub elsewhere: Option<Vec<Given>>,
    /// Her role is bound to her; else it is to be made.
    pub bound: bool,
    /// The role that every person of the provider is a member of.
    pub base_role: Option<String>,
}

/// Whose login it is.
#[derive(Clone, Copy)]
pub(crate) struct Who<'a> {
    pub(crate) subject: &'a str,
    pub(crate) identity: &'a str,
}

/// Where her role stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Own {
    /// It is bound to her.
    Bound,
    /// It is to be made.
    New,
}

/// Decides about an identity login; None: it is none.
pub(crate) fn decide(
    policy: &ArchivedPolicyImage,
    entry: &ArchivedPolicyEntry,
    who: Who<'_>,
    subject: &Subject<'_>,
    request: &Request<'_>,
) -> Result<Option<Person>, Refusal> {
    let Some(own) = own(policy, entry, who, subject, request)? else {
        return Ok(None);
    };
    let given = given(policy, entry, subject, request, ArchivedRule::counts)?;
    let elsewhere = given_elsewhere(policy, entry, subject, request);
    if subject.effort.is_spent() {
        return Err(Refusal::PatternsTooCostly);
    }
    if given.is_empty() {
        return Err(Refusal::NoRule);
    }
    let base_role = entry.provider.base_role.as_ref().map(|role| role.as_str().to_owned());
    Ok(Some(Person { given, elsewhere, bound: own == Own::Bound, base_role }))
}

/// Where the role that is asked for stands to who asks; None: it is not hers.
pub(crate) fn own(
    policy: &ArchivedPolicyImage,
    entry: &ArchivedPolicyEntry,
    who: Who<'_>,
    subject: &Subject<'_>,
    request: &Request<'_>,
) -> Result<Option<Own>, Refusal> {
    // No person's role has REPLICATION.
    if request.replication != Replication::None || request.user.is_empty() {
        return Ok(None);
    }
    if let Some(binding) = entry.binding(who.subject) {
        return bound(binding, request);
    }
    let naming = entry.provider.naming.as_ref();
    let name = naming.and_then(|naming| naming.role(who.identity, subject.effort));
    if name.is_none() && subject.effort.is_spent() {
        return Err(Refusal::PatternsTooCostly);
    }
    if name.as_deref() != Some(request.user) {
        Ok(None)
    } else if policy.is_personal_name(request.user) || policy.is_personal(request.role_oid) {
        Err(Refusal::IdentityMismatch)
    } else if request.role_oid != 0 {
        Err(Refusal::RoleNotBound)
    } else if !entry.provider.auto_provision {
        Err(Refusal::RoleMissing)
    } else {
        Ok(Some(Own::New))
    }
}

fn bound(binding: &ArchivedBinding, request: &Request<'_>) -> Result<Option<Own>, Refusal> {
    if binding.role.as_str() != request.user {
        Ok(None)
    } else if request.role_oid == 0 {
        Err(Refusal::RoleMissing)
    } else if binding.role_oid.to_native() != request.role_oid {
        Err(Refusal::RoleReplaced)
    } else {
        Ok(Some(Own::Bound))
    }
}

/// The name that a login of this identity asks for; None: it has no role of its own.
pub(crate) fn role_of(entry: &ArchivedPolicyEntry, who: Who<'_>, subject: &Subject<'_>) -> Option<String> {
    match entry.binding(who.subject) {
        Some(binding) => Some(binding.role.as_str().to_owned()),
        None => entry.provider.naming.as_ref()?.role(who.identity, subject.effort),
    }
}

/// The roles of the rules for which `test` holds, by rank, each once. Nobody's own role is among them.
fn given(
    policy: &ArchivedPolicyImage,
    entry: &ArchivedPolicyEntry,
    subject: &Subject<'_>,
    request: &Request<'_>,
    test: impl Fn(&ArchivedRule, &Subject<'_>, &Request<'_>) -> bool,
) -> Result<Vec<Given>, Refusal> {
    let mut given: Vec<Given> = Vec::new();
    let mut many = false;
    for rule in entry.allows.all(subject, |rule| test(rule, subject, request)) {
        let mut take = |role: &str, role_oid: Option<u32>| {
            let personal =
                policy.is_personal_name(role) || role_oid.is_some_and(|oid| policy.is_personal(oid));
            let known = given.iter().any(|known| known.role == role && known.role_oid == role_oid);
            if role == request.user || personal || known {
                return;
            }
            many |= given.len() == limits::GIVEN_ROLES;
            if !many {
                given.push(Given::by(rule, role, role_oid));
            }
        };
        match &rule.effect {
            ArchivedEffect::Deny => {}
            ArchivedEffect::Role { name, oid } => take(name.as_str(), Some(oid.to_native())),
            ArchivedEffect::Derived(template) => {
                template.any_role(&rule.members, subject, |role| {
                    take(role, None);
                    false
                });
            }
        }
    }
    if many { Err(Refusal::TooManyRoles { limit: limits::GIVEN_ROLES }) } else { Ok(given) }
}

fn given_elsewhere(
    policy: &ArchivedPolicyImage,
    entry: &ArchivedPolicyEntry,
    subject: &Subject<'_>,
    request: &Request<'_>,
) -> Option<Vec<Given>> {
    given(policy, entry, subject, request, ArchivedRule::counts_elsewhere).ok()
}
