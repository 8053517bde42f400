//! Reading a JSON Web Key Set (RFC 7517): which entries may verify tokens.
//!
//! A set that is too large, not JSON, or without `keys` is refused whole. An entry that is not a sound public
//! signature key is left out by itself, so that one odd key does not lock everybody out.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ParsedPublicKey, VerificationAlgorithm,
};

use crate::algorithm::Algorithm;
use crate::base64url;
use crate::header::is_acceptable_kid;
use crate::json::{self, Json};
use crate::keys::{JwksError, Key, KeyProblem, KeyReport, Material, ParsedJwks};
use crate::limits;
use crate::roca;

/// Members that only a private key has (RFC 7518, sections 6.2.2, 6.3.2; RFC 8037, section 2).
const PRIVATE_MEMBERS: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "oth"];

/// RSA moduli, in bits: below, factoring is within reach (NIST SP 800-131A); above, verifying costs too much.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// RSA exponents, in bits: the bound of AWS-LC. 65537 has 17.
const RSA_EXPONENT_BITS: usize = 33;

/// Parses a key set of at most [`limits::JWKS_BYTES`] bytes and [`limits::KEYS_PER_PROVIDER`] entries, for a provider
/// that accepts `algorithms`. At least one key of the result is usable.
///
/// # Errors
/// [`JwksError`]: nothing of the set may be used, and the last good one stays.
pub fn parse_jwks(body: &[u8], algorithms: &[Algorithm]) -> Result<ParsedJwks, JwksError> {
    if body.len() > limits::JWKS_BYTES {
        return Err(JwksError::TooLarge);
    }
    let set = json::parse_object(body, json::JWKS_BOUNDS).map_err(JwksError::NotJson)?;
    let Some(Json::Array(entries)) = set.get("keys") else {
        return Err(JwksError::NoKeys);
    };
    if entries.len() > limits::KEYS_PER_PROVIDER {
        return Err(JwksError::TooManyKeys);
    }
    let mut keys: Vec<Key> = Vec::new();
    let mut reports = Vec::new();
    for entry in entries {
        let usable = match read_key(entry, algorithms) {
            Ok(key) if keys.contains(&key) => Err(KeyProblem::Repeated),
            Ok(key) => {
                keys.push(key);
                Ok(())
            }
            Err(problem) => Err(problem),
        };
        reports.push(report(entry, usable));
    }
    if keys.is_empty() { Err(JwksError::NoUsableKey(reports)) } else { Ok(ParsedJwks { keys, reports }) }
}

fn report(entry: &Json, usable: Result<(), KeyProblem>) -> KeyReport {
    let text = |name| entry.get(name).and_then(Json::as_str);
    KeyReport {
        kid: text("kid").filter(|kid| is_acceptable_kid(kid)).map(str::to_owned),
        kty: ["RSA", "EC", "OKP", "oct"]
            .into_iter()
            .find(|known| text("kty") == Some(known))
            .map(str::to_owned),
        alg: text("alg").and_then(Algorithm::parse),
        usable,
    }
}

fn read_key(entry: &Json, algorithms: &[Algorithm]) -> Result<Key, KeyProblem> {
    if !matches!(entry, Json::Object(_)) {
        return Err(KeyProblem::NotObject);
    }
    let kty = entry.get("kty").and_then(Json::as_str).unwrap_or_default();
    if kty == "oct" {
        return Err(KeyProblem::Symmetric);
    }
    if PRIVATE_MEMBERS.into_iter().any(|member| entry.get(member).is_some()) {
        return Err(KeyProblem::PrivateMember);
    }
    check_purpose(entry)?;
    let kid = match entry.get("kid") {
        None => None,
        Some(Json::String(kid)) if is_acceptable_kid(kid) => Some(kid.clone()),
        Some(_) => return Err(KeyProblem::Kid),
    };
    let alg = match entry.get("alg") {
        None => None,
        Some(alg) => Some(alg.as_str().and_then(Algorithm::parse).ok_or(KeyProblem::Algorithm)?),
    };
    let material = match kty {
        "RSA" => read_rsa(entry)?,
        "EC" => read_ec(entry)?,
        "OKP" => read_okp(entry)?,
        _ => return Err(KeyProblem::KeyType),
    };
    if alg.is_some_and(|alg| !material.serves(alg)) {
        return Err(KeyProblem::AlgorithmMismatch);
    }
    let may_serve = |allowed: &Algorithm| material.serves(*allowed) && alg.is_none_or(|alg| alg == *allowed);
    if !algorithms.iter().any(may_serve) {
        return Err(KeyProblem::AlgorithmNotAllowed);
    }
    Ok(Key { kid, alg, material })
}

