//! People log in as themselves: with roles of their own, which are made for them, and in roles that rules give.
//!
//! 1. coming.rs: the first login makes the role, binds it and grants what the rules give; later ones write nothing
//! 2. bounds.rs: a session has the roles of its own decision, and of nobody else's
//! 3. bindings.rs: whose role is whose
//! 4. sweeping.rs: what no rule gives any more is taken away, what others granted is not
//! 5. choices.rs: the client's own choice of a role, however it is written (n142)
//! 6. many.rs: a thousand logins that change nothing, many first logins at once (n109)
//! 7. ground.rs: what ends a session, and what a login would meet
//! 8. hba.rs: CONNECT, and HBA lines for members of a role (n138, n139)
//! 9. hostile.rs: names and search paths (n129)
//! 10. faults.rs: locks, and workers that are stopped or die (f006, f007, f022, f029)
//! 11. standby.rs: a standby, and its promotion (f023, f024)
//! 12. handover.rs: owners of objects, and the role of the session itself (n131, n132)

mod bindings;
mod bounds;
mod choices;
mod coming;
mod faults;
mod ground;
mod handover;
mod hba;
mod hostile;
mod many;
mod standby;
mod sweeping;

use std::sync::LazyLock;

use anyhow::{Context, Result, ensure};
use pg_oidc_test::client::{Session, Told};
use pg_oidc_test::cluster::{Cluster, until};
use pg_oidc_test::keys::{jwks, keys};
use pg_oidc_test::psql::Login;
use pg_oidc_test::token::{AUDIENCE, ISSUER, Token};
use serde_json::json;

use crate::scene::admitted;
use crate::stage::{SOON, Shared, builder, share, shared};

static CLUSTER: Shared = LazyLock::new(|| share(stage));

/// A cluster whose only provider makes roles of the identities `…@corp.example`, and whose rules give the roles
/// `analyst`, `writer` and `auditor` to the groups of these names.
fn stage() -> Result<Cluster> {
    let cluster = builder()?.start()?;
    furnish(&cluster)?;
    Ok(cluster)
}

/// As [`stage`], on a cluster that has started.
pub(crate) fn furnish(cluster: &Cluster) -> Result<()> {
    cluster.admin("CREATE EXTENSION pg_oidc")?;
    cluster.admin("CREATE ROLE analyst; CREATE ROLE writer; CREATE ROLE auditor; CREATE ROLE base")?;
    let jwks = jwks(&[&keys().ec]);
    cluster.admin(&format!(
        "INSERT INTO oidc.provider (name, issuer, audiences, jwks, identity_claim, groups_claim, identity_pattern, \
                                    identity_role, auto_provision) \
         VALUES ('corp', '{ISSUER}', '{{{AUDIENCE}}}', '{jwks}', 'upn', 'groups', '^(.*)@corp\\.example$', '\\1', true)"
    ))?;
    cluster.admin(
        "INSERT INTO oidc.role_mapping (provider, match, role) \
         SELECT 'corp', jsonb_build_object('groups', r), r FROM unnest('{analyst,writer,auditor}'::text[]) r",
    )?;
    Ok(())
}

fn cluster() -> Result<&'static Cluster> {
    shared(&CLUSTER)
}

/// The token of a person who is in these groups.
pub(crate) fn token(person: &str, groups: &[&str]) -> String {
    of(person, groups).sign(&keys().ec)
}

fn of(person: &str, groups: &[&str]) -> Token {
    Token::for_user(&format!("sub-{person}"))
        .claim("upn", json!(format!("{person}@corp.example")))
        .groups(groups)
}

/// The login of a person as herself.
fn login<'a>(cluster: &'a Cluster, person: &str, groups: &[&str]) -> Login<'a> {
    cluster.login(person).password(token(person, groups))
}

/// A session of a person as herself, who must be admitted.
fn session(cluster: &Cluster, person: &str, groups: &[&str]) -> Result<Session> {
    admitted(&login(cluster, person, groups))
}

/// Session user and current user.
fn users(session: &Session) -> Result<[String; 2]> {
    let rows = session.rows("SELECT session_user, current_user")?;
    let mut names = rows.into_iter().flatten().flatten();
    Ok([names.next().unwrap_or_default(), names.next().unwrap_or_default()])
}

/// The session may take on the role.
fn may(session: &Session, role: &str) -> Result<()> {
    session.rows(&format!("SET ROLE \"{role}\""))?;
    let [_, current] = users(session)?;
    ensure!(current == role, "{current} instead of {role}");
    Ok(())
}

/// The session may not, however it asks, and stays what it was.
fn may_not(session: &Session, role: &str) -> Result<()> {
    let before = users(session)?;
    for sql in [
        format!("SET ROLE \"{role}\""),
        format!("SELECT set_config('role', '{role}', false)"),
        format!("SELECT set_config('role', '{role}', true)"),
        format!("SET LOCAL ROLE \"{role}\""),
        format!("DO $$ BEGIN EXECUTE 'SET ROLE \"{role}\"'; END $$"),
    ] {
        match session.try_rows(&sql)? {
            // Outside of a transaction SET LOCAL only warns.
            Ok(_) if sql.starts_with("SET LOCAL") => {}
            Ok(rows) => anyhow::bail!("{sql} went well: {rows:?}"),
            Err(told) => ensure!(
                told.code == "42501" && told.message == format!("permission denied to set role \"{role}\""),
                "{sql}: {told:?}"
            ),
        }
        ensure!(users(session)? == before, "{sql}");
    }
    Ok(())
}

/// The first column of each row, as the superuser sees it.
fn column(cluster: &Cluster, sql: &str) -> Result<Vec<String>> {
    Ok(cluster.admin(sql)?.into_iter().flatten().collect())
}

/// The roles that a person's role is a member of, by name.
fn memberships(cluster: &Cluster, person: &str) -> Result<Vec<String>> {
    column(
        cluster,
        &format!(
            "SELECT g.rolname FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid \
               JOIN pg_roles p ON p.oid = m.member WHERE p.rolname = '{person}' ORDER BY g.rolname COLLATE \"C\""
        ),
    )
}

/// Those of them that stand in the ledger.
fn ledger(cluster: &Cluster, person: &str) -> Result<Vec<String>> {
    let sql = "SELECT role FROM oidc.granted_membership WHERE member = ";
    column(cluster, &format!("{sql}'{person}' ORDER BY role COLLATE \"C\""))
}

/// Waits until the person's role is a member of just these.
fn await_memberships(cluster: &Cluster, person: &str, expected: &[&str]) -> Result<()> {
    until(&format!("{person} is a member of {expected:?}"), SOON, || {
        Ok(memberships(cluster, person)? == expected)
    })
}

/// Whether there is a role of this name.
fn exists(cluster: &Cluster, role: &str) -> Result<bool> {
    Ok(cluster.admin_value(&format!("SELECT count(*) FROM pg_roles WHERE rolname = '{role}'"))? == "1")
}

/// What the client is told instead of being let in.
fn told(login: &Login<'_>) -> Result<Told> {
    match login.connect()? {
        Ok(_) => anyhow::bail!("this was not refused"),
        Err(told) => Ok(told),
    }
}

/// Waits until the session has been ended, and gives what its client was told.
fn ended(session: &Session) -> Result<Told> {
    let mut told = None;
    until("the session has ended", SOON, || {
        told = session.last_words().ok();
        Ok(told.is_some())
    })?;
    told.context("not a word")
}
