//! n111: what no rule gives any more.
//!
//! 1. it is refused at once, and taken away as soon as no live session was given it
//! 2. what others granted stays, though a rule gave it too; what is to be kept stays
//! 3. what a rule gives in another database or to another address does not come and go

use anyhow::{Result, ensure};
use pg_oidc_test::cluster::until;

use super::{
    await_memberships, cluster, column, ledger, login, may, may_not, memberships, session, told, users,
};
use crate::scene::admitted;
use crate::stage::SOON;

#[test]
fn n111_group_that_is_left() -> Result<()> {
    let cluster = cluster()?;
    let old = session(cluster, "anja", &["analyst", "writer"])?;
    may(&old, "writer")?;
    // The membership still stands, for the session that was given it.
    let new = session(cluster, "anja", &["analyst"])?;
    may_not(&new, "writer")?;
    for option in ["-c role=writer", "-c search_path=x -crole=writer"] {
        let told = told(&login(cluster, "anja", &["analyst"]).options(option))?;
        assert_eq!((told.severity.as_str(), told.code.as_str()), ("FATAL", "42501"), "{option}: {told:?}");
    }
    assert_eq!(memberships(cluster, "anja")?, ["analyst", "writer"]);
    may(&old, "analyst")?;
    may(&old, "writer")?;
    // It goes with that session.
    drop(old);
    await_memberships(cluster, "anja", &["analyst"])?;
    assert_eq!(ledger(cluster, "anja")?, ["analyst"]);
    assert_eq!(users(&new)?, ["anja", "analyst"]);
    let revoked =
        "SELECT before->>'role' FROM oidc.audit_log WHERE before->>'member' = 'anja' AND after IS NULL";
    assert_eq!(column(cluster, revoked)?, ["writer"]);
    // And comes back with the group.
    let back = session(cluster, "anja", &["analyst", "writer"])?;
    may(&back, "writer")?;
    may_not(&new, "writer")?;
    Ok(())
}

#[test]
fn n111_what_others_granted_stays() -> Result<()> {
    let cluster = cluster()?;
    drop(session(cluster, "beata", &["analyst", "writer"])?);
    cluster.admin("GRANT auditor TO beata")?;
    drop(session(cluster, "beata", &["analyst", "writer", "auditor"])?);
    assert_eq!(ledger(cluster, "beata")?, ["analyst", "writer"], "what stood before is not ours");
    drop(session(cluster, "beata", &["analyst"])?);
    await_memberships(cluster, "beata", &["analyst", "auditor"])?;
    may(&session(cluster, "beata", &["analyst"])?, "auditor")?;
    // A role that we granted and that the administrator takes away is granted again, and is ours again.
    cluster.admin("REVOKE analyst FROM beata")?;
    drop(session(cluster, "beata", &["analyst"])?);
    assert_eq!(memberships(cluster, "beata")?, ["analyst", "auditor"]);
    assert_eq!(ledger(cluster, "beata")?, ["analyst"]);
    Ok(())
}

#[test]
fn n111_what_is_to_be_kept_stays() -> Result<()> {
    let cluster = cluster()?;
    drop(session(cluster, "carla", &["analyst", "writer", "auditor"])?);
    cluster
        .admin("UPDATE oidc.granted_membership SET keep = true WHERE member = 'carla' AND role = 'writer'")?;
    let session = session(cluster, "carla", &["analyst"])?;
    await_memberships(cluster, "carla", &["analyst", "writer"])?;
    assert_eq!(ledger(cluster, "carla")?, ["analyst", "writer"]);
    // Kept is not given.
    may_not(&session, "writer")?;
    // It is looked at with each login, and changes nothing.
    drop(self::session(cluster, "carla", &["analyst"])?);
    assert_eq!(memberships(cluster, "carla")?, ["analyst", "writer"]);
    Ok(())
}

