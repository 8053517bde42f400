//! What newer versions of PostgreSQL add. On older ones the tests look at what these have instead.
//!
//! 1. 17 and later log `connection authenticated: … method=trust` before a token is asked for: on token lines that
//!    record is dropped, for good tokens and bad ones; on other lines, and for other methods, core's records stay.
//! 2. `n141` 16 and later: lines of a file that the guarded file includes work, but for its `trust` lines: they are
//!    refused, no question asked. 15 does not know `include`.
//! 3. `n101` 16 and later: a role counts as privileged if it has a privileged role by SET, by INHERIT or by ADMIN alone,
//!    directly or through others; a grant without any of them gives nothing and is no reason.
//! 4. There is one record of who was authenticated, ours, in all versions; a refused login has none.
//! 5. 16 and later: `system_user` is `password:` and the identity, for jobs and people, in parallel workers too.
//! 6. 16 and later: a person's role may take on what rules give and inherits nothing of it; it inherits of the base role
//!    and does not take it on.
//! 7. 17 and later: login event triggers run as the role of the session, with what it knows of its token; none runs for
//!    a login that is refused, and one that fails ends the login.

use std::fs;

use anyhow::{Result, ensure};
use pg_oidc_test::cluster::{Cluster, GUARDED_FILE};
use pg_oidc_test::keys::keys;
use pg_oidc_test::psql::{Login, Way};
use pg_oidc_test::skip;
use pg_oidc_test::token::Token;
use pg_oidc_test::wire::{ASKED, Heard, Wire};
use serde_json::json;

use crate::stage::{
    accepted, admit, builder, calm, core_refuses, forced_parallel, furnished, good, lets_in, line, reasons,
    refuses, token,
};
use crate::upgrades::{comes, furnish, open, person, token as token_of};

/// How core's record of an authenticated connection begins.
const AUTHENTICATED: &str = "connection authenticated: ";

#[test]
fn nobody_is_authenticated_by_trust() -> Result<()> {
    let builder = builder()?.setting("log_connections", "on");
    let builder = builder.guarded("hostssl all scrammed 127.0.0.1/32 scram-sha-256");
    let cluster = furnished(builder, &["guest"])?;
    cluster.admin("CREATE ROLE scrammed LOGIN PASSWORD 'secret'")?;
    let mark = cluster.log_mark();
    lets_in(&cluster, &good(&cluster, "guest"), "guest")?;
    refuses(&cluster, &cluster.login("guest").password("x"), "guest", "token_malformed")?;
    let (_, asked) = Wire::begin(&cluster, Way::Tls, "guest")?;
    assert_eq!(asked, ASKED);
    let log = cluster.log_since(mark);
    ensure!(log.contains("connection authorized: user=guest"), "{log}");
    ensure!(!log.contains("method=trust"), "{log}");
    // Core's own records of other methods stay.
    let mark = cluster.log_mark();
    let scrammed = cluster.login("scrammed").password("secret").run("SELECT current_user")?;
    assert_eq!(scrammed.rows(), [["scrammed"]]);
    let record = format!("{AUTHENTICATED}identity=\"scrammed\" method=scram-sha-256");
    ensure!(cluster.log_since(mark).contains(&record), "{}", cluster.log_since(mark));
    // Without the guarded file a trust line is core's, and so is its record.
    cluster.set("pg_oidc.hba_file", "")?;
    cluster.write_native("hostssl all guest 127.0.0.1/32 trust\n")?;
    cluster.restart()?;
    let mark = cluster.log_mark();
    assert_eq!(cluster.login("guest").run("SELECT current_user")?.rows(), [["guest"]]);
    let record = cluster.log_since(mark).contains(&format!("{AUTHENTICATED}user=\"guest\" method=trust"));
    assert_eq!(record, cluster.server().major() >= 17, "{}", cluster.log_since(mark));
    calm(&cluster, &[&token("guest")])
}

#[test]
fn n141_included_lines() -> Result<()> {
    let cluster = furnished(builder()?, &["guest"])?;
    cluster.admin("CREATE ROLE scrammed LOGIN PASSWORD 'secret'")?;
    admit(&cluster, "included")?;
    cluster.write(
        "data/more_hba.conf",
        "hostssl all scrammed 127.0.0.1/32 scram-sha-256\nhostssl all included 127.0.0.1/32 trust\n",
    )?;
    let own = fs::read_to_string(cluster.file(&format!("data/{GUARDED_FILE}")))?;
    cluster.write(&format!("data/{GUARDED_FILE}"), &format!("include more_hba.conf\n{own}"))?;
    let mark = cluster.log_mark();
    cluster.reload()?;
    if cluster.server().major() < 16 {
        // The file is not loaded, and the one before stays.
        cluster.await_log_since(mark, "was not reloaded", crate::stage::SOON)?;
        return lets_in(&cluster, &good(&cluster, "included"), "included");
    }
    let scrammed = || cluster.login("scrammed");
    assert_eq!(scrammed().password("secret").run("SELECT current_user")?.rows(), [["scrammed"]]);
    let failed = "password authentication failed for user \"scrammed\"";
    core_refuses(&cluster, &scrammed().password("wrong"), "scrammed", failed)?;
    let mark = cluster.log_mark();
    let (mut wire, first) = Wire::begin(&cluster, Way::Tls, "included")?;
    let Heard::Error(refused) = first else { anyhow::bail!("{first:?} instead of a refusal") };
    assert_eq!(refused.field('M'), line("included"));
    assert_eq!(wire.hear_all()?, []);
    assert_eq!(reasons(&cluster, mark, "included").len(), 1);
    assert_eq!(accepted(&cluster, mark, "included"), 0);
    // The guarded file's own token line, further down, is asked as ever.
    lets_in(&cluster, &good(&cluster, "guest"), "guest")?;
    calm(&cluster, &[&token("included"), &token("guest")])
}

