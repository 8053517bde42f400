//! Tokens made from made-up bytes: how they were made says whether they may be believed.

use std::sync::LazyLock;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519 as EDDSA, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaPublicKeyComponents, UnparsedPublicKey,
    VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::PART;
use super::house::STRICT_ISSUER;
use crate::common::{ED25519, NOW, P256, P384, RSA_A, Signer, b64, claims_with};

/// How a token came about.
pub(crate) enum Origin {
    /// The bytes themselves.
    Raw,
    /// Header and payload are made up, the signature is honest.
    Signed,
    /// All three parts are made up.
    Forged,
    /// A good token with some characters changed.
    Edited(&'static str),
}

/// The first byte says what the others are; its lowest bits count, so that `0` to `3` are the ways above, and `7` and
/// `;` edit a token of another key.
pub(crate) fn make(data: &[u8]) -> Option<(Origin, Vec<u8>)> {
    let (mode, rest) = data.split_first()?;
    let mut parts = rest.splitn(3, |byte| *byte == PART);
    let mut part = || parts.next().unwrap_or_default();
    Some(match mode & 3 {
        0 => (Origin::Raw, rest.to_vec()),
        1 => {
            let input = format!("{}.{}", b64(part()), b64(part()));
            (Origin::Signed, format!("{input}.{}", b64(honest_signature(&input))).into_bytes())
        }
        2 => (Origin::Forged, format!("{}.{}.{}", b64(part()), b64(part()), b64(part())).into_bytes()),
        _ => {
            let good: &'static str = match mode >> 2 & 3 {
                1 => &GOOD[1],
                2 => &GOOD[2],
                3 => &GOOD[3],
                _ => &GOOD[0],
            };
            (Origin::Edited(good), edited(good.as_bytes(), rest))
        }
    })
}

/// Good tokens of the usual keys and of both providers that give something.
pub(crate) static GOOD: LazyLock<[String; 4]> = LazyLock::new(|| {
    let strict = claims_with(json!({
        "iss": STRICT_ISSUER, "client_id": "pg", "email": "a@corp.example", "email_verified": true, "tenant": "t",
        "realm_access": {"roles": ["dev", "dba"]}, "nbf": NOW - 10, "exp": NOW + 300,
    }));
    let usual = claims_with(json!({"scope": "read write", "nbf": NOW - 10, "note": super::SECRET}));
    let of = |signer: &Signer, algorithm: &str, claims: &Value| {
        let header = json!({"alg": algorithm, "kid": signer.kid(), "typ": "at+jwt"});
        signer.token(&header.to_string(), &claims.to_string())
    };
    [
        of(&ED25519, "EdDSA", &usual),
        of(&P256, "ES256", &usual),
        of(&RSA_A, "RS256", &usual),
        of(&ED25519, "EdDSA", &strict),
    ]
});

/// Each three bytes are a place and what is done there: 0 takes the byte away, anything else changes it.
pub(crate) fn edited(text: &[u8], edits: &[u8]) -> Vec<u8> {
    let mut text = text.to_vec();
    for edit in edits.chunks_exact(3) {
        let [high, low, change] = [edit[0], edit[1], edit[2]];
        if text.is_empty() {
            break;
        }
        let place = usize::from(u16::from_be_bytes([high, low])) % text.len();
        if change == 0 {
            text.remove(place);
        } else {
            text[place] ^= change;
        }
    }
    text
}

/// The algorithm that the header names, if its JSON can be read by another parser than ours.
fn algorithm(header: &[u8]) -> String {
    let header: Value = serde_json::from_slice(header).unwrap_or_default();
    header["alg"].as_str().unwrap_or_default().to_owned()
}

fn signer(algorithm: &str) -> &'static Signer {
    match algorithm {
        "ES256" => &P256,
        "ES384" => &P384,
        "RS256" | "RS384" | "RS512" | "PS256" | "PS384" | "PS512" => &RSA_A,
        _ => &ED25519,
    }
}

/// A token of the test key of that algorithm.
pub(crate) fn signed(algorithm: &str, payload: &str) -> String {
    signer(algorithm).token(&json!({ "alg": algorithm }).to_string(), payload)
}

fn honest_signature(input: &str) -> Vec<u8> {
    let header = input.split('.').next().unwrap_or_default();
    let algorithm = algorithm(&URL_SAFE_NO_PAD.decode(header).unwrap());
    signer(&algorithm).sign(&algorithm, input.as_bytes())
}

/// Header, payload and signature of a token that is three parts of strict base64url.
pub(crate) fn opened(token: &[u8]) -> Option<[Vec<u8>; 3]> {
    let mut parts = token.split(|byte| *byte == b'.').map(|part| {
        let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
        (b64(&bytes).as_bytes() == part).then_some(bytes)
    });
    let opened = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(opened)
}

/// Whether the test key of the algorithm in the header has signed the token: written down once more, without any of
/// the code under test.
pub(crate) fn is_signed(token: &[u8]) -> bool {
    let Some([header, _, signature]) = opened(token) else { return false };
    let Some(end) = token.iter().rposition(|byte| *byte == b'.') else { return false };
    let algorithm = algorithm(&header);
    let signer = signer(&algorithm);
    let jwk = signer.jwk();
    let part = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
    if let Signer::Rsa(..) = signer {
        let parameters = match algorithm.as_str() {
            "RS256" => &RSA_PKCS1_2048_8192_SHA256,
            "RS384" => &RSA_PKCS1_2048_8192_SHA384,
            "RS512" => &RSA_PKCS1_2048_8192_SHA512,
            "PS256" => &RSA_PSS_2048_8192_SHA256,
            "PS384" => &RSA_PSS_2048_8192_SHA384,
            _ => &RSA_PSS_2048_8192_SHA512,
        };
        let key = RsaPublicKeyComponents { n: part("n"), e: part("e") };
        return key.verify(parameters, &token[..end], &signature).is_ok();
    }
    let point = || [vec![4], part("x"), part("y")].concat();
    let (known, key): (&'static dyn VerificationAlgorithm, _) = match algorithm.as_str() {
        "ES256" => (&ECDSA_P256_SHA256_FIXED, point()),
        "ES384" => (&ECDSA_P384_SHA384_FIXED, point()),
        "EdDSA" => (&EDDSA, part("x")),
        _ => return false,
    };
    UnparsedPublicKey::new(known, key).verify(&token[..end], &signature).is_ok()
}
