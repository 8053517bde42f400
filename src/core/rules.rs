//! One row of `oidc.role_mapping`, compiled.

use rkyv::with::Skip;
use rkyv::{Archive, Deserialize, Serialize};

use crate::confines::{Confine, Confines};
use crate::decision::Request;
use crate::derived::Template;
use crate::limits;
use crate::matching::{self, ArchivedMember, Member};
use crate::naming;
use crate::row::{self, RowError, shown};
use crate::session_limit::SessionLimit;
use crate::subject::Subject;

/// A row of `oidc.role_mapping` as it is stored. Times are microseconds since the Unix epoch.
#[derive(serde::Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct RuleRow {
    /// The key of the table.
    pub id: i64,
    /// Name of the provider whose tokens it is for.
    pub provider: String,
    /// The column `match`, as JSON text.
    #[serde(rename = "match", deserialize_with = "row::json")]
    pub matches: String,
    /// The role it gives; `\1` stands for what group 1 of its regular expression matched. Null for a rule that denies.
    pub role: Option<String>,
    /// The oid that the role had when the row was written; 0: there was none, or the role is derived.
    pub role_oid: u32,
    /// `allow` or `deny`.
    pub effect: String,
    /// Lower comes first, then `id`.
    pub priority: i32,
    /// The databases it is for; null: all.
    pub databases: Option<Vec<Option<String>>>,
    /// Only for replication connections, or only for ordinary ones; null (deny only): both.
    pub replication: Option<bool>,
    /// The networks it is for, as `cidr` prints them; null: all, and Unix-domain sockets.
    pub addresses: Option<Vec<Option<String>>>,
    /// The first time at which it counts.
    pub valid_from: Option<i64>,
    /// The first time at which it does not count any more.
    pub valid_until: Option<i64>,
    /// `token`, `none` or an interval; null: the provider's alone.
    pub session_limit: Option<String>,
    /// What PostgreSQL reads it as, if it reads it as an interval. Not a column.
    #[serde(default)]
    pub session_limit_us: Option<i64>,
    /// Whether the role may be a privileged one; only a superuser can have set it.
    pub allow_privileged: bool,
    /// A disabled rule does not count.
    pub enabled: bool,
}

/// A compiled rule. Only [`compile_rule`] makes one.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The key of the table.
    pub id: i64,
    /// Lower comes first, then `id`.
    pub priority: i32,
    /// Whether the role may be a privileged one.
    pub allow_privileged: bool,
    pub(crate) effect: Effect,
    pub(crate) members: Vec<Member>,
    pub(crate) confines: Confines,
    pub(crate) session_limit: SessionLimit,
    /// In the image a rule stands under its provider.
    #[rkyv(with = Skip)]
    pub(crate) provider: String,
    /// Disabled rules are not in the image.
    #[rkyv(with = Skip)]
    pub(crate) enabled: bool,
}

/// What a rule does with who matches it.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Refuses the login.
    Deny,
    /// Gives the role of this name, if it still has this oid.
    Role { name: String, oid: u32 },
    /// Gives each role that the template makes of the token.
    Derived(Template),
}

/// What keeps a rule from counting for a login.
#[derive(Clone, Copy)]
pub(crate) enum Unmet<'a> {
    Member(&'a ArchivedMember),
    Confine(Confine),
}

/// Compiles a row.
///
/// # Errors
/// The first column that is not acceptable, or not supported yet. A disabled row must compile too.
pub fn compile_rule(row: &RuleRow) -> Result<Rule, RowError> {
    if row.provider.is_empty() {
        return Err(RowError::new("\"provider\" must not be empty"));
    }
    let members = matching::compile("match", &row.matches)?;
    Ok(Rule {
        id: row.id,
        priority: row.priority,
        allow_privileged: row.allow_privileged,
        effect: effect(row, &members)?,
        members,
        confines: Confines::compile(row)?,
        session_limit: match &row.session_limit {
            Some(text) => SessionLimit::compile(text, row.session_limit_us)?,
            None => SessionLimit::None,
        },
        provider: row.provider.clone(),
        enabled: row.enabled,
    })
}