#[test]
fn n101_memberships_with_one_option() -> Result<()> {
    let cluster = furnished(builder()?, &[])?;
    if cluster.server().major() < 16 {
        skip("before 16 a membership has no options but ADMIN");
        return Ok(());
    }
    cluster.admin("CREATE ROLE powers CREATEROLE; CREATE ROLE between")?;
    cluster.admin("GRANT powers TO between WITH ADMIN TRUE, INHERIT FALSE, SET FALSE")?;
    let none = "ADMIN FALSE, INHERIT FALSE, SET FALSE";
    for option in ["ADMIN", "INHERIT", "SET"] {
        for parent in ["powers", "between"] {
            let role = format!("{}_{parent}", option.to_lowercase());
            admit(&cluster, &role)?;
            cluster.admin(&format!("GRANT {parent} TO {role} WITH {none}"))?;
            lets_in(&cluster, &good(&cluster, &role), &role)?;
            cluster.admin(&format!("GRANT {parent} TO {role} WITH {option} TRUE"))?;
            refuses(&cluster, &good(&cluster, &role), &role, "role_privileged")?;
        }
    }
    // Of two grants of the same role, one is enough.
    admit(&cluster, "twice")?;
    cluster.admin("CREATE ROLE other SUPERUSER")?;
    cluster.admin(&format!("GRANT powers TO twice WITH {none}"))?;
    lets_in(&cluster, &good(&cluster, "twice"), "twice")?;
    cluster.admin("GRANT powers TO other WITH ADMIN TRUE")?;
    cluster.admin("GRANT powers TO twice WITH ADMIN FALSE, INHERIT FALSE, SET TRUE GRANTED BY other")?;
    refuses(&cluster, &good(&cluster, "twice"), "twice", "role_privileged")?;
    calm(&cluster, &[])
}

/// A cluster with people and jobs, and these settings.
fn peopled(settings: &[(&str, &str)]) -> Result<Cluster> {
    let builder = settings
        .iter()
        .try_fold(builder()?, |builder, (name, value)| anyhow::Ok(builder.setting(name, value)))?;
    let cluster = builder.start()?;
    furnish(&cluster)?;
    Ok(cluster)
}

#[test]
fn one_record_of_who_was_authenticated() -> Result<()> {
    let cluster = peopled(&[("log_connections", "on")])?;
    let records = |mark: usize, user: &str| -> Vec<String> {
        let log = cluster.log_since(mark);
        let of = format!("{user}@");
        let line = |line: &&str| line.contains(AUTHENTICATED) && line.contains(&of);
        log.lines()
            .filter(line)
            .filter_map(|line| Some(line.split_once(AUTHENTICATED)?.1.to_owned()))
            .collect()
    };
    let guarded = cluster.file(&format!("data/{GUARDED_FILE}")).display().to_string();
    let record = format!("identity=\"alice@corp.example\" method=oidc ({guarded}:2)");
    for (user, role) in [("alice", "analyst"), ("agent", "agent")] {
        let mark = cluster.log_mark();
        let login = person(&cluster, "alice", &["analyst", "agent"]);
        let login = if user == "agent" { as_agent(&cluster, "alice") } else { login };
        assert_eq!(login.run("SELECT current_user")?.rows(), [[role]]);
        assert_eq!(records(mark, user), [record.as_str()], "{}", cluster.log_since(mark));
    }
    let mark = cluster.log_mark();
    refuses(&cluster, &person(&cluster, "alice", &["nobody"]), "alice", "no_rule")?;
    assert_eq!(records(mark, "alice"), [""; 0]);
    calm(&cluster, &[])
}

/// A person's login as the role of jobs, which her groups give her too.
fn as_agent<'a>(cluster: &'a Cluster, name: &str) -> Login<'a> {
    cluster.login("agent").password(token_of(name, &format!("sub-{name}"), &["analyst", "agent"]))
}

