//! A token as it came: parsed, and not believed.

use zeroize::Zeroizing;

use crate::base64url::{self, Problem};
use crate::header::{Header, json_refusal};
use crate::json::{self, Json};
use crate::limits;
use crate::refusal::Refusal;

/// A well-formed compact JWS (RFC 7515, section 3.1) whose header and claims are acceptable JSON. Nothing in it is
/// verified: only `iss`, `alg` and `kid` may be used, and only to find the key that will judge it.
///
/// What makes a bearer of its holder, the signature and what it signs, is wiped when it is dropped; `Debug` shows none
/// of it, nor any claim.
pub struct Untrusted {
    pub(crate) header: Header,
    pub(crate) claims: Json,
    /// Header and payload as they came, with the dot between them.
    pub(crate) signing_input: Zeroizing<Vec<u8>>,
    pub(crate) signature: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Untrusted {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Untrusted").field("algorithm", &self.header.algorithm).finish_non_exhaustive()
    }
}

/// Whether a secret may be a token, whole or broken, so that it must not be tried as a password.
///
/// Longer than [`limits::PASSWORD_BYTES`]; or, after white space, quotation marks and the word `Bearer`, it begins as a
/// JSON object does (RFC 7515, section 7.2), or has a dot and begins as a JSON object in base64url does.
pub fn may_be_token(secret: &[u8]) -> bool {
    let bare = bare(secret);
    // What follows the brace is a quotation mark or white space.
    let object = bare.starts_with(b"ey") || bare.starts_with(b"ew");
    secret.len() > limits::PASSWORD_BYTES || bare.starts_with(b"{") || object && bare.contains(&b'.')
}

/// What is left without what people paste along with a token.
fn bare(secret: &[u8]) -> &[u8] {
    let around = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'');
    let start = secret.iter().position(|byte| !around(byte)).unwrap_or(secret.len());
    let secret = secret.get(start..).unwrap_or_default();
    match secret.split_at_checked(7) {
        Some((word, token)) if word.eq_ignore_ascii_case(b"bearer ") => token.trim_ascii_start(),
        _ => secret,
    }
}

/// Parses a token of at most `max_bytes` bytes, and never more than [`limits::WIRE_BYTES`].
///
/// # Errors
/// Every refusal about the token as text, its header, or its payload as JSON; the first that applies.
pub fn parse(token: &[u8], max_bytes: usize) -> Result<Untrusted, Refusal> {
    let (untrusted, payload) = parse_jws(token, max_bytes)?;
    let claims = json::parse_object(&payload, json::TOKEN_BOUNDS)
        .map_err(|problem| json_refusal(problem, "payload"))?;
    Ok(Untrusted { claims, ..untrusted })
}

/// All of [`parse`] but what the payload says: a JWS of any content, still without claims, and its payload.
pub(crate) fn parse_jws(token: &[u8], max_bytes: usize) -> Result<(Untrusted, Zeroizing<Vec<u8>>), Refusal> {
    let limit = max_bytes.min(limits::WIRE_BYTES);
    if token.len() > limit {
        return Err(Refusal::TokenTooLarge { limit });
    }
    let (header, payload, signature) = split(token)?;
    // Four base64url characters stand for three bytes.
    if header.len() > limits::HEADER_BYTES.div_ceil(3).saturating_mul(4) {
        return Err(Refusal::HeaderTooLarge { limit: limits::HEADER_BYTES });
    }
    let header_bytes = decode(header)?;
    if header_bytes.len() > limits::HEADER_BYTES {
        return Err(Refusal::HeaderTooLarge { limit: limits::HEADER_BYTES });
    }
    let header_json = json::parse_object(&header_bytes, json::TOKEN_BOUNDS)
        .map_err(|problem| json_refusal(problem, "header"))?;
    let read = Header::read(&header_json)?;
    if signature.is_empty() {
        return Err(Refusal::TokenMalformed);
    }
    let signature = decode(signature)?;
    let signing_input = Zeroizing::new([header, payload].join(&b'.'));
    let untrusted = Untrusted { header: read, claims: Json::Null, signing_input, signature };
    Ok((untrusted, decode(payload)?))
}

/// Header, payload and signature, each still base64url.
type Parts<'a> = (&'a [u8], &'a [u8], &'a [u8]);

/// Splits a token. An empty signature passes, so that `alg: none` is refused for what it is.
fn split(token: &[u8]) -> Result<Parts<'_>, Refusal> {
    if token.first() == Some(&b'{') {
        return Err(Refusal::TokenJsonSerialization);
    }
    let in_alphabet = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !token.iter().all(in_alphabet) {
        return Err(Refusal::TokenMalformed);
    }
    let mut parts = token.split(|byte| *byte == b'.');
    match (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(_), Some(_), Some(_), Some(_), Some(_), None) => Err(Refusal::TokenEncrypted),
        (Some(header), Some(payload), Some(signature), None, ..) if !header.is_empty() => {
            Ok((header, payload, signature))
        }
        _ => Err(Refusal::TokenMalformed),
    }
}

fn decode(part: &[u8]) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    base64url::decode(part).map(Zeroizing::new).map_err(|problem| match problem {
        Problem::Malformed => Refusal::TokenMalformed,
        Problem::NotCanonical => Refusal::TokenNotCanonical,
    })
}

impl Untrusted {
    /// Claims that no token brought: for explanations. Their signature verifies with no key.
    pub(crate) fn of_claims(claims: Json) -> Untrusted {
        Untrusted {
            header: Header::of_claims(),
            claims,
            signing_input: Zeroizing::default(),
            signature: Zeroizing::default(),
        }
    }

    /// The claim `iss`, to find the provider by, byte for byte (RFC 7519, section 4.1.1).
    ///
    /// # Errors
    /// [`Refusal::IssuerInvalid`]: missing, not a string (an array is none), empty, or longer than
    /// [`limits::ISSUER_BYTES`].
    pub fn issuer(&self) -> Result<&str, Refusal> {
        match self.claims.get("iss") {
            Some(Json::String(issuer)) if !issuer.is_empty() && issuer.len() <= limits::ISSUER_BYTES => {
                Ok(issuer)
            }
            _ => Err(Refusal::IssuerInvalid),
        }
    }
}
