//! Logging in with the real psql, as a person or a job would, and what they then see.

use std::process::{Command, Output};

use anyhow::{Context, Result};

use crate::cluster::Cluster;
use crate::door::Door;
use crate::program;

/// Between columns, and between rows: control characters that no value here contains.
const COLUMN: char = '\x1f';
const ROW: char = '\x1e';

/// The way a client connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// TCP with TLS, the server's certificate checked against our own authority and the host name.
    Tls,
    /// The same, with what is given as a password handed over by SASL OAUTHBEARER; the line has to be one of that method.
    Bearer,
    /// TCP without TLS.
    Plain,
    /// The unix socket.
    Socket,
}

/// One login to try. Made by [`Cluster::login`], run by [`Login::run`].
#[derive(Debug, Clone)]
pub struct Login<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) user: String,
    pub(crate) database: String,
    pub(crate) password: Option<String>,
    pub(crate) options: Option<String>,
    pub(crate) way: Way,
    pub(crate) client_certificate: bool,
    pub(crate) extra: Vec<String>,
}

/// What a client saw.
#[derive(Debug, Clone)]
pub struct Seen {
    /// psql's exit code: 0 well, 2 no connection, 3 an error in the SQL; None if it died by a signal.
    pub code: Option<i32>,
    /// Standard output, unaligned rows.
    pub stdout: String,
    /// Standard error: where a refusal shows.
    pub stderr: String,
}

impl Cluster {
    /// A login over TLS to the database `postgres` as this user, without a password.
    pub fn login(&self, user: impl Into<String>) -> Login<'_> {
        Login {
            cluster: self,
            user: user.into(),
            database: "postgres".to_owned(),
            password: None,
            options: None,
            way: Way::Tls,
            client_certificate: false,
            extra: Vec::new(),
        }
    }

    /// Runs SQL as the superuser over the unix socket and gives the rows of all its results.
    ///
    /// # Errors
    /// When psql cannot connect or any statement fails.
    pub fn admin(&self, sql: &str) -> Result<Vec<Vec<String>>> {
        self.admin_in("postgres", sql)
    }

    /// As [`Cluster::admin`], in another database.
    ///
    /// # Errors
    /// When psql cannot connect or any statement fails.
    pub fn admin_in(&self, database: &str, sql: &str) -> Result<Vec<Vec<String>>> {
        let login = self.login(crate::extension::SUPERUSER).way(Way::Socket).database(database);
        let seen = login.run(sql)?;
        anyhow::ensure!(seen.ok(), "psql ended with {:?}\n{}\n{}", seen.code, seen.stderr, sql);
        Ok(seen.rows())
    }

    /// The first column of the first row of [`Cluster::admin`]; an error where there is none.
    ///
    /// # Errors
    /// As [`Cluster::admin`].
    pub fn admin_value(&self, sql: &str) -> Result<String> {
        let rows = self.admin(sql)?;
        let value = rows.into_iter().next().and_then(|row| row.into_iter().next());
        value.with_context(|| format!("no row from {sql}"))
    }
}

