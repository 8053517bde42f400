//! `cargo demo [--keep] [--pg N]`: a token opens a session, from nothing to psql, on real parts.
//!
//! Then a person logs in as herself, her session ends, and she is revoked: [`people`].
//!
//! A private server with the extension, a certified OpenID provider, the real psql. Without `--keep` it ends
//! by itself and leaves nothing behind; with it everything stays up until Enter or Ctrl-C.

#[path = "demo/people.rs"]
mod people;

use std::io::{BufRead, IsTerminal};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use pg_oidc_test::account::{Account, is_root};
use pg_oidc_test::cluster::Cluster;
use pg_oidc_test::extension::{self, SUPERUSER, Server};
use pg_oidc_test::keys::keys;
use pg_oidc_test::postgres::{Choice, Postgres};
use pg_oidc_test::provider::{AUDIENCE, Client, Provider, SECRET};
use pg_oidc_test::psql::Seen;
use pg_oidc_test::terminal::{Step, bold, faint, heading, say};
use pg_oidc_test::token::{Token, tampered};
use pg_oidc_test::{machine, tools};
use serde_json::json;

/// The role that the rule gives.
const ROLE: &str = "analyst";
/// What the rule asks for.
const GROUP: &str = "analytics-read";
/// How long the reason of a refusal may take to appear in the log.
const LOGGED: Duration = Duration::from_secs(5);

/// What the database holds before anybody comes.
const DATA: &[&str] = &[
    "CREATE ROLE analyst LOGIN",
    "CREATE TABLE sales (region text, amount int)",
    "INSERT INTO sales VALUES ('north', 120), ('south', 80), ('north', 45)",
    "CREATE TABLE salaries (name text, amount int)",
    "GRANT SELECT ON sales TO analyst",
];

/// What the guest runs: who am I, something the role may, something it may not.
const SESSION: &[&str] = &[
    "SELECT session_user, current_user, oidc.identity()",
    "SELECT region, sum(amount) FROM sales GROUP BY region",
    "SELECT * FROM salaries",
];

/// Everything that is up while the demo runs. Fields drop in this order.
struct Stage {
    cluster: Cluster,
    provider: Provider,
    _server: Server,
}

fn main() -> ExitCode {
    let asked = Choice::of_arguments(std::env::args().skip(1));
    let walked = match asked {
        Ok((choice, others)) if others.is_empty() => demo(choice, false),
        Ok((choice, others)) if others == ["--keep"] => demo(choice, true),
        _ => {
            eprintln!("usage: cargo demo [--keep] [--pg 15|16|17|18]");
            return ExitCode::from(2);
        }
    };
    match walked {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\n{}", error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": "));
            ExitCode::FAILURE
        }
    }
}

fn demo(choice: Choice, keep: bool) -> Result<()> {
    say(&bold("\npg_oidc: log in to PostgreSQL with an OIDC token as the password"));
    heading("Setting the stage");
    let stage = set_up(choice)?;
    let began = Instant::now();

    heading("One provider, one rule");
    configure(&stage)?;
    heading("A token opens a session");
    let token = good_login(&stage)?;
    heading("What is refused: the client sees one line, the reason is for the server's log");
    refusals(&stage, &token)?;
    people::walk(&stage)?;

    if keep {
        heading("All of it stays up. To paste into another terminal");
        say(&lines_to_paste(&stage, &token)?);
        wait_for_enter();
    }
    let step = Step::begin("Ending the server and the provider, removing their folders");
    drop(stage);
    step.done();
    if !keep {
        say(&faint(&format!("\n  The walk took {:.1} s.\n", began.elapsed().as_secs_f64())));
    }
    Ok(())
}

