//! The test yard of pg_oidc: everything that stands around the extension to try it from outside.
//!
//! A temporary server with the extension in it, real and misbehaving issuers, real clients, tokens good and
//! bad. The demo (`cargo demo`), the whole test run (`cargo verify`) and the login tests are built from it.
//!
//! | file | what |
//! |---|---|
//! | `terminal` | the steps a person sees |
//! | `machine`, `tools`, `account` | what must be installed, the tools beside it, the unprivileged user |
//! | `postgres`, `servers` | the server that is chosen: the machine's, or one that is fetched |
//! | `extension` | the built extension in a private copy of that server |
//! | `scratch`, `keeper` | a temporary folder, and the child that cleans up even when we are killed |
//! | `cluster`, `psql`, `client` | a temporary cluster, logging in to it with the real psql and with tokio-postgres |
//! | `upgrade` | pg_upgrade from one cluster to another |
//! | `wire`, `bearer` | a client that speaks the protocol by hand, and its words at the OAUTHBEARER door |
//! | `door`, `relay` | the door that the clients come by, and what takes them to the other one |
//! | `tls`, `keys`, `token` | certificates, signing keys, tokens |
//! | `provider`, `issuer` | a certified OpenID provider, and one that misbehaves |

pub mod account;
pub mod bearer;
pub mod client;
pub mod cluster;
pub mod door;
pub mod extension;
pub mod issuer;
pub mod keeper;
pub mod keys;
pub mod machine;
pub mod postgres;
pub mod program;
pub mod provider;
pub mod psql;
pub mod relay;
pub mod scratch;
pub mod servers;
pub mod terminal;
pub mod tls;
pub mod token;
pub mod tools;
pub mod upgrade;
pub mod wire;

use std::path::{Path, PathBuf};

/// What a test that does not apply to this server says before its reason, for `cargo verify` to count it apart.
pub const SKIPPED: &str = "skipped: ";

/// Says in a test that it does not apply here, and why.
pub fn skip(why: &str) {
    println!("{SKIPPED}{why}");
}

/// The folder of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Where cargo builds, and where the yard keeps the tools it installs.
pub fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => workspace().join(dir),
        None => workspace().join("target"),
    }
}
