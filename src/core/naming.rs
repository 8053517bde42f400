//! Names of roles that are made of what a token says: `\1` in them stands for a part of a claim.

use rkyv::{Archive, Deserialize, Serialize};

use crate::effort::Effort;
use crate::limits;
use crate::pattern::{Matcher, Pattern};
use crate::provider::ProviderRow;
use crate::row::{RowError, shown};

/// A name with `\1` in it.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub(crate) struct NameTemplate {
    /// What is around the `\1`: two parts or more.
    parts: Vec<String>,
}

impl NameTemplate {
    /// None: there is no `\1` in it. A backslash that no digit follows is only a backslash.
    pub(crate) fn split(name: &str) -> Result<Option<NameTemplate>, RowError> {
        let digits = name.split('\\').skip(1).filter_map(|rest| rest.chars().next());
        let mut digits = digits.filter(char::is_ascii_digit).peekable();
        if digits.peek().is_none() {
            return Ok(None);
        }
        if digits.any(|digit| digit != '1') {
            return Err(RowError::new(format!("role {} refers to another group than \\1", shown(name)))
                .hint("Put the part of the claim that the role is made of into the first group."));
        }
        Ok(Some(NameTemplate { parts: name.split("\\1").map(str::to_owned).collect() }))
    }

    /// Refuses a name that no token could give, whatever it says.
    pub(crate) fn check(&self) -> Result<(), RowError> {
        match self.parts.concat().chars().find(|character| !allowed(*character)) {
            Some(refused) => {
                let name = self.parts.join("\\1");
                Err(RowError::new(format!("role {} can never be given", shown(&name))).detail(format!(
                    "A name made of a token holds only A-Z a-z 0-9 . _ @ + # : / and -, not {refused:?}."
                )))
            }
            None => Ok(()),
        }
    }
}

impl ArchivedNameTemplate {
    /// Whether it may give a role of that name to somebody.
    pub(crate) fn may_give(&self, name: &str) -> bool {
        let first = self.parts.first().is_none_or(|part| name.starts_with(part.as_str()));
        first && self.parts.last().is_none_or(|part| name.ends_with(part.as_str()))
    }

    /// As the row has it.
    pub(crate) fn text(&self) -> String {
        self.parts.iter().map(|part| part.as_str()).collect::<Vec<_>>().join("\\1")
    }

    /// The name, if a token may give it. Never cut: a name of 63 bytes or more is none, since the user name in the
    /// startup packet arrives cut to 63.
    pub(crate) fn name(&self, part: &str) -> Option<String> {
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

/// How a provider turns an identity into the name of a person's own role: `identity_pattern` and `identity_role`.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub(crate) struct Naming {
    pattern: Pattern,
    name: NameTemplate,
}

impl Naming {
    /// None: identities are not turned into names; people log in as themselves only with roles that are bound by hand.
    pub(crate) fn compile(row: &ProviderRow) -> Result<Option<Naming>, RowError> {
        let (pattern, name) = match (&row.identity_pattern, &row.identity_role) {
            (None, None) if row.auto_provision => {
                return Err(RowError::new(
                    "\"auto_provision\" needs \"identity_pattern\" and \"identity_role\"",
                )
                .detail("Without them no role has a name that could be made.")
                .hint("Write for example '^(.*)@corp\\.example$' and '\\1'."));
            }
            (None, None) => return Ok(None),
            (Some(pattern), Some(name)) => (pattern, name),
            _ => {
                return Err(RowError::new("\"identity_pattern\" and \"identity_role\" must be set together")
                    .hint("Write for example '^(.*)@corp\\.example$' and '\\1'."));
            }
        };
        let compiled = Pattern::regex(pattern).map_err(|problem| {
            RowError::new("\"identity_pattern\" cannot be compiled")
                .detail(format!("The reason is: {problem}."))
        })?;
        if !compiled.captures {
            return Err(RowError::new("\"identity_pattern\" needs a group").hint(
                "Put parentheses around the part that the role is made of, as in '^(.*)@corp\\.example$'.",
            ));
        }
        let Some(template) = NameTemplate::split(name)? else {
            return Err(RowError::new("\"identity_role\" must hold \\1")
                .detail("Without it everybody would have the same role.")
                .hint("Write '\\1' for what the first group of \"identity_pattern\" matches."));
        };
        template.check()?;
        Ok(Some(Naming { pattern: compiled, name: template }))
    }
}

impl ArchivedNaming {
    /// The name of the role that is this identity's own; None: it has none.
    pub(crate) fn role(&self, identity: &str, effort: &Effort) -> Option<String> {
        let mut matcher = Matcher::new(self.pattern.borrowed(), effort);
        matcher.capture(identity).and_then(|part| self.name.name(part))
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