fn set_up(choice: Choice) -> Result<Stage> {
    machine::prepare(choice)?;
    tools::prepare_pgrx()?;
    tools::prepare_provider()?;
    let postgres = Postgres::find(choice)?;

    let step = Step::begin(format!("Building pg_oidc for PostgreSQL {}, release", postgres.major()));
    let package = extension::build(&postgres, extension::Use::Release, |line| step.note(line))?;
    step.done();

    let step = Step::begin("Copying the server, to put the extension into the copy");
    let server = Server::copy(&postgres, Some(&package))?;
    step.done();

    let step = Step::begin("Starting an OpenID provider (oidc-provider, certified)");
    let groups = |group: &str| json!({ "groups": [group] });
    let provider = Provider::builder()
        .client(Client::new("report-job").algorithm("ES256").claims(groups(GROUP)))
        .client(Client::new("late-job").claims(groups(GROUP)).age(7200))
        .client(Client::new("billing-job").claims(groups(GROUP)).audience("https://billing.example"))
        .client(Client::new("guest-job").claims(groups("visitors")))
        .client(Client::new(people::PERSON).claims(groups(people::PEOPLE)))
        .start()?;
    step.done_with(provider.issuer());

    let account = Account::unprivileged()?;
    let step = Step::begin(format!("Starting PostgreSQL {} as user {}", postgres.version(), account.name()));
    let cluster = Cluster::builder(&server).start()?;
    step.done_with(&format!("127.0.0.1:{}", cluster.port()));
    Ok(Stage { cluster, provider, _server: server })
}

fn configure(stage: &Stage) -> Result<()> {
    stage.cluster.admin(&(DATA.join(";\n") + ";"))?;
    let issuer = stage.provider.issuer();
    let policy = [
        "CREATE EXTENSION pg_oidc".to_owned(),
        format!(
            "INSERT INTO oidc.provider (name, issuer, audiences)\n\
             VALUES ('demo', '{issuer}', '{{{AUDIENCE}}}')"
        ),
        format!(
            "INSERT INTO oidc.role_mapping (provider, match, role)\n\
             VALUES ('demo', '{{\"groups\": \"{GROUP}\"}}', '{ROLE}')"
        ),
    ];
    for statement in policy {
        say(&indented(&format!("{statement};")));
        stage.cluster.admin(&statement)?;
    }
    Ok(())
}

fn good_login(stage: &Stage) -> Result<String> {
    let token = stage.provider.token("report-job")?;
    say(&format!(
        "  report-job got a token from the provider by client credentials: {}",
        faint(&short(&token))
    ));
    let port = stage.cluster.port();
    say(&faint(&format!(
        "  $ PGPASSWORD=$TOKEN psql 'host=127.0.0.1 port={port} user={ROLE} dbname=postgres sslmode=verify-full'"
    )));
    let seen = stage.cluster.login(ROLE).password(&token).show(SESSION)?;
    show(SESSION, &seen);
    let refused_query = seen.stderr.contains("permission denied for table salaries");
    ensure!(seen.stdout.contains("report-job") && refused_query, "this was not to be: {seen:?}");
    Ok(token)
}

/// Statements with their answers; the error belongs to the first that has none.
fn show(statements: &[&str], seen: &Seen) {
    let mut answers = seen.stdout.split("\n\n").map(str::trim_end).filter(|answer| !answer.is_empty());
    for statement in statements {
        say(&indented(&format!("\n{} {statement};", faint("=>"))));
        match answers.next() {
            Some(answer) => say(&indented(answer)),
            None => say(&indented(seen.stderr.trim())),
        }
    }
}

/// What is tried, and the password for it.
fn attempts(stage: &Stage, token: &str) -> Result<Vec<(&'static str, String)>> {
    let provider = &stage.provider;
    let more = tampered(token, |claims| {
        claims.insert("sub".to_owned(), json!("the-boss"));
    });
    let forged = Token::for_user("report-job").issuer(provider.issuer()).audience(AUDIENCE).groups(&[GROUP]);
    let stranger = Token::for_user("report-job").audience(AUDIENCE).groups(&[GROUP]);
    Ok(vec![
        ("a token that expired an hour ago", provider.token("late-job")?),
        ("a token for another audience", provider.token("billing-job")?),
        ("a token whose claims were changed", more),
        ("a good token that no rule matches", provider.token("guest-job")?),
        ("a token signed with one's own key", forged.sign(&keys().ec)),
        ("a token of an unknown issuer", stranger.sign(&keys().rsa)),
        ("an ordinary password", "correct horse battery staple".to_owned()),
    ])
}

