//! The cloakroom: what this login was granted, kept in settings that nobody else can set.

use crate::fail_point::fail_point;
use crate::pg::role_setting::{self, Bounds};
use crate::pg::{guc, way_back};
use crate::settings;
use pg_oidc_core::decision::Decision;

/// A login that is to begin.
pub(crate) struct Grant {
    pub(crate) decision: Decision,
    /// The role that a person starts in, unless the client chooses another; None: a role login.
    pub(crate) start: Option<String>,
    /// The roles that the session may take on.
    pub(crate) bounds: Bounds,
}

impl Grant {
    /// The role whose rights the session has at first, as far as the client does not choose.
    pub(crate) fn role(&self) -> &str {
        self.start.as_deref().unwrap_or(&self.decision.role)
    }
}

/// Keeps who came in, with which claims and for which roles, for the rest of the session and its parallel workers.
///
/// # Errors
/// A value that core cannot hold (one with a NUL, which verification refuses before this).
pub(crate) fn begin(grant: &Grant) -> Result<(), std::ffi::NulError> {
    fail_point("login_claims");
    way_back::close();
    let Grant { decision, start, bounds } = grant;
    guc::set_sealed(settings::IDENTITY, &decision.identity)?;
    guc::set_sealed(settings::PROVIDER, &decision.provider)?;
    guc::set_sealed(settings::CLAIMS, &decision.claims)?;
    role_setting::bound(bounds.clone());
    if let Some(role) = start {
        role_setting::start_in(role);
    }
    Ok(())
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
