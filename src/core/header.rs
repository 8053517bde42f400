//! The JOSE header of a token (RFC 7515, section 4): the three parameters that are read, and those that are refused.
//!
//! ```text
//! alg                     must be a supported algorithm
//! kid                     absent, or an opaque string
//! typ                     absent, or a string; judged after the signature
//! crit, b64, zip          refused whatever they say
//! cty                     refused if it announces a nested JWT
//! jwk jku x5u x5c x5t …   never looked at: a token does not choose its key
//! ```

use crate::algorithm::Algorithm;
use crate::json::{Json, JsonProblem};
use crate::limits;
use crate::refusal::Refusal;

/// What is read of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) algorithm: Algorithm,
    pub(crate) kid: Option<String>,
    /// In the form of [`normal_typ`].
    pub(crate) typ: Option<String>,
}

/// Names that a log may show although they are no algorithms of ours.
const KNOWN_UNSUPPORTED: [&str; 7] = ["none", "HS256", "HS384", "HS512", "ES512", "ES256K", "Ed25519"];

impl Header {
    pub(crate) fn read(header: &Json) -> Result<Header, Refusal> {
        for parameter in ["crit", "b64", "zip"] {
            if header.get(parameter).is_some() {
                return Err(Refusal::HeaderRefused { parameter });
            }
        }
        if let Some(content) = header.get("cty")
            && content.as_str().is_none_or(|text| normal_typ(text) == "jwt")
        {
            return Err(Refusal::HeaderRefused { parameter: "cty" });
        }
        Ok(Header { algorithm: algorithm(header)?, kid: kid(header)?, typ: typ(header)? })
    }

    /// The header of claims that no token brought.
    pub(crate) fn of_claims() -> Header {
        Header { algorithm: Algorithm::RS256, kid: None, typ: None }
    }
}

fn algorithm(header: &Json) -> Result<Algorithm, Refusal> {
    let name = header.get("alg").and_then(Json::as_str).unwrap_or_default();
    Algorithm::parse(name).ok_or_else(|| Refusal::AlgorithmUnsupported {
        algorithm: KNOWN_UNSUPPORTED.into_iter().find(|known| *known == name),
    })
}

fn kid(header: &Json) -> Result<Option<String>, Refusal> {
    match header.get("kid") {
        None => Ok(None),
        Some(Json::String(kid)) if is_acceptable_kid(kid) => Ok(Some(kid.clone())),
        Some(_) => Err(Refusal::KidInvalid),
    }
}

fn typ(header: &Json) -> Result<Option<String>, Refusal> {
    match header.get("typ") {
        None => Ok(None),
        Some(Json::String(typ)) => Ok(Some(normal_typ(typ))),
        Some(_) => Err(Refusal::TypInvalid),
    }
}

/// A `kid` is opaque; but it reaches `oidc.key` and logs, so what could forge a line there is no `kid` at all.
pub(crate) fn is_acceptable_kid(kid: &str) -> bool {
    kid.len() <= limits::KID_BYTES && !kid.chars().any(|character| character.is_control() || character == '"')
}

/// Media types are compared without case, and `application/` may be left out if nothing else has a slash (RFC 7515,
/// section 4.1.9).
pub(crate) fn normal_typ(typ: &str) -> String {
    let lower = typ.to_ascii_lowercase();
    match lower.strip_prefix("application/") {
        Some(rest) if !rest.contains('/') => rest.to_owned(),
        _ => lower,
    }
}

/// The refusal of a part that is not acceptable JSON.
pub(crate) fn json_refusal(problem: JsonProblem, part: &'static str) -> Refusal {
    match problem {
        JsonProblem::DuplicateMember => Refusal::DuplicateMember { part },
        JsonProblem::NulCharacter => Refusal::NulCharacter { part },
        JsonProblem::TooManyMembers => Refusal::TooManyClaims { limit: limits::CLAIM_MEMBERS },
        JsonProblem::TooManyElements => Refusal::TooManyGroups { limit: limits::GROUPS },
        other if part == "header" => Refusal::HeaderInvalid { problem: other },
        other => Refusal::PayloadInvalid { problem: other },
    }
}
