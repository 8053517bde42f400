//! Our verdict on a token beside that of jwt-compact, which parses JSON into structs of its own, has its own base64
//! and clock arithmetic, and verifies with RustCrypto.
//!
//! The two disagree where one asks for more than the other. Each such case has a name and a condition on the token
//! itself; a disagreement without one is a find.

use std::fmt::Display;

use chrono::{DateTime, Duration, Utc};
use jwt_compact::alg::{Ed25519, Es256, Rsa};
use jwt_compact::jwk::JsonWebKey;
use jwt_compact::{Algorithm, AlgorithmExt, TimeOptions, UntrustedToken};
use pg_oidc_core::json::JsonProblem;
use pg_oidc_core::limits::{
    CLAIM_MEMBERS, GROUPS, HEADER_BYTES, JSON_DEPTH, KID_BYTES, NUMBER_BYTES, WIRE_BYTES,
};
use pg_oidc_core::refusal::Refusal;
use serde_json::Value;

use crate::common::{ED25519, ISSUER, NOW, P256, RSA_A, Signer, b64};
use crate::fuzz::forge::{make, opened};
use crate::fuzz::house::{HOUSE, STRICT_ISSUER};
use crate::repeats;

/// The bytes as [`make`] reads them. Gives `agreed`, or why the two disagree.
pub(crate) fn check(data: &[u8]) -> &'static str {
    let Some((_, token)) = make(data) else { return "agreed" };
    let twin = twin(&token).map(|twin| compare(&twin));
    let outcome = compare(&token);
    // RFC 7518 says nothing against the other of the two S that an ECDSA signature can have; both take it.
    assert!(
        twin.is_none_or(|twin| twin == outcome),
        "the twin of an ECDSA signature: {twin:?}, not {outcome}"
    );
    outcome
}

fn compare(token: &[u8]) -> &'static str {
    let ours = HOUSE.judge(token).map(drop);
    let Some(theirs) = judged_by_other(token) else { return "an algorithm that the other does not have" };
    let why = match (&ours, &theirs) {
        (Ok(()), Ok(())) | (Err(_), Err(_)) => Some("agreed"),
        (Err(refusal), Ok(())) => Seen::of(token).and_then(|seen| seen.why_we_refuse(refusal)),
        (Ok(()), Err(_)) => Seen::of(token).and_then(|seen| seen.why_it_refuses()),
    };
    let Some(why) = why else {
        panic!("ours: {ours:?}, the other's: {theirs:?}, on {}", token.escape_ascii())
    };
    why
}

/// What the other library says of signature, `exp` and `nbf`, with the key of the token's algorithm. None: it does not
/// have the algorithm.
fn judged_by_other(token: &[u8]) -> Option<Result<(), String>> {
    fn text(error: impl Display) -> String {
        error.to_string()
    }
    let token = match std::str::from_utf8(token)
        .map_err(text)
        .and_then(|token| UntrustedToken::new(token).map_err(text))
    {
        Ok(token) => token,
        Err(error) => return Some(Err(error)),
    };
    Some(match token.algorithm() {
        "EdDSA" => judged(&Ed25519, &ED25519, &token),
        "ES256" => judged(&Es256, &P256, &token),
        name @ ("RS256" | "RS384" | "RS512" | "PS256" | "PS384" | "PS512") => {
            judged(&Rsa::with_name(name), &RSA_A, &token)
        }
        "ES384" => return None,
        other => Err(format!("no algorithm {other:?}")),
    })
}

