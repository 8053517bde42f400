//! One claim of a token that was accepted, as SQL's `oidc.claim` gives it.

use crate::json::{self, Json, TOKEN_BOUNDS};
use crate::path::ClaimPath;
use crate::row::{RowError, shown};

/// The claim `name` (a top-level name, or a JSON Pointer with a leading `/`) of `claims`, a JSON object as text; as
/// `->>` of jsonb gives it: a string as it is, null as nothing, anything else as JSON.
///
/// # Errors
/// `name` is empty, too long, or no JSON Pointer (RFC 6901).
pub fn text(claims: &str, name: &str) -> Result<Option<String>, RowError> {
    let path = ClaimPath::parse(name)
        .map_err(|problem| RowError::new(format!("claim name {} {problem}", shown(name))))?;
    // Written by this crate from a parsed token, so it parses within the same bounds.
    let Ok(claims) = json::parse_object(claims.as_bytes(), TOKEN_BOUNDS) else { return Ok(None) };
    Ok(match path.find(&claims) {
        None | Some(Json::Null) => None,
        Some(Json::String(text)) => Some(text.clone()),
        Some(other) => Some(other.to_string()),
    })
}
