//! A temporary cluster: one data directory, one server, gone afterwards.
//!
//! Everything of it lies in one [`Scratch`] folder whose keeper ends the server and removes the folder even
//! when this process is killed. It listens on 127.0.0.1 at a free port below 32768, where the kernel gives
//! no ephemeral ports, and on a unix socket in its own folder.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::account::{Account, is_root};
use crate::door::Door;
use crate::extension::{SUPERUSER, Server};
use crate::program;
use crate::relay::Relay;
use crate::scratch::Scratch;
use crate::tls::{self, Authority};

/// Ports to choose from. From 32768 on the kernel hands out ports to clients.
const PORTS: std::ops::Range<u16> = 20_000..32_768;
/// How often another port is tried when a chosen one was taken in between.
const PORT_TRIES: usize = 10;
/// The guarded HBA file's name, relative to the server's own hba_file.
pub const GUARDED_FILE: &str = "pg_oidc_hba.conf";
/// How often a condition is looked at again.
const POLL: Duration = Duration::from_millis(10);

/// Settings of every temporary cluster: nothing outlives the machine here, so nothing is synced. Commits are
/// still handed to the kernel at once, as tests kill the server.
const SETTINGS: &[(&str, &str)] = &[
    ("fsync", "off"),
    ("full_page_writes", "off"),
    ("shared_buffers", "32MB"),
    ("max_connections", "60"),
    ("listen_addresses", "127.0.0.1"),
    ("ssl", "on"),
    ("ssl_cert_file", "../server.pem"),
    ("ssl_key_file", "../server.key"),
    ("ssl_ca_file", "../ca.pem"),
    ("log_line_prefix", "%m [%p] %q%u@%d "),
    ("log_timezone", "UTC"),
];

/// Settings that a cluster with the extension has on top.
const OURS: &[(&str, &str)] = &[
    ("shared_preload_libraries", "pg_oidc"),
    ("pg_oidc.hba_file", GUARDED_FILE),
    ("pg_oidc.database", "postgres"),
    ("pg_oidc.allow_http", "on"),
];

/// Names the libraries that may judge tokens on `oauth` lines (18).
pub const VALIDATORS: &str = "oauth_validator_libraries";

/// How the superuser comes in, first line of both HBA files: over the unix socket, by who runs the client.
const ADMIN_LINE: &str = "local all postgres peer map=admin\n";

/// What a cluster is to be. Made by [`Cluster::builder`].
#[derive(Debug, Clone)]
pub struct Builder {
    server: Server,
    settings: BTreeMap<String, String>,
    environment: Vec<(String, String)>,
    native: String,
    guarded: String,
}

/// A temporary cluster. Dropped, its server ends and its folder is removed.
#[derive(Debug)]
pub struct Cluster {
    server: Server,
    settings: Mutex<BTreeMap<String, String>>,
    environment: Vec<(String, String)>,
    port: u16,
    relay: OnceLock<Relay>,
    scratch: Scratch,
}

impl Builder {
    /// Sets a parameter of postgresql.conf.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Sets a variable in the server's environment.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Leaves the extension's library out: no preload, none of its settings.
    #[must_use]
    pub fn plain(mut self) -> Self {
        self.settings.retain(|name, _| !OURS.iter().any(|(ours, _)| ours == name));
        self
    }

    /// Puts a line into pg_hba.conf, after the superuser's and before the general ones.
    #[must_use]
    pub fn native(mut self, line: &str) -> Self {
        self.native.push_str(line);
        self.native.push('\n');
        self
    }

    /// Puts a line into the guarded file, after the superuser's and before the general one.
    #[must_use]
    pub fn guarded(mut self, line: &str) -> Self {
        self.guarded.push_str(line);
        self.guarded.push('\n');
        self
    }

    /// Makes the cluster and starts it.
    ///
    /// # Errors
    /// When it cannot be made or does not start.
    pub fn start(self) -> Result<Cluster> {
        let mut cluster = self.build()?;
        for _ in 0..PORT_TRIES {
            match cluster.start() {
                Err(_) if cluster.log().contains("Address already in use") => {
                    cluster.take_port()?;
                    fs::write(cluster.log_file(), "")?;
                }
                other => return other.map(|()| cluster),
            }
        }
        bail!("found no free port in {PORTS:?}");
    }

