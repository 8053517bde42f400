//! n112: the own role of a revoked person.

use std::time::Duration;

use anyhow::Result;
use pg_oidc_test::client::Session;
use pg_oidc_test::cluster::until;

use super::{can_login, comes, session, some, stage, token};
use crate::scene::SOON;

/// Her role is unlocked at most this long after the end of the revocation, and what a busy machine takes.
const UNLOCKED: Duration = Duration::from_secs(4);

fn revoke(admin: &Session, person: &str) -> Result<()> {
    admin.rows(&format!("SELECT oidc.revoke('corp', '{person}', 'left')")).map(drop)
}

fn reinstate(admin: &Session, person: &str) -> Result<()> {
    let done = admin.value(&format!("SELECT oidc.reinstate('corp', '{person}')"))?;
    assert_eq!(done, some("t"));
    Ok(())
}

#[test]
fn n112_locked_until_she_is_reinstated() -> Result<()> {
    let (stage, admin) = stage()?;
    comes(&stage, "bob")?;
    let inside = session(&stage, "ann")?;
    let locked = "SELECT role_locked FROM oidc.revocation";
    revoke(&admin, "ann")?;
    assert_eq!((can_login(&admin, "ann")?, admin.value(locked)?), (false, some("t")));
    assert_eq!(inside.last_words()?.code, "57P01");
    stage.refused("ann", &token("ann"), "identity_revoked", "revoked")?;
    // Again: that it was locked for this is not forgotten.
    revoke(&admin, "ann")?;
    assert_eq!(admin.value(locked)?, some("t"));
    reinstate(&admin, "ann")?;
    comes(&stage, "ann")?;
    assert!(can_login(&admin, "bob")?, "nobody else's");

    // By hand: the row deleted, its time moved, another person named in it.
    revoke(&admin, "ann")?;
    admin.rows("DELETE FROM oidc.revocation")?;
    comes(&stage, "ann")?;
    revoke(&admin, "ann")?;
    admin.rows("UPDATE oidc.revocation SET until = now()")?;
    comes(&stage, "ann")?;
    assert_eq!(admin.value(locked)?, some("f"));
    admin.rows("UPDATE oidc.revocation SET until = 'infinity'")?;
    assert!(!can_login(&admin, "ann")?);
    admin.rows("BEGIN; DELETE FROM oidc.revocation; ROLLBACK")?;
    assert!(!can_login(&admin, "ann")?, "all or nothing");
    admin.rows("TRUNCATE oidc.revocation")?;
    comes(&stage, "ann")
}

#[test]
fn locked_after_her_sessions_had_been_ended() -> Result<()> {
    let (stage, admin) = stage()?;
    comes(&stage, "ann")?;
    admin.rows("SELECT oidc.end_sessions('corp', 'ann')")?;
    assert!(can_login(&admin, "ann")?);
    // The row is there already.
    revoke(&admin, "ann")?;
    assert!(!can_login(&admin, "ann")?);
    assert_eq!(admin.value("SELECT role_locked FROM oidc.revocation")?, some("t"));
    reinstate(&admin, "ann")?;
    assert!(can_login(&admin, "ann")?);
    assert_eq!(admin.value("SELECT role_locked FROM oidc.revocation")?, some("f"));
    Ok(())
}

#[test]
fn unlocked_when_its_time_is_over() -> Result<()> {
    let (stage, admin) = stage()?;
    comes(&stage, "ann")?;
    admin.rows("SELECT oidc.revoke('corp', 'ann', 'holiday', clock_timestamp() + '2 s')")?;
    assert!(!can_login(&admin, "ann")?);
    let over = "SELECT until <= clock_timestamp() FROM oidc.revocation";
    until("its time is over", SOON, || Ok(admin.value(over)? == some("t")))?;
    until("her role is unlocked", UNLOCKED, || can_login(&admin, "ann"))?;
    comes(&stage, "ann")?;
    // A later one is put off: not at the first time.
    admin.rows("SELECT oidc.revoke('corp', 'ann', 'holiday', clock_timestamp() + '1 s')")?;
    admin.rows("SELECT oidc.revoke('corp', 'ann', 'longer', clock_timestamp() + '1 hour')")?;
    comes(&stage, "bob")?;
    admin.rows("SELECT oidc.revoke('corp', 'bob', 'short', clock_timestamp() + '1 s')")?;
    until("another's is over", SOON, || can_login(&admin, "bob"))?;
    assert!(!can_login(&admin, "ann")?);
    reinstate(&admin, "ann")?;
    assert!(can_login(&admin, "ann")?);
    Ok(())
}

#[test]
fn what_the_administrator_did_stays() -> Result<()> {
    let (stage, admin) = stage()?;
    // A role of the administrator's.
    admin.rows(
        "CREATE ROLE ada LOGIN NOINHERIT; \
         INSERT INTO oidc.identity_role (provider, subject, role) VALUES ('corp', 'ada', 'ada')",
    )?;
    comes(&stage, "ada")?;
    revoke(&admin, "ada")?;
    assert!(can_login(&admin, "ada")?);
    stage.refused("ada", &token("ada"), "identity_revoked", "revoked all the same")?;
    reinstate(&admin, "ada")?;
    comes(&stage, "ada")?;
    // One that was locked by hand before.
    comes(&stage, "ann")?;
    admin.rows("ALTER ROLE ann NOLOGIN")?;
    stage.refused("ann", &token("ann"), "role_cannot_login", "by hand")?;
    revoke(&admin, "ann")?;
    assert_eq!(admin.value("SELECT role_locked FROM oidc.revocation WHERE subject = 'ann'")?, some("f"));
    reinstate(&admin, "ann")?;
    assert!(!can_login(&admin, "ann")?);
    // One that was unlocked by hand meanwhile, and one that is gone.
    admin.rows("ALTER ROLE ann LOGIN")?;
    revoke(&admin, "ann")?;
    admin.rows("ALTER ROLE ann LOGIN")?;
    stage.refused("ann", &token("ann"), "identity_revoked", "its tokens are refused all the same")?;
    reinstate(&admin, "ann")?;
    assert!(can_login(&admin, "ann")?);
    revoke(&admin, "ann")?;
    admin.rows("DROP ROLE ann")?;
    reinstate(&admin, "ann")?;
    // Somebody who has never been here.
    revoke(&admin, "zoe")?;
    reinstate(&admin, "zoe")?;
    comes(&stage, "zoe")
}

#[test]
fn whoever_may_revoke_need_not_be_a_superuser() -> Result<()> {
    let (stage, admin) = stage()?;
    comes(&stage, "ann")?;
    admin.rows(
        "CREATE ROLE desk; GRANT EXECUTE ON FUNCTION oidc.revoke(text, text, text, timestamptz), \
         oidc.reinstate(text, text) TO desk",
    )?;
    admin.rows("SET ROLE desk; SELECT oidc.revoke('corp', 'ann'); RESET ROLE")?;
    assert!(!can_login(&admin, "ann")?);
    admin.rows("SET ROLE desk; SELECT oidc.reinstate('corp', 'ann'); RESET ROLE")?;
    comes(&stage, "ann")
}
