//! What the tests of the door, the board and the faults stand on: a policy, good tokens, the log by login.

use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use pg_oidc_test::cluster::{Builder, Cluster};
use pg_oidc_test::door::Door;
use pg_oidc_test::extension::Server;
use pg_oidc_test::keys::{jwks, keys};
use pg_oidc_test::psql::Login;
use pg_oidc_test::token::{AUDIENCE, ISSUER, Token};

/// Long enough for anything that is to happen soon, on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A cluster of the server with the extension.
pub(crate) fn builder() -> Result<Builder> {
    Ok(Cluster::builder(Server::shared()?))
}

/// A cluster that the tests of one file share.
pub(crate) type Shared = LazyLock<Result<Cluster, String>>;

/// Makes a shared cluster.
pub(crate) fn share(make: fn() -> Result<Cluster>) -> Result<Cluster, String> {
    make().map_err(|error| format!("{error:#}"))
}

/// The shared cluster.
pub(crate) fn shared(cluster: &'static Shared) -> Result<&'static Cluster> {
    cluster.as_ref().map_err(|error| anyhow!("{error}"))
}

/// Creates the extension, and the provider `test` with one ES256 key and no request to anywhere.
pub(crate) fn install(cluster: &Cluster) -> Result<()> {
    install_in(cluster, "postgres")
}

/// As [`install`], in another database.
pub(crate) fn install_in(cluster: &Cluster, database: &str) -> Result<()> {
    cluster.admin_in(database, "CREATE EXTENSION pg_oidc")?;
    let jwks = jwks(&[&keys().ec]);
    let row = format!("'test', '{ISSUER}', '{{{AUDIENCE}}}', '{jwks}'");
    let insert = format!("INSERT INTO oidc.provider (name, issuer, audiences, jwks) VALUES ({row})");
    cluster.admin_in(database, &insert).map(drop)
}

/// Writes the rule that gives a role to whoever is in the group of the same name.
pub(crate) fn rule(cluster: &Cluster, role: &str) -> Result<()> {
    rule_in(cluster, "postgres", role)
}

/// As [`rule`], in another database.
pub(crate) fn rule_in(cluster: &Cluster, database: &str, role: &str) -> Result<()> {
    let row = format!("'test', '{{\"groups\": \"{role}\"}}', '{role}'");
    let insert = format!("INSERT INTO oidc.role_mapping (provider, match, role) VALUES ({row})");
    cluster.admin_in(database, &insert).map(drop)
}

/// Makes a role and its rule.
pub(crate) fn admit(cluster: &Cluster, role: &str) -> Result<()> {
    cluster.admin(&format!("CREATE ROLE {role} LOGIN"))?;
    rule(cluster, role)
}

/// A cluster with the policy and these roles, started.
pub(crate) fn furnished(builder: Builder, roles: &[&str]) -> Result<Cluster> {
    let cluster = builder.start()?;
    install(&cluster)?;
    for role in roles {
        admit(&cluster, role)?;
    }
    Ok(cluster)
}

/// A good token for this role.
pub(crate) fn token(role: &str) -> String {
    Token::for_user("job").groups(&[role]).sign(&keys().ec)
}

/// A login over TLS as this role with a good token for it.
pub(crate) fn good<'a>(cluster: &'a Cluster, role: &str) -> Login<'a> {
    cluster.login(role).password(token(role))
}

/// The setting that has a parallel worker run what it can, by its name in this version.
pub(crate) fn forced_parallel(cluster: &Cluster) -> &'static str {
    if cluster.server().major() < 16 { "force_parallel_mode" } else { "debug_parallel_query" }
}

/// The one line that a refused client sees at the door that the tests come by.
pub(crate) fn line(user: &str) -> String {
    Door::chosen().unwrap_or(Door::Password).refusal(user)
}

/// The reasons for which this user's logins were refused since the mark, in order.
pub(crate) fn reasons(cluster: &Cluster, mark: usize, user: &str) -> Vec<String> {
    let log = cluster.log_since(mark);
    let named = format!("user={user:?}");
    let refused = log.lines().filter(|line| line.contains(&named));
    let reason =
        |line: &str| line.split("OIDC login refused: reason=").nth(1)?.split(' ').next().map(str::to_owned);
    refused.filter_map(reason).collect()
}

/// How many logins to this role the log calls accepted since the mark.
pub(crate) fn accepted(cluster: &Cluster, mark: usize, role: &str) -> usize {
    cluster.log_since(mark).matches(&format!("OIDC login accepted: role={role:?}")).count()
}

/// The login succeeds, in this role, by a decision of ours.
pub(crate) fn lets_in(cluster: &Cluster, login: &Login<'_>, role: &str) -> Result<()> {
    let mark = cluster.log_mark();
    let seen = login.run("SELECT session_user, current_user")?;
    ensure!(seen.ok(), "refused: {} for {:?}", seen.stderr, reasons(cluster, mark, role));
    assert_eq!(seen.rows(), [[role, role]]);
    assert_eq!(accepted(cluster, mark, role), 1, "{}", cluster.log_since(mark));
    Ok(())
}

/// The login is refused with the constant line, and the log holds just this reason.
pub(crate) fn refuses(cluster: &Cluster, login: &Login<'_>, user: &str, reason: &str) -> Result<()> {
    let mark = cluster.log_mark();
    let seen = login.run("SELECT 1")?;
    assert_eq!(seen.code, Some(2), "{seen:?}");
    let refusal = seen.refusal().with_context(|| format!("no refusal in {seen:?}"))?;
    assert_eq!(refusal, format!("FATAL:  {}", line(user)));
    assert_eq!(reasons(cluster, mark, user), [reason]);
    Ok(())
}

/// The login is refused with this line of core's, and the door had nothing to do with it.
pub(crate) fn core_refuses(cluster: &Cluster, login: &Login<'_>, user: &str, text: &str) -> Result<()> {
    let mark = cluster.log_mark();
    let seen = login.run("SELECT 1")?;
    assert_eq!(seen.code, Some(2), "{seen:?}");
    let refusal = seen.refusal().with_context(|| format!("no refusal in {seen:?}"))?;
    ensure!(refusal.contains(text), "{refusal:?} instead of {text:?}");
    assert_eq!(reasons(cluster, mark, user), [""; 0]);
    assert_eq!(accepted(cluster, mark, user), 0);
    Ok(())
}

/// No process of the server died, and no piece of a token of 12 characters stands in its log.
pub(crate) fn calm(cluster: &Cluster, tokens: &[&str]) -> Result<()> {
    let log = cluster.log();
    for sign in ["PANIC", "terminated by signal", "crash of another server process", "panicked at"] {
        let line = log.lines().find(|line| line.contains(sign));
        ensure!(line.is_none(), "in the log: {}", line.unwrap_or_default());
    }
    tokens.iter().try_for_each(|token| silent(&log, token))
}

/// No piece of 12 characters of this text stands in the log.
pub(crate) fn silent(log: &str, secret: &str) -> Result<()> {
    for piece in secret.as_bytes().windows(12).map(String::from_utf8_lossy) {
        ensure!(!log.contains(piece.as_ref()), "{piece:?} of a secret is in the log");
    }
    Ok(())
}
