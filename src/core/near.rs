//! Rules that do not count for a login but nearly do, and what keeps them from it: for explanations.

use crate::row::shown;
use crate::rules::{ArchivedEffect, ArchivedRule, Unmet};
use crate::subject::{Email, Subject};

/// A rule that does not count.
pub(crate) struct Near<'a> {
    rule: &'a ArchivedRule,
    unmet: Vec<Unmet<'a>>,
    /// It would give the role that is asked for.
    wanted: bool,
}

/// The rule, if it is worth a row: it would give the role that is asked for, or all but one thing holds, one of its
/// members among them.
pub(crate) fn nearly<'a>(rule: &'a ArchivedRule, unmet: Vec<Unmet<'a>>, user: &str) -> Option<Near<'a>> {
    let wanted = match &rule.effect {
        ArchivedEffect::Role { name, .. } => name.as_str() == user,
        ArchivedEffect::Derived(template) => !user.is_empty() && template.may_give(user),
        ArchivedEffect::Deny => false,
    };
    let failed = unmet.iter().filter(|unmet| matches!(unmet, Unmet::Member(_))).count();
    let near = unmet.len() == 1 && rule.members.len() > failed;
    (wanted || near).then_some(Near { rule, unmet, wanted })
}

impl Near<'_> {
    /// Lower is nearer.
    pub(crate) fn distance(&self) -> (bool, usize) {
        (!self.wanted, self.unmet.len())
    }

    pub(crate) fn rule_id(&self) -> i64 {
        self.rule.id.to_native()
    }

    /// What it would give, and everything that keeps it from that.
    pub(crate) fn detail(&self, subject: &Subject<'_>) -> String {
        let role = match &self.rule.effect {
            ArchivedEffect::Role { name, .. } => format!("role {}", shown(name.as_str())),
            ArchivedEffect::Derived(template) => format!("roles like {}", shown(&template.text())),
            ArchivedEffect::Deny => "nothing".to_owned(),
        };
        let reasons: Vec<String> = self
            .unmet
            .iter()
            .map(|unmet| match unmet {
                Unmet::Confine(confine) => format!("it {}", confine.words()),
                Unmet::Member(member) => {
                    let steps = member.path.steps();
                    let hidden = subject.email != Email::Trusted && steps.clone().next() == Some("email");
                    let why = if hidden {
                        "is not verified"
                    } else if crate::path::find(steps.clone(), subject.claims).is_none() {
                        "is missing"
                    } else {
                        "does not match"
                    };
                    format!("claim {} {why}", shown(&member.path.text()))
                }
            })
            .collect();
        format!("It would give {role}, but {}.", reasons.join(", and "))
    }
}
