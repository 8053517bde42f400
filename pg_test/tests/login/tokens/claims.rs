//! The claims.
//!
//! 1. n066, n068: the issuer: no string, unknown, nearly the configured one, of a disabled provider; an
//!    unknown one is never asked for anything.
//! 2. n069: the same `kid` at two issuers.
//! 3. n071, n072, n073, n076: the audience.
//! 4. n077 to n081: the expiry; n084: `nbf`; n085: `iat`.
//! 5. n088: the subject.
//! 6. n093: tokens bound to a key of their holder.

use anyhow::Result;
use pg_oidc_test::issuer::Issuer;
use pg_oidc_test::keys::{Key, jwks, keys};
use pg_oidc_test::token::{AUDIENCE, Token, now};
use serde_json::{Value, json};

use super::{issuer_with_keys, stage, until_admitted};
use crate::scene::{good, issuer, provider_sql};

fn signed(token: &Token) -> String {
    token.sign(&keys().ec)
}

/// Each of these values of a claim is refused with this reason.
fn refused_values(name: &str, claim: &str, reason: &str, values: &[Value]) -> Result<()> {
    for value in values {
        let token = signed(&good(name).claim(claim, value.clone()));
        stage().refused(name, &token, reason, format!("{claim}: {value}"))?;
    }
    Ok(())
}

/// Each of these values of a claim is accepted.
fn accepted_values(name: &str, claim: &str, values: &[Value]) -> Result<()> {
    for value in values {
        let token = signed(&good(name).claim(claim, value.clone()));
        stage().accepted(name, &token, format!("{claim}: {value}"))?;
    }
    Ok(())
}

#[test]
fn n066_issuer_that_is_no_string() -> Result<()> {
    stage().trio("n066")?;
    let own = issuer("n066");
    refused_values(
        "n066",
        "iss",
        "issuer_invalid",
        &[
            json!(1),
            json!({ "iss": own }),
            json!([own]),
            json!([own, "https://other.example"]),
            json!(null),
            json!(""),
            json!(true),
        ],
    )?;
    stage().refused("n066", &signed(&good("n066").without("iss")), "issuer_invalid", "missing")?;
    accepted_values("n066", "iss", &[json!(own)])
}

#[test]
fn n068_unknown_issuer_is_not_asked() -> Result<()> {
    let (stage, known, stranger) = (stage(), issuer_with_keys()?, issuer_with_keys()?);
    stage.admin()?.rows(&provider_sql("n068", &known.url(), &[]))?;
    stage.role_and_rule("n068", "n068", &json!({ "sub": "n068" }))?;
    let token = |issuer: &str| signed(&Token::for_user("n068").issuer(issuer));
    until_admitted(stage, "n068", &token(&known.url()))?;

    stage.refused("n068", &token(&stranger.url()), "issuer_unknown", "a stranger")?;
    let near = [
        format!("{}/", known.url()),
        known.url().replace("http:", "HTTP:"),
        known.url().replace("127.0.0.1", "localhost"),
        format!("{} ", known.url()),
        format!("{}0", known.url()),
        known.url().trim_end_matches(char::is_numeric).to_owned(),
    ];
    let asked = known.connections();
    for near in near {
        stage.refused("n068", &token(&near), "issuer_unknown", &near)?;
    }
    assert_eq!((stranger.connections(), known.connections()), (0, asked));

    stage.admin()?.rows("UPDATE oidc.provider SET enabled = false WHERE name = 'n068'")?;
    stage.refused("n068", &token(&known.url()), "provider_disabled", "disabled")?;
    stage.admin()?.rows("UPDATE oidc.provider SET enabled = true WHERE name = 'n068'")?;
    until_admitted(stage, "n068", &token(&known.url()))
}

#[test]
fn n069_same_kid_at_two_issuers() -> Result<()> {
    let stage = stage();
    let (one, other) = (Key::rsa("same"), Key::rsa("same"));
    for (name, key) in [("n069a", &one), ("n069b", &other)] {
        stage.provider_with(name, &jwks(&[key]), &[])?;
        stage.role_and_rule(name, name, &json!({ "sub": name }))?;
    }
    stage.accepted("n069a", &good("n069a").sign(&one), "its own key")?;
    stage.accepted("n069b", &good("n069b").sign(&other), "its own key")?;
    stage.refused("n069a", &good("n069a").sign(&other), "signature_invalid", "the other's key")?;
    stage.refused("n069b", &good("n069b").sign(&one), "signature_invalid", "the other's key")
}

#[test]
fn n069_same_kid_at_two_issuers_that_are_asked() -> Result<()> {
    let stage = stage();
    let issuers: Vec<(Issuer, Key)> =
        (0..2).map(|_| Ok((Issuer::start()?, Key::ec("same")))).collect::<Result<_>>()?;
    for (number, (issuer, key)) in issuers.iter().enumerate() {
        issuer.set_jwks(jwks(&[key]));
        let name = format!("n069_{number}");
        stage.admin()?.rows(&provider_sql(&name, &issuer.url(), &[]))?;
        stage.role_and_rule(&name, &name, &json!({ "sub": name }))?;
    }
    for (number, (issuer, key)) in issuers.iter().enumerate() {
        let name = format!("n069_{number}");
        let token = Token::for_user(&name).issuer(&issuer.url());
        stage.accepted(&name, &token.sign(key), "its own key")?;
        let (_, other) = &issuers[1 - number];
        stage.refused(&name, &token.sign(other), "signature_invalid", "the other's key")?;
    }
    Ok(())
}

