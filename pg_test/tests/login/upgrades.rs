//! From one major version to another: pg_upgrade, and libraries that were built for another server.
//!
//! 1. From 15, and from the version before, by pg_upgrade: providers, rules, revocations, people's roles, the ledger of
//!    memberships and the audit are as they were, and every oid in them is that of the role. With the two lines of
//!    configuration in the new cluster, jobs and people log in as before, new people come, and what no rule gives any
//!    more is taken away; whoever was refused before is refused.
//! 2. pg_upgrade goes the same way where both clusters preload the library already.
//! 3. Under binary upgrade the library does nothing: no setting, no worker, no guarded file.
//! 4. A library built for another major version: the server does not start, and names the library; nor is it loaded
//!    later. (Where the dynamic linker finds all that the library asks for, the magic block says which versions they are.)

use anyhow::{Context, Result, anyhow, bail, ensure};
use pg_oidc_test::cluster::{Cluster, GUARDED_FILE, until};
use pg_oidc_test::extension::{Server, beside};
use pg_oidc_test::keys::{jwks, keys};
use pg_oidc_test::psql::Login;
use pg_oidc_test::skip;
use pg_oidc_test::token::{AUDIENCE, ISSUER, Token};
use serde_json::json;

use crate::stage::{SOON, builder, calm, core_refuses, lets_in, refuses};

/// What pg_upgrade must carry over unharmed.
const SAME: [&str; 9] = [
    "SELECT to_jsonb(p)::text FROM oidc.provider p ORDER BY name",
    "SELECT to_jsonb(m)::text FROM oidc.role_mapping m ORDER BY id",
    "SELECT last_value, is_called FROM oidc.role_mapping_id_seq",
    "SELECT to_jsonb(r)::text FROM oidc.revocation r ORDER BY subject",
    "SELECT (to_jsonb(i) - 'last_login')::text FROM oidc.identity_role i ORDER BY role",
    "SELECT to_jsonb(g)::text FROM oidc.granted_membership g ORDER BY member, role",
    "SELECT oid, rolname, rolcanlogin, rolinherit FROM pg_roles WHERE oid >= 16384 ORDER BY oid",
    "SELECT member::regrole, roleid::regrole, admin_option FROM pg_auth_members ORDER BY 1, 2",
    "SELECT id, identity, outcome FROM oidc.audit_log WHERE event = 'login' ORDER BY id",
];

/// Rows whose oid is not that of the role that they name.
const UNTRUE: &str = "SELECT count(*) FROM (\
    SELECT role, role_oid FROM oidc.role_mapping UNION ALL SELECT role, role_oid FROM oidc.identity_role UNION ALL \
    SELECT role, role_oid FROM oidc.granted_membership UNION ALL SELECT member, member_oid FROM oidc.granted_membership\
    ) named WHERE role_oid IS DISTINCT FROM (SELECT oid FROM pg_roles WHERE rolname = role)";

/// Creates the extension, and a provider that makes roles of the identities `…@corp.example`, with the base role
/// `base`. Its rules give the roles `analyst`, `writer` and `agent` to the groups of these names.
pub(crate) fn furnish(cluster: &Cluster) -> Result<()> {
    cluster.admin("CREATE EXTENSION pg_oidc")?;
    cluster.admin("CREATE ROLE analyst; CREATE ROLE writer; CREATE ROLE agent LOGIN; CREATE ROLE base")?;
    let jwks = jwks(&[&keys().ec]);
    cluster.admin(&format!(
        "INSERT INTO oidc.provider (name, issuer, audiences, jwks, identity_claim, groups_claim, identity_pattern, \
                                    identity_role, auto_provision, base_role) \
         VALUES ('corp', '{ISSUER}', '{{{AUDIENCE}}}', '{jwks}', 'upn', 'groups', '^(.*)@corp\\.example$', '\\1', \
                 true, 'base')"
    ))?;
    cluster.admin(
        "INSERT INTO oidc.role_mapping (provider, match, role) \
         SELECT 'corp', jsonb_build_object('groups', r), r FROM unnest('{analyst,writer,agent}'::text[]) r",
    )?;
    Ok(())
}

/// The login of a person as herself, with a token that says she is in these groups.
pub(crate) fn person<'a>(cluster: &'a Cluster, name: &str, groups: &[&str]) -> Login<'a> {
    cluster.login(name).password(token(name, &format!("sub-{name}"), groups))
}

/// The token of a person or a job.
pub(crate) fn token(name: &str, subject: &str, groups: &[&str]) -> String {
    let token = Token::for_user(subject).claim("upn", json!(format!("{name}@corp.example")));
    token.groups(groups).sign(&keys().ec)
}

/// The login of a job as the role `agent`.
fn agent(cluster: &Cluster) -> Login<'_> {
    cluster.login("agent").password(token("job", "sub-job", &["agent"]))
}

