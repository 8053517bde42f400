//! Roles whose names come from a token: `\1` in `role` is what group 1 of the rule's regular expression matched.

use rkyv::{Archive, Deserialize, Serialize};

use crate::limits;
use crate::matching::{ArchivedMember, ArchivedTest, Member, ScalarRef, Test};
use crate::pattern::Matcher;
use crate::row::{RowError, shown};
use crate::subject::Subject;

/// A role with `\1` in its name.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    /// What is around the `\1`: two parts or more.
    parts: Vec<String>,
    /// The member that has the expression.
    member: u32,
}

impl Template {
    /// None: there is no `\1` in it. A backslash that no digit follows is only a backslash.
    pub(crate) fn compile(role: &str, members: &[Member]) -> Result<Option<Template>, RowError> {
        let digits = role.split('\\').skip(1).filter_map(|rest| rest.chars().next());
        let mut digits = digits.filter(char::is_ascii_digit).peekable();
        if digits.peek().is_none() {
            return Ok(None);
        }
        if digits.any(|digit| digit != '1') {
            return Err(RowError::new(format!("role {} refers to another group than \\1", shown(role)))
                .hint("Put the part of the claim that the role is made of into the first group."));
        }
        let with_groups: Vec<_> = members
            .iter()
            .zip(0_u32..)
            .filter(|(member, _)| matches!(&member.test, Test::Fits(pattern) if pattern.is_regex))
            .collect();
        let [(member, number)] = with_groups.as_slice() else {
            return Err(RowError::new(format!("role {} needs exactly one regular expression", shown(role)))
                .detail(format!(
                    "There are {} in \"match\", not counting those inside of \"any\" and \"not\".",
                    with_groups.len()
                ))
                .hint("Write a member such as {\"groups\": {\"regex\": \"pg-(.+)\"}}."));
        };
        if !matches!(&member.test, Test::Fits(pattern) if pattern.captures) {
            return Err(RowError::new(format!(
                "role {} needs a group in the regular expression",
                shown(role)
            ))
            .hint("Put parentheses around the part that the role is made of, as in \"pg-(.+)\"."));
        }
        let parts: Vec<String> = role.split("\\1").map(str::to_owned).collect();
        if let Some(refused) = parts.concat().chars().find(|character| !allowed(*character)) {
            return Err(RowError::new(format!("role {} can never be given", shown(role))).detail(format!(
                "A name made of a token holds only A-Z a-z 0-9 . _ @ + # : / and -, not {refused:?}."
            )));
        }
        Ok(Some(Template { parts, member: *number }))
    }
}

impl ArchivedTemplate {
    /// Whether it may give a role of that name to somebody.
    pub(crate) fn may_give(&self, name: &str) -> bool {
        let first = self.parts.first().is_none_or(|part| name.starts_with(part.as_str()));
        first && self.parts.last().is_none_or(|part| name.ends_with(part.as_str()))
    }

    /// As the row has it.
    pub(crate) fn text(&self) -> String {
        self.parts.iter().map(|part| part.as_str()).collect::<Vec<_>>().join("\\1")
    }

    /// Calls `found` with every role that the token gives, some perhaps more than once, until it says yes.
    pub(crate) fn any_role(
        &self,
        members: &[ArchivedMember],
        subject: &Subject<'_>,
        mut found: impl FnMut(&str) -> bool,
    ) -> bool {
        let member = usize::try_from(self.member.to_native()).ok().and_then(|number| members.get(number));
        let Some(ArchivedMember { path, test: ArchivedTest::Fits(pattern) }) = member else {
            return false;
        };
        let mut matcher = Matcher::new(pattern.borrowed(), subject.effort);
        subject.any_value(path.steps(), |value| match value {
            ScalarRef::String(text) => {
                matcher.capture(text).and_then(|part| self.role(part)).is_some_and(|role| found(&role))
            }
            _ => false,
        })
    }

    /// The name, if a token may give it. Never cut: a name of 63 bytes or more is none, since the user name in the
    /// startup packet arrives cut to 63.
    fn role(&self, part: &str) -> Option<String> {
        let mut name = String::new();
        for (number, around) in self.parts.iter().enumerate() {
            if number > 0 {
                name.push_str(part);
            }
            name.push_str(around.as_str());
            if name.len() > limits::ROLE_NAME_BYTES {
                return None;
            }
        }
        (!part.is_empty() && givable(&name)).then_some(name)
    }
}

/// Whether a name that comes from a token may be a role's.
pub(crate) fn givable(name: &str) -> bool {
    !name.is_empty() && name.len() <= limits::ROLE_NAME_BYTES && name.chars().all(allowed) && !reserved(name)
}

/// Names that no rule gives, whatever it says (acl.c; `pg_` is reserved by user.c).
pub(crate) fn reserved(name: &str) -> bool {
    name == "public" || name == "none" || name.starts_with("pg_")
}

fn allowed(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '@' | '+' | '#' | ':' | '/' | '-')
}