#[test]
fn system_user_is_the_identity() -> Result<()> {
    let cluster = peopled(&[])?;
    if cluster.server().major() < 16 {
        skip("before 16 there is no system_user");
        return Ok(());
    }
    let who = "SELECT system_user, session_user, current_user";
    let forced = format!("-c {}=on", forced_parallel(&cluster));
    for (login, user, role) in [
        (person(&cluster, "alice", &["analyst", "agent"]), "alice", "analyst"),
        (as_agent(&cluster, "alice"), "agent", "agent"),
    ] {
        for login in [login.clone(), login.options(&forced)] {
            let seen = login.run(&format!("{who}; SET ROLE NONE; {who}"))?;
            let name = "password:alice@corp.example";
            assert_eq!(seen.rows(), [[name, user, role], [name, user, user]], "{seen:?}");
        }
    }
    // Without a token it is as ever.
    assert_eq!(cluster.admin_value("SELECT system_user LIKE 'peer:%'")?, "t");
    calm(&cluster, &[])
}

#[test]
fn memberships_of_people_have_the_options_that_they_need() -> Result<()> {
    let cluster = peopled(&[])?;
    if cluster.server().major() < 16 {
        skip("before 16 a membership has no options but ADMIN");
        return Ok(());
    }
    cluster.admin("CREATE TABLE of_base (); CREATE TABLE of_analyst (); CREATE TABLE of_writer ()")?;
    for role in ["base", "analyst", "writer"] {
        cluster.admin(&format!("GRANT SELECT ON of_{role} TO {role}"))?;
    }
    comes(&person(&cluster, "alice", &["analyst", "writer"]), "alice", "analyst")?;
    let options = "SELECT roleid::regrole, inherit_option, set_option, admin_option FROM pg_auth_members \
                   WHERE member = 'alice'::regrole ORDER BY roleid::regrole::text";
    assert_eq!(
        cluster.admin(options)?,
        [["analyst", "f", "t", "f"], ["base", "t", "f", "f"], ["writer", "f", "t", "f"]]
    );
    let alice = open(&person(&cluster, "alice", &["analyst", "writer"]))?;
    // In the mapped role it has that one's rights alone.
    alice.rows("TABLE of_analyst")?;
    for other in ["of_writer", "of_base"] {
        assert_eq!(alice.error(&format!("TABLE {other}"))?.code, "42501", "{other}");
    }
    // As herself she has those of the base role, and no other's.
    alice.rows("SET ROLE NONE; TABLE of_base")?;
    for other in ["of_writer", "of_analyst"] {
        assert_eq!(alice.error(&format!("TABLE {other}"))?.code, "42501", "{other}");
    }
    assert_eq!(alice.error("SET ROLE base")?.code, "42501");
    alice.rows("SET ROLE writer; TABLE of_writer")?;
    calm(&cluster, &[])
}

#[test]
fn login_event_triggers_see_the_role() -> Result<()> {
    let cluster = peopled(&[])?;
    if cluster.server().major() < 17 {
        skip("before 17 there are no login event triggers");
        return Ok(());
    }
    cluster.admin(
        "CREATE TABLE seen (id int GENERATED ALWAYS AS IDENTITY, a text, b text, c text, d text); \
         GRANT INSERT ON seen TO PUBLIC; \
         CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF oidc.claim('fails') IS NOT NULL THEN RAISE 'not today'; END IF; \
             INSERT INTO seen (a, b, c, d) \
             VALUES (session_user, current_user, oidc.identity(), oidc.claim('upn')); END $$; \
         CREATE EVENT TRIGGER note ON login EXECUTE FUNCTION note(); \
         ALTER EVENT TRIGGER note ENABLE ALWAYS",
    )?;
    let upn = "alice@corp.example";
    let alice = || person(&cluster, "alice", &["analyst", "writer"]);
    for (login, user, role) in [
        (alice(), "alice", "analyst"),
        (alice().options("-c role=writer"), "alice", "writer"),
        (as_agent(&cluster, "alice"), "agent", "agent"),
    ] {
        cluster.admin("TRUNCATE seen")?;
        assert!(login.run("SELECT 1")?.ok());
        let seen = "SELECT a, b, c, d FROM seen WHERE c IS NOT NULL";
        assert_eq!(cluster.admin(seen)?, [[user, role, upn, upn]]);
    }
    // Sessions without a token are there as such.
    assert_eq!(cluster.admin_value("SELECT count(*) > 0 FROM seen WHERE a = 'postgres' AND c IS NULL")?, "t");
    // Nothing runs for whoever is refused.
    cluster.admin("TRUNCATE seen")?;
    refuses(&cluster, &person(&cluster, "alice", &["nobody"]), "alice", "no_rule")?;
    assert_eq!(cluster.admin_value("SELECT count(*) FROM seen WHERE a <> 'postgres'")?, "0");
    // One that fails ends the login, which was accepted.
    let fails = Token::for_user("sub-alice").claim("upn", json!(upn)).claim("fails", json!(1));
    let seen = alice().password(fails.groups(&["analyst"]).sign(&keys().ec)).run("SELECT 1")?;
    assert_eq!(seen.refusal(), Some("FATAL:  not today"), "{seen:?}");
    comes(&alice(), "alice", "analyst")?;
    calm(&cluster, &[])
}
