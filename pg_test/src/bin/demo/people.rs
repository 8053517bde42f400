//! A person in the demo: she comes for the first time, her session ends, she is revoked, and the audit has all of it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pg_oidc_test::cluster::until;
use pg_oidc_test::extension::SUPERUSER;
use pg_oidc_test::psql::{Seen, Way};
use pg_oidc_test::terminal::{Step, faint, heading, say};

use super::{LOGGED, ROLE, Stage, indented, reason, show};

/// Who she is, to the provider and to the database.
pub(super) const PERSON: &str = "ann";
/// The group of people.
pub(super) const PEOPLE: &str = "people";
/// How long the rule lets a session of hers live.
const LIMIT: &str = "3 s";
/// How long anything may take that is awaited here.
const PATIENCE: Duration = Duration::from_secs(20);

/// What she runs: who am I, something that the role may, something it may not.
const SESSION: &[&str] = &[
    "SELECT session_user, current_user, oidc.identity()",
    "SELECT sum(amount) FROM sales",
    "SELECT * FROM salaries",
];
const MADE: &str = "SELECT rolname, rolcanlogin, rolinherit, g.role AS member_of, i.provider, i.subject\n\
                    FROM pg_roles r JOIN oidc.identity_role i ON i.role = rolname\n\
                    JOIN oidc.granted_membership g ON g.member = rolname";
const TRAIL: &str = "SELECT to_char(\"time\", 'HH24:MI:SS') AS at, event, outcome, reason, role, \"session_user\" AS by\n\
                     FROM oidc.audit_log WHERE subject = 'ann' OR after->>'member' = 'ann' ORDER BY id";

/// The whole walk of hers.
pub(super) fn walk(stage: &Stage) -> Result<()> {
    heading("A person logs in as herself, for the first time");
    let policy = [
        "UPDATE oidc.provider\nSET identity_pattern = '([a-z]+)', identity_role = '\\1', auto_provision = true".to_owned(),
        format!(
            "INSERT INTO oidc.role_mapping (provider, match, role, session_limit)\n\
             VALUES ('demo', '{{\"groups\": \"{PEOPLE}\"}}', '{ROLE}', '{LIMIT}')"
        ),
    ];
    for statement in policy {
        say(&indented(&format!("{statement};")));
        stage.cluster.admin(&statement)?;
    }
    let roles =
        stage.cluster.admin_value(&format!("SELECT count(*) FROM pg_roles WHERE rolname = '{PERSON}'"))?;
    ensure!(roles == "0", "there is a role {PERSON} already");
    say(&format!("\n  There is no role \"{PERSON}\" yet. The password is her token."));
    let port = stage.cluster.port();
    say(&faint(&format!(
        "  $ PGPASSWORD=$TOKEN psql 'host=127.0.0.1 port={port} user={PERSON} dbname=postgres sslmode=verify-full'"
    )));
    let token = stage.provider.token(PERSON)?;
    let seen = stage.cluster.login(PERSON).password(&token).show(SESSION)?;
    show(SESSION, &seen);
    ensure!(seen.stdout.contains(ROLE) && seen.stderr.contains("permission denied for table"), "{seen:?}");
    say("\n  What was made for her, as the administrator sees it:");
    administrator(stage, MADE)?;

    heading("Her session ends when its time is over");
    let step = Step::begin(format!("She sleeps in a session of {LIMIT} at most"));
    let seen = stage.cluster.login(PERSON).password(&token).show(&["SELECT pg_sleep(60)"])?;
    step.done();
    say_last_words(&seen)?;

    heading("She leaves");
    revoke(stage, &token)?;
    heading("What the audit has of her");
    let ended = "SELECT count(*) FROM oidc.audit_log WHERE subject = 'ann' AND reason = 'identity_revoked'";
    until("her events are written", PATIENCE, || Ok(stage.cluster.admin_value(ended)? == "2"))?;
    administrator(stage, TRAIL)
}

/// She is revoked while she is there.
fn revoke(stage: &Stage, token: &str) -> Result<()> {
    let cluster = &stage.cluster;
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| cluster.login(PERSON).password(token).show(&["SELECT pg_sleep(60)"]));
        let live = format!("SELECT count(*) FROM oidc.session WHERE subject = '{PERSON}'");
        until("she is there again", PATIENCE, || Ok(cluster.admin_value(&live)? == "1"))?;
        let began = Instant::now();
        administrator(stage, "SELECT oidc.revoke('demo', 'ann', 'left the company') AS sessions_ended")?;
        let seen = inside.join().map_err(|_| anyhow::anyhow!("the session of the demo panicked"))??;
        say(&format!("\n  She is out after {:.2} s:", began.elapsed().as_secs_f64()));
        say_last_words(&seen)
    })?;
    let mark = cluster.log_mark();
    let seen = cluster.login(PERSON).password(token).run("SELECT 1")?;
    let refusal = seen.refusal().context("she was not refused")?;
    let line = cluster.await_log_since(mark, "OIDC login refused", LOGGED)?;
    say(&format!("\n  Her token is good for an hour yet. She tries it again:\n    {refusal}"));
    say(&format!("  and the server log has the reason: {}", reason(&line)?));
    Ok(())
}

/// A query of the administrator's and its answer, as psql shows them.
fn administrator(stage: &Stage, query: &'static str) -> Result<()> {
    let seen = stage.cluster.login(SUPERUSER).way(Way::Socket).show(&[query])?;
    ensure!(seen.ok(), "{seen:?}");
    show(&[query], &seen);
    Ok(())
}

/// What the server said when it ended the session.
fn say_last_words(seen: &Seen) -> Result<()> {
    let words = seen
        .stderr
        .lines()
        .filter(|line| ["FATAL:", "DETAIL:", "HINT:"].iter().any(|word| line.contains(word)));
    let words: Vec<&str> =
        words.map(|line| line.find("FATAL:").and_then(|at| line.get(at..)).unwrap_or(line)).collect();
    ensure!(words.len() == 3, "the session did not end as it should: {seen:?}");
    say(&indented(&words.join("\n")));
    Ok(())
}
