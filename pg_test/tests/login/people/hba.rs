//! What stands between a person and her database besides the rules.
//!
//! 1. n138: CONNECT that PUBLIC does not have: granted to her role, or through `base_role` (16+), else refused
//! 2. n139: an HBA line for members of a role makes core remember memberships before they are synced: in, or told to
//!    try again, never "permission denied to set role"

use anyhow::{Result, ensure};
use pg_oidc_test::cluster::Cluster;
use pg_oidc_test::extension::Server;

use super::{furnish, login, memberships, told, users};
use crate::scene::admitted;
use crate::stage::{builder, calm, reasons, refuses};

#[test]
fn n138_connect_revoked_from_public() -> Result<()> {
    let cluster = builder()?.start()?;
    furnish(&cluster)?;
    cluster.admin("CREATE DATABASE closed; REVOKE CONNECT ON DATABASE closed FROM PUBLIC")?;
    let ann = || login(&cluster, "ann", &["analyst"]).database("closed");
    refuses(&cluster, &ann(), "ann", "connect_denied")?;
    // A right of the mapped role is not hers: it is she who connects.
    cluster.admin("GRANT CONNECT ON DATABASE closed TO analyst")?;
    refuses(&cluster, &ann(), "ann", "connect_denied")?;
    cluster.admin("GRANT CONNECT ON DATABASE closed TO ann")?;
    ensure!(ann().run("SELECT 1")?.ok());
    cluster.admin("REVOKE CONNECT ON DATABASE closed FROM ann")?;
    refuses(&cluster, &ann(), "ann", "connect_denied")?;

    // In 15 a role that inherits nothing has no rights of another, so the base role carries none there.
    cluster.admin("GRANT CONNECT ON DATABASE closed TO base; UPDATE oidc.provider SET base_role = 'base'")?;
    let bea = || login(&cluster, "bea", &["analyst"]).database("closed");
    if Server::shared()?.major() >= 16 {
        for login in [ann(), bea()] {
            ensure!(login.run("SELECT 1")?.ok());
        }
        // Inherited, and not to be taken on.
        let told = admitted(&ann())?.error("SET ROLE base")?;
        assert_eq!(told.code, "42501", "{told:?}");
    } else {
        for (person, login) in [("ann", ann()), ("bea", bea())] {
            refuses(&cluster, &login, person, "connect_denied")?;
        }
    }
    for person in ["ann", "bea"] {
        assert_eq!(memberships(&cluster, person)?, ["analyst", "base"]);
    }
    let nowhere = login(&cluster, "ann", &["analyst"]).database("nowhere");
    refuses(&cluster, &nowhere, "ann", "connect_denied")?;
    // Where she may connect anyway it is in nobody's way, and a privileged one is never given.
    ensure!(login(&cluster, "bea", &["analyst"]).run("SELECT 1")?.ok());
    cluster.admin("ALTER ROLE base CREATEROLE")?;
    refuses(&cluster, &login(&cluster, "bea", &["analyst"]), "bea", "role_privileged")?;
    calm(&cluster, &[])
}

/// Logs in until it works, being told to try again at most once, and gives whether it was.
fn told_once(cluster: &Cluster, person: &str, groups: &[&str], current: &str) -> Result<bool> {
    let login = || login(cluster, person, groups);
    let mark = cluster.log_mark();
    let first = login().connect()?;
    let again = match first {
        Ok(session) => {
            assert_eq!(users(&session)?, [person, current]);
            false
        }
        Err(told) => {
            assert_eq!((told.severity.as_str(), told.code.as_str()), ("FATAL", "57P03"), "{told:?}");
            assert_eq!(reasons(cluster, mark, person).len(), 1);
            true
        }
    };
    assert_eq!(users(&admitted(&login())?)?, [person, current]);
    Ok(again)
}

#[test]
fn n139_line_for_members_of_a_role() -> Result<()> {
    let builder = builder()?.guarded("hostssl all +vips 127.0.0.1/32 trust");
    let cluster = builder.guarded("hostssl all +analyst 127.0.0.1/32 trust").start()?;
    furnish(&cluster)?;
    cluster.admin("CREATE ROLE vips")?;
    // New: there was no role whose memberships core could remember.
    told_once(&cluster, "ann", &["analyst"], "analyst")?;
    // More of them: the first role is an old one, and the new one is refused nowhere either.
    told_once(&cluster, "ann", &["analyst", "writer"], "analyst")?;
    // The first role is the new one.
    let again = told_once(&cluster, "ann", &["auditor"], "auditor")?;
    let plain = told_once(&cluster, "bea", &["writer"], "writer")?;
    let more = told_once(&cluster, "bea", &["analyst", "writer"], "analyst")?;
    ensure!(again && more && !plain, "{again} {plain} {more}");
    let said = [reasons(&cluster, 0, "ann"), reasons(&cluster, 0, "bea")].concat();
    ensure!(said.iter().all(|reason| reason == "membership_unseen") && said.len() >= 2, "{said:?}");
    ensure!(!cluster.log().contains("permission denied to set role"));
    // Refused by nothing once all is as it should be.
    let refused = told(&login(&cluster, "ann", &["auditor"]).options("-c role=writer"))?;
    assert_eq!(refused.code, "42501");
    calm(&cluster, &[])
}
