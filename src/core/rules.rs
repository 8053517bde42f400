//! One row of `oidc.role_mapping`, compiled.

use rkyv::with::Skip;
use rkyv::{Archive, Deserialize, Serialize};

use crate::limits;
use crate::matching::{self, Member, Subject};
use crate::row::{self, RowError, plain_list, shown};

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
    /// The role it gives.
    pub role: Option<String>,
    /// The oid that the role had when the row was written; 0: there was none, and the rule gives nothing.
    pub role_oid: u32,
    /// `allow`; `deny` is not supported yet.
    pub effect: String,
    /// Lower comes first, then `id`.
    pub priority: i32,
    /// The databases it is for; null: all.
    pub databases: Option<Vec<Option<String>>>,
    /// Only false is supported yet.
    pub replication: bool,
    /// Not supported yet.
    pub addresses: Option<Vec<String>>,
    /// Not supported yet.
    pub valid_from: Option<i64>,
    /// Not supported yet.
    pub valid_until: Option<i64>,
    /// Only null and `none` are supported yet.
    pub session_limit: Option<String>,
    /// Whether the role may be a privileged one; only a superuser can have set it.
    pub allow_privileged: bool,
    /// A disabled rule gives nothing.
    pub enabled: bool,
}

/// A compiled allow rule. Only [`compile_rule`] makes one.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The key of the table.
    pub id: i64,
    /// Lower comes first, then `id`.
    pub priority: i32,
    /// The role it gives.
    pub role: String,
    /// The oid that the role must have at the login.
    pub role_oid: u32,
    /// Whether the role may be a privileged one.
    pub allow_privileged: bool,
    pub(crate) members: Vec<Member>,
    pub(crate) databases: Option<Vec<String>>,
    /// In the image a rule stands under its provider.
    #[rkyv(with = Skip)]
    pub(crate) provider: String,
    /// Disabled rules are not in the image.
    #[rkyv(with = Skip)]
    pub(crate) enabled: bool,
}

/// Compiles a row.
///
/// # Errors
/// The first column that is not acceptable, or not supported yet. A disabled row must compile too.
pub fn compile_rule(row: &RuleRow) -> Result<Rule, RowError> {
    check_unsupported(row)?;
    if row.effect != "allow" {
        return Err(RowError::new("\"effect\" must be 'allow' or 'deny'")
            .detail(format!("It is {}.", shown(&row.effect))));
    }
    if row.provider.is_empty() {
        return Err(RowError::new("\"provider\" must not be empty"));
    }
    Ok(Rule {
        id: row.id,
        priority: row.priority,
        role: role(row)?,
        role_oid: row.role_oid,
        allow_privileged: row.allow_privileged,
        members: matching::compile("match", &row.matches)?,
        databases: databases(row)?,
        provider: row.provider.clone(),
        enabled: row.enabled,
    })
}

fn check_unsupported(row: &RuleRow) -> Result<(), RowError> {
    let refuse = |what: &str, detail: &str, hint: &str| Err(RowError::unsupported(what, detail, hint));
    if row.effect == "deny" {
        return refuse(
            "\"effect\" deny",
            "This version has allow rules only; what no rule allows is refused.",
            "Make the allow rules narrower instead.",
        );
    }
    if row.replication {
        return refuse(
            "\"replication\"",
            "Replication connections are refused in this version.",
            "Leave it false.",
        );
    }
    if row.addresses.is_some() {
        return refuse(
            "\"addresses\"",
            "Rules are not limited to client addresses in this version.",
            "Leave it null, and limit addresses in the HBA file.",
        );
    }
    if row.valid_from.is_some() {
        return refuse("\"valid_from\"", "Rules are not limited in time in this version.", "Leave it null.");
    }
    if row.valid_until.is_some() {
        return refuse("\"valid_until\"", "Rules are not limited in time in this version.", "Leave it null.");
    }
    if row.session_limit.as_deref().is_some_and(|limit| limit != "none") {
        return refuse(
            "\"session_limit\"",
            "Sessions are not ended by time in this version.",
            "Leave it null.",
        );
    }
    Ok(())
}

fn role(row: &RuleRow) -> Result<String, RowError> {
    let Some(role) = &row.role else {
        return Err(RowError::new("a rule that allows must name a role").hint("Set \"role\"."));
    };
    if role.contains('\\') {
        return Err(RowError::unsupported(
            "a backslash in \"role\"",
            "Parts of a token are not put into role names in this version.",
            "Write the name of the role itself.",
        ));
    }
    if role.is_empty() || role.len() > limits::NAME_DATA_BYTES {
        return Err(
            RowError::new("\"role\" must have 1 to 63 bytes").detail(format!("It has {} bytes.", role.len()))
        );
    }
    if role == "public" || role == "none" || role.starts_with("pg_") {
        return Err(RowError::new(format!("role name {} is reserved", shown(role)))
            .detail("No token ever gives \"public\", \"none\" or a role whose name starts with \"pg_\"."));
    }
    if role.contains('\0') {
        return Err(RowError::new("\"role\" holds the character U+0000"));
    }
    Ok(role.clone())
}

fn databases(row: &RuleRow) -> Result<Option<Vec<String>>, RowError> {
    let Some(list) = &row.databases else {
        return Ok(None);
    };
    let databases = plain_list("databases", list, limits::DATABASES)?;
    if databases.is_empty() || databases.iter().any(String::is_empty) {
        return Err(RowError::new("\"databases\" must name at least one database, and none that is empty")
            .hint("Write null for all databases."));
    }
    Ok(Some(databases))
}

impl ArchivedRule {
    /// Whether every member holds and the database is one of the rule's.
    pub(crate) fn matches(&self, subject: &Subject<'_>, database: &str) -> bool {
        let in_database =
            self.databases.as_ref().is_none_or(|names| names.iter().any(|name| name.as_str() == database));
        in_database && self.members.iter().all(|member| subject.has_archived(member))
    }
}