    /// Makes the cluster without starting it.
    ///
    /// # Errors
    /// When files cannot be written.
    pub fn build(self) -> Result<Cluster> {
        let scratch = Scratch::for_server()?;
        let account = Account::unprivileged()?;
        account.own(scratch.path())?;
        let mut copy = Command::new("cp");
        copy.arg("-a").arg(self.server.template()).arg(scratch.path().join("data"));
        program::output(&mut copy)?;
        let mut settings = self.settings;
        if Door::chosen()? == Door::Oauth {
            settings.entry(VALIDATORS.to_owned()).or_insert_with(|| "pg_oidc".to_owned());
        }
        let (settings, environment) = (Mutex::new(settings), self.environment);
        let mut cluster =
            Cluster { server: self.server, settings, environment, port: 0, relay: OnceLock::new(), scratch };

        let authority = Authority::new()?;
        let (server, client) = (tls::loopback(&authority)?, authority.client("client")?);
        let files = [
            ("ca.pem", authority.certificate()),
            ("server.pem", server.certificate),
            ("server.key", server.key),
            ("client.pem", client.certificate),
            ("client.key", client.key),
            ("server.log", String::new()),
            ("data/pg_ident.conf", admins(account)),
            ("data/pg_hba.conf", native_file(&self.native)),
        ];
        for (name, text) in files {
            cluster.write(name, &text)?;
        }
        cluster.write_guarded(&format!("{}hostssl all all 127.0.0.1/32 trust\n", self.guarded))?;
        cluster.take_port()?;
        Ok(cluster)
    }
}

/// Who may be the superuser: the account that psql runs as, and the tests' own, for clients inside of them.
fn admins(account: &Account) -> String {
    let line = |name: &str| format!("admin {name} {SUPERUSER}\n");
    if is_root() { line(account.name()) + &line("root") } else { line(account.name()) }
}

fn native_file(lines: &str) -> String {
    format!("{ADMIN_LINE}{lines}local all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\n")
}

impl Cluster {
    /// A cluster of this server, with the extension's library loaded and `hostssl … trust` in the guarded file.
    pub fn builder(server: &Server) -> Builder {
        let settings = SETTINGS.iter().chain(OURS);
        let settings = settings.map(|&(name, value)| (name.to_owned(), value.to_owned()));
        let (native, guarded) = (String::new(), String::new());
        let environment = Vec::new();
        Builder { server: server.clone(), settings: settings.collect(), environment, native, guarded }
    }

    fn take_port(&mut self) -> Result<()> {
        self.port = free_port()?;
        self.set("port", &self.port.to_string())
    }

    fn settings(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets a parameter in postgresql.conf; it counts from the next start or [`Cluster::reload`] on.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set(&self, name: &str, value: &str) -> Result<()> {
        self.settings().insert(name.to_owned(), value.to_owned());
        self.write_settings()
    }

    /// Takes a parameter out of postgresql.conf.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn unset(&self, name: &str) -> Result<()> {
        self.settings().remove(name);
        self.write_settings()
    }

    fn write_settings(&self) -> Result<()> {
        let socket = self.folder().display().to_string();
        let mut text = format!("unix_socket_directories = '{socket}'\n");
        for (name, value) in self.settings().iter() {
            text.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
        }
        self.write("data/postgresql.conf", &text)
    }

