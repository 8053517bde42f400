//! Roles whose names come from a token: `\1` in `role` is what group 1 of the rule's regular expression matched.

use rkyv::{Archive, Deserialize, Serialize};

use crate::matching::{ArchivedMember, ArchivedTest, Member, ScalarRef, Test};
use crate::naming::NameTemplate;
use crate::pattern::Matcher;
use crate::row::{RowError, shown};
use crate::subject::Subject;

/// A role with `\1` in its name.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    name: NameTemplate,
    /// The member that has the expression.
    member: u32,
}

impl Template {
    /// None: there is no `\1` in it.
    pub(crate) fn compile(role: &str, members: &[Member]) -> Result<Option<Template>, RowError> {
        let Some(name) = NameTemplate::split(role)? else {
            return Ok(None);
        };
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
        name.check()?;
        Ok(Some(Template { name, member: *number }))
    }
}

impl ArchivedTemplate {
    /// Whether it may give a role of that name to somebody.
    pub(crate) fn may_give(&self, name: &str) -> bool {
        self.name.may_give(name)
    }

    /// As the row has it.
    pub(crate) fn text(&self) -> String {
        self.name.text()
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
                matcher.capture(text).and_then(|part| self.name.name(part)).is_some_and(|role| found(&role))
            }
            _ => false,
        })
    }
}
