//! n131: membership is a fact of the whole server, a decision is not. What another token, another database, another
//! address or a later grant gives is refused in this session.
//!
//! 1. two tokens of one person at once, and in two databases
//! 2. grants by hand: those that stood before the login count, with what they lead to; later ones do not
//! 3. another person's role: what was granted to it by us is not lent on
//!    Nor what is being granted at this very moment.
//! 4. parallel queries, functions
//! 5. a superuser's role, with `allow_privileged` and without

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Result, anyhow, ensure};
use pg_oidc_test::psql::Way;
use pg_oidc_test::wire::{Heard, Wire};

use super::{cluster, login, may, may_not, memberships, session, token, told, users};
use crate::scene::admitted;
use crate::stage::refuses;

#[test]
fn n131_two_tokens_of_one_person_at_once() -> Result<()> {
    let cluster = cluster()?;
    let reads = session(cluster, "gerda", &["analyst"])?;
    let writes = session(cluster, "gerda", &["writer"])?;
    assert_eq!(
        (users(&reads)?, users(&writes)?),
        (["gerda".to_owned(), "analyst".to_owned()], ["gerda".to_owned(), "writer".to_owned()])
    );
    // Both are memberships of hers, and each session keeps its own.
    assert_eq!(memberships(cluster, "gerda")?, ["analyst", "writer"]);
    for _ in 0..2 {
        may_not(&reads, "writer")?;
        may_not(&writes, "analyst")?;
        may(&reads, "analyst")?;
        may(&writes, "writer")?;
        for session in [&reads, &writes] {
            may_not(session, "auditor")?;
            session.rows("SET ROLE NONE")?;
        }
    }
    // Nor at the start, however the client asks.
    for option in ["-c role=writer", "-crole=writer", "--role=writer"] {
        let told = told(&login(cluster, "gerda", &["analyst"]).options(option))?;
        ensure!(told.severity == "FATAL" && told.code == "42501", "{option}: {told:?}");
        assert_eq!(told.message, "permission denied to set role \"writer\"");
    }
    Ok(())
}

#[test]
fn n131_two_databases() -> Result<()> {
    let cluster = cluster()?;
    cluster.admin("CREATE DATABASE bounds_other")?;
    cluster.admin("CREATE ROLE only_other; CREATE ROLE only_here; CREATE ROLE only_socket")?;
    cluster.admin(
        "INSERT INTO oidc.role_mapping (provider, match, role, databases, addresses) VALUES \
           ('corp', '{\"groups\": \"where\"}', 'only_other', '{bounds_other}', NULL), \
           ('corp', '{\"groups\": \"where\"}', 'only_here', '{postgres}', NULL), \
           ('corp', '{\"groups\": \"where\"}', 'only_socket', NULL, '{192.0.2.0/24}')",
    )?;
    let groups = ["where", "analyst"];
    let here = session(cluster, "hilda", &groups)?;
    let there = admitted(&login(cluster, "hilda", &groups).database("bounds_other"))?;
    assert_eq!(memberships(cluster, "hilda")?, ["analyst", "only_here", "only_other"]);
    may_not(&here, "only_other")?;
    may_not(&there, "only_here")?;
    may(&here, "only_here")?;
    may(&there, "only_other")?;
    for session in [&here, &there] {
        may_not(session, "only_socket")?;
        may(session, "analyst")?;
    }
    Ok(())
}