fn refusals(stage: &Stage, token: &str) -> Result<()> {
    let mut rows = vec![["tried", "the client saw", "reason in the log"].map(str::to_owned)];
    for (tried, password) in attempts(stage, token)? {
        let mark = stage.cluster.log_mark();
        let seen = stage.cluster.login(ROLE).password(password).run("SELECT 1")?;
        let Some(refusal) = seen.refusal() else { bail!("{tried} was not refused: {seen:?}") };
        let line = stage.cluster.await_log_since(mark, "OIDC login refused", LOGGED)?;
        let refusal = refusal.trim_start_matches("FATAL:").trim();
        rows.push([tried.to_owned(), refusal.to_owned(), reason(&line)?.to_owned()]);
    }
    let width = |column: usize| rows.iter().map(|row| row.get(column).map_or(0, String::len)).max();
    let widths = [0, 1, 2].map(|column| width(column).unwrap_or(0));
    for (number, [tried, saw, reason]) in rows.iter().enumerate() {
        let [first, second, third] = widths;
        let line = format!("  {tried:<first$}   {saw:<second$}   {reason}");
        say(&if number == 0 { faint(line.trim_end()) } else { line });
        if number == 0 {
            let rule = |width| "─".repeat(width);
            say(&faint(&format!("  {}   {}   {}", rule(first), rule(second), rule(third))));
        }
    }
    Ok(())
}

/// The reason code in a log line.
fn reason(line: &str) -> Result<&str> {
    let (_, rest) = line.split_once("reason=").with_context(|| format!("no reason in {line}"))?;
    let rest = rest.trim_start_matches('"');
    Ok(rest.split(|mark: char| !mark.is_ascii_alphanumeric() && mark != '_').next().unwrap_or(rest))
}

fn lines_to_paste(stage: &Stage, token: &str) -> Result<String> {
    let (cluster, provider) = (&stage.cluster, &stage.provider);
    let (port, folder) = (cluster.port(), cluster.folder().display());
    let authority = cluster.file("ca.pem");
    let account = Account::unprivileged()?.name();
    let as_account = if is_root() { format!("runuser -u {account} -- ") } else { String::new() };
    Ok(format!(
        "\n  # the token that was just used, good for an hour\n  export PGPASSWORD={token}\n\
         \n  # or a fresh one\n  export PGPASSWORD=$(curl -s -u report-job:{SECRET} -d grant_type=client_credentials {}/token | cut -d '\"' -f 4)\n\
         \n  # log in with it\n  psql 'host=127.0.0.1 port={port} user={ROLE} dbname=postgres sslmode=verify-full sslrootcert={}'\n\
         \n  # the administrator\n  {as_account}psql -h {folder} -p {port} -U {SUPERUSER} postgres\n\
         \n  # the server's log\n  tail -f {folder}/server.log\n",
        provider.issuer(),
        authority.display(),
    ))
}

/// Waits for Enter; where nobody can press it, until we are ended.
fn wait_for_enter() {
    say("  Enter or Ctrl-C ends it and removes everything.\n");
    let read = std::io::stdin().lock().read_line(&mut String::new());
    while read.as_ref().is_ok_and(|&bytes| bytes == 0) && !std::io::stdin().is_terminal() {
        std::thread::park();
    }
}

fn short(token: &str) -> String {
    format!("{}… ({} bytes)", token.chars().take(24).collect::<String>(), token.len())
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}").trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}
