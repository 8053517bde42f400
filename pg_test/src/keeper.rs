//! The keeper: a child that cleans up after us, however we end.
//!
//! A shell whose standard input is a pipe that only this process writes to. When the pipe closes, because we
//! closed it, returned, panicked, were interrupted or killed with signal 9, the shell runs its last orders.
//! It has its own process group, so that Ctrl-C at the terminal reaches us and not it.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result};

/// Waits for the end of the pipe. A signal is no reason to leave before the orders are done.
const WAIT: &str = "trap : HUP INT TERM; while read -r _; do :; done\n";

/// A running keeper. Dropped, it has its orders carried out and waits until they are.
#[derive(Debug)]
pub struct Keeper {
    child: Child,
    pipe: Option<ChildStdin>,
}

impl Keeper {
    /// Starts a keeper that will run the shell text `last_orders` with `folder` as `$1`.
    ///
    /// # Errors
    /// When the shell cannot be started.
    pub fn with_last_orders(last_orders: &str, folder: &Path) -> Result<Self> {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{WAIT}{last_orders}"), "keeper"]).arg(folder);
        shell.stdout(Stdio::null()).stderr(Stdio::null());
        Self::start(shell)
    }

    /// Starts a program under a keeper that ends it (SIGTERM) when we are gone. Its standard output is ours to
    /// read with [`Keeper::stdout`], its standard error goes where ours goes.
    ///
    /// # Errors
    /// When the shell cannot be started.
    pub fn over_program(program: &Path, arguments: &[&str]) -> Result<Self> {
        let mut shell = Command::new("sh");
        let script =
            format!("\"$@\" </dev/null & pid=$!\nexec >/dev/null 2>&1\n{WAIT}kill \"$pid\"; wait \"$pid\"");
        shell.args(["-c", &script, "keeper"]).arg(program).args(arguments);
        shell.stdout(Stdio::piped());
        Self::start(shell)
    }

    fn start(mut shell: Command) -> Result<Self> {
        shell.stdin(Stdio::piped()).process_group(0).current_dir("/");
        let mut child = shell.spawn().context("could not start sh")?;
        let pipe = child.stdin.take();
        Ok(Self { child, pipe })
    }

    /// The program's standard output, once, where it was piped.
    pub fn stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.pipe.take());
        let _ = self.child.wait();
    }
}
