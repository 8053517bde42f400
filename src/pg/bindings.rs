//! How `server.rs` is generated; a file of its own, so that the layout test generates the same.

use std::path::Path;

/// Bindings to what `header` includes, by the server's headers in the folder `include`.
///
/// bindgen writes the size of each type and the place of each field into them as assertions: a build whose Rust types
/// lie otherwise than libclang says fails.
pub(crate) fn bindings(header: &str, include: &Path) -> bindgen::Builder {
    bindgen::Builder::default()
        .header(header)
        .clang_arg(format!("-I{}", include.display()))
        // gnu_printf, which gcc knows: no matter here.
        .clang_arg("-Wno-ignored-attributes")
        .allowlist_type(
            "Port|HbaLine|FormData_pg_auth_members|UserAuth|LogConnectionOption|config_generic|config_string|RegisteredBgWorker|OAuthValidatorCallbacks",
        )
        .allowlist_function("sendAuthRequest|pq_startmsgread|pq_endmsgread|pq_getbyte|pq_getmessage")
        .allowlist_function("get_guc_variables|GetNumConfigOptions|find_option|guc_free|guc_strdup")
        .allowlist_function("SignalHandlerForConfigReload|SignalHandlerForShutdownRequest")
        .allowlist_function("nextval_internal")
        .allowlist_function("errstart|errcode|errmsg_internal|errdetail_internal|errhint|errfinish")
        .allowlist_var("ClientAuthentication_hook|BackgroundWorkerList|MyProcPort|HbaFileName")
        .allowlist_var("MyClientConnectionInfo|log_connections|PG_OAUTH_VALIDATOR_MAGIC")
        .allowlist_var("ShutdownRequestPending|ConfigReloadPending|AUTH_REQ_PASSWORD")
        // The same types as pgrx binds, so that values pass between the two without a cast.
        .blocklist_type("StringInfoData|StringInfo|List|ListCell|Oid|BackgroundWorker|MemoryContext.*")
        .raw_line("use pgrx::pg_sys::{BackgroundWorker, List, Oid, StringInfo, StringInfoData};")
        .override_abi(bindgen::Abi::CUnwind, ".*")
        .default_enum_style(bindgen::EnumVariation::ModuleConsts)
        .prepend_enum_name(false)
        .layout_tests(true)
        .generate_comments(false)
}
