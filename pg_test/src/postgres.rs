//! The PostgreSQL of this machine: where it is, as its `pg_config` says.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::program;

/// Versions that the extension may be built for.
const SUPPORTED: std::ops::RangeInclusive<u32> = 15..=18;

/// One installed PostgreSQL.
#[derive(Debug, Clone)]
pub struct Postgres {
    pg_config: PathBuf,
    major: u32,
    version: String,
}

impl Postgres {
    /// The server that `PGRX_PG_CONFIG_PATH` names; cargo's configuration sets it to the `pg_config` of the
    /// path.
    ///
    /// # Errors
    /// When there is none, or none of a supported version.
    pub fn of_machine() -> Result<Self> {
        let named = std::env::var_os("PGRX_PG_CONFIG_PATH");
        Self::with_pg_config(named.map_or_else(|| PathBuf::from("pg_config"), PathBuf::from))
    }

    /// The server that this `pg_config` belongs to.
    ///
    /// # Errors
    /// When it cannot be run or names an unsupported version.
    pub fn with_pg_config(pg_config: PathBuf) -> Result<Self> {
        let text = program::output(program::command(&pg_config).arg("--version"))?;
        // "PostgreSQL 15.20 (Debian 15.20-0+deb12u1)"
        let version = text.split_whitespace().nth(1).unwrap_or_default().to_owned();
        let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
        let major = digits.parse().with_context(|| format!("pg_config gave the version {text:?}"))?;
        if !SUPPORTED.contains(&major) {
            bail!("PostgreSQL {version} is not supported: pg_oidc needs 15 to 18");
        }
        Ok(Self { pg_config, major, version })
    }

    /// 15 to 18.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// As in `15.20`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The program that says where everything is.
    pub fn pg_config(&self) -> &Path {
        &self.pg_config
    }

    /// Asks `pg_config` for a folder, such as `--bindir`.
    ///
    /// # Errors
    /// When it gives none.
    pub fn folder(&self, option: &str) -> Result<PathBuf> {
        let text = program::output(program::command(&self.pg_config).arg(option))?;
        let folder = PathBuf::from(text.trim());
        if !folder.is_absolute() {
            bail!("{} {option} gave {text:?}", self.pg_config.display());
        }
        Ok(folder)
    }

    /// Whether the server itself and the headers to build against it are there.
    pub fn is_complete(&self) -> bool {
        let there = |option, file: &str| self.folder(option).is_ok_and(|at| at.join(file).is_file());
        there("--bindir", "postgres") && there("--includedir-server", "postgres.h")
    }
}
