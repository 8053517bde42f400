//! The PostgreSQL that is built for and tested: where it is, as its `pg_config` says.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{program, servers};

/// Versions that the extension may be built for.
pub const SUPPORTED: std::ops::RangeInclusive<u32> = 15..=18;

/// Names the major version that `cargo test` is to use, as `--pg` does for `cargo verify` and `cargo demo`.
pub const MAJOR_VARIABLE: &str = "PG_OIDC_TEST_PG";

/// Which server is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The machine's, whatever its major version.
    Machine,
    /// One of this major version: fetched where [`servers`] has it, else the machine's.
    Major(u32),
}

impl Choice {
    /// What the environment variable [`MAJOR_VARIABLE`] says; without it, the machine's.
    ///
    /// # Errors
    /// When it names no supported major version.
    pub fn of_environment() -> Result<Self> {
        match std::env::var(MAJOR_VARIABLE) {
            Ok(major) => Self::named(&major).with_context(|| format!("{MAJOR_VARIABLE}={major}")),
            Err(_) => Ok(Self::Machine),
        }
    }

    /// What `--pg N` says among these arguments, and the other arguments; without it, as the environment says.
    ///
    /// # Errors
    /// When it names no supported major version.
    pub fn of_arguments(arguments: impl Iterator<Item = String>) -> Result<(Self, Vec<String>)> {
        let (mut choice, mut others) = (Self::of_environment()?, Vec::new());
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--pg" => choice = Self::named(&arguments.next().unwrap_or_default()).context("--pg")?,
                _ => others.push(argument),
            }
        }
        Ok((choice, others))
    }

    fn named(major: &str) -> Result<Self> {
        match major.parse() {
            Ok(major) if SUPPORTED.contains(&major) => Ok(Self::Major(major)),
            _ => bail!("{major:?} is not a major version from 15 to 18"),
        }
    }

    /// Has a program that is run choose the same.
    pub fn hand_on(self, command: &mut Command) {
        match self {
            Self::Machine => command.env_remove(MAJOR_VARIABLE),
            Self::Major(major) => command.env(MAJOR_VARIABLE, major.to_string()),
        };
    }

    /// Whether the server is fetched and not the machine's.
    pub fn is_fetched(self) -> bool {
        matches!(self, Self::Major(major) if servers::has(major))
    }
}

/// One installed PostgreSQL.
#[derive(Debug, Clone)]
pub struct Postgres {
    pg_config: PathBuf,
    major: u32,
    version: String,
}

impl Postgres {
    /// The server that the environment chooses, see [`Choice::of_environment`].
    ///
    /// # Errors
    /// As [`Postgres::find`].
    pub fn chosen() -> Result<Self> {
        Self::find(Choice::of_environment()?)
    }

    /// The server that is wanted, fetched first where it has to be.
    ///
    /// # Errors
    /// When there is none and none can be fetched.
    pub fn find(choice: Choice) -> Result<Self> {
        let Choice::Major(major) = choice else { return Self::of_machine() };
        if servers::has(major) {
            return Self::with_pg_config(servers::pg_config(major)?);
        }
        let postgres = Self::of_machine()?;
        if postgres.major != major {
            bail!("PostgreSQL {major} is taken from this machine, which has {}", postgres.version);
        }
        Ok(postgres)
    }

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
