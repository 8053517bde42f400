//! Signing keys of an issuer, made once per process, with their public halves as JSON Web Keys (RFC 7517).

use std::sync::LazyLock;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

enum Pair {
    Rsa(Box<RsaKeyPair>),
    Ec(Box<EcdsaKeyPair>),
    Ed25519(Box<Ed25519KeyPair>),
}

/// A signing key with its `kid`.
pub struct Key {
    kid: &'static str,
    pair: Pair,
}

/// The keys of this process: two of each kind, so that one can be trusted and the other not.
pub struct Keys {
    /// RSA 2048, `RS256`.
    pub rsa: Key,
    /// P-256, `ES256`.
    pub ec: Key,
    /// Ed25519, `EdDSA`.
    pub ed25519: Key,
    /// A second RSA key.
    pub other_rsa: Key,
    /// A second P-256 key.
    pub other_ec: Key,
    /// A second Ed25519 key.
    pub other_ed25519: Key,
}

/// The keys of this process.
pub fn keys() -> &'static Keys {
    static KEYS: LazyLock<Keys> = LazyLock::new(|| Keys {
        rsa: Key::rsa("rsa-1"),
        ec: Key::ec("ec-1"),
        ed25519: Key::ed25519("ed-1"),
        other_rsa: Key::rsa("rsa-2"),
        other_ec: Key::ec("ec-2"),
        other_ed25519: Key::ed25519("ed-2"),
    });
    &KEYS
}

/// A key set that holds the public halves of these keys.
pub fn jwks(keys: &[&Key]) -> Value {
    json!({ "keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>() })
}

/// Without a source of randomness nothing here can go on.
const NO_KEY: &str = "the machine could not make a key";

impl Key {
    /// A fresh RSA 2048 key.
    pub fn rsa(kid: &'static str) -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).expect(NO_KEY);
        Self { kid, pair: Pair::Rsa(Box::new(pair)) }
    }

    /// A fresh P-256 key.
    pub fn ec(kid: &'static str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect(NO_KEY);
        Self { kid, pair: Pair::Ec(Box::new(pair)) }
    }

    /// A fresh Ed25519 key.
    pub fn ed25519(kid: &'static str) -> Self {
        let pair = Ed25519KeyPair::generate().expect(NO_KEY);
        Self { kid, pair: Pair::Ed25519(Box::new(pair)) }
    }

    /// The key's identifier.
    pub fn kid(&self) -> &'static str {
        self.kid
    }

    /// The `alg` it signs with.
    pub fn algorithm(&self) -> &'static str {
        match self.pair {
            Pair::Rsa(_) => "RS256",
            Pair::Ec(_) => "ES256",
            Pair::Ed25519(_) => "EdDSA",
        }
    }

    /// Its public half.
    pub fn jwk(&self) -> Value {
        let mut jwk = match &self.pair {
            Pair::Rsa(pair) => {
                // RFC 8017, A.1.1, in DER: a sequence of n (after 9 bytes of tags and lengths) and e.
                let public = pair.public_key().as_ref();
                let modulus = encoded(public.get(9..9 + 256).unwrap_or_default());
                let exponent = encoded([1, 0, 1]);
                json!({ "kty": "RSA", "n": modulus, "e": exponent })
            }
            Pair::Ec(pair) => {
                // SEC 1: a byte 0x04, then x and y, 32 bytes each.
                let point = pair.public_key().as_ref();
                let (x, y) = point.get(1..).unwrap_or_default().split_at(32);
                json!({ "kty": "EC", "crv": "P-256", "x": encoded(x), "y": encoded(y) })
            }
            Pair::Ed25519(pair) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": encoded(pair.public_key()) })
            }
        };
        for (member, value) in [("kid", self.kid), ("use", "sig"), ("alg", self.algorithm())] {
            jwk[member] = json!(value);
        }
        jwk
    }

    /// Its public half as a SubjectPublicKeyInfo (RFC 5280), DER.
    pub fn public_der(&self) -> Vec<u8> {
        let der: Result<PublicKeyX509Der<'_>, _> = match &self.pair {
            Pair::Rsa(pair) => pair.public_key().as_der(),
            Pair::Ec(pair) => pair.public_key().as_der(),
            Pair::Ed25519(pair) => pair.public_key().as_der(),
        };
        der.expect(NO_KEY).as_ref().to_vec()
    }

    /// Signs as JWS wants it (RFC 7518: PKCS #1 v1.5, r and s side by side, or Ed25519).
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).expect(NO_KEY);
                signature
            }
            Pair::Ec(pair) => pair.sign(&random, message).expect(NO_KEY).as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }
}

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
