//! Other libraries that are loaded beside ours, well-behaved and not.
//!
//! 1. `n125` A library that chains as it should is called once for each login, before or after ours in the
//!    list, and an error that it raises refuses the login and nothing more.
//! 2. `n125` auth_delay delays what core refuses, and tokens work.
//! 3. `n133` A library whose hook does not call the previous one, loaded before or after ours: ours is the
//!    outermost, so nothing changes.
//! 4. `n133` One that puts itself over ours: nobody comes in over a token line, with a good token neither.
//!    (Ours is never called then; the lock on session_authorization refuses.)
//! 5. `n132` A library with hooks for passwords and utility statements: where it chains it is called as ever, and
//!    whether it chains or not a token session sets no password and no settings of roles.

use std::process::Command;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use pg_oidc_test::cluster::Cluster;
use pg_oidc_test::postgres::Postgres;
use pg_oidc_test::program;
use pg_oidc_test::psql::Way;
use pg_oidc_test::scratch::Scratch;
use pg_oidc_test::wire::{Heard, OK, Wire};

use crate::stage::{
    accepted, admit, builder, calm, core_refuses, furnished, good, lets_in, line, reasons, refuses, token,
};

const SWALLOW: Source = ("swallow", include_str!("libraries/swallow.c"));
pub(crate) const LAST: Source = ("last", include_str!("libraries/last.c"));
const HABITS: Source = ("habits", include_str!("libraries/habits.c"));
const ALONE: Source = ("alone", concat!("#define ALONE\n", include_str!("libraries/habits.c")));
const CHAIN: Source = ("chain", include_str!("libraries/chain.c"));

/// A test library: its name, its source in C.
pub(crate) type Source = (&'static str, &'static str);

/// Compiles a test library and gives its path without the ending, as shared_preload_libraries takes it.
pub(crate) fn library((name, source): Source) -> Result<String> {
    static FOLDER: LazyLock<Result<Scratch, String>> =
        LazyLock::new(|| Scratch::new().map_err(|error| format!("{error:#}")));
    let folder = FOLDER.as_ref().map_err(|error| anyhow!("{error}"))?.path();
    let headers = Postgres::chosen()?.folder("--includedir-server")?;
    let library = folder.join(name);
    let mut gcc = Command::new("gcc");
    gcc.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-I"]).arg(headers);
    gcc.arg("-o").arg(library.with_extension("so")).args(["-x", "c", "-"]);
    let output = program::fed(&mut gcc, source)?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(library.display().to_string())
}

/// A furnished cluster with these libraries, and a user with a stored password on a line of her own.
fn with_libraries(libraries: &str) -> Result<Cluster> {
    let builder = builder()?.setting("shared_preload_libraries", libraries);
    let builder = builder.guarded("hostssl all scrammed 127.0.0.1/32 scram-sha-256");
    let cluster = furnished(builder, &["guest"])?;
    cluster.admin("CREATE ROLE scrammed LOGIN PASSWORD 'secret'")?;
    Ok(cluster)
}

/// How often a library's hook has spoken of this user since the mark.
fn calls(cluster: &Cluster, mark: usize, hook: &str, user: &str) -> usize {
    cluster.log_since(mark).matches(&format!("LOG:  {hook}: user {user}, status")).count()
}

#[test]
fn n125_a_library_that_chains() -> Result<()> {
    let chain = library(CHAIN)?;
    for libraries in [format!("pg_oidc,{chain}"), format!("{chain},pg_oidc")] {
        let cluster = with_libraries(&libraries)?;
        let once = |user: &str, run: &dyn Fn() -> Result<()>| -> Result<()> {
            let mark = cluster.log_mark();
            run()?;
            assert_eq!(calls(&cluster, mark, "chain", user), 1, "{libraries}: {}", cluster.log_since(mark));
            Ok(())
        };
        once("guest", &|| lets_in(&cluster, &good(&cluster, "guest"), "guest"))?;
        once("guest", &|| {
            refuses(&cluster, &cluster.login("guest").password("x"), "guest", "token_malformed")
        })?;
        let scrammed = || cluster.login("scrammed");
        once("scrammed", &|| {
            assert_eq!(scrammed().password("secret").run("SELECT current_user")?.rows(), [["scrammed"]]);
            Ok(())
        })?;
        let failed = "password authentication failed";
        once("scrammed", &|| core_refuses(&cluster, &scrammed().password("wrong"), "scrammed", failed))?;

        // Its own refusal goes first: nothing is asked, and the server lives on.
        admit(&cluster, "unwanted")?;
        once("unwanted", &|| {
            let (mut wire, first) = Wire::begin(&cluster, Way::Tls, "unwanted")?;
            let Heard::Error(refused) = first else { anyhow::bail!("{first:?}") };
            assert_eq!(refused.field('M'), "the neighbour refuses \"unwanted\"");
            assert_eq!((refused.field('S').as_str(), refused.field('C').as_str()), ("FATAL", "28000"));
            assert_eq!(wire.hear_all()?, []);
            Ok(())
        })?;
        assert_eq!(accepted(&cluster, 0, "unwanted"), 0);
        lets_in(&cluster, &good(&cluster, "guest"), "guest")?;
        calm(&cluster, &[&token("guest")])?;
    }
    Ok(())
}

