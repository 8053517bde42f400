//! pg_oidc: log in to PostgreSQL with an OIDC token as the password.
//!
//! The hallway: the library's magic, its SQL files in order, and `_PG_init`. No logic.

mod api;
#[allow(unsafe_code, reason = "shared memory, read in place")]
mod board;
#[deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
mod door;
mod events;
mod fail_point;
mod hba_file;
mod key_requests;
#[allow(unsafe_code, reason = "the cellar: everything that calls core")]
mod pg;
mod requests;
mod rows;
mod session;
mod sessions;
mod settings;
mod tallies;
mod turned_away;
#[deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
mod workers;

use pgrx::prelude::*;

pgrx::pg_module_magic!(name, version);

extension_sql_file!("../sql/tables.sql", name = "tables", bootstrap);
extension_sql_file!(
    "../sql/triggers.sql",
    name = "triggers",
    requires = [
        "tables",
        api::triggers::oidc::check_rights,
        api::triggers::oidc::check_rule,
        api::triggers::oidc::check_stored_rule,
        api::triggers::oidc::policy_changed,
        api::triggers::oidc::judge_provider,
        api::triggers::oidc::judge_rule,
    ]
);
extension_sql_file!(
    "../sql/audit.sql",
    name = "audit",
    requires = ["triggers", api::audit::oidc::audit_change]
);
extension_sql_file!("../sql/people.sql", name = "people", requires = ["triggers", "audit", "sessions"]);
extension_sql_file!(
    "../sql/keys.sql",
    name = "keys",
    requires = ["tables", api::keys::oidc::key_rows, api::keys::oidc::refresh_keys]
);
extension_sql_file!("../sql/stat.sql", name = "stat", requires = ["tables", api::stat::oidc::stat_rows]);
extension_sql_file!(
    "../sql/sessions.sql",
    name = "sessions",
    requires = ["tables", "triggers", api::sessions::oidc::session_rows, api::sessions::oidc::end_identity]
);
extension_sql_file!(
    "../sql/doctor.sql",
    name = "doctor",
    requires = ["tables", api::doctor::oidc::is_preloaded]
);
extension_sql_file!(
    "../sql/doctor_server.sql",
    name = "doctor_server",
    requires = [
        "doctor",
        api::doctor::oidc::library_version,
        api::doctor::oidc::hba_facts,
        api::doctor::oidc::board_facts,
        api::stat::oidc::stat_rows,
    ]
);
extension_sql_file!(
    "../sql/doctor_policy.sql",
    name = "doctor_policy",
    requires =
        ["doctor", "triggers", "keys", api::doctor::oidc::policy_limits, api::doctor::oidc::provider_problem]
);
extension_sql_file!(
    "../sql/doctor_rules.sql",
    name = "doctor_rules",
    requires = [
        "doctor",
        "triggers",
        api::doctor::oidc::rule_problem,
        api::doctor::oidc::role_problem,
        api::doctor::oidc::role_privilege,
    ]
);
extension_sql_file!(
    "../sql/doctor_people.sql",
    name = "doctor_people",
    requires = ["people", "doctor_rules"]
);
extension_sql_file!(
    "../sql/explain.sql",
    name = "explain",
    requires = [
        "tables",
        api::explain::oidc::explain,
        api::explain::oidc::explain_claims_text,
        api::explain::oidc::explain_facts,
    ]
);
extension_sql_file!(
    "../sql/access.sql",
    name = "access",
    requires = ["tables", api::policy_text::oidc::condition_text]
);
extension_sql_file!("../sql/document.sql", name = "document", requires = ["tables", "access"]);
extension_sql_file!("../sql/grants.sql", name = "grants", finalize);

/// Runs once in the postmaster, under shared_preload_libraries. Everywhere else it does nothing.
#[pg_guard]
extern "C-unwind" fn _PG_init() {
    if !pg::startup::preloading() {
        return;
    }
    settings::init();
    hba_file::init();
    pg::role_setting::guard();
    workers::init();
    api::init();
    pg::hooks::install(
        pg::hooks::Memory { request: board::request, start: workers::open_board },
        pg::hooks::Door {
            judge: door::password::authenticate,
            failed: door::failed,
            validate: door::validator::validate,
            finish: door::validator::finish,
        },
    );
}