fn effect(row: &RuleRow, members: &[Member]) -> Result<Effect, RowError> {
    match (row.effect.as_str(), &row.role) {
        ("deny", Some(_)) => Err(RowError::new("a rule that denies must not name a role")
            .detail("It refuses the whole login of whoever it matches.")
            .hint("Set \"role\" to null.")),
        ("deny", None) if row.allow_privileged => {
            Err(RowError::new("a rule that denies must not set \"allow_privileged\""))
        }
        ("deny", None) => Ok(Effect::Deny),
        ("allow", None) => Err(RowError::new("a rule that allows must name a role").hint("Set \"role\".")),
        ("allow", Some(role)) => gives(row, role, members),
        (other, _) => {
            Err(RowError::new("\"effect\" must be 'allow' or 'deny'")
                .detail(format!("It is {}.", shown(other))))
        }
    }
}

fn gives(row: &RuleRow, role: &str, members: &[Member]) -> Result<Effect, RowError> {
    if role.is_empty() || role.len() > limits::NAME_DATA_BYTES {
        return Err(
            RowError::new("\"role\" must have 1 to 63 bytes").detail(format!("It has {} bytes.", role.len()))
        );
    }
    if naming::reserved(role) {
        return Err(RowError::new(format!("role name {} is reserved", shown(role)))
            .detail("No token ever gives \"public\", \"none\" or a role whose name starts with \"pg_\"."));
    }
    if role.contains('\0') {
        return Err(RowError::new("\"role\" holds the character U+0000"));
    }
    match Template::compile(role, members)? {
        Some(_) if row.allow_privileged => {
            Err(RowError::new("a role with \"\\1\" must not be combined with \"allow_privileged\"")
                .detail("A token would choose among the privileged roles.")
                .hint("Write one rule for each privileged role."))
        }
        Some(template) => Ok(Effect::Derived(template)),
        None => Ok(Effect::Role { name: role.to_owned(), oid: row.role_oid }),
    }
}

impl Rule {
    /// Whether it has a regular expression or a glob.
    pub(crate) fn has_pattern(&self) -> bool {
        self.members.iter().any(|member| member.test.patterns() > 0)
    }
}

impl ArchivedRule {
    /// What keeps the rule from counting, confines first.
    fn unmet<'a>(&'a self, subject: &Subject<'_>, request: &Request<'_>) -> impl Iterator<Item = Unmet<'a>> {
        let members = self.members.iter().filter(|member| !subject.has(member.path.steps(), &member.test));
        let deny = matches!(self.effect, ArchivedEffect::Deny);
        self.confines.unmet(request, deny).map(Unmet::Confine).into_iter().chain(members.map(Unmet::Member))
    }

    /// All that keeps the rule from counting.
    pub(crate) fn all_unmet<'a>(&'a self, subject: &Subject<'_>, request: &Request<'_>) -> Vec<Unmet<'a>> {
        self.unmet(subject, request).collect()
    }

    /// Whether every member holds and no confine keeps it from counting.
    pub(crate) fn counts(&self, subject: &Subject<'_>, request: &Request<'_>) -> bool {
        self.unmet(subject, request).next().is_none()
    }

    /// Whether it would count for a connection to another database or from another address, and does not for this one.
    pub(crate) fn counts_elsewhere(&self, subject: &Subject<'_>, request: &Request<'_>) -> bool {
        self.confines.unmet_here_alone(request)
            && self.members.iter().all(|member| subject.has(member.path.steps(), &member.test))
    }

    /// Whether it gives the role of that name to who it counts for.
    pub(crate) fn gives(&self, subject: &Subject<'_>, user: &str) -> bool {
        match &self.effect {
            ArchivedEffect::Deny => false,
            ArchivedEffect::Role { name, .. } => name.as_str() == user,
            ArchivedEffect::Derived(template) => {
                template.any_role(&self.members, subject, |role| role == user)
            }
        }
    }
}
