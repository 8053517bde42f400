//! Generates `server.rs`: bindings to the very headers of the server that the extension is built for.
//!
//! `Port` and `HbaLine` change between major versions (and pgrx 0.18.1 gets `Port` wrong on 17), so nothing
//! of them is written by hand: another version is only another `pg_config`.

mod bindings;

use pgrx_pg_config::Pgrx;
use std::{env, error::Error, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=src/pg/server.h");
    println!("cargo:rerun-if-changed=src/pg/build.rs");
    println!("cargo:rerun-if-changed=src/pg/bindings.rs");
    println!("cargo:rerun-if-env-changed=PGRX_PG_CONFIG_PATH");
    println!("cargo:rerun-if-env-changed=PGRX_HOME");

    let version = ["pg15", "pg16", "pg17", "pg18"]
        .into_iter()
        .find(|v| env::var_os(format!("CARGO_FEATURE_{}", v.to_uppercase())).is_some())
        .ok_or("no feature names the server's major version (pg15, pg16, pg17 or pg18)")?;
    let include = Pgrx::from_config()?.get(version)?.includedir_server()?;

    bindings::bindings("src/pg/server.h", &include)
        .generate()?
        .write_to_file(PathBuf::from(env::var("OUT_DIR")?).join("server.rs"))?;
    Ok(())
}