/// She comes in, as herself and in this role.
pub(crate) fn comes(login: &Login<'_>, name: &str, role: &str) -> Result<()> {
    let seen = login.run("SELECT session_user, current_user, oidc.identity()")?;
    ensure!(seen.ok(), "{name}: {seen:?}");
    assert_eq!(seen.rows(), [[name, role, &format!("{name}@corp.example")]]);
    Ok(())
}

/// People and jobs that came before the upgrade, one of them revoked since.
fn come(cluster: &Cluster) -> Result<()> {
    // Bound by an administrator; the others are made.
    cluster.admin("CREATE ROLE bound LOGIN NOINHERIT; GRANT writer TO bound")?;
    cluster.admin(
        "INSERT INTO oidc.identity_role (provider, subject, role) VALUES ('corp', 'sub-bound', 'bound')",
    )?;
    comes(&person(cluster, "alice", &["analyst", "writer"]), "alice", "analyst")?;
    comes(&person(cluster, "carol", &["analyst"]), "carol", "analyst")?;
    comes(&person(cluster, "bound", &["writer"]), "bound", "writer")?;
    lets_in(cluster, &agent(cluster), "agent")?;
    cluster.admin("SELECT oidc.revoke('corp', 'sub-carol', 'left')")?;
    refuses(cluster, &person(cluster, "carol", &["analyst"]), "carol", "identity_revoked")?;
    until("every login is in the audit", SOON, || {
        Ok(cluster.admin_value("SELECT count(*) FROM oidc.audit_log WHERE event = 'login'")? == "5")
    })
}

fn snapshot(cluster: &Cluster) -> Result<Vec<Vec<Vec<String>>>> {
    assert_eq!(cluster.admin_value(UNTRUE)?, "0");
    SAME.iter().map(|query| cluster.admin(query)).collect()
}

/// Who could come before can come now, and nobody else.
fn come_again(cluster: &Cluster) -> Result<()> {
    until("the policy is published", SOON, || Ok(agent(cluster).run("SELECT 1")?.ok()))?;
    lets_in(cluster, &agent(cluster), "agent")?;
    let alice = person(cluster, "alice", &["analyst", "writer"]);
    comes(&alice, "alice", "analyst")?;
    assert_eq!(alice.run("SET ROLE writer; SELECT current_user")?.rows(), [["writer"]]);
    comes(&person(cluster, "bound", &["writer"]), "bound", "writer")?;
    comes(&person(cluster, "dora", &["writer"]), "dora", "writer")?;
    // Near misses.
    refuses(cluster, &person(cluster, "carol", &["analyst"]), "carol", "identity_revoked")?;
    let other = cluster.login("alice").password(token("alice", "sub-other", &["analyst"]));
    refuses(cluster, &other, "alice", "identity_mismatch")?;
    refuses(cluster, &person(cluster, "alice", &["nobody"]), "alice", "no_rule")?;
    refuses(cluster, &cluster.login("agent").password("x"), "agent", "token_malformed")?;
    // The ledger knows whose memberships are ours.
    comes(&person(cluster, "alice", &["analyst"]), "alice", "analyst")?;
    let roles = "SELECT string_agg(roleid::regrole::text, ' ' ORDER BY roleid::regrole::text) FROM pg_auth_members WHERE member = ";
    until("what no rule gives any more is taken away", SOON, || {
        let roles = cluster.admin_value(&format!("{roles} 'alice'::regrole"))?;
        Ok(roles.split(' ').all(|role| role != "writer"))
    })?;
    assert_eq!(cluster.admin_value(&format!("{roles} 'bound'::regrole"))?, "base writer");
    // The oid of a rule is that of the role that it was written for.
    cluster.admin("DROP ROLE agent; CREATE ROLE agent LOGIN")?;
    refuses(cluster, &agent(cluster), "agent", "role_replaced")?;
    calm(cluster, &[&token("alice", "sub-alice", &["analyst"])])
}

/// Takes out what the minor releases of November 2026 note of every column, and earlier ones of the same majors do not
/// read: the machine's server may be a newer minor release than the fetched one, which pg_upgrade does not allow.
fn unmark(cluster: &Cluster) -> Result<()> {
    for database in ["postgres", "template1"] {
        cluster.admin_in(
            database,
            "SET allow_system_table_mods = on; \
             UPDATE pg_attribute SET attoptions = NULL WHERE attoptions::text ~ '^{pg_attver=\\d+}$'",
        )?;
    }
    Ok(())
}