impl Login<'_> {
    /// Passes this password, which may be a token, in `PGPASSWORD`.
    #[must_use]
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// Connects to another database than `postgres`.
    #[must_use]
    pub fn database(mut self, database: impl Into<String>) -> Self {
        self.database = database.into();
        self
    }

    /// Passes startup options, as in `-c search_path=x`.
    #[must_use]
    pub fn options(mut self, options: impl Into<String>) -> Self {
        self.options = Some(options.into());
        self
    }

    /// Connects in another way than TLS.
    #[must_use]
    pub fn way(mut self, way: Way) -> Self {
        self.way = way;
        self
    }

    /// Presents the client certificate, whose common name is `client`.
    #[must_use]
    pub fn client_certificate(mut self) -> Self {
        self.client_certificate = true;
        self
    }

    /// Adds a connection parameter as libpq writes it, as in `replication=database`.
    #[must_use]
    pub fn parameter(mut self, parameter: impl Into<String>) -> Self {
        self.extra.push(parameter.into());
        self
    }

    /// The port of the relay that takes this login to the OAUTHBEARER door, if that is the one and it can be taken there.
    pub(crate) fn relayed(&self) -> Result<Option<u16>> {
        let chosen = Door::chosen()? == Door::Oauth && self.way == Way::Tls;
        let can = self.password.is_some() && !self.client_certificate;
        if self.way == Way::Bearer || chosen && can { self.cluster.relay().map(Some) } else { Ok(None) }
    }

    /// The psql command of this login, with the connection and the password but without SQL.
    ///
    /// # Errors
    /// When there is no unprivileged user to run it.
    pub fn command(&self) -> Result<Command> {
        let mut psql = self.cluster.server().command("psql")?;
        let cluster = self.cluster;
        let relayed = self.relayed()?;
        let mut words = vec![
            format!("port={}", relayed.unwrap_or(cluster.port())),
            format!("user={}", quoted(&self.user)),
            format!("dbname={}", quoted(&self.database)),
            "connect_timeout=30".to_owned(),
        ];
        let sslmode = match self.way {
            Way::Tls if relayed.is_none() => "verify-full",
            _ => "disable",
        };
        words.push(format!("sslmode={sslmode}"));
        match self.way {
            Way::Tls | Way::Bearer | Way::Plain => words.push("host=127.0.0.1".to_owned()),
            Way::Socket => words.push(format!("host={}", quoted(&cluster.folder().display().to_string()))),
        }
        words.push(format!("sslrootcert={}", cluster.file("ca.pem").display()));
        if self.client_certificate {
            words.push(format!("sslcert={}", cluster.file("client.pem").display()));
            words.push(format!("sslkey={}", cluster.file("client.key").display()));
        }
        if let Some(options) = &self.options {
            words.push(format!("options={}", quoted(options)));
        }
        words.extend(self.extra.iter().cloned());
        psql.args(["-X", "-w", "-d", &words.join(" ")]);
        if let Some(password) = &self.password {
            psql.env("PGPASSWORD", password);
        }
        Ok(psql)
    }

    /// Logs in, runs the SQL (each statement by itself, the first error ends it) and gives what the client saw.
    ///
    /// # Errors
    /// Only when psql cannot be run at all; a refusal is a [`Seen`].
    pub fn run(&self, sql: &str) -> Result<Seen> {
        let mut psql = self.command()?;
        psql.args(["-qAt", "-v", "ON_ERROR_STOP=1", "-F", &COLUMN.to_string(), "-R", &ROW.to_string()]);
        psql.args(["-f", "-"]);
        Ok(seen(&program::fed(&mut psql, sql)?))
    }

    /// As [`Login::run`], but each statement by itself and shown as psql shows it to a person.
    ///
    /// # Errors
    /// Only when psql cannot be run at all.
    pub fn show(&self, statements: &[&str]) -> Result<Seen> {
        let mut psql = self.command()?;
        for statement in statements {
            psql.args(["-c", statement]);
        }
        Ok(seen(&program::captured(&mut psql)?))
    }
}

fn seen(output: &Output) -> Seen {
    Seen {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Seen {
    /// Whether the login and all statements went well.
    pub fn ok(&self) -> bool {
        self.code == Some(0)
    }

    /// The rows of [`Login::run`], split into columns.
    pub fn rows(&self) -> Vec<Vec<String>> {
        // A row whose only value is empty is an empty line; no row is nothing at all.
        let Some(text) = self.stdout.strip_suffix('\n') else { return Vec::new() };
        // Results of several statements follow each other with a line break, rows with the row mark.
        let rows = text.split([ROW, '\n']);
        rows.map(|row| row.split(COLUMN).map(str::to_owned).collect()).collect()
    }

    /// The one line that tells why there was no connection, without psql's own words before it.
    pub fn refusal(&self) -> Option<&str> {
        self.stderr.lines().find_map(|line| line.find("FATAL:").and_then(|at| line.get(at..)))
    }
}

/// A value as a libpq connection string wants it.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}