fn judged<A: Algorithm>(algorithm: &A, signer: &Signer, token: &UntrustedToken<'_>) -> Result<(), String>
where
    A::VerifyingKey: for<'a, 'b> TryFrom<&'a JsonWebKey<'b>>,
{
    let jwk: JsonWebKey<'_> = serde_json::from_value(signer.jwk()).unwrap();
    let Ok(key) = A::VerifyingKey::try_from(&jwk) else { panic!("the other does not read our key") };
    let judged = algorithm.validator::<Value>(&key).validate(token).map_err(|error| error.to_string())?;
    let claims = judged.claims();
    let leeway = leeway(&claims.custom);
    let now = DateTime::<Utc>::from_timestamp(NOW, 0).unwrap();
    let options = TimeOptions::new(Duration::seconds(leeway), move || now);
    claims.validate_expiration(&options).map_err(|error| error.to_string())?;
    // It computes `nbf` less the leeway, which overflows for a time before its calendar begins.
    if claims.not_before.is_some_and(|time| time > now) {
        claims.validate_maturity(&options).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn leeway(claims: &Value) -> i64 {
    if claims["iss"] == STRICT_ISSUER { 30 } else { 0 }
}

/// The same token with the other S of its ECDSA signature on P-256 (r, n - s).
fn twin(token: &[u8]) -> Option<Vec<u8>> {
    const ORDER: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
        0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let [header, _, mut signature] = opened(token)?;
    if signature.len() != 64 || serde_json::from_slice::<Value>(&header).ok()?["alg"] != "ES256" {
        return None;
    }
    let mut borrowed = 0;
    for (digit, of_order) in signature[32..].iter_mut().zip(ORDER).rev() {
        let difference = i16::from(of_order) - i16::from(*digit) - borrowed;
        borrowed = i16::from(difference < 0);
        *digit = difference.rem_euclid(256) as u8;
    }
    let end = token.iter().rposition(|byte| *byte == b'.')?;
    Some([&token[..=end], b64(signature).as_bytes()].concat())
}

/// A token as a third parser sees it, serde_json's own. A document that it cannot read is null.
struct Seen {
    length: usize,
    texts: [Vec<u8>; 2],
    header: Value,
    claims: Value,
}

impl Seen {
    fn of(token: &[u8]) -> Option<Seen> {
        let [header, payload, _] = opened(token)?;
        let read = |text: &[u8]| serde_json::from_slice(text).unwrap_or_default();
        let (seen, claims) = (read(&header), read(&payload));
        Some(Seen { length: token.len(), header: seen, claims, texts: [header, payload] })
    }

    /// Why the other refuses what we accept.
    fn why_it_refuses(&self) -> Option<&'static str> {
        let header = |name: &str| self.header.get(name).filter(|value| !value.is_null());
        if self.header.is_null() || self.claims.is_null() {
            return Some("a number beyond a 64-bit float");
        }
        if header("cty").is_some_and(|cty| !cty.as_str().unwrap_or_default().eq_ignore_ascii_case("json")) {
            return Some("\"cty\" of another kind of content");
        }
        let unread =
            ["jku", "x5u"].into_iter().any(|name| header(name).is_some_and(|value| !value.is_string()));
        if unread || header("x5t").is_some() || header("x5t#S256").is_some() {
            return Some("a header parameter that we never read has another form");
        }
        None
    }

    /// Why we refuse what the other accepts.
    fn why_we_refuse(&self, refusal: &Refusal) -> Option<&'static str> {
        let issuer = self.claims["iss"].as_str().unwrap_or_default();
        let strict = issuer == STRICT_ISSUER;
        let reasons: [(bool, &[&str], &'static str); 12] = [
            (
                self.length > WIRE_BYTES || self.texts[0].len() > HEADER_BYTES,
                &["token_too_large", "header_too_large"],
                "sizes: it has no bound",
            ),
            (
                self.is_repeated(),
                &["duplicate_member"],
                "repeated members: it looks for those of the members that it reads alone",
            ),
            (
                self.texts.iter().any(|text| text.windows(6).any(|six| six == br"\u0000")),
                &["nul_character"],
                "U+0000: PostgreSQL cannot store it",
            ),
            (
                self.holds_too_much(refusal),
                &["too_many_claims", "too_many_groups", "header_invalid", "payload_invalid"],
                "bounds of the JSON: it has none, or wider ones",
            ),
            (
                ["crit", "b64", "zip"].into_iter().any(|name| self.header.get(name).is_some())
                    || self.is_null("cty"),
                &["header_refused"],
                "\"crit\", \"b64\", \"zip\": it ignores them (RFC 7515, section 4.1.11, says to refuse)",
            ),
            (
                self.is_null("kid") || self.is_null("typ") || self.has_odd_kid(),
                &["kid_invalid", "typ_invalid"],
                "\"kid\" and \"typ\" of odd forms: it takes null for absent, and any string",
            ),
            (
                self.header.get("kid").is_some() && self.header["kid"] != self.signer_kid(),
                &["key_unknown"],
                "\"kid\" of another key: it leaves the choice of the key to its caller",
            ),
            (!self.has_usual_typ(strict), &["typ_refused"], "\"typ\": it leaves it to its caller"),
            (
                ![ISSUER, STRICT_ISSUER].contains(&issuer),
                &[
                    "issuer_invalid",
                    "issuer_unknown",
                    "provider_disabled",
                    "algorithm_not_allowed",
                    "keys_pending",
                    "keys_stale",
                    "keys_unavailable",
                ],
                "\"iss\": it leaves it to its caller",
            ),
            (
                !self.is_for_us(if strict { "client_id" } else { "aud" }),
                &["audience_missing", "audience_invalid", "audience_mismatch"],
                "\"aud\": it leaves it to its caller",
            ),
            (
                self.has_odd_times(if strict { 30.0 } else { 0.0 }) || strict,
                &[
                    "token_expired",
                    "expiry_invalid",
                    "not_yet_valid",
                    "not_before_invalid",
                    "issued_at_invalid",
                    "issued_in_future",
                    "issued_at_missing",
                    "token_too_old",
                    "lifetime_too_long",
                ],
                "times: it cuts fractions off, lets the second of \"exp\" pass, and does not look at \"iat\"",
            ),
            (
                self.has_odd_names() || strict,
                &[
                    "subject_invalid",
                    "identity_invalid",
                    "token_bound",
                    "groups_overage",
                    "groups_missing",
                    "groups_invalid",
                    "required_claim_failed",
                    "email_unverified",
                ],
                "claims about the person: it leaves them to its caller",
            ),
        ];
        let reason = reasons.into_iter().find(|(_, codes, _)| codes.contains(&refusal.code()));
        reason.filter(|(holds, _, _)| *holds).map(|(_, _, why)| why)
    }

    fn is_null(&self, name: &str) -> bool {
        self.header.get(name).is_some_and(Value::is_null)
    }

    fn is_repeated(&self) -> bool {
        self.texts.iter().any(|text| repeats::some_name(text))
    }

    fn holds_too_much(&self, refusal: &Refusal) -> bool {
        let count = |wanted: u8| self.texts.iter().flatten().filter(|byte| **byte == wanted).count();
        let deepest = |text: &Vec<u8>| {
            let mut open = 0_usize;
            let deeper = |byte: &u8| {
                match byte {
                    b'[' | b'{' => open += 1,
                    b']' | b'}' => open = open.saturating_sub(1),
                    _ => {}
                }
                open
            };
            text.iter().map(deeper).max().unwrap_or_default()
        };
        let in_number = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let has_odd_number = |text: &Vec<u8>| {
            let numbers = text.split(|byte| !in_number(byte));
            numbers.into_iter().any(|number| {
                let exponent = number.iter().rposition(|byte| matches!(byte, b'e' | b'E'));
                number.len() > NUMBER_BYTES || exponent.is_some_and(|place| number.len() - place > 4)
            })
        };
        match refusal {
            Refusal::TooManyClaims { .. } => count(b':') > CLAIM_MEMBERS,
            Refusal::TooManyGroups { .. } => count(b',') >= GROUPS || count(b' ') >= GROUPS,
            Refusal::HeaderInvalid { problem } | Refusal::PayloadInvalid { problem } => match problem {
                JsonProblem::TooDeep => self.texts.iter().any(|text| deepest(text) > JSON_DEPTH),
                JsonProblem::NumberTooLong => self.texts.iter().any(has_odd_number),
                _ => false,
            },
            _ => false,
        }
    }

    fn has_odd_kid(&self) -> bool {
        let odd =
            |kid: &str| kid.len() > KID_BYTES || kid.chars().any(|sign| sign.is_control() || sign == '"');
        self.header["kid"].as_str().is_some_and(odd)
    }

    fn signer_kid(&self) -> &'static str {
        match self.header["alg"].as_str().unwrap_or_default() {
            "EdDSA" => ED25519.kid(),
            "ES256" => P256.kid(),
            _ => RSA_A.kid(),
        }
    }

    fn has_usual_typ(&self, strict: bool) -> bool {
        let typ = self.header.get("typ").and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase();
        let typ = typ.strip_prefix("application/").filter(|rest| !rest.contains('/')).unwrap_or(&typ);
        ["", "at+jwt"].contains(&typ) || (typ == "jwt" && !strict)
    }

    fn is_for_us(&self, claim: &str) -> bool {
        match &self.claims[claim] {
            Value::String(audience) => audience == "pg",
            Value::Array(all) => all.iter().all(Value::is_string) && all.contains(&"pg".into()),
            _ => false,
        }
    }

    /// Times as floats, which tell a second from the next one.
    fn has_odd_times(&self, leeway: f64) -> bool {
        let time = |name: &str| self.claims[name].as_f64();
        let possible = 0.000_001..253_402_300_800.0;
        let odd = |time: f64| !possible.contains(&time);
        let now = NOW as f64;
        time("exp").is_some_and(|exp| odd(exp) || exp.trunc() == now - leeway)
            || time("nbf").is_some_and(|nbf| odd(nbf) || nbf.trunc() == now + leeway)
            || time("iat").is_some_and(|iat| odd(iat) || iat > now)
    }

    fn has_odd_names(&self) -> bool {
        let named = |name: &str| self.claims.get(name).is_some();
        let sub = self.claims["sub"].as_str().unwrap_or_default();
        sub.is_empty()
            || sub.len() > 2048
            || sub.chars().any(char::is_control)
            || named("cnf")
            || self.claims["_claim_names"].get("groups").is_some()
            || named("hasgroups")
    }
}
