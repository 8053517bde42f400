//! The door that the tests' clients come by: the password, or, on PostgreSQL 18, core's `oauth` method.
//!
//! With `PG_OIDC_TEST_DOOR=oauth` the token lines of the guarded file become `oauth` lines, and psql and
//! tokio-postgres come to them through a [`relay`](crate::relay). So one list of tests is run at both doors.

use std::sync::LazyLock;

use anyhow::{Result, anyhow, bail, ensure};

use crate::postgres::Postgres;
use crate::token::ISSUER;

/// Names the door: `password`, which is the default, or `oauth`.
pub const DOOR_VARIABLE: &str = "PG_OIDC_TEST_DOOR";

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

/// What stands in a line of the HBA file for the method, for tokens of this issuer.
pub fn method(issuer: &str) -> String {
    format!("{METHOD} issuer=\"{issuer}\"")
}