/// From `old` to the server that is tested; `early`: the new cluster has the two lines before and not after.
fn upgrade(old: u32, early: bool) -> Result<()> {
    let before = Cluster::builder(Server::of_major(old)?).start()?;
    furnish(&before)?;
    come(&before)?;
    let same = snapshot(&before)?;
    unmark(&before)?;
    before.stop()?;

    let after = if early { builder()?.build()? } else { builder()?.plain().build()? };
    after.upgrade_from(&before).with_context(|| format!("from {old}"))?;
    if !early {
        after.set("shared_preload_libraries", "pg_oidc")?;
        after.set("pg_oidc.hba_file", GUARDED_FILE)?;
    }
    after.start()?;
    for (query, (found, expected)) in SAME.iter().zip(snapshot(&after)?.iter().zip(&same)) {
        assert_eq!(found, expected, "{query}");
    }
    come_again(&after).with_context(|| format!("from {old}"))?;
    // What was inherited of the base role still is, and is for whoever is new. Before 16 nothing was.
    let inherits = |person: &str| {
        let membership = format!("member = '{person}'::regrole AND roleid = 'base'::regrole");
        after.admin_value(&format!("SELECT inherit_option FROM pg_auth_members WHERE {membership}"))
    };
    assert_eq!(inherits("dora")?, "t");
    assert_eq!(inherits("alice")?, if old < 16 { "f" } else { "t" });
    Ok(())
}

#[test]
fn f026_pg_upgrade() -> Result<()> {
    let major = Server::shared()?.major();
    let first = beside(major).into_iter().find(|old| *old < major);
    let Some(old) = first else {
        skip("nothing older is supported");
        return Ok(());
    };
    upgrade(old, false)
}

#[test]
fn f026_pg_upgrade_from_the_version_before_with_the_library_preloaded() -> Result<()> {
    let major = Server::shared()?.major();
    let last = beside(major).into_iter().rfind(|old| *old < major);
    let Some(old) = last else {
        skip("nothing older is supported");
        return Ok(());
    };
    upgrade(old, true)
}

#[test]
fn f026_nothing_is_done_under_binary_upgrade() -> Result<()> {
    let cluster = builder()?.start()?;
    furnish(&cluster)?;
    let guarded = "SELECT current_setting('hba_file') LIKE '%/' || current_setting('pg_oidc.hba_file')";
    let ours = "SELECT count(*) FROM pg_settings WHERE name = 'pg_oidc.wait_timeout'";
    let workers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'pg_oidc%'";
    for (query, value) in [(guarded, "t"), (ours, "1"), (workers, "2")] {
        until(query, SOON, || Ok(cluster.admin_value(query)? == value))?;
    }
    lets_in(&cluster, &agent(&cluster), "agent")?;
    cluster.stop()?;
    let mark = cluster.log_mark();
    cluster.start_with("-b")?;
    for (query, value) in [(guarded, "f"), (ours, "0"), (workers, "0")] {
        assert_eq!(cluster.admin_value(query)?, value, "{query}");
    }
    core_refuses(&cluster, &agent(&cluster), "agent", "password authentication failed")?;
    // The policy can be written as it is restored: with a warning at most, and never a worker's word.
    cluster.admin("UPDATE oidc.role_mapping SET comment = 'restored'")?;
    let log = cluster.log_since(mark);
    ensure!(!log.contains("OIDC"), "{log}");
    cluster.restart()?;
    until("the policy is published", SOON, || Ok(agent(&cluster).run("SELECT 1")?.ok()))?;
    lets_in(&cluster, &agent(&cluster), "agent")?;
    calm(&cluster, &[])
}

#[test]
fn f026_a_library_for_another_version() -> Result<()> {
    let own = Server::shared()?;
    let other = beside(own.major()).into_iter().next().context("no other version")?;
    let foreign = Server::of_major(other)?.library().display().to_string();
    let refused = |text: &str| {
        let magic = format!("incompatible library \"{foreign}\": version mismatch");
        let linker = format!("could not load library \"{foreign}\": ");
        text.contains(&magic) || (text.contains(&linker) && text.contains("undefined symbol"))
    };
    match builder()?.setting("shared_preload_libraries", &foreign).start() {
        Ok(_) => bail!("the server started with {foreign}"),
        Err(error) => {
            let error = format!("{error:#}");
            let fatal = error.lines().any(|line| line.contains("FATAL:  ") && refused(line));
            ensure!(fatal && !error.contains("terminated by signal"), "{error}");
        }
    }
    // Loaded later, and with its own in its place.
    for builder in [builder()?.plain(), builder()?] {
        let cluster = builder.start()?;
        let session = cluster.admin_session()?;
        let told = session.error(&format!("LOAD '{foreign}'"))?;
        ensure!(refused(&told.message), "{told:?}");
        session.rows("CREATE EXTENSION pg_oidc")?;
        calm(&cluster, &[])?;
    }
    Ok(())
}

/// A session of this login, which must be admitted.
pub(crate) fn open(login: &Login<'_>) -> Result<pg_oidc_test::client::Session> {
    login.connect()?.map_err(|told| anyhow!("{told:?}"))
}