#[test]
fn n131_grants_by_hand() -> Result<()> {
    let cluster = cluster()?;
    cluster.admin(
        "CREATE ROLE outer_hand; CREATE ROLE inner_hand; CREATE ROLE later_hand; GRANT inner_hand TO outer_hand; \
         CREATE ROLE inner_analyst; GRANT inner_analyst TO analyst",
    )?;
    drop(session(cluster, "inga", &["analyst"])?);
    cluster.admin("GRANT outer_hand TO inga")?;
    let before = session(cluster, "inga", &["analyst"])?;
    for role in ["outer_hand", "inner_hand", "analyst", "inner_analyst", "inga"] {
        may(&before, role)?;
    }
    // What is granted later is for later sessions.
    cluster.admin("GRANT later_hand TO inga")?;
    may_not(&before, "later_hand")?;
    let after = session(cluster, "inga", &["analyst"])?;
    may(&after, "later_hand")?;
    // A role that a rule gives and that was granted by hand before is hers whatever the token says.
    cluster.admin("GRANT writer TO inga")?;
    let both = session(cluster, "inga", &["analyst", "writer"])?;
    may(&both, "writer")?;
    let without = session(cluster, "inga", &["analyst"])?;
    may(&without, "writer")?;
    may_not(&without, "auditor")?;
    // What another session of hers is given does not come through the roles that she has.
    let _other = session(cluster, "inga", &["analyst", "auditor"])?;
    may_not(&without, "auditor")?;
    may_not(&before, "auditor")?;
    cluster.admin("REVOKE writer FROM inga")?;
    let told = without.error("SET ROLE writer")?;
    assert_eq!(told.code, "42501", "core's own check comes after ours");
    Ok(())
}

#[test]
fn n131_role_of_another_person() -> Result<()> {
    let cluster = cluster()?;
    let jane = session(cluster, "jane", &["auditor"])?;
    let early = session(cluster, "kate", &["analyst"])?;
    jane.rows("SET ROLE NONE")?;
    // In 15 a session may grant the role that it logged in with; from 16 on it takes an administrator.
    if jane.try_rows("GRANT jane TO kate")?.is_err() {
        cluster.admin("GRANT jane TO kate")?;
    }
    may_not(&early, "jane")?;
    may_not(&early, "auditor")?;
    let late = session(cluster, "kate", &["analyst"])?;
    may(&late, "jane")?;
    assert_eq!(users(&late)?, ["kate", "jane"]);
    may_not(&late, "auditor")?;
    // Nor with what she gets afterwards.
    let _more = session(cluster, "jane", &["auditor", "writer"])?;
    may_not(&late, "writer")?;
    late.rows("SET ROLE NONE")?;
    may_not(&late, "auditor")?;
    Ok(())
}

/// A membership is committed a moment before the published policy says that it is ours.
#[test]
fn n131_while_it_is_being_granted() -> Result<()> {
    let cluster = cluster()?;
    let starts_as_writer = |person: &str| -> Result<Heard> {
        let mut wire = Wire::connect(cluster, Way::Tls)?;
        wire.startup(&[("user", person), ("database", "postgres"), ("role", "writer")])?;
        wire.hear()?;
        wire.password(&token(person, &["analyst"]))?;
        wire.outcome()
    };
    let mut tries = 0;
    for round in 0..25 {
        let person = &format!("lisa{round}");
        drop(session(cluster, person, &["analyst"])?);
        let done = AtomicBool::new(false);
        tries += thread::scope(|scope| -> Result<usize> {
            let others: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| -> Result<usize> {
                        let mut tries = 0;
                        while !done.load(Ordering::Relaxed) {
                            match starts_as_writer(person)? {
                                Heard::Error(told) if told.field('C') == "42501" => tries += 1,
                                other => anyhow::bail!("round {round}, try {tries}: {other:?}"),
                            }
                        }
                        Ok(tries)
                    })
                })
                .collect();
            let granted =
                session(cluster, person, &["analyst", "writer"]).and_then(|session| may(&session, "writer"));
            done.store(true, Ordering::Relaxed);
            granted?;
            let tries = others.into_iter().map(|other| other.join().map_err(|_| anyhow!("panicked"))?);
            tries.sum()
        })?;
    }
    ensure!(tries >= 25, "only {tries} tries");
    Ok(())
}