#[test]
fn n071_n072_n073_n076_audience() -> Result<()> {
    let stage = stage();
    stage.trio("n071")?;
    stage.refused("n071", &signed(&good("n071").without("aud")), "audience_missing", "missing")?;
    refused_values(
        "n071",
        "aud",
        "audience_invalid",
        &[
            json!([]),
            json!(null),
            json!(5),
            json!([1, AUDIENCE]),
            json!([AUDIENCE, null]),
            json!([[AUDIENCE]]),
            json!({ AUDIENCE: true }),
            json!(true),
        ],
    )?;
    refused_values(
        "n071",
        "aud",
        "audience_mismatch",
        &[
            json!("warehous"),
            json!("warehouse2"),
            json!("Warehouse"),
            json!("WAREHOUSE"),
            json!("my warehouse"),
            json!("warehouse "),
            json!("warehouse,other"),
            json!(""),
            json!("https://orders.example/api"),
            json!(["https://orders.example/api", "https://billing.example"]),
        ],
    )?;
    accepted_values(
        "n071",
        "aud",
        &[json!(AUDIENCE), json!([AUDIENCE]), json!(["https://orders.example/api", AUDIENCE])],
    )
}

#[test]
fn n077_n078_n080_n081_expiry_that_is_no_time() -> Result<()> {
    let stage = stage();
    stage.trio("n077")?;
    stage.refused("n077", &signed(&good("n077").without("exp")), "expiry_missing", "missing")?;
    let later = now() + 600;
    let no_times = [json!(later.to_string()), json!(null), json!(true), json!([later]), json!({})];
    let out_of_range =
        [json!(-1), json!(1e308), json!(u64::MAX), json!(1e19), json!(253_402_300_800_i64), json!(-1e19)];
    for values in [&no_times[..], &out_of_range[..]] {
        refused_values("n077", "exp", "expiry_invalid", values)?;
        refused_values("n077", "nbf", "not_before_invalid", values)?;
        refused_values("n077", "iat", "issued_at_invalid", values)?;
    }
    accepted_values("n077", "exp", &[json!(later), json!(later as f64 + 0.5), json!(253_402_300_799_i64)])
}

#[test]
fn n079_expiry_and_leeway() -> Result<()> {
    let stage = stage();
    let set = jwks(&[&keys().ec]);
    stage.provider_with("n079", &set, &[("clock_skew", "'0 s'")])?;
    stage.role_and_rule("n079", "n079", &json!({ "sub": "n079" }))?;
    refused_values("n079", "exp", "token_expired", &[json!(now()), json!(now() - 1), json!(1)])?;
    refused_values("n079", "nbf", "not_yet_valid", &[json!(now() + 300)])?;
    refused_values("n079", "iat", "issued_in_future", &[json!(now() + 300)])?;
    accepted_values("n079", "exp", &[json!(now() + 120)])?;

    // The default leeway of 30 s, for all three times.
    stage.trio("n079b")?;
    accepted_values("n079b", "exp", &[json!(now() - 5)])?;
    refused_values("n079b", "exp", "token_expired", &[json!(now() - 31), json!(now() - 3600)])
}

#[test]
fn n084_n085_not_yet() -> Result<()> {
    stage().trio("n084")?;
    for (claim, reason) in [("nbf", "not_yet_valid"), ("iat", "issued_in_future")] {
        refused_values("n084", claim, reason, &[json!(now() + 300), json!(now() + 90)])?;
        accepted_values("n084", claim, &[json!(now() + 10), json!(now()), json!(now() - 3600)])?;
    }
    Ok(())
}

#[test]
fn n088_subject() -> Result<()> {
    let stage = stage();
    stage.provider("n088")?;
    stage.role_and_rule("n088", "n088", &json!({}))?;
    stage.refused("n088", &signed(&good("n088").without("sub")), "subject_invalid", "missing")?;
    refused_values(
        "n088",
        "sub",
        "subject_invalid",
        &[
            json!(""),
            json!(5),
            json!(null),
            json!(["n088"]),
            json!({ "sub": "n088" }),
            json!("two\nlines"),
            json!("s".repeat(2049)),
        ],
    )?;
    accepted_values(
        "n088",
        "sub",
        &[json!("n088"), json!("5"), json!("s".repeat(2048)), json!("Frieda Müller")],
    )
}

#[test]
fn n093_bound_tokens() -> Result<()> {
    stage().trio("n093")?;
    refused_values(
        "n093",
        "cnf",
        "token_bound",
        &[
            json!({ "jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" }),
            json!({ "x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2" }),
            json!({}),
            json!(null),
        ],
    )?;
    accepted_values("n093", "cnf2", &[json!({ "jkt": "x" })])
}
