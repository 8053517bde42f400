//! The door that the tests' clients come by: the password, or, on PostgreSQL 18, core's `oauth` method.
//!
//! With `PG_OIDC_TEST_DOOR=oauth` the token lines of the guarded file become `oauth` lines, and psql and
//! tokio-postgres come to them through a [`relay`](crate::relay). So one list of tests is run at both doors.

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::cluster::{Cluster, GUARDED_FILE, until};
use crate::postgres::Postgres;
use crate::program;
use crate::token::ISSUER;

/// Names the door: `password`, which is the default, or `oauth`.
pub const DOOR_VARIABLE: &str = "PG_OIDC_TEST_DOOR";

/// What of the login tests is about what lies behind the doors, and so is run at both: filters for the test program.
pub const BEHIND_BOTH: [&str; 9] = [
    "access::",
    "audit_trail::",
    "explain::",
    "people::",
    "policy::",
    "providers::",
    "session::",
    "sessions::",
    "tokens::",
];

const SHAPE: &str = "core refuses by itself what has not the characters of a bearer token";
const NAMES: &str = "no line can name this user for an issuer of her own";
const WIRE: &str = "it is about the messages of the password door";
const RETRY: &str = "core's line asks nobody to try again";

/// Those among them that the OAUTHBEARER door has nothing to show for, and why.
pub const ONLY_BY_PASSWORD: [(&str, &str); 19] = [
    ("audit_trail::a_refused_login_is_a_row", SHAPE),
    ("audit_trail::failing::f023_f024_a_standby_keeps_none_and_promotion_begins", SHAPE),
    ("audit_trail::failing::f028_table_is_gone", SHAPE),
    ("audit_trail::failing::f028_table_refuses_rows", SHAPE),
    ("audit_trail::n121_what_a_client_writes_forges_nothing", WIRE),
    ("audit_trail::named::log_connections_names_the_identity", "core's own record names it"),
    ("audit_trail::reading::explain_login_is_the_login_again", SHAPE),
    ("policy::deny::n137_truncated_and_dropped_tables", RETRY),
    ("policy::derived::n106_quotes_and_the_like_are_never_derived", NAMES),
    ("policy::matching::n098_n100_no_rule_and_other_role_are_told_as_a_bad_token", SHAPE),
    ("policy::replication::n123_base_backup", "pg_basebackup cannot hand over a ready token"),
    ("policy::target::n102_names_that_no_token_gives", NAMES),
    ("policy::target::n106_names_that_only_a_dba_gives", NAMES),
    ("tokens::form::n001_empty_password", SHAPE),
    ("tokens::form::n002_number_of_parts", SHAPE),
    ("tokens::form::n004_json_serialization", SHAPE),
    ("tokens::form::n005_characters_outside_of_base64url", SHAPE),
    ("tokens::form::n018_words_and_blanks_around", SHAPE),
    ("tokens::keys::hanging_at_the_first_fetch", RETRY),
];

/// The method, its library and who is asked about the user; the issuer comes after it.
const METHOD: &str = "oauth validator=pg_oidc delegate_ident_mapping=1 scope=\"\"";

/// A way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// The token is the password.
    Password,
    /// The token comes by SASL OAUTHBEARER.
    Oauth,
}

impl Door {
    /// The door that the environment chooses.
    ///
    /// # Errors
    /// When it names none, or one that the server does not have.
    pub fn chosen() -> Result<Self> {
        static CHOSEN: LazyLock<Result<Door, String>> =
            LazyLock::new(|| Door::of_environment().map_err(|error| format!("{error:#}")));
        CHOSEN.clone().map_err(|error| anyhow!("{error}"))
    }

    fn of_environment() -> Result<Self> {
        match std::env::var(DOOR_VARIABLE).as_deref() {
            Err(_) | Ok("password") => Ok(Self::Password),
            Ok("oauth") => {
                let major = Postgres::chosen()?.major();
                ensure!(major >= 18, "{DOOR_VARIABLE}=oauth: PostgreSQL {major} has no such door");
                Ok(Self::Oauth)
            }
            Ok(other) => bail!("{DOOR_VARIABLE}={other}: neither password nor oauth"),
        }
    }

    /// The lines of a guarded file as this door has them: a token line over TLS becomes one of core's method.
    pub fn lines(self, lines: &str) -> String {
        if self == Self::Password {
            return lines.to_owned();
        }
        let line = |line: &str| match line.strip_suffix(" trust") {
            Some(start) if line.starts_with("hostssl ") => format!("{start} {}\n", method(ISSUER)),
            _ => format!("{line}\n"),
        };
        lines.lines().map(line).collect()
    }

    /// What a client whose login is refused is told: file, line and routine aside.
    pub fn refusal(self, user: &str) -> String {
        match self {
            Self::Password => format!("OIDC authentication failed for user \"{user}\""),
            Self::Oauth => format!("OAuth bearer authentication failed for user \"{user}\""),
        }
    }
}

/// The guarded file of a cluster whose users come with tokens of several issuers, while a line has one.
#[derive(Debug, Clone)]
pub(crate) struct Lines {
    guarded: PathBuf,
    pid: PathBuf,
    log: PathBuf,
}

impl Lines {
    pub(crate) fn of(cluster: &Cluster) -> Self {
        let guarded = cluster.file(&format!("data/{GUARDED_FILE}"));
        Self { guarded, pid: cluster.file("data/postmaster.pid"), log: cluster.file("server.log") }
    }

    /// Has this user come with tokens of this issuer, from now on. False: she does so already, or no file can say it.
    pub(crate) fn expect(&self, user: &str, issuer: &str) -> Result<bool> {
        let plain = |text: &str| text.bytes().all(|byte| !byte.is_ascii_control() && byte != b'"');
        if !plain(user) || !plain(issuer) || user.starts_with('/') {
            return Ok(false);
        }
        let start = format!("hostssl all,replication \"{user}\" 127.0.0.1/32 ");
        let line = format!("{start}{}", method(issuer));
        let text = fs::read_to_string(&self.guarded)?;
        let known = text.lines().find(|line| line.starts_with(&start));
        if known == Some(&line) || known.is_none() && issuer == ISSUER {
            return Ok(false);
        }
        // After the superuser's line, which is the first.
        let mut lines: Vec<&str> = text.lines().filter(|line| !line.starts_with(&start)).collect();
        lines.insert(1.min(lines.len()), &line);
        fs::write(&self.guarded, lines.join("\n") + "\n")?;
        self.reload()?;
        Ok(true)
    }

    fn reload(&self) -> Result<()> {
        let pid = fs::read_to_string(&self.pid)?;
        let mark = fs::metadata(&self.log)?.len();
        program::output(program::command("kill").arg("-HUP").arg(pid.lines().next().context("no pid")?))?;
        until("the server has read its HBA file", Duration::from_secs(10), || {
            let log = fs::read(&self.log)?;
            let new = log.get(usize::try_from(mark)?..).unwrap_or_default();
            Ok(String::from_utf8_lossy(new).contains("received SIGHUP"))
        })
    }
}

/// What stands in a line of the HBA file for the method, for tokens of this issuer.
pub fn method(issuer: &str) -> String {
    format!("{METHOD} issuer=\"{issuer}\"")
}
