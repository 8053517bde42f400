//! What the tests of tokens, policy and sessions stand on: a server with the extension, roles, providers,
//! rules, and logins with both clients whose outcome is judged by the client's words and by the log.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pg_oidc_test::client::{Session, Told};
use pg_oidc_test::cluster::{Builder, Cluster};
use pg_oidc_test::door::Door;
use pg_oidc_test::extension::Server;
use pg_oidc_test::keys::{jwks, keys};
use pg_oidc_test::psql::Login;
use pg_oidc_test::token::{AUDIENCE, Token};
use serde_json::{Value, json};

/// How long what must come may take on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The line that is refused with, whatever the cause.
pub(crate) fn constant_line(user: &str) -> String {
    crate::stage::line(user)
}

/// A server with the extension in its policy database.
pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
}

/// A refusal as it was seen and logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    /// The code in the server log.
    pub(crate) reason: String,
    /// All that the client was told.
    pub(crate) told: Told,
    /// The whole line of the log.
    pub(crate) line: String,
}

impl Stage {
    /// A server as [`Cluster::builder`] gives it.
    pub(crate) fn start() -> Result<Self> {
        Self::with(|builder| builder)
    }

    /// A server with further settings.
    pub(crate) fn with(change: impl FnOnce(Builder) -> Builder) -> Result<Self> {
        let cluster = change(Cluster::builder(Server::shared()?)).start()?;
        cluster.admin("CREATE EXTENSION pg_oidc")?;
        Ok(Self { cluster })
    }

    /// A session of the superuser in the policy database.
    pub(crate) fn admin(&self) -> Result<Session> {
        self.cluster.admin_session()
    }

    /// A provider named `name` with all first keys of the process, static; its issuer is [`issuer`].
    pub(crate) fn provider(&self, name: &str) -> Result<()> {
        let all = keys();
        self.provider_with(name, &jwks(&[&all.rsa, &all.ec, &all.ed25519]), &[])
    }

    /// A provider with these static keys, and columns given as SQL.
    pub(crate) fn provider_with(&self, name: &str, jwks: &Value, columns: &[(&str, &str)]) -> Result<()> {
        let jwks = text(jwks);
        let mut all = vec![("jwks", jwks.as_str())];
        all.extend(columns);
        self.admin()?.rows(&provider_sql(name, &issuer(name), &all)).map(drop)
    }

    /// A role that may log in, and a rule of `provider` that gives it to whom `claims` match.
    pub(crate) fn role_and_rule(&self, role: &str, provider: &str, claims: &Value) -> Result<()> {
        let admin = self.admin()?;
        admin.rows(&format!("CREATE ROLE \"{role}\" LOGIN"))?;
        admin.rows(&rule_sql(provider, claims, role)).map(drop)
    }

    /// A provider, a role and a rule, all of this name, which match [`good`] tokens of the name.
    pub(crate) fn trio(&self, name: &str) -> Result<()> {
        self.provider(name)?;
        self.role_and_rule(name, name, &json!({ "sub": name }))
    }

    /// A login with this password as this user.
    pub(crate) fn login(&self, user: &str, password: &str) -> Login<'_> {
        self.cluster.login(user).password(password)
    }

    /// A session with this token, which must be admitted.
    pub(crate) fn session(&self, user: &str, token: &str) -> Result<Session> {
        admitted(&self.login(user, token))
    }

    /// Logs in with psql and with tokio-postgres; both must get in, as this user.
    pub(crate) fn accepted(&self, user: &str, token: &str, about: impl Display) -> Result<()> {
        let seen = self.login(user, token).run("SELECT session_user, current_user")?;
        ensure!(seen.ok() && seen.rows() == [[user, user]], "{about}: psql saw {seen:?}");
        let session = self.session(user, token).with_context(|| about.to_string())?;
        let rows = session.rows("SELECT session_user, current_user")?;
        ensure!(rows == [[Some(user.to_owned()), Some(user.to_owned())]], "{about}: {rows:?}");
        Ok(())
    }

    /// Tries this login with tokio-postgres, which must be refused, and gives what it was told and the reason.
    pub(crate) fn refusal(&self, login: &Login<'_>, user: &str, about: impl Display) -> Result<Refused> {
        let mark = self.cluster.log_mark();
        let told = match login.connect()? {
            Ok(_) => anyhow::bail!("{about}: this was not refused"),
            Err(told) => told,
        };
        let line = self.cluster.await_log_since(mark, &format!(" user={user:?} database="), SOON)?;
        let reason = reason(&line).with_context(|| format!("{about}: no reason in {line}"))?;
        Ok(Refused { reason, told, line })
    }

    /// Tries this password with both clients. Both must be refused with the constant line and nothing else,
    /// and the log must say `reason` for both.
    pub(crate) fn refused(
        &self,
        user: &str,
        password: &str,
        reason: &str,
        about: impl Display,
    ) -> Result<()> {
        let login = self.login(user, password);
        let driver = self.refusal(&login, user, &about)?;
        ensure!(driver.reason == reason, "{about}: {} instead of {reason}\n{}", driver.reason, driver.line);
        ensure!(is_constant(&driver.told, user), "{about}: the client was told {:?}", driver.told);

        let mark = self.cluster.log_mark();
        let seen = login.run("SELECT 1")?;
        let line = format!("FATAL:  {}", constant_line(user));
        ensure!(seen.code == Some(2) && seen.refusal() == Some(&line), "{about}: psql saw {seen:?}");
        ensure!(seen.stderr.lines().count() == 1, "{about}: psql saw more: {seen:?}");
        let pattern = format!("OIDC login refused: reason={reason} user={user:?} database=");
        self.cluster.await_log_since(mark, &pattern, SOON).with_context(|| about.to_string())?;
        Ok(())
    }
}

