//! The discovery document of an issuer (OpenID Connect Discovery 1.0, RFC 8414): where its keys are.

use std::fmt;

use crate::json::{self, Json, JsonProblem};
use crate::limits;
use crate::matching::problem_sentence;
use crate::url;

/// The path of the document below the issuer (OpenID Connect Discovery 1.0, section 4).
const PATH: &str = "/.well-known/openid-configuration";

/// Why a discovery document is not used. Holds nothing of the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiscoveryError {
    /// Larger than [`limits::JWKS_BYTES`].
    TooLarge,
    /// Not a JSON object that can be read strictly.
    NotJson(JsonProblem),
    /// `issuer` is missing or differs from the configured one, byte for byte (section 4.3).
    OtherIssuer,
    /// `jwks_uri` is missing, or not an https URL.
    NoJwksUri,
}

impl fmt::Display for DiscoveryError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiscoveryError::TooLarge => {
                write!(formatter, "the document is larger than {} bytes", limits::JWKS_BYTES)
            }
            DiscoveryError::NotJson(problem) => {
                write!(formatter, "the document is not acceptable: {}", problem_sentence(*problem))
            }
            DiscoveryError::OtherIssuer => {
                formatter.write_str("\"issuer\" in the document is not the configured issuer, byte for byte")
            }
            DiscoveryError::NoJwksUri => {
                formatter.write_str("\"jwks_uri\" in the document is not an https URL")
            }
        }
    }
}

impl std::error::Error for DiscoveryError {}

/// Where the discovery document of `issuer` is.
pub fn location(issuer: &str) -> String {
    format!("{}{PATH}", issuer.strip_suffix('/').unwrap_or(issuer))
}

/// Reads the document that was found there: the URL of the key set.
///
/// # Errors
/// [`DiscoveryError`]; nothing of the document may be used then.
pub fn parse(body: &[u8], issuer: &str, allow_http: bool) -> Result<String, DiscoveryError> {
    if body.len() > limits::JWKS_BYTES {
        return Err(DiscoveryError::TooLarge);
    }
    let document = json::parse_object(body, json::JWKS_BOUNDS).map_err(DiscoveryError::NotJson)?;
    if document.get("issuer").and_then(Json::as_str) != Some(issuer) {
        return Err(DiscoveryError::OtherIssuer);
    }
    let uri = document.get("jwks_uri").and_then(Json::as_str).ok_or(DiscoveryError::NoJwksUri)?;
    url::check("jwks_uri", uri, limits::ISSUER_BYTES, url::Query::Allowed, allow_http)
        .map_err(|_| DiscoveryError::NoJwksUri)?;
    Ok(uri.to_owned())
}
