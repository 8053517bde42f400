//! The rows of the policy tables as core's compiler takes them, read the same way by triggers and worker.

use crate::settings;
use pg_oidc_core::provider::{Provider, compile_provider};
use pg_oidc_core::row::{RowError, from_json};
use pg_oidc_core::rules::{Rule, compile_rule};

/// Compiles a row that `oidc.provider_row` gave.
///
/// # Errors
/// The first column that is not acceptable.
pub(crate) fn provider(json: &str) -> Result<Provider, RowError> {
    compile_provider(&from_json(json)?, settings::allow_http())
}

/// Compiles a row that `oidc.rule_row` gave.
///
/// # Errors
/// As [`provider`].
pub(crate) fn rule(json: &str) -> Result<Rule, RowError> {
    compile_rule(&from_json(json)?)
}

/// What is wrong with a row, for the log and for `oidc.doctor()`.
pub(crate) fn sentence(error: &RowError) -> String {
    match &error.detail {
        Some(detail) => format!("{}: {detail}", error.message),
        None => error.message.clone(),
    }
}