/// A session with this login, which must be admitted.
pub(crate) fn admitted(login: &Login<'_>) -> Result<Session> {
    login.connect()?.map_err(|told| anyhow::anyhow!("this login was refused: {told:?}"))
}

/// Whether that is all that a client is ever told of a refusal, at the door that it came by.
pub(crate) fn is_constant(told: &Told, user: &str) -> bool {
    match Door::chosen() {
        Ok(Door::Oauth) => {
            // Core's own line: where it stands in core's source is core's business.
            let place = told.place.clone();
            *told == Told { message: constant_line(user), place, ..constant_refusal(user) }
        }
        _ => *told == constant_refusal(user),
    }
}

/// All that a client is ever told of a refusal at the password door; where it was raised is always the same place.
pub(crate) fn constant_refusal(user: &str) -> Told {
    Told {
        severity: "FATAL".to_owned(),
        code: "28000".to_owned(),
        message: constant_line(user),
        detail: None,
        hint: None,
        place: (Some("pg_oidc".to_owned()), Some(1), Some("authenticate".to_owned())),
    }
}

/// The code in a line of the log.
fn reason(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("OIDC login refused: reason=")?;
    rest.split(' ').next().map(str::to_owned)
}

/// The issuer of the provider of this name.
pub(crate) fn issuer(provider: &str) -> String {
    format!("https://{provider}.example")
}

/// A good token of the provider of this name, for the subject of the same name.
pub(crate) fn good(name: &str) -> Token {
    Token::for_user(name).issuer(&issuer(name))
}

/// JSON as a SQL literal.
pub(crate) fn text(json: &Value) -> String {
    quoted(&json.to_string())
}

/// A text as a SQL literal.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Inserts a provider for [`AUDIENCE`], with further columns given as SQL.
pub(crate) fn provider_sql(name: &str, issuer: &str, columns: &[(&str, &str)]) -> String {
    let audiences = format!("'{{{AUDIENCE}}}'");
    let all = [("name", quoted(name)), ("issuer", quoted(issuer)), ("audiences", audiences)];
    insert("oidc.provider", &all, columns)
}

/// Inserts a rule.
pub(crate) fn rule_sql(provider: &str, claims: &Value, role: &str) -> String {
    rule_with(provider, claims, role, &[])
}

/// Inserts a rule with further columns given as SQL, and gives its id.
pub(crate) fn rule_with(provider: &str, claims: &Value, role: &str, columns: &[(&str, &str)]) -> String {
    let all = [("provider", quoted(provider)), ("match", text(claims)), ("role", quoted(role))];
    insert("oidc.role_mapping", &all, columns) + " RETURNING id"
}

/// An INSERT of the usual columns and others; where both name one, the last one counts.
fn insert(table: &str, usual: &[(&str, String)], others: &[(&str, &str)]) -> String {
    let usual = usual.iter().map(|(name, value)| (*name, value.as_str()));
    let columns: BTreeMap<&str, &str> = usual.chain(others.iter().copied()).collect();
    let names: Vec<&str> = columns.keys().copied().collect();
    let values: Vec<&str> = columns.values().copied().collect();
    format!("INSERT INTO {table} ({}) VALUES ({})", names.join(", "), values.join(", "))
}