    /// Writes the guarded HBA file anew: the superuser's line, then `lines`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_guarded(&self, lines: &str) -> Result<()> {
        let lines = Door::chosen()?.lines(lines);
        self.write(&format!("data/{GUARDED_FILE}"), &format!("{ADMIN_LINE}{lines}"))
    }

    /// The port of the relay to the OAUTHBEARER door.
    pub(crate) fn relay(&self) -> Result<u16> {
        if let Some(relay) = self.relay.get() {
            return Ok(relay.port());
        }
        let relay = Relay::start(self)?;
        Ok(self.relay.get_or_init(|| relay).port())
    }

    /// Writes pg_hba.conf anew: the superuser's line, then `lines`, then scram for everybody.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_native(&self, lines: &str) -> Result<()> {
        self.write("data/pg_hba.conf", &native_file(lines))
    }

    /// Writes a file of the cluster's folder as the server's user, readable by nobody else.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.file(name);
        fs::write(&path, text).with_context(|| format!("could not write {}", path.display()))?;
        let mode = if name == "ca.pem" { 0o644 } else { 0o600 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        Account::unprivileged()?.own(&path)
    }

    /// A file of the cluster's folder: `data/…`, `ca.pem`, `client.pem`, `client.key`, `server.log`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// The cluster's folder, where its unix socket is too.
    pub fn folder(&self) -> &Path {
        self.scratch.path()
    }

    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server copy that runs it.
    pub fn server(&self) -> &Server {
        &self.server
    }

    fn pg_ctl(&self, words: &[&str]) -> Result<Command> {
        let mut pg_ctl = self.server.command("pg_ctl")?;
        pg_ctl.arg("-D").arg(self.file("data")).args(words);
        Ok(pg_ctl)
    }

    /// Starts the server and waits until it accepts logins.
    ///
    /// # Errors
    /// When it does not start; the error shows what it logged.
    pub fn start(&self) -> Result<()> {
        self.start_with("")
    }

    /// As [`Cluster::start`], with these words on the server's command line.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn start_with(&self, words: &str) -> Result<()> {
        let mark = self.log_mark();
        let mut start = self.pg_ctl(&["-w", "-t", "60", "-s", "-o", words, "start", "-l"])?;
        start.arg(self.log_file());
        start.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let why = || anyhow!("the server did not start\n{}", program::tail(&self.log_since(mark)));
        program::output(&mut start).map(drop).map_err(|_| why())
    }

    /// Ends the server (fast: sessions are ended) and waits until it is gone.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&self) -> Result<()> {
        program::output(&mut self.pg_ctl(&["-w", "-t", "60", "-s", "-m", "fast", "stop"])?).map(drop)
    }

    /// Ends the server and starts it again.
    ///
    /// # Errors
    /// As [`Cluster::stop`] and [`Cluster::start`].
    pub fn restart(&self) -> Result<()> {
        self.stop()?;
        self.start()
    }

    /// Whether a server runs on the data directory.
    pub fn is_running(&self) -> bool {
        let status = self.pg_ctl(&["status"]).and_then(|mut command| program::captured(&mut command));
        status.is_ok_and(|output| output.status.success())
    }

    /// Has the server read its files again: whoever connects after this meets the new ones.
    ///
    /// # Errors
    /// When the server does not take notice.
    pub fn reload(&self) -> Result<()> {
        let mark = self.log_mark();
        program::output(&mut self.pg_ctl(&["-s", "reload"])?)?;
        self.await_log_since(mark, "received SIGHUP", Duration::from_secs(10)).map(drop)
    }

    /// Runs the server's executable in the foreground until it ends, as in `postgres --single`.
    ///
    /// # Errors
    /// When there is no unprivileged user to run it.
    pub fn postgres(&self, words: &[&str]) -> Result<Command> {
        let mut postgres = self.server.command("postgres")?;
        postgres.args(words).arg("-D").arg(self.file("data"));
        Ok(postgres)
    }

    fn log_file(&self) -> PathBuf {
        self.file("server.log")
    }

    /// All that the server has logged.
    pub fn log(&self) -> String {
        self.log_since(0)
    }

    /// Where the log ends now, to look only at what comes later.
    pub fn log_mark(&self) -> usize {
        fs::metadata(self.log_file()).map_or(0, |file| usize::try_from(file.len()).unwrap_or(usize::MAX))
    }

    /// What was logged since a mark.
    pub fn log_since(&self, mark: usize) -> String {
        let bytes = fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(bytes.get(mark..).unwrap_or_default()).into_owned()
    }

    /// Waits until the log contains a text, and gives the first line that does.
    ///
    /// # Errors
    /// When it does not appear in time; the error shows the end of the log.
    pub fn await_log(&self, pattern: &str, timeout: Duration) -> Result<String> {
        self.await_log_since(0, pattern, timeout)
    }

    /// As [`Cluster::await_log`], looking only at what comes after a mark.
    ///
    /// # Errors
    /// When it does not appear in time; the error shows the end of the log.
    pub fn await_log_since(&self, mark: usize, pattern: &str, timeout: Duration) -> Result<String> {
        let deadline = Instant::now() + timeout;
        loop {
            let text = self.log_since(mark);
            // Only whole lines: the last one may still be being written.
            let whole = text.rfind('\n').and_then(|end| text.get(..end)).unwrap_or_default();
            if let Some(line) = whole.lines().find(|line| line.contains(pattern)) {
                return Ok(line.to_owned());
            }
            if Instant::now() >= deadline {
                bail!("the log did not show {pattern:?} within {timeout:?}\n{}", program::tail(&text));
            }
            std::thread::sleep(POLL);
        }
    }
}

/// Waits until a condition holds, looking again every few milliseconds.
///
/// # Errors
/// When it does not hold in time, or the look itself fails.
pub fn until(what: &str, timeout: Duration, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + timeout;
    while !holds()? {
        if Instant::now() >= deadline {
            bail!("{what}: not within {timeout:?}");
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

fn free_port() -> Result<u16> {
    for salt in 0..1000u32 {
        let span = u64::from(PORTS.end - PORTS.start);
        let offset = RandomState::new().hash_one(salt) % span;
        let port = PORTS.start + u16::try_from(offset).unwrap_or(0);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("found no free port in {PORTS:?}");
}
