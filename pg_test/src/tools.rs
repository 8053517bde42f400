//! Tools that are installed beside the project and not into the machine: cargo-pgrx, cargo-deny, a newer
//! Node.js, and the packages of the OpenID provider. All lie under the target folder but the last.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::terminal::Step;
use crate::{program, provider, target_dir};

/// The version of pgrx that this project is built with; cargo-pgrx must be the same.
pub const PGRX: &str = "0.18.1";
/// The version of cargo-deny that reads deny.toml.
pub const DENY: &str = "0.20.2";
/// The oldest Node.js that the provider runs on.
const OLDEST_NODE: u32 = 20;
/// The npm package `node` that is taken where the machine's is older.
const NODE: &str = "22.23.3";

/// Where tools are installed.
fn folder() -> PathBuf {
    target_dir().join("tools")
}

/// Sees to cargo-pgrx in the pinned version.
///
/// # Errors
/// When it cannot be installed.
pub fn prepare_pgrx() -> Result<()> {
    prepare("cargo-pgrx", &["pgrx", "--version"], PGRX)
}

/// Sees to cargo-deny in the pinned version.
///
/// # Errors
/// When it cannot be installed.
pub fn prepare_deny() -> Result<()> {
    prepare("cargo-deny", &["--version"], DENY)
}

/// cargo-pgrx in the pinned version, to be given its arguments from `package` and the like on.
///
/// # Errors
/// When it is not installed.
pub fn pgrx() -> Result<Command> {
    let program = in_version("cargo-pgrx", &["pgrx", "--version"], PGRX);
    let mut pgrx = program::command(program.with_context(|| format!("there is no cargo-pgrx {PGRX}"))?);
    pgrx.arg("pgrx");
    Ok(pgrx)
}

/// cargo-deny in the pinned version, to be given its arguments.
///
/// # Errors
/// When it is not installed.
pub fn deny() -> Result<Command> {
    let program = in_version("cargo-deny", &["--version"], DENY);
    Ok(program::command(program.with_context(|| format!("there is no cargo-deny {DENY}"))?))
}

/// The program of this name in the wanted version: the machine's, else ours. It is run by its own name, as
/// `cargo NAME` would prefer the machine's whatever its version.
fn in_version(name: &str, question: &[&str], version: &str) -> Option<PathBuf> {
    [PathBuf::from(name), folder().join("bin").join(name)].into_iter().find(|program| {
        let said = program::output(program::command(program).args(question));
        said.is_ok_and(|said| said.split_whitespace().any(|word| word == version))
    })
}

fn prepare(name: &str, question: &[&str], version: &str) -> Result<()> {
    if in_version(name, question, version).is_some() {
        return Ok(());
    }
    let step = Step::begin(format!("Building {name} {version}, which takes some minutes"));
    let mut install = program::command("cargo");
    install.args(["install", "--locked", name, "--version", &format!("={version}"), "--root"]);
    // cargo install then builds in a temporary folder, which it removes.
    install.arg(folder()).env_remove("CARGO_TARGET_DIR");
    // It is built to be used a few times: compile time counts here, not run time.
    install.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1").env("CARGO_PROFILE_RELEASE_LTO", "off");
    install.env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    program::watched(&mut install, |line| step.note(line))
        .with_context(|| format!("could not install {name}"))?;
    step.done();
    Ok(())
}

fn node_version(node: &PathBuf) -> Option<u32> {
    let said = program::output(program::command(node).arg("--version")).ok()?;
    said.trim().trim_start_matches('v').split('.').next()?.parse().ok()
}

/// The Node.js that runs the provider: the machine's, or ours where that is too old.
///
/// # Errors
/// When there is neither.
pub fn node() -> Result<PathBuf> {
    let ours = folder().join("node_modules/node/bin/node");
    for node in [PathBuf::from("node"), ours] {
        if node_version(&node).is_some_and(|major| major >= OLDEST_NODE) {
            return Ok(node);
        }
    }
    bail!("there is no Node.js {OLDEST_NODE} or later");
}

/// Sees to the packages of the OpenID provider, and to a Node.js that is new enough for it.
///
/// # Errors
/// When npm cannot install them.
pub fn prepare_provider() -> Result<()> {
    if node().is_err() {
        let step =
            Step::begin(format!("Fetching Node.js {NODE}, as the machine's is older than {OLDEST_NODE}"));
        let mut npm = program::command("npm");
        npm.args(["install", "--no-save", "--no-audit", "--no-fund", "--prefix"]);
        npm.arg(folder()).arg(format!("node@{NODE}"));
        program::watched(&mut npm, |line| step.note(line))?;
        step.done();
        node()?;
    }
    // npm notes in node_modules what it installed; older than the lock file, it is installed anew.
    let installed = provider::folder().join("node_modules/.package-lock.json");
    let modified = |path: PathBuf| std::fs::metadata(path).and_then(|file| file.modified()).ok();
    if modified(installed) >= modified(provider::folder().join("package-lock.json")) {
        return Ok(());
    }
    let step = Step::begin("Fetching the OpenID provider (npm ci)");
    let mut npm = program::command("npm");
    npm.args(["ci", "--no-audit", "--no-fund"]).current_dir(provider::folder());
    program::watched(&mut npm, |line| step.note(line))?;
    step.done();
    Ok(())
}
