//! The extension, built and put into a private copy of a server.
//!
//! PostgreSQL finds its libraries and its shared files relative to where its executable lies. So a copy of
//! `bin`, `lib` and `share` under another root is a server of its own, and the folders copied from stay as
//! they are.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, anyhow, bail};

use crate::account::Account;
use crate::postgres::{Choice, Postgres, SUPPORTED};
use crate::program;
use crate::scratch::Scratch;
use crate::terminal::Step;
use crate::{target_dir, tools, workspace};

/// Names a finished server copy of a major version, so that one run of `cargo verify` makes it once for all test
/// programs.
pub fn server_variable(major: u32) -> String {
    format!("PG_OIDC_TEST_SERVER_{major}")
}

/// The major versions whose servers tests of this one need too: what it is upgraded from, or what it is not to load.
pub fn beside(major: u32) -> Vec<u32> {
    let (first, last) = (*SUPPORTED.start(), *SUPPORTED.end());
    let mut majors = if major == first { vec![first + 1] } else { vec![first, major - 1] };
    majors.dedup();
    majors.retain(|beside| *beside <= last);
    majors
}

/// The data directory that every temporary cluster is copied from, under the root of a server copy.
const TEMPLATE: &str = "template";

/// The superuser of every temporary cluster.
pub const SUPERUSER: &str = "postgres";

/// A private copy of a server, with or without the extension in it.
#[derive(Debug, Clone)]
pub struct Server {
    root: PathBuf,
    bin: PathBuf,
    library: PathBuf,
    major: u32,
    _scratch: Option<Arc<Scratch>>,
}

/// What a package is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// As it is released.
    Release,
    /// With fail points, for tests alone.
    Test,
}

/// Builds the extension in release and gives the folder of the package, laid out as from `/`.
///
/// In release, because a debug build of pgrx shows backtraces to clients. `see` gets each line of cargo's.
///
/// # Errors
/// When cargo-pgrx is missing or the build fails.
pub fn build(postgres: &Postgres, purpose: Use, see: impl FnMut(&str)) -> Result<PathBuf> {
    let (suffix, features) = match purpose {
        Use::Release => ("", ""),
        Use::Test => ("-test", " fail_points"),
    };
    let folder = target_dir().join("release").join(format!("pg_oidc-pg{}{suffix}", postgres.major()));
    if folder.exists() {
        // What an earlier version installed must not linger in this one.
        std::fs::remove_dir_all(&folder).context("could not empty the package folder")?;
    }
    let mut package = tools::pgrx()?;
    package.args(["package", "--package", "pg_oidc", "--no-default-features", "--features"]);
    package.arg(format!("pg{}{features}", postgres.major())).arg("--pg-config").arg(postgres.pg_config());
    package.arg("--out-dir").arg(&folder);
    package.env("PGRX_PG_CONFIG_PATH", postgres.pg_config()).env("CARGO_TARGET_DIR", target_dir());
    package.current_dir(workspace());
    program::watched(&mut package, see).context("could not build the extension")?;
    Ok(folder)
}

