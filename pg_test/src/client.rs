//! Logging in with tokio-postgres: a second real client, which shares nothing with libpq but the protocol.
//!
//! Unlike psql it shows every field of an error, sends a password that is empty, and keeps a session open.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::runtime::Runtime;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::DbError;
use tokio_postgres::{Client, Config, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::cluster::Cluster;
use crate::extension::SUPERUSER;
use crate::psql::{Login, Way};

/// The longest that a connection may take in all.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the server told the client instead of doing as it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// `ERROR`, `FATAL`.
    pub severity: String,
    /// The SQLSTATE.
    pub code: String,
    /// The primary line.
    pub message: String,
    /// The detail.
    pub detail: Option<String>,
    /// The hint.
    pub hint: Option<String>,
    /// File, line and routine where it was raised.
    pub place: (Option<String>, Option<u32>, Option<String>),
}

/// A session that is open.
#[derive(Debug)]
pub struct Session {
    client: Client,
    /// What the server said when nothing was asked of it, and ended the connection.
    unasked: Arc<OnceLock<Told>>,
    // After the client, so that the connection's task still sees it go.
    runtime: Runtime,
}

impl Cluster {
    /// A session of the superuser over the unix socket.
    ///
    /// # Errors
    /// When there is no connection.
    pub fn admin_session(&self) -> Result<Session> {
        self.admin_session_in("postgres")
    }

    /// As [`Cluster::admin_session`], in another database.
    ///
    /// # Errors
    /// When there is no connection.
    pub fn admin_session_in(&self, database: &str) -> Result<Session> {
        let login = self.login(SUPERUSER).way(Way::Socket).database(database);
        login.connect()?.map_err(|told| anyhow::anyhow!("the superuser was refused: {told:?}"))
    }
}

impl Login<'_> {
    /// Logs in with tokio-postgres. The inner error is what the server said.
    ///
    /// # Errors
    /// When the server cannot be reached or breaks off without a word.
    pub fn connect(&self) -> Result<Result<Session, Told>> {
        ensure!(!self.client_certificate && self.extra.is_empty(), "only psql can connect like this");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut config = Config::new();
        let relayed = self.relayed()?;
        config.user(&self.user).dbname(&self.database).port(relayed.unwrap_or(self.cluster.port()));
        match self.way {
            Way::Socket => config.host_path(self.cluster.folder()),
            Way::Tls | Way::Bearer | Way::Plain => config.host("127.0.0.1"),
        };
        config.ssl_mode(if self.way == Way::Tls && relayed.is_none() {
            SslMode::Require
        } else {
            SslMode::Disable
        });
        if let Some(password) = &self.password {
            config.password(password);
        }
        if let Some(options) = &self.options {
            config.options(options);
        }
        let tls = MakeRustlsConnect::new(trusting(self.cluster)?);
        let connecting = async { tokio::time::timeout(PATIENCE, config.connect(tls)).await };
        match runtime.block_on(connecting).context("no answer to a login")? {
            Ok((client, connection)) => {
                // Its end is seen by the client, whose next query fails.
                let unasked = Arc::new(OnceLock::new());
                let words = Arc::clone(&unasked);
                runtime.spawn(async move {
                    if let Err(error) = connection.await
                        && let Some(told) = error.as_db_error()
                    {
                        let _ = words.set(Told::from(told));
                    }
                });
                Ok(Ok(Session { client, unasked, runtime }))
            }
            Err(error) => match error.as_db_error() {
                Some(told) => Ok(Err(Told::from(told))),
                None => Err(error).context("the login broke off"),
            },
        }
    }
}

/// Trusts the cluster's own authority and nobody else.
pub(crate) fn trusting(cluster: &Cluster) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(cluster.file("ca.pem"))?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

impl Session {
    /// Runs SQL, several statements if it has them, and gives the rows of all. The inner error is what the
    /// server said.
    ///
    /// # Errors
    /// When the session has ended.
    pub fn try_rows(&self, sql: &str) -> Result<Result<Vec<Vec<Option<String>>>, Told>> {
        let messages = match self.runtime.block_on(self.client.simple_query(sql)) {
            Ok(messages) => messages,
            Err(error) => match error.as_db_error() {
                Some(told) => return Ok(Err(Told::from(told))),
                None => return Err(error).context("the session has ended"),
            },
        };
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
            }
            _ => None,
        });
        Ok(Ok(rows.collect()))
    }

    /// What the server said when it ended the session, during a query or unasked.
    ///
    /// # Errors
    /// When the session goes on, or ended without a word.
    pub fn last_words(&self) -> Result<Told> {
        match self.try_rows("SELECT 1") {
            Ok(Ok(_)) => anyhow::bail!("the session goes on"),
            Ok(Err(told)) => Ok(told),
            Err(error) => self.unasked.get().cloned().ok_or(error),
        }
    }

    /// The rows of SQL that goes well.
    ///
    /// # Errors
    /// When it does not.
    pub fn rows(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        self.try_rows(sql)?.map_err(|told| anyhow::anyhow!("{told:?}\n{sql}"))
    }

    /// The first column of the last row; None for null.
    ///
    /// # Errors
    /// When the SQL does not go well or gives no row.
    pub fn value(&self, sql: &str) -> Result<Option<String>> {
        let row = self.rows(sql)?.pop().with_context(|| format!("no row from {sql}"))?;
        row.into_iter().next().context("no column")
    }

    /// What the server says to SQL that must go wrong.
    ///
    /// # Errors
    /// When it goes well, or the session has ended.
    pub fn error(&self, sql: &str) -> Result<Told> {
        match self.try_rows(sql)? {
            Ok(rows) => anyhow::bail!("this was not to go well: {sql}\n{rows:?}"),
            Err(told) => Ok(told),
        }
    }
}

impl Session {
    /// What the server says to one statement in the extended protocol, which must go wrong.
    ///
    /// # Errors
    /// As [`Session::error`].
    pub fn extended_error(&self, sql: &str) -> Result<Told> {
        match self.runtime.block_on(self.client.query(sql, &[])) {
            Ok(_) => anyhow::bail!("this was not to go well: {sql}"),
            Err(error) => error.as_db_error().map(Told::from).ok_or(error).context("the session has ended"),
        }
    }
}

impl From<&DbError> for Told {
    fn from(error: &DbError) -> Self {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Self {
            severity: error.severity().to_owned(),
            code: error.code().code().to_owned(),
            message: error.message().to_owned(),
            detail: owned(error.detail()),
            hint: owned(error.hint()),
            place: (owned(error.file()), error.line(), owned(error.routine())),
        }
    }
}