#[test]
fn n131_parallel_queries_and_functions() -> Result<()> {
    let cluster = cluster()?;
    cluster.admin(
        "CREATE TABLE parallel_bound AS SELECT generate_series(1, 20000) AS n; \
         GRANT SELECT ON parallel_bound TO analyst; \
         CREATE FUNCTION become(role text) RETURNS text LANGUAGE sql AS $$ SELECT set_config('role', $1, false) $$; \
         CREATE FUNCTION become_definer(role text) RETURNS text LANGUAGE sql SECURITY DEFINER \
           AS $$ SELECT set_config('role', $1, false) $$; \
         CREATE FUNCTION as_writer() RETURNS text LANGUAGE sql SET role = writer AS $$ SELECT current_user::text $$; \
         CREATE FUNCTION as_analyst() RETURNS text LANGUAGE sql SET role = analyst AS $$ SELECT current_user::text $$",
    )?;
    let session = session(cluster, "lena", &["analyst"])?;
    let _other = self::session(cluster, "lena", &["writer"])?;
    session.rows(
        "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; \
         SET max_parallel_workers_per_gather = 2",
    )?;
    let plan = session.rows("EXPLAIN SELECT count(*) FROM parallel_bound")?;
    ensure!(format!("{plan:?}").contains("Gather"), "{plan:?}");
    let counted = "SELECT count(*), min(current_user), max(oidc.identity()) FROM parallel_bound";
    let expected = ["20000", "analyst", "lena@corp.example"].map(|text| Some(text.to_owned()));
    assert_eq!(session.rows(counted)?, std::slice::from_ref(&expected));
    session.rows("SET ROLE NONE; SET ROLE analyst")?;
    assert_eq!(session.rows(counted)?, [expected]);
    assert_eq!(session.value("SELECT become('analyst')")?.as_deref(), Some("analyst"));
    assert_eq!(session.value("SELECT as_analyst()")?.as_deref(), Some("analyst"));
    for sql in ["SELECT become('writer')", "SELECT as_writer()", "SELECT become_definer('writer')"] {
        let told = session.error(sql)?;
        assert_eq!(told.code, "42501", "{sql}: {told:?}");
    }
    // A definer's rights are not the session's: it may not become anybody there either.
    ensure!(session.error("SELECT become_definer('postgres')").is_ok());
    assert_eq!(users(&session)?, ["lena", "analyst"]);
    Ok(())
}

#[test]
fn n101_privileged_roles_of_a_person() -> Result<()> {
    let cluster = cluster()?;
    cluster.admin("CREATE ROLE mighty SUPERUSER; CREATE ROLE mighty_too SUPERUSER")?;
    cluster.admin(
        "INSERT INTO oidc.role_mapping (provider, match, role, allow_privileged) VALUES \
           ('corp', '{\"groups\": \"mighty\"}', 'mighty', true), ('corp', '{\"groups\": \"mighty_too\"}', 'mighty_too', false)",
    )?;
    refuses(cluster, &login(cluster, "mona", &["mighty_too"]), "mona", "role_privileged")?;
    let may_all = session(cluster, "mona", &["mighty", "analyst"])?;
    may(&may_all, "mighty")?;
    assert_eq!(may_all.value("SHOW is_superuser")?.as_deref(), Some("on"));
    may(&may_all, "analyst")?;
    may_not(&may_all, "writer")?;
    // Her own role is a member of it now, and a token that does not give it lets her in all the same, without it.
    let plain = session(cluster, "mona", &["analyst"])?;
    may_not(&plain, "mighty")?;
    assert_eq!(users(&plain)?, ["mona", "analyst"]);
    // A grant by hand is another matter: then her own role is privileged, and no rule of this login allows it.
    drop((may_all, plain));
    cluster.admin("GRANT mighty_too TO mona")?;
    refuses(cluster, &login(cluster, "mona", &["analyst"]), "mona", "role_privileged")?;
    cluster.admin("REVOKE mighty_too FROM mona")?;
    drop(session(cluster, "mona", &["analyst"])?);
    // Sessions without a token are not bounded.
    let admin = cluster.login("postgres").way(Way::Socket).run("SET ROLE writer; SELECT current_user")?;
    assert_eq!(admin.rows(), [["writer"]]);
    Ok(())
}