/// `use` and `key_ops` (RFC 7517, sections 4.2 and 4.3): both optional, both must allow verifying.
fn check_purpose(entry: &Json) -> Result<(), KeyProblem> {
    if entry.get("use").is_some_and(|purpose| purpose.as_str() != Some("sig")) {
        return Err(KeyProblem::Use);
    }
    match entry.get("key_ops") {
        None => Ok(()),
        Some(operations @ Json::Array(_))
            if operations.strings().is_some_and(|all| all.contains(&"verify")) =>
        {
            Ok(())
        }
        Some(_) => Err(KeyProblem::KeyOps),
    }
}

fn read_rsa(entry: &Json) -> Result<Material, KeyProblem> {
    let n = bytes(entry, "n")?;
    let e = bytes(entry, "e")?;
    // RFC 7518, section 6.3.1.1: the minimum number of octets. A second spelling would be a second key.
    if n.first().is_none_or(|byte| *byte == 0) || e.first().is_none_or(|byte| *byte == 0) {
        return Err(KeyProblem::Encoding);
    }
    match bits(&n) {
        few if few < *RSA_BITS.start() => return Err(KeyProblem::RsaTooSmall),
        many if many > *RSA_BITS.end() => return Err(KeyProblem::RsaTooLarge),
        _ => {}
    }
    if is_even(&n) {
        return Err(KeyProblem::RsaModulus);
    }
    if roca::has_fingerprint(&n) {
        return Err(KeyProblem::RsaRoca);
    }
    if e == [1] || is_even(&e) || bits(&e) > RSA_EXPONENT_BITS {
        return Err(KeyProblem::RsaExponent);
    }
    Ok(Material::Rsa { n, e })
}

fn read_ec(entry: &Json) -> Result<Material, KeyProblem> {
    match entry.get("crv").and_then(Json::as_str) {
        Some("P-256") => Ok(Material::P256(point(entry, 32, &ECDSA_P256_SHA256_FIXED)?)),
        Some("P-384") => Ok(Material::P384(point(entry, 48, &ECDSA_P384_SHA384_FIXED)?)),
        _ => Err(KeyProblem::Curve),
    }
}

/// An uncompressed point (SEC 1, section 2.3.3) of two coordinates of full length (RFC 7518, section 6.2.1.2).
fn point(
    entry: &Json,
    length: usize,
    algorithm: &'static dyn VerificationAlgorithm,
) -> Result<Vec<u8>, KeyProblem> {
    let x = bytes(entry, "x")?;
    let y = bytes(entry, "y")?;
    if x.len() != length || y.len() != length {
        return Err(KeyProblem::Encoding);
    }
    let point = [&[4], x.as_slice(), y.as_slice()].concat();
    ParsedPublicKey::new(algorithm, &point).map_err(|_| KeyProblem::NotOnCurve)?;
    Ok(point)
}

fn read_okp(entry: &Json) -> Result<Material, KeyProblem> {
    if entry.get("crv").and_then(Json::as_str) != Some("Ed25519") {
        return Err(KeyProblem::Curve);
    }
    let x = bytes(entry, "x")?;
    if x.len() == 32 { Ok(Material::Ed25519(x)) } else { Err(KeyProblem::Encoding) }
}

fn bytes(entry: &Json, name: &str) -> Result<Vec<u8>, KeyProblem> {
    let text = entry.get(name).and_then(Json::as_str).ok_or(KeyProblem::Encoding)?;
    base64url::decode(text.as_bytes()).map_err(|_| KeyProblem::Encoding)
}

/// The length in bits of a big-endian number without leading zero bytes.
fn bits(number: &[u8]) -> usize {
    let leading = number.first().map_or(0, |byte| byte.leading_zeros());
    number.len().saturating_mul(8).saturating_sub(usize::try_from(leading).unwrap_or_default())
}

fn is_even(number: &[u8]) -> bool {
    number.last().is_none_or(|byte| byte % 2 == 0)
}
