//! A temporary folder that is gone afterwards, whatever happens to us.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use crate::keeper::Keeper;

/// A unix socket's whole path has 107 bytes; a longer temporary folder cannot hold one.
const LONGEST_PATH: usize = 60;

/// What the keeper of a plain folder does.
const REMOVE: &str = "rm -rf -- \"$1\"";

/// What the keeper of a folder with a server in it does. The process is ended only if it is alive and its
/// working directory is this folder's data directory: a number that is another's by now is left alone.
const STOP_AND_REMOVE: &str = r#"
ours() { [ -n "$pid" ] && [ "$(readlink "/proc/$pid/cwd")" = "$1/data" ]; }
pid=$(head -n 1 "$1/data/postmaster.pid")
if ours "$1"; then
    kill -INT "$pid"
    tries=0
    while ours "$1" && [ "$tries" -lt 100 ]; do tries=$((tries + 1)); sleep 0.05; done
    if ours "$1"; then kill -QUIT "$pid"; sleep 1; fi
    if ours "$1"; then kill -KILL "$pid"; sleep 1; fi
fi
rm -rf -- "$1"
"#;

/// A folder in the system's temporary folder that everybody may read and only we may write.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    _keeper: Keeper,
}

impl Scratch {
    /// A folder that is removed at the end.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new() -> Result<Self> {
        Self::kept(REMOVE)
    }

    /// A folder that is removed at the end, after the server whose data directory is `data` in it was ended.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn for_server() -> Result<Self> {
        Self::kept(STOP_AND_REMOVE)
    }

    fn kept(last_orders: &str) -> Result<Self> {
        let path = fresh_folder()?;
        let keeper = Keeper::with_last_orders(last_orders, &path)?;
        Ok(Self { path, _keeper: keeper })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn fresh_folder() -> Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let mut home = std::env::temp_dir();
    if home.as_os_str().len() > LONGEST_PATH {
        home = PathBuf::from("/tmp");
    }
    // The name the kernel gives, so that the keeper can compare it with a process's working directory.
    let home = home.canonicalize().with_context(|| format!("no folder {}", home.display()))?;
    for _ in 0..100 {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.subsec_nanos());
        let path = home.join(format!("pg_oidc-{}-{count}-{:x}", std::process::id(), nanos >> 8));
        match fs::create_dir(&path) {
            Ok(()) => {
                fs::set_permissions(&path, Permissions::from_mode(0o755))?;
                return Ok(path);
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(error).with_context(|| format!("could not make {}", path.display()));
            }
        }
    }
    bail!("could not find a free name in {}", home.display());
}
