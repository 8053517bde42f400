//! Who may change rows.
//!
//! | of | who |
//! |---|---|
//! | a rule | superusers; who was granted the change of the table and has the ADMIN option on the rule's role, old and new |
//! | a rule that denies, that sets `allow_privileged` or whose role has `\1` | superusers |
//! | a rule whose role does not exist, or is not the one that it was written for | superusers |
//! | every other table, and TRUNCATE | superusers, whatever is granted |
//!
//! The user is the one whose rights count in the statement: current_user, that of a SECURITY DEFINER function in it.

use crate::pg::row::column;
use crate::pg::{catalog, identity, report};
use pgrx::heap_tuple::PgHeapTuple;
use pgrx::{PgSqlErrorCode, WhoAllocated, pg_sys};

/// What of a rule decides who may write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    id: i64,
    role: Option<String>,
    role_oid: Option<u32>,
    allows: bool,
    allow_privileged: bool,
}

impl Rule {
    /// The rule in a row of `oidc.role_mapping`. What is null counts as what only superusers may write.
    pub(crate) fn of(row: &PgHeapTuple<'_, impl WhoAllocated>) -> Rule {
        Rule {
            id: column(row, "id").unwrap_or_default(),
            role: column(row, "role"),
            role_oid: column(row, "role_oid").map(pg_sys::Oid::to_u32),
            allows: column::<String>(row, "effect").is_some_and(|effect| effect == "allow"),
            allow_privileged: column(row, "allow_privileged").unwrap_or(true),
        }
    }

    /// The oid to be kept beside the role's name: none for a rule that denies, for one whose roles come from tokens, and
    /// where there is no role of that name.
    pub(crate) fn current_oid(&self) -> Option<u32> {
        self.named_role().and_then(catalog::role_oid)
    }

    /// The oid that is kept beside the role's name.
    pub(crate) fn stored_oid(&self) -> Option<u32> {
        self.role_oid
    }

    /// The one role that it gives; none if it denies, or if the roles come from tokens.
    pub(crate) fn named_role(&self) -> Option<&str> {
        self.role.as_deref().filter(|role| self.allows && !is_derived(role))
    }
}

/// Whether a token makes the names of the roles.
fn is_derived(role: &str) -> bool {
    role.contains("\\1")
}

/// Refuses anybody but a superuser.
pub(crate) fn must_be_superuser(table: &str) {
    if !catalog::superuser() {
        refuse(&format!("Only superusers may change \"oidc.{table}\"."));
    }
}

/// Refuses anybody but a superuser.
pub(crate) fn may_truncate(table: &str) {
    if !catalog::superuser() {
        refuse(&format!("Only superusers may truncate \"oidc.{table}\"."));
    }
}

/// Refuses who may not change or delete this rule, as it is stored.
pub(crate) fn may_change(rule: &Rule) {
    if catalog::superuser() {
        return;
    }
    let id = rule.id;
    let role = ordinary(rule).unwrap_or_else(|what| {
        refuse(&format!("Rule {id} {what}. Only superusers may change or delete such a rule."))
    });
    // A user may be allowed to change rows and not to read them, so the role is not named.
    match catalog::role_oid(role) {
        Some(oid) if rule.role_oid == Some(oid) => {
            if !catalog::is_admin(identity::current_user(), oid) {
                refuse(&format!("Rule {id} is for a role on which the current user has no ADMIN option."));
            }
        }
        _ => refuse(&format!(
            "The role that rule {id} was written for does not exist by that name any more. Only superusers may change or delete such a rule."
        )),
    }
}

/// Refuses who may not write this rule.
pub(crate) fn may_write(rule: &Rule) {
    if catalog::superuser() {
        return;
    }
    let role = ordinary(rule).unwrap_or_else(|what| {
        refuse(&format!("The rule {what}. Only superusers may write such a rule."));
    });
    let Some(oid) = catalog::role_oid(role) else {
        report::raise(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            &format!("role \"{role}\" does not exist"),
            Some("Only superusers may write a rule for a role that does not exist yet."),
            None,
        );
    };
    if !catalog::is_admin(identity::current_user(), oid) {
        refuse(&format!("The current user has no ADMIN option on role \"{role}\"."));
    }
}

/// The role of a rule that others than superusers may write, or what keeps them from it.
fn ordinary(rule: &Rule) -> Result<&str, &'static str> {
    if !rule.allows {
        return Err("does not allow but denies");
    }
    if rule.allow_privileged {
        return Err("sets \"allow_privileged\"");
    }
    match &rule.role {
        None => Err("names no role"),
        Some(role) if is_derived(role) => Err("takes its role from the token (\"\\1\")"),
        Some(role) => Ok(role),
    }
}

fn refuse(detail: &str) -> ! {
    report::raise(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        "permission denied to change the OIDC policy",
        Some(detail),
        None,
    )
}
