//! What the rules give, for an explanation: those that count, those that nearly do, and what comes of it.

use crate::decision::{self, Given, Giving, Request};
use crate::explanation::{Explanation, Passed};
use crate::image::{ArchivedPolicyEntry, ArchivedPolicyImage};
use crate::near::{self, Near};
use crate::person::{self, Who};
use crate::refusal::Refusal;
use crate::row::shown;
use crate::rules::{ArchivedEffect, ArchivedRule};
use crate::subject::Subject;

/// Rules that are shown, of those that count, and of those that nearly do.
const RULES_SHOWN: usize = 20;

pub(crate) fn explain(
    explanation: &mut Explanation,
    policy: &ArchivedPolicyImage,
    entry: &ArchivedPolicyEntry,
    who: Who<'_>,
    subject: &Subject<'_>,
    request: &Request<'_>,
) {
    let mut near: Vec<Near<'_>> = Vec::new();
    let mut counting = 0_usize;
    for rule in entry.allows.rules.iter() {
        let unmet = rule.all_unmet(subject, request);
        if !unmet.is_empty() {
            near.extend(near::nearly(rule, unmet, request.user));
            continue;
        }
        counting = counting.saturating_add(1);
        let roles = give(explanation, rule, subject);
        if counting <= RULES_SHOWN {
            let detail = match roles.as_slice() {
                [] => "It matches, but makes no role name that a token may give.".to_owned(),
                roles => format!("It gives {}.", roles.join(", ")),
            };
            explanation.note(format!("rule {}", rule.id.to_native()), Passed::Yes, detail);
        }
    }
    if counting > RULES_SHOWN {
        let more = counting.saturating_sub(RULES_SHOWN);
        explanation.note("rules", Passed::Yes, format!("{more} more match."));
    }
    near.sort_by_key(Near::distance);
    for near in near.iter().take(RULES_SHOWN) {
        explanation.note(format!("rule {}", near.rule_id()), Passed::No, near.detail(subject));
    }
    if subject.effort.is_spent() {
        explanation.refuse("rules", Refusal::PatternsTooCostly);
    }
    if request.user.is_empty() {
        any_login(explanation, entry, who, subject);
    } else {
        login(explanation, policy, entry, who, subject, request);
    }
}

/// No role is asked for: whether any rule counts, and which role would be the identity's own.
fn any_login(
    explanation: &mut Explanation,
    entry: &ArchivedPolicyEntry,
    who: Who<'_>,
    subject: &Subject<'_>,
) {
    if explanation.given.is_empty() {
        explanation.refuse("rules", Refusal::NoRule);
    }
    match person::role_of(entry, who, subject) {
        Some(role) => {
            let detail = format!("The role of this identity is {}.", shown(&role));
            explanation.note("identity login", Passed::NotChecked, detail);
        }
        None => explanation.note(
            "identity login",
            Passed::NotChecked,
            "This identity has no role of its own: none is bound to it, and the provider makes no name of it.",
        ),
    }
}

/// What becomes of a login as the role that is asked for.
fn login(
    explanation: &mut Explanation,
    policy: &ArchivedPolicyImage,
    entry: &ArchivedPolicyEntry,
    who: Who<'_>,
    subject: &Subject<'_>,
    request: &Request<'_>,
) {
    let user = shown(request.user);
    let stale = match decision::giving(policy, entry, subject, request) {
        Ok(Giving::By(rule)) => {
            let id = rule.id.to_native();
            let detail = format!("Session user and current user would be {user}, by rule {id}.");
            explanation.note("role login", Passed::Yes, detail);
            explanation.note("identity login", Passed::NotChecked, "It is a role login.");
            explanation.decided = Some(Given::by(rule, request.user, Some(request.role_oid)));
            return;
        }
        Ok(Giving::Not { stale }) => stale,
        Err(refusal) => return explanation.refuse("role login", refusal),
    };
    match person::decide(policy, entry, who, subject, request) {
        Ok(None) => {
            explanation.refuse("role login", decision::why_not(stale, entry, subject, request));
            explanation.note(
                "identity login",
                Passed::NotChecked,
                format!("{user} is not the role of this identity."),
            );
        }
        Ok(Some(person)) => {
            explanation.note("role login", Passed::NotChecked, format!("No rule gives {user}."));
            let made = if person.bound { "" } else { ", which would be made" };
            let roles: Vec<String> = person.given.iter().map(|given| shown(&given.role)).collect();
            let detail = format!(
                "Session user would be {user}{made}, and current user the first of {}.",
                roles.join(", ")
            );
            explanation.note("identity login", Passed::Yes, detail);
            explanation.person = Some(person);
        }
        Err(refusal) => {
            explanation.note("role login", Passed::NotChecked, format!("No rule gives {user}."));
            explanation.refuse("identity login", refusal);
        }
    }
}

/// Notes the roles that a rule gives, and names them.
fn give(explanation: &mut Explanation, rule: &ArchivedRule, subject: &Subject<'_>) -> Vec<String> {
    let mut names = Vec::new();
    let mut take = |role: &str, role_oid: Option<u32>| {
        names.push(shown(role));
        if !explanation.given.iter().any(|given| given.role == role && given.role_oid == role_oid) {
            explanation.given.push(Given::by(rule, role, role_oid));
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
    names.sort_unstable();
    names.dedup();
    names
}