impl Server {
    /// The server with the extension for this process: the one that `cargo verify` made, else one built and
    /// copied now. It is removed when the process ends.
    ///
    /// # Errors
    /// When it cannot be built or copied.
    pub fn shared() -> Result<&'static Self> {
        static CHOSEN: OnceLock<Result<&'static Server, String>> = OnceLock::new();
        let find = || Server::of(&Postgres::chosen()?);
        let found = CHOSEN.get_or_init(|| find().map_err(|error| format!("{error:#}")));
        found.as_ref().copied().map_err(|error| anyhow!("{error}"))
    }

    /// As [`Server::shared`], of a major version that tests need beside the chosen one.
    ///
    /// # Errors
    /// When it cannot be had, built or copied.
    pub fn of_major(major: u32) -> Result<&'static Self> {
        Self::of(&Postgres::find(Choice::Major(major))?)
    }

    fn of(postgres: &Postgres) -> Result<&'static Self> {
        /// One for each supported major version.
        static SERVERS: [OnceLock<Result<Server, String>>; 4] = [const { OnceLock::new() }; 4];
        let major = postgres.major();
        let place = usize::try_from(major - SUPPORTED.start())?;
        let made = || {
            if let Some(root) = std::env::var_os(server_variable(major)) {
                return Server::at(PathBuf::from(root), postgres, None);
            }
            let step = Step::begin(format!("Building the extension for the tests on PostgreSQL {major}"));
            let package = build(postgres, Use::Test, |line| step.note(line))?;
            let server = Server::copy(postgres, Some(&package))?;
            step.done();
            Ok(server)
        };
        let server = SERVERS.get(place).with_context(|| format!("PostgreSQL {major} is not supported"))?;
        let server = server.get_or_init(|| made().map_err(|error: anyhow::Error| format!("{error:#}")));
        server.as_ref().map_err(|error| anyhow!("{error}"))
    }

    /// A copy of the server, with the files of a package from [`build`] in it.
    ///
    /// # Errors
    /// When files cannot be copied or the first data directory cannot be made.
    pub fn copy(postgres: &Postgres, package: Option<&Path>) -> Result<Self> {
        let scratch = Scratch::new()?;
        let root = scratch.path().to_owned();
        for option in ["--bindir", "--pkglibdir", "--sharedir"] {
            copy_tree(&postgres.folder(option)?, &root)?;
        }
        if let Some(package) = package {
            program::output(Command::new("cp").arg("-R").arg(package.join(".")).arg(&root))?;
            add_released(&root.join(postgres.folder("--sharedir")?.strip_prefix("/")?).join("extension"))?;
        }
        program::output(Command::new("chmod").args(["-R", "a+rX"]).arg(&root))?;
        let server = Self::at(root, postgres, Some(scratch))?;
        server.make_template()?;
        Ok(server)
    }

    fn at(root: PathBuf, postgres: &Postgres, scratch: Option<Scratch>) -> Result<Self> {
        let bin = root.join(postgres.folder("--bindir")?.strip_prefix("/")?);
        if !bin.join("postgres").is_file() {
            bail!("no server at {}", root.display());
        }
        let library = root.join(postgres.folder("--pkglibdir")?.strip_prefix("/")?).join("pg_oidc.so");
        Ok(Self { root, bin, library, major: postgres.major(), _scratch: scratch.map(Arc::new) })
    }

    /// Makes the data directory that clusters start from: initdb takes a second, a copy a moment.
    fn make_template(&self) -> Result<()> {
        let account = Account::unprivileged()?;
        let data = self.template();
        std::fs::create_dir(&data)?;
        account.own(&data)?;
        let mut initdb = self.command("initdb")?;
        initdb.arg("-D").arg(&data).args(["-N", "-U", SUPERUSER, "--locale=C.UTF-8", "-E", "UTF8"]);
        // In all versions, as from 18 on without being asked: pg_upgrade wants the same on both sides.
        initdb.arg("--data-checksums");
        initdb.args(["--auth-local=peer", "--auth-host=scram-sha-256", "--no-instructions"]);
        program::output(&mut initdb).context("could not make a data directory")?;
        Ok(())
    }

    /// The data directory to copy.
    pub fn template(&self) -> PathBuf {
        self.root.join(TEMPLATE)
    }

    /// Where the copy lies: what stands under `/` in the machine stands under this.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// 15 to 18.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// The folder of the server's programs.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// The extension's library in the copy, if it was put there.
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// One of the server's programs, run by the unprivileged user.
    ///
    /// # Errors
    /// When there is no such user.
    pub fn command(&self, name: &str) -> Result<Command> {
        Ok(Account::unprivileged()?.command(self.bin.join(name)))
    }
}

/// Adds the scripts of finished versions, which a package does not hold, so that updates from them can be tested.
fn add_released(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(workspace().join("sql"))? {
        let entry = entry?;
        let to = folder.join(entry.file_name());
        let script = entry.file_name().to_str().is_some_and(|name| name.starts_with("pg_oidc--"));
        if script && !to.exists() {
            std::fs::copy(entry.path(), &to).with_context(|| format!("could not write {}", to.display()))?;
        }
    }
    Ok(())
}

/// Copies a folder to the same place under another root.
fn copy_tree(from: &Path, root: &Path) -> Result<()> {
    let to = root.join(from.strip_prefix("/")?);
    std::fs::create_dir_all(&to).with_context(|| format!("could not make {}", to.display()))?;
    // -L: what a packager links elsewhere must be a file here, or PostgreSQL finds its way back there.
    // A link that leads nowhere is reported and is no loss, hence no look at the status.
    program::captured(Command::new("cp").arg("-RL").arg(from.join(".")).arg(&to))?;
    Ok(())
}
