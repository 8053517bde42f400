//! Verification keys that passed every check, and the reports on those that did not.

use jsonwebtoken::DecodingKey;
use jsonwebtoken::crypto::aws_lc;
use rkyv::{Archive, Deserialize, Serialize};

use crate::algorithm::{Algorithm, ArchivedAlgorithm};
use crate::base64url;
use crate::json::{self, Json, JsonProblem};
use crate::matching::problem_sentence;

pub use crate::jwks::parse_jwks;

/// A usable public key of one provider. Only [`parse_jwks`] makes one.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The `kid`: opaque, compared byte for byte.
    pub(crate) kid: Option<String>,
    /// The one algorithm that the key declares (RFC 7517, section 4.4).
    pub(crate) alg: Option<Algorithm>,
    pub(crate) material: Material,
}

/// Key material in the form that the verifier takes.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub(crate) enum Material {
    /// Modulus and exponent, big-endian without leading zeros.
    Rsa { n: Vec<u8>, e: Vec<u8> },
    /// An uncompressed point on P-256: 4, x, y.
    P256(Vec<u8>),
    /// An uncompressed point on P-384: 4, x, y.
    P384(Vec<u8>),
    /// An Ed25519 public key.
    Ed25519(Vec<u8>),
}

/// The keys of one set: those to use, and a line about each entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedJwks {
    /// The usable keys, at least one, in the order of the set.
    pub keys: Vec<Key>,
    /// One report for each entry, in the order of the set.
    pub reports: Vec<KeyReport>,
}

/// What became of one entry of a key set.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct KeyReport {
    /// Its `kid`, if it has an acceptable one.
    pub kid: Option<String>,
    /// Its `kty`, if that is one that we know.
    pub kty: Option<String>,
    /// Its `alg`, if that is one that we verify.
    pub alg: Option<Algorithm>,
    /// Whether it verifies tokens, and if not why.
    pub usable: Result<(), KeyProblem>,
}

/// Why an entry of a key set is not used; the other entries are.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyProblem {
    /// Not a JSON object.
    NotObject,
    /// `kty` is missing, not a string, or none of RSA, EC and OKP.
    KeyType,
    /// A symmetric key (`oct`): never a reason to verify an HMAC.
    Symmetric,
    /// The set shows private members: whoever reads it can sign. The provider should be told.
    PrivateMember,
    /// `use` is not `sig`.
    Use,
    /// `key_ops` is not an array of strings with `verify` in it.
    KeyOps,
    /// `kid` is not a string, too long, or holds a control character or a quotation mark.
    Kid,
    /// `alg` is not the name of an algorithm that we verify.
    Algorithm,
    /// `alg` does not belong to this kind of key or curve.
    AlgorithmMismatch,
    /// No algorithm that the key serves is in the provider's list.
    AlgorithmNotAllowed,
    /// `crv` is missing or not a curve that we verify with.
    Curve,
    /// A member that makes the key is missing, not strict base64url, or of the wrong length.
    Encoding,
    /// An RSA modulus under 2048 bits.
    RsaTooSmall,
    /// An RSA modulus over 8192 bits.
    RsaTooLarge,
    /// An RSA modulus that is even, so not a product of two large primes.
    RsaModulus,
    /// An RSA modulus whose private key can be computed (CVE-2017-15361, ROCA).
    RsaRoca,
    /// An RSA exponent that is 1, even, or longer than 33 bits.
    RsaExponent,
    /// A point that is not on its curve.
    NotOnCurve,
    /// The same key as an earlier entry.
    Repeated,
}

/// Why a key set as a whole is refused; the last good one stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwksError {
    /// Larger than [`limits::JWKS_BYTES`](crate::limits::JWKS_BYTES).
    TooLarge,
    /// Not a JSON object within our bounds.
    NotJson(JsonProblem),
    /// No member `keys`, or it is not an array (RFC 7517, section 5).
    NoKeys,
    /// More entries than [`limits::KEYS_PER_PROVIDER`](crate::limits::KEYS_PER_PROVIDER).
    TooManyKeys,
    /// No entry is usable; the reports say why.
    NoUsableKey(Vec<KeyReport>),
}