#[test]
fn n111_a_rule_that_goes() -> Result<()> {
    let cluster = cluster()?;
    cluster.admin("CREATE ROLE swept_rule; CREATE ROLE swept_base; CREATE ROLE swept_drop")?;
    cluster.admin(
        "INSERT INTO oidc.role_mapping (provider, match, role) VALUES \
           ('corp', '{\"groups\": \"swept\"}', 'swept_rule'), ('corp', '{\"groups\": \"swept\"}', 'swept_drop')",
    )?;
    drop(session(cluster, "doris", &["analyst", "swept"])?);
    assert_eq!(memberships(cluster, "doris")?, ["analyst", "swept_drop", "swept_rule"]);
    cluster.admin("DELETE FROM oidc.role_mapping WHERE role = 'swept_rule'; DROP ROLE swept_drop")?;
    let session = session(cluster, "doris", &["analyst", "swept"])?;
    may_not(&session, "swept_rule")?;
    await_memberships(cluster, "doris", &["analyst"])?;
    Ok(())
}

#[test]
fn n111_elsewhere_does_not_come_and_go() -> Result<()> {
    let cluster = cluster()?;
    cluster.admin("CREATE DATABASE sweep_other")?;
    cluster.admin("CREATE ROLE sweep_here; CREATE ROLE sweep_there; CREATE ROLE sweep_far")?;
    cluster.admin(
        "INSERT INTO oidc.role_mapping (provider, match, role, databases, addresses) VALUES \
           ('corp', '{\"groups\": \"sweeps\"}', 'sweep_here', '{postgres}', NULL), \
           ('corp', '{\"groups\": \"sweeps\"}', 'sweep_there', '{sweep_other}', NULL), \
           ('corp', '{\"groups\": \"sweeps\"}', 'sweep_far', NULL, '{192.0.2.0/24}')",
    )?;
    let groups = ["analyst", "sweeps"];
    let there = || admitted(&login(cluster, "emma", &groups).database("sweep_other"));
    drop((session(cluster, "emma", &groups)?, there()?));
    let all = ["analyst", "sweep_here", "sweep_there"];
    assert_eq!(memberships(cluster, "emma")?, all);
    let rows = "SELECT concat_ws(' ', m.ctid, m.xmin, m.roleid) FROM pg_auth_members m \
                 WHERE m.member = 'emma'::regrole ORDER BY 1";
    let before = column(cluster, rows)?;
    for _ in 0..5 {
        drop(session(cluster, "emma", &groups)?);
        drop(there()?);
    }
    // Somebody else's sweep, mentioned afterwards, is done: hers would be by now.
    drop(session(cluster, "emmas_friend", &["analyst", "writer"])?);
    drop(session(cluster, "emmas_friend", &["analyst"])?);
    await_memberships(cluster, "emmas_friend", &["analyst"])?;
    assert_eq!(column(cluster, rows)?, before);
    // Out of the group, they go wherever she logs in.
    drop(session(cluster, "emma", &["analyst"])?);
    await_memberships(cluster, "emma", &["analyst"])?;
    ensure!(ledger(cluster, "emma")? == ["analyst"]);
    Ok(())
}

#[test]
fn n111_sessions_that_go_on_keep_what_they_were_given() -> Result<()> {
    let cluster = cluster()?;
    let sessions: Vec<_> = (0..4).map(|_| session(cluster, "fanny", &["writer"])).collect::<Result<_>>()?;
    // The wish to sweep comes again with each of these.
    for _ in 0..4 {
        drop(session(cluster, "fanny", &["analyst"])?);
    }
    for (number, session) in sessions.iter().enumerate() {
        session.rows("SET ROLE NONE")?;
        may(session, "writer").map_err(|error| error.context(format!("session {number}")))?;
    }
    drop(sessions);
    let analyst = session(cluster, "fanny", &["analyst"])?;
    await_memberships(cluster, "fanny", &["analyst"])?;
    drop(analyst);
    // A login that is given it again at that very moment has it.
    for round in 0..10 {
        let again = session(cluster, "fanny", &["writer"])?;
        let (one, two) = (session(cluster, "fanny", &["analyst"])?, session(cluster, "fanny", &["writer"])?);
        drop(again);
        may(&two, "writer").map_err(|error| error.context(format!("round {round}")))?;
        drop((one, two));
    }
    until("nothing is left to sweep", SOON, || {
        drop(session(cluster, "fanny", &["analyst"])?);
        Ok(memberships(cluster, "fanny")? == ["analyst"])
    })
}