#[test]
fn n125_auth_delay() -> Result<()> {
    let delay = Duration::from_millis(700);
    let builder = builder()?.setting("shared_preload_libraries", "pg_oidc,auth_delay");
    let builder = builder.setting("auth_delay.milliseconds", &delay.as_millis().to_string());
    let cluster = furnished(builder.guarded("hostssl all scrammed 127.0.0.1/32 scram-sha-256"), &["guest"])?;
    cluster.admin("CREATE ROLE scrammed LOGIN PASSWORD 'secret'")?;
    lets_in(&cluster, &good(&cluster, "guest"), "guest")?;
    refuses(&cluster, &cluster.login("guest").password("x"), "guest", "token_malformed")?;
    let began = Instant::now();
    let wrong = cluster.login("scrammed").password("wrong");
    core_refuses(&cluster, &wrong, "scrammed", "password authentication failed")?;
    ensure!(began.elapsed() >= delay, "its hook was not called");
    calm(&cluster, &[])
}

#[test]
fn n133_a_library_that_calls_nobody() -> Result<()> {
    let swallow = library(SWALLOW)?;
    for libraries in [format!("pg_oidc,{swallow}"), format!("{swallow},pg_oidc")] {
        let cluster = with_libraries(&libraries)?;
        let mark = cluster.log_mark();
        for password in ["", "x"] {
            let Heard::Error(refused) = Wire::log_in(&cluster, Way::Tls, "guest", password)? else {
                anyhow::bail!("{libraries}: in with {password:?}")
            };
            assert_eq!(refused.field('M'), line("guest"));
        }
        assert_eq!(reasons(&cluster, mark, "guest"), ["password_empty", "token_malformed"], "{libraries}");
        assert_eq!(calls(&cluster, mark, "swallow", "guest"), 2, "it is there, and called");
        lets_in(&cluster, &good(&cluster, "guest"), "guest")?;
        calm(&cluster, &[&token("guest")])?;
    }
    Ok(())
}

#[test]
fn n133_a_library_that_comes_last() -> Result<()> {
    let last = library(LAST)?;
    let cluster = with_libraries(&format!("pg_oidc,{last}"))?;
    // Whoever comes, with whatever in hand: our hook is never called, nothing is asked, nobody is let in.
    for user in ["guest", "nobody_at_all", "postgres"] {
        let mark = cluster.log_mark();
        let (mut wire, first) = Wire::begin(&cluster, Way::Tls, user)?;
        assert_eq!(first, OK, "core's own method was trust");
        let Heard::Error(refused) = wire.outcome()? else { anyhow::bail!("{user} is in without a token") };
        if user != "nobody_at_all" {
            assert_eq!((refused.field('M'), refused.field('C')), (line(user), "28000".into()));
            cluster.await_log_since(mark, "reason=door_bypassed", Duration::from_secs(5))?;
        }
        assert_eq!(calls(&cluster, mark, "last", user), 1);
    }
    let mark = cluster.log_mark();
    let seen = good(&cluster, "guest").run("SELECT 1")?;
    assert_eq!((seen.code, seen.refusal()), (Some(2), Some(format!("FATAL:  {}", line("guest")).as_str())));
    cluster.await_log_since(mark, "reason=door_bypassed", Duration::from_secs(5))?;
    assert_eq!(accepted(&cluster, 0, "guest"), 0);
    // Other lines are core's own business, and the superuser's way in stays open.
    let scrammed = cluster.login("scrammed");
    assert_eq!(scrammed.password("secret").run("SELECT current_user")?.rows(), [["scrammed"]]);
    calm(&cluster, &[&token("guest")])?;

    // The other way round, ours is the last one again.
    let cluster = with_libraries(&format!("{last},pg_oidc"))?;
    refuses(&cluster, &cluster.login("guest").password("x"), "guest", "token_malformed")?;
    lets_in(&cluster, &good(&cluster, "guest"), "guest")?;
    calm(&cluster, &[&token("guest")])
}

#[test]
fn n132_hooks_of_others_for_passwords_and_statements() -> Result<()> {
    for source in [HABITS, ALONE] {
        let habits = library(source)?;
        for libraries in [format!("pg_oidc,{habits}"), format!("{habits},pg_oidc")] {
            let cluster = with_libraries(&libraries)?;
            let told = |mark: usize, what: &str| cluster.log_since(mark).matches(what).count();
            let mark = cluster.log_mark();
            cluster
                .admin("ALTER ROLE scrammed PASSWORD 'secret'; ALTER ROLE scrammed SET work_mem = '1MB'")?;
            assert_eq!(
                (told(mark, "habits: password"), told(mark, "habits: utility")),
                (1, 1),
                "{libraries}"
            );

            let guest =
                good(&cluster, "guest").connect()?.map_err(|told| anyhow!("{libraries}: {told:?}"))?;
            for sql in ["ALTER ROLE guest PASSWORD 'secret'", "ALTER ROLE guest SET work_mem = '1MB'"] {
                let error = guest.error(sql)?;
                ensure!(error.code == "42501" && error.message.contains("OIDC"), "{libraries}: {error:?}");
            }
            // It is asked about what is not refused, by us or by it.
            let mark = cluster.log_mark();
            guest.rows("LISTEN habits")?;
            assert_eq!(told(mark, "habits: utility"), 1, "{libraries}");
            let stored = "SELECT a.rolpassword IS NULL AND r.rolconfig IS NULL FROM pg_authid a \
                          JOIN pg_roles r USING (oid) WHERE a.rolname = 'guest'";
            assert_eq!(cluster.admin_value(stored)?, "t", "{libraries}");
            calm(&cluster, &[&token("guest")])?;
        }
    }
    Ok(())
}
