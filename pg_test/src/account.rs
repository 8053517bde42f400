//! The unprivileged user that temporary servers run as: PostgreSQL refuses to run as root.

use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use anyhow::{Context, Result, anyhow};

use crate::program;

/// The system user made for this where we run as root.
const NAME: &str = "pg_oidc";

/// Who runs the temporary servers: a system user where we are root, else ourselves.
#[derive(Debug, Clone)]
pub struct Account {
    name: String,
    ids: Option<(u32, u32)>,
}

/// Whether this process runs as root.
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

impl Account {
    /// The unprivileged user, made first where it is missing and we are root.
    ///
    /// # Errors
    /// When the user cannot be found or made.
    pub fn unprivileged() -> Result<&'static Self> {
        static ACCOUNT: LazyLock<Result<Account, String>> =
            LazyLock::new(|| Account::find().map_err(|error| format!("{error:#}")));
        ACCOUNT.as_ref().map_err(|error| anyhow!("{error}"))
    }

    fn find() -> Result<Self> {
        if !is_root() {
            let name = program::output(Command::new("id").arg("-un"))?;
            return Ok(Self { name: name.trim().to_owned(), ids: None });
        }
        if id("-u").is_err() {
            let mut useradd = Command::new("/usr/sbin/useradd");
            useradd.args(["--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]);
            useradd.args(["--shell", "/usr/sbin/nologin", NAME]);
            // Another process may make the user at this very moment: only its absence is an error.
            if let Err(error) = program::output(&mut useradd) {
                id("-u").map_err(|_| error.context("could not make the system user pg_oidc"))?;
            }
        }
        Ok(Self { name: NAME.to_owned(), ids: Some((id("-u")?, id("-g")?)) })
    }

    /// The user's name, as `peer` authentication sees it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that runs as this user, in `/`, with nothing of our environment but the path.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs([("LC_ALL", "C.UTF-8"), ("HOME", "/nonexistent"), ("TZ", "UTC")]);
        command.stdin(Stdio::null()).current_dir("/");
        if let Some((uid, gid)) = self.ids {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Makes the user the owner of a file or folder of ours.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn own(&self, path: &Path) -> Result<()> {
        let Some((uid, gid)) = self.ids else { return Ok(()) };
        chown(path, Some(uid), Some(gid)).with_context(|| format!("could not give {} away", path.display()))
    }
}

fn id(which: &str) -> Result<u32> {
    let number = program::output(Command::new("id").args([which, NAME]))?;
    number.trim().parse().with_context(|| format!("id {which} {NAME} gave {number:?}"))
}
