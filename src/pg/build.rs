//! Generates `server.rs`: bindings to the very headers of the server that the extension is built for.
//!
//! `Port` and `HbaLine` change between major versions (and pgrx 0.18.1 gets `Port` wrong on 17), so nothing
//! of them is written by hand: another version is only another `pg_config`.

use pgrx_pg_config::Pgrx;
use std::{env, error::Error, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=src/pg/server.h");
    println!("cargo:rerun-if-changed=src/pg/build.rs");
    println!("cargo:rerun-if-env-changed=PGRX_PG_CONFIG_PATH");
    println!("cargo:rerun-if-env-changed=PGRX_HOME");

    let version = ["pg15", "pg16", "pg17", "pg18"]
        .into_iter()
        .find(|v| env::var_os(format!("CARGO_FEATURE_{}", v.to_uppercase())).is_some())
        .ok_or("no feature names the server's major version (pg15, pg16, pg17 or pg18)")?;
    let include = Pgrx::from_config()?.get(version)?.includedir_server()?;

    bindgen::Builder::default()
        .header("src/pg/server.h")
        .clang_arg(format!("-I{}", include.display()))
        .allowlist_type(
            "Port|HbaLine|FormData_pg_auth_members|UserAuth|LogConnectionOption|config_generic|config_string|RegisteredBgWorker",
        )
        .allowlist_function("sendAuthRequest|pq_startmsgread|pq_endmsgread|pq_getbyte|pq_getmessage")
        .allowlist_function("get_guc_variables|GetNumConfigOptions|find_option|guc_free|guc_strdup")
        .allowlist_function("SignalHandlerForConfigReload|SignalHandlerForShutdownRequest")
        .allowlist_function("nextval_internal")
        .allowlist_function("errstart|errcode|errmsg_internal|errdetail_internal|errhint|errfinish")
        .allowlist_var("ClientAuthentication_hook|BackgroundWorkerList|MyProcPort|HbaFileName|MyClientConnectionInfo")
        .allowlist_var("log_connections")
        .allowlist_var("ShutdownRequestPending|ConfigReloadPending|AUTH_REQ_PASSWORD")
        // The same types as pgrx binds, so that values pass between the two without a cast.
        .blocklist_type("StringInfoData|StringInfo|List|ListCell|Oid|BackgroundWorker|MemoryContext.*")
        .raw_line("use pgrx::pg_sys::{BackgroundWorker, List, Oid, StringInfo, StringInfoData};")
        .override_abi(bindgen::Abi::CUnwind, ".*")
        .default_enum_style(bindgen::EnumVariation::ModuleConsts)
        .prepend_enum_name(false)
        .layout_tests(false)
        .generate_comments(false)
        .generate()?
        .write_to_file(PathBuf::from(env::var("OUT_DIR")?).join("server.rs"))?;
    Ok(())
}
