//! Somebody who may change the rules of one role.

use anyhow::{Result, ensure};
use pg_oidc_test::client::Session;
use serde_json::json;

use super::{stage, token};
use crate::scene::rule_sql;

/// A session by token of a role that may change rules, and has ADMIN on `<name>_team` only. There are also the role
/// `<name>_other` and a rule of it, with its id.
pub(super) struct Lead {
    name: &'static str,
    pub(super) session: Session,
    pub(super) others: String,
}

impl Lead {
    pub(super) fn new(name: &'static str) -> Result<Self> {
        stage().trio(name)?;
        let admin = stage().admin()?;
        admin.rows(&format!(
            "CREATE ROLE {name}_team LOGIN; CREATE ROLE {name}_other LOGIN; \
             GRANT {name}_team TO {name} WITH ADMIN OPTION; \
             GRANT SELECT, INSERT, UPDATE, DELETE ON oidc.role_mapping TO {name}"
        ))?;
        let others = rule_sql(name, &json!({ "team": "other" }), &format!("{name}_other"));
        let others = admin.value(&others)?.unwrap_or_default();
        Ok(Self { name, session: stage().session(name, &token(name))?, others })
    }

    fn team(&self) -> String {
        format!("{}_team", self.name)
    }

    /// Writes a rule for the own team, for the subject of the lead, and gives its id.
    pub(super) fn own_rule(&self) -> Result<String> {
        let sql = rule_sql(self.name, &json!({ "sub": self.name }), &self.team());
        Ok(self.session.value(&sql)?.unwrap_or_default())
    }

    /// This is refused with a detail that contains `detail`, and no rule is other than before.
    pub(super) fn refused(&self, sql: &str, detail: &str) -> Result<()> {
        refused(&self.session, self.name, sql, detail)
    }
}

/// As [`Lead::refused`], by another session on the rules of a provider.
pub(super) fn refused(session: &Session, provider: &str, sql: &str, detail: &str) -> Result<()> {
    let admin = stage().admin()?;
    let rules = format!("SELECT m::text FROM oidc.role_mapping m WHERE provider = '{provider}' ORDER BY id");
    let before = admin.rows(&rules)?;
    let told = session.error(sql)?;
    ensure!(told.code == "42501", "{sql}: {told:?}");
    ensure!(told.message == "permission denied to change the OIDC policy", "{sql}: {told:?}");
    ensure!(told.detail.as_deref().is_some_and(|found| found.contains(detail)), "{sql}: {told:?}");
    let after = admin.rows(&rules)?;
    ensure!(before == after, "{sql}: {before:?} became {after:?}");
    Ok(())
}

pub(super) const NO_ADMIN: &str = "the current user has no ADMIN option";
pub(super) const NO_ADMIN_ON: &str = "The current user has no ADMIN option on role";
