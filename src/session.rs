//! The cloakroom: what this login was granted, kept in settings that nobody else can set.

use crate::fail_point::fail_point;
use crate::pg::{guc, way_back};
use crate::settings;
use pg_oidc_core::decision::Decision;

/// Keeps who came in and with which claims, for the rest of the session and its parallel workers.
///
/// # Errors
/// A value that core cannot hold (one with a NUL, which verification refuses before this).
pub(crate) fn begin(decision: &Decision) -> Result<(), std::ffi::NulError> {
    fail_point("login_claims");
    way_back::close();
    guc::set_sealed(settings::IDENTITY, &decision.identity)?;
    guc::set_sealed(settings::PROVIDER, &decision.provider)?;
    guc::set_sealed(settings::CLAIMS, &decision.claims)
}

/// The identity of the token that opened this session.
pub(crate) fn identity() -> Option<String> {
    settings::IDENTITY_SLOT.get()
}

/// The name of the provider of that token.
pub(crate) fn provider() -> Option<String> {
    settings::PROVIDER_SLOT.get()
}

/// The claims of that token, as JSON text.
pub(crate) fn claims() -> Option<String> {
    settings::CLAIMS_SLOT.get()
}
