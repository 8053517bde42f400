//! What an administrator does with people's own roles.
//!
//! 1. Binds roles that exist, by rows of `oidc.identity_role`: superusers alone, in the policy database alone (n128, n140):
//!    [`bindings`].
//! 2. Carries bindings, memberships and locked revocations to another server, by the policy document and by pg_dump:
//!    [`carried`] (f027).
//! 3. Revokes a person: a role that pg_oidc made is NOLOGIN until she is reinstated; one of the administrator's is not
//!    altered (n112): [`locks`].
//! 4. Prunes the roles of people who do not come any more: [`pruning`].

mod bindings;
mod carried;
mod locks;
mod pruning;

use anyhow::{Result, ensure};
use pg_oidc_test::client::Session;
use pg_oidc_test::cluster::until;
use pg_oidc_test::keys::keys;
use pg_oidc_test::token::Token;
use serde_json::json;

use crate::scene::{SOON, Stage, good, rule_sql};

/// A server whose provider `corp` makes roles of subjects, and gives the role `staff` to the group `staff`.
fn stage() -> Result<(Stage, Session)> {
    let stage = Stage::start()?;
    stage.provider("corp")?;
    let admin = stage.admin()?;
    admin.rows(
        "UPDATE oidc.provider SET identity_pattern = '(.+)', identity_role = '\\1', auto_provision = true; \
         CREATE ROLE staff",
    )?;
    admin.rows(&rule_sql("corp", &json!({ "groups": "staff" }), "staff"))?;
    Ok((stage, admin))
}

fn of(person: &str) -> Token {
    good("corp").claim("sub", json!(person)).groups(&["staff"])
}

fn token(person: &str) -> String {
    of(person).sign(&keys().ec)
}

/// A session of a person as herself.
fn session(stage: &Stage, person: &str) -> Result<Session> {
    stage.session(person, &token(person))
}

/// A person comes in as herself, works in the role `staff`, and leaves.
fn comes(stage: &Stage, person: &str) -> Result<()> {
    let seen = stage.login(person, &token(person)).run("SELECT session_user, current_user")?;
    ensure!(seen.rows() == [[person, "staff"]], "{seen:?}\n{}", stage.cluster.log());
    Ok(())
}

/// Waits until it is noted when all came who have come: a little after they did, in their order.
fn noted(stage: &Stage, admin: &Session) -> Result<()> {
    admin.rows(
        "CREATE ROLE last LOGIN NOINHERIT; \
         INSERT INTO oidc.identity_role (provider, subject, role) VALUES ('corp', 'last', 'last')",
    )?;
    comes(stage, "last")?;
    let sql = "SELECT last_login IS NOT NULL FROM oidc.identity_role WHERE role = 'last'";
    until("it is noted that the last one came", SOON, || Ok(admin.value(sql)?.as_deref() == Some("t")))?;
    let sql = "DELETE FROM oidc.granted_membership WHERE member = 'last'; \
               DELETE FROM oidc.identity_role WHERE role = 'last'; DROP ROLE last";
    admin.rows(sql).map(drop)
}

fn can_login(admin: &Session, role: &str) -> Result<bool> {
    let sql = format!("SELECT rolcanlogin FROM pg_roles WHERE rolname = '{role}'");
    Ok(admin.value(&sql)?.as_deref() == Some("t"))
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}