/// The keys as a JSON Web Key Set that [`parse_jwks`] reads back as the same keys: what is kept across a restart.
///
/// `key_source` stands beside them (RFC 7517, section 5, lets a set have other members), so that keys of a place that
/// the provider no longer names are never taken back.
pub fn jwks_text(keys: &[Key], key_source: u64) -> String {
    let keys: Vec<String> = keys.iter().map(Key::jwk).collect();
    format!(r#"{{"key_source":"{key_source}","keys":[{}]}}"#, keys.join(","))
}

/// The key source that [`jwks_text`] wrote into a set.
pub(crate) fn source_of(jwks: &str) -> Option<u64> {
    let set = json::parse_object(jwks.as_bytes(), json::JWKS_BOUNDS).ok()?;
    set.get("key_source")?.as_str()?.parse().ok()
}

impl Key {
    /// The `kid`, if it has one.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    fn jwk(&self) -> String {
        let part = |bytes: &[u8]| Json::String(base64url::encode(bytes));
        let half = |point: &[u8], second: bool| {
            let coordinates = point.get(1..).unwrap_or_default();
            let (x, y) = coordinates.split_at(coordinates.len() / 2);
            part(if second { y } else { x })
        };
        let text = |text: &str| Json::String(text.to_owned());
        let mut members = match &self.material {
            Material::Rsa { n, e } => vec![("kty", text("RSA")), ("n", part(n)), ("e", part(e))],
            Material::P256(point) | Material::P384(point) => {
                let curve = if matches!(self.material, Material::P256(_)) { "P-256" } else { "P-384" };
                let (x, y) = (half(point, false), half(point, true));
                vec![("kty", text("EC")), ("crv", text(curve)), ("x", x), ("y", y)]
            }
            Material::Ed25519(bytes) => {
                vec![("kty", text("OKP")), ("crv", text("Ed25519")), ("x", part(bytes))]
            }
        };
        members.extend(self.kid.as_deref().map(|kid| ("kid", text(kid))));
        members.extend(self.alg.map(|alg| ("alg", text(alg.name()))));
        Json::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()).to_string()
    }

    /// Whether the signature of `input` verifies. A key that does not serve the algorithm verifies nothing.
    pub(crate) fn verifies(&self, algorithm: Algorithm, input: &[u8], signature: &Vec<u8>) -> bool {
        if !self.material.serves(algorithm) {
            return false;
        }
        let key = match &self.material {
            Material::Rsa { n, e } => DecodingKey::from_rsa_raw_components(n, e),
            Material::P256(point) | Material::P384(point) => DecodingKey::from_ec_der(point),
            Material::Ed25519(bytes) => DecodingKey::from_ed_der(bytes),
        };
        // Named, not the process-wide default: no other crate can put its own verifier in its place.
        (aws_lc::DEFAULT_PROVIDER.verifier_factory)(&algorithm.for_library(), &key)
            .is_ok_and(|verifier| verifier.verify(input, signature).is_ok())
    }
}

impl Material {
    pub(crate) fn serves(&self, algorithm: Algorithm) -> bool {
        match self {
            Material::Rsa { .. } => algorithm.is_rsa(),
            Material::P256(_) => algorithm == Algorithm::ES256,
            Material::P384(_) => algorithm == Algorithm::ES384,
            Material::Ed25519(_) => algorithm == Algorithm::EdDSA,
        }
    }
}

impl ArchivedKey {
    /// Whether the key may verify a token with that header. Without a `kid` in the header any key of the algorithm
    /// may, and the caller sees to it that there is only one.
    pub(crate) fn fits(&self, kid: Option<&str>, algorithm: Algorithm) -> bool {
        let same_kid = kid.is_none_or(|kid| self.kid.as_ref().is_some_and(|own| own.as_str() == kid));
        let same_alg = self.alg.as_ref().is_none_or(|own: &ArchivedAlgorithm| *own == algorithm);
        let serves = match &self.material {
            ArchivedMaterial::Rsa { .. } => algorithm.is_rsa(),
            ArchivedMaterial::P256(_) => algorithm == Algorithm::ES256,
            ArchivedMaterial::P384(_) => algorithm == Algorithm::ES384,
            ArchivedMaterial::Ed25519(_) => algorithm == Algorithm::EdDSA,
        };
        same_kid && same_alg && serves
    }
}

impl KeyProblem {
    /// The reason as a sentence, for `oidc.key` and the server log.
    pub fn sentence(self) -> &'static str {
        match self {
            KeyProblem::NotObject => "The entry is not a JSON object.",
            KeyProblem::KeyType => "The \"kty\" is missing or none of RSA, EC and OKP.",
            KeyProblem::Symmetric => "It is a symmetric key, which can never verify a token here.",
            KeyProblem::PrivateMember => {
                "The issuer publishes private members of this key, so anybody can sign with it; tell the issuer."
            }
            KeyProblem::Use => "The \"use\" is not \"sig\".",
            KeyProblem::KeyOps => "The \"key_ops\" do not include \"verify\".",
            KeyProblem::Kid => {
                "The \"kid\" is not a string, is too long, or holds a control character or a quotation mark."
            }
            KeyProblem::Algorithm => "The \"alg\" is not the name of a supported algorithm.",
            KeyProblem::AlgorithmMismatch => "The \"alg\" does not belong to this kind of key.",
            KeyProblem::AlgorithmNotAllowed => "No algorithm of the key is in the provider's list.",
            KeyProblem::Curve => "The \"crv\" is missing or not supported.",
            KeyProblem::Encoding => {
                "A member of the key is missing, is not strict base64url, or has the wrong length."
            }
            KeyProblem::RsaTooSmall => "The RSA modulus has fewer than 2048 bits.",
            KeyProblem::RsaTooLarge => "The RSA modulus has more than 8192 bits.",
            KeyProblem::RsaModulus => "The RSA modulus is even.",
            KeyProblem::RsaRoca => {
                "The RSA modulus is of a faulty generator (CVE-2017-15361), so anybody can compute the private key; tell the issuer."
            }
            KeyProblem::RsaExponent => "The RSA exponent is 1, even, or longer than 33 bits.",
            KeyProblem::NotOnCurve => "The point is not on its curve.",
            KeyProblem::Repeated => "It is the same key as an earlier one.",
        }
    }
}

impl JwksError {
    /// The reason as a sentence, for `oidc.key`, the server log and row errors.
    pub fn sentence(&self) -> &'static str {
        match self {
            JwksError::TooLarge => "The key set is larger than 256 kB.",
            JwksError::NotJson(problem) => problem_sentence(*problem),
            JwksError::NoKeys => "It has no array \"keys\" (RFC 7517, section 5).",
            JwksError::TooManyKeys => "It has more than 100 keys.",
            JwksError::NoUsableKey(_) => "It has no usable key.",
        }
    }
}
