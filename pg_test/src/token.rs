//! Tokens, good and bad: a builder that starts from a good one and spoils what the test is about.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use crate::keys::Key;

/// The issuer of tokens for which nothing else is said.
pub const ISSUER: &str = "https://issuer.example";
/// Their audience.
pub const AUDIENCE: &str = "warehouse";
/// How long they live.
pub const LIFETIME: Duration = Duration::from_secs(600);

/// A token in the making.
#[derive(Debug, Clone)]
pub struct Token {
    header: Map<String, Value>,
    claims: Map<String, Value>,
    raw_header: Option<Vec<u8>>,
    raw_payload: Option<Vec<u8>>,
}

/// Seconds since 1970, as `exp`, `nbf` and `iat` count.
pub fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

impl Token {
    /// A good token: `sub` as given, [`ISSUER`], [`AUDIENCE`], issued now, expiring after [`LIFETIME`].
    pub fn for_user(subject: &str) -> Self {
        let token = Self { header: Map::new(), claims: Map::new(), raw_header: None, raw_payload: None };
        let expiry = now() + i64::try_from(LIFETIME.as_secs()).unwrap_or(0);
        let token = token.header("typ", json!("JWT")).claim("iss", json!(ISSUER));
        let token = token.claim("sub", json!(subject)).claim("aud", json!(AUDIENCE));
        token.claim("iat", json!(now())).claim("exp", json!(expiry))
    }

    /// Sets a claim.
    #[must_use]
    pub fn claim(mut self, name: &str, value: Value) -> Self {
        self.claims.insert(name.to_owned(), value);
        self
    }

    /// Leaves a claim out.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.claims.remove(name);
        self
    }

    /// Sets `iss`.
    #[must_use]
    pub fn issuer(self, issuer: &str) -> Self {
        self.claim("iss", json!(issuer))
    }

    /// Sets `aud`.
    #[must_use]
    pub fn audience(self, audience: &str) -> Self {
        self.claim("aud", json!(audience))
    }

    /// Sets `groups`.
    #[must_use]
    pub fn groups(self, groups: &[&str]) -> Self {
        self.claim("groups", json!(groups))
    }

    /// Lets it have expired an hour ago.
    #[must_use]
    pub fn expired(self) -> Self {
        self.claim("iat", json!(now() - 7200)).claim("exp", json!(now() - 3600))
    }

    /// Lets it become valid only in an hour.
    #[must_use]
    pub fn not_yet_valid(self) -> Self {
        self.claim("nbf", json!(now() + 3600)).claim("exp", json!(now() + 7200))
    }

    /// Sets a member of the header. `alg` and `kid` are otherwise the signing key's.
    #[must_use]
    pub fn header(mut self, name: &str, value: Value) -> Self {
        self.header.insert(name.to_owned(), value);
        self
    }

    /// Takes these bytes for the header, whatever they are.
    #[must_use]
    pub fn raw_header(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.raw_header = Some(bytes.into());
        self
    }

    /// Takes these bytes for the payload, whatever they are.
    #[must_use]
    pub fn raw_payload(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.raw_payload = Some(bytes.into());
        self
    }

    /// The claims as they would be signed.
    pub fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }

    /// Signs with a key, whose `alg` and `kid` go into the header unless others were set; set to null they
    /// are left out.
    pub fn sign(&self, key: &Key) -> String {
        let input = self.signing_input(key.algorithm(), key.kid());
        let signature = key.sign(input.as_bytes());
        joined(&input, &signature)
    }

    /// Puts these bytes where the signature belongs.
    pub fn with_signature(&self, algorithm: &str, kid: &str, signature: &[u8]) -> String {
        joined(&self.signing_input(algorithm, kid), signature)
    }

    /// Header and payload, encoded and joined: what a signature is made over.
    pub fn signing_input(&self, algorithm: &str, kid: &str) -> String {
        let mut header = self.header.clone();
        header.entry("alg").or_insert_with(|| json!(algorithm));
        header.entry("kid").or_insert_with(|| json!(kid));
        header.retain(|_, value| !value.is_null());
        let header = self.raw_header.clone().unwrap_or_else(|| Value::Object(header).to_string().into());
        let claims = || Value::Object(self.claims.clone()).to_string().into();
        let payload = self.raw_payload.clone().unwrap_or_else(claims);
        format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload))
    }
}

fn joined(input: &str, signature: &[u8]) -> String {
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// The same token with other claims and the old signature: what somebody would try who wants more.
///
/// # Panics
/// When the text is not a token whose payload is a JSON object.
pub fn tampered(token: &str, change: impl FnOnce(&mut Map<String, Value>)) -> String {
    let mut parts = token.splitn(3, '.');
    let mut part = || parts.next().expect("a token has three parts");
    let (header, payload, signature) = (part(), part(), part());
    let payload = URL_SAFE_NO_PAD.decode(payload).expect("the payload is base64url");
    let mut claims: Map<String, Value> = serde_json::from_slice(&payload).expect("the payload is JSON");
    change(&mut claims);
    let payload = URL_SAFE_NO_PAD.encode(Value::Object(claims).to_string());
    format!("{header}.{payload}.{signature}")
}
