//! What a refused client is told: the same bytes, whatever the cause.
//!
//! 1. `n121` More than 20 causes for one user give one ErrorResponse, byte for byte, file, line and routine
//!    included; the log tells each from the other.
//! 2. `n121` SQLSTATE 57P03 and the retry line come only where waiting may help: keys that are being fetched
//!    for the first time, a policy that could not be read again since it changed.

use std::collections::BTreeSet;

use anyhow::{Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pg_oidc_test::cluster::Cluster;
use pg_oidc_test::issuer::{Behaviour, DISCOVERY, Issuer};
use pg_oidc_test::keys::keys;
use pg_oidc_test::psql::Way;
use pg_oidc_test::token::{Token, now, tampered};
use pg_oidc_test::wire::{ASKED, Heard, Refused, Wire};
use serde_json::json;

use crate::stage::{SOON, admit, builder, calm, furnished, good, lets_in, reasons, token};

const USER: &str = "guest";

fn refused(heard: Heard) -> Result<Refused> {
    match heard {
        Heard::Error(refused) => Ok(refused),
        other => bail!("{other:?} instead of a refusal"),
    }
}

/// What every refused client hears.
fn constant() -> Vec<(char, String)> {
    let message = format!("OIDC authentication failed for user \"{USER}\"");
    let fields =
        [('S', "FATAL"), ('V', "FATAL"), ('C', "28000"), ('M', &message), ('F', "pg_oidc"), ('L', "1")];
    let fields = fields.into_iter().chain([('R', "authenticate")]);
    fields.map(|(letter, text)| (letter, text.to_owned())).collect()
}

/// Passwords and the reason for which each is refused.
fn bad_passwords() -> Vec<(String, &'static str)> {
    let good = || Token::for_user("job").groups(&[USER]);
    let ec = &keys().ec;
    let part = |bytes: &str| URL_SAFE_NO_PAD.encode(bytes);
    let doubled = format!("{{\"iss\":\"a\",{}}}", r#""sub":"b","sub":"b""#);
    vec![
        (String::new(), "password_empty"),
        ("secret".to_owned(), "token_malformed"),
        (format!("{}.a.b.c.d", part("{}")), "token_encrypted"),
        (r#"{"payload":"e30","signature":"e30"}"#.to_owned(), "token_json_serialization"),
        ("a".repeat(20_000), "token_too_large"),
        (good().raw_header("[]").sign(ec), "header_invalid"),
        (good().raw_payload("[]").sign(ec), "payload_invalid"),
        (good().raw_payload(doubled).sign(ec), "duplicate_member"),
        (good().header("alg", json!("none")).sign(ec), "algorithm_unsupported"),
        (good().header("kid", json!(7)).sign(ec), "kid_invalid"),
        (good().header("crit", json!(["exp"])).sign(ec), "header_refused"),
        (good().without("iss").sign(ec), "issuer_invalid"),
        (good().issuer("https://other.example").sign(ec), "issuer_unknown"),
        (good().sign(&keys().other_ec), "key_unknown"),
        (
            tampered(&good().sign(ec), |claims| drop(claims.insert("x".to_owned(), json!(1)))),
            "signature_invalid",
        ),
        (good().without("aud").sign(ec), "audience_missing"),
        (good().audience("billing").sign(ec), "audience_mismatch"),
        (good().without("exp").sign(ec), "expiry_missing"),
        (good().expired().sign(ec), "token_expired"),
        (good().not_yet_valid().sign(ec), "not_yet_valid"),
        (
            good().claim("iat", json!(now() + 3600)).claim("exp", json!(now() + 7200)).sign(ec),
            "issued_in_future",
        ),
        (good().header("typ", json!("dpop+jwt")).sign(ec), "typ_refused"),
        (good().claim("cnf", json!({"jkt": "x"})).sign(ec), "token_bound"),
        (good().without("sub").sign(ec), "subject_invalid"),
        (good().groups(&["strangers"]).sign(ec), "no_rule"),
        (good().groups(&["other"]).sign(ec), "user_not_mapped"),
    ]
}

/// Changes of the policy or the role under which even a good token is refused.
const CHANGES: [(&str, &str, &str); 5] = [
    ("ALTER ROLE guest NOLOGIN", "ALTER ROLE guest LOGIN", "role_cannot_login"),
    ("ALTER ROLE guest VALID UNTIL '2000-01-01'", "ALTER ROLE guest VALID UNTIL 'infinity'", "role_expired"),
    ("ALTER ROLE guest CREATEROLE", "ALTER ROLE guest NOCREATEROLE", "role_privileged"),
    ("ALTER ROLE guest RENAME TO gone", "ALTER ROLE gone RENAME TO guest", "role_missing"),
    (
        "UPDATE oidc.provider SET enabled = false",
        "UPDATE oidc.provider SET enabled = true",
        "provider_disabled",
    ),
];

#[test]
fn n121_one_line_for_every_cause() -> Result<()> {
    let cluster = furnished(builder()?, &[USER, "other"])?;
    let mut told = Vec::new();
    let mut seen = BTreeSet::new();
    let mut expect = |cluster: &Cluster, heard: Heard, mark: usize, reason: &str| -> Result<()> {
        assert_eq!(reasons(cluster, mark, USER), [reason]);
        seen.insert(reason.to_owned());
        told.push(refused(heard)?);
        Ok(())
    };
    for (password, reason) in bad_passwords() {
        let mark = cluster.log_mark();
        expect(&cluster, Wire::log_in(&cluster, Way::Tls, USER, &password)?, mark, reason)?;
    }
    let mark = cluster.log_mark();
    let (mut wire, first) = Wire::begin(&cluster, Way::Tls, USER)?;
    assert_eq!(first, ASKED);
    wire.message(b'Q', 8, b"abc\0")?;
    expect(&cluster, wire.outcome()?, mark, "password_malformed")?;
    for (worse, better, reason) in CHANGES {
        cluster.admin(worse)?;
        let mark = cluster.log_mark();
        expect(&cluster, Wire::log_in(&cluster, Way::Tls, USER, &token(USER))?, mark, reason)?;
        cluster.admin(better)?;
    }
    lets_in(&cluster, &good(&cluster, USER), USER)?;
    cluster.admin("DROP ROLE guest; CREATE ROLE guest LOGIN")?;
    let mark = cluster.log_mark();
    expect(&cluster, Wire::log_in(&cluster, Way::Tls, USER, &token(USER))?, mark, "role_replaced")?;
    cluster.admin("UPDATE oidc.role_mapping SET role = role")?;
    lets_in(&cluster, &good(&cluster, USER), USER)?;
    cluster.admin("DROP EXTENSION pg_oidc")?;
    let mark = cluster.log_mark();
    expect(&cluster, Wire::log_in(&cluster, Way::Tls, USER, &token(USER))?, mark, "policy_absent")?;

    ensure!(seen.len() > 20, "only {} causes", seen.len());
    let first = told.first().map(|refused| refused.bytes.clone()).unwrap_or_default();
    for (refused, cause) in told.iter().zip(1..) {
        assert_eq!(refused.fields(), constant(), "cause {cause}");
        assert_eq!(refused.bytes, first, "cause {cause}");
    }
    calm(&cluster, &[&token(USER)])
}

#[test]
fn n121_retry_only_where_waiting_may_help() -> Result<()> {
    let issuer = Issuer::start()?;
    issuer.misbehave(DISCOVERY, Behaviour::Hang);
    let cluster = furnished(builder()?.setting("pg_oidc.wait_timeout", "300ms"), &[USER])?;
    let row = format!("'slow', '{}', '{{warehouse}}'", issuer.url());
    cluster.admin(&format!("INSERT INTO oidc.provider (name, issuer, audiences) VALUES ({row})"))?;
    ensure!(issuer.wait(DISCOVERY, 1, SOON), "nobody asked for the keys");

    let retry = |password: &str, reason: &str| -> Result<()> {
        let mark = cluster.log_mark();
        let refused = refused(Wire::log_in(&cluster, Way::Tls, USER, password)?)?;
        assert_eq!(reasons(&cluster, mark, USER), [reason]);
        let told = refused.fields();
        assert_eq!((told.len(), refused.field('S'), refused.field('C')), (7, "FATAL".into(), "57P03".into()));
        assert_eq!(refused.field('M'), "OIDC authentication is not ready, try again");
        // The place is the one from which every refusal comes.
        assert!(
            constant().iter().filter(|(letter, _)| "FLR".contains(*letter)).all(|field| told.contains(field))
        );
        Ok(())
    };
    let slow = Token::for_user("job").issuer(&issuer.url()).sign(&keys().ec);
    retry(&slow, "keys_pending")?;
    // Whoever has a provider with keys does not wait for another's.
    lets_in(&cluster, &good(&cluster, USER), USER)?;

    // A policy that cannot be read: what was committed before the login is not yet known to anybody.
    let mut holder = cluster.login("postgres").way(Way::Socket).command()?;
    holder.args([
        "-c",
        "BEGIN; DROP TABLE IF EXISTS nothing; LOCK TABLE oidc.provider IN ACCESS EXCLUSIVE MODE",
    ]);
    holder.args(["-c", "SELECT pg_sleep(60)", "-c", "COMMIT"]);
    let mut holder =
        holder.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn()?;
    let held = "SELECT 1 FROM pg_locks WHERE relation = 'oidc.provider'::regclass AND granted \
                AND mode = 'AccessExclusiveLock'";
    let locked =
        pg_oidc_test::cluster::until("the lock is held", SOON, || Ok(!cluster.admin(held)?.is_empty()));
    let behind = locked.and_then(|()| {
        admit_without_reading(&cluster)?;
        retry(&token(USER), "policy_behind")
    });
    holder.kill()?;
    holder.wait()?;
    behind?;
    let ends = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' \
                AND pid <> pg_backend_pid()";
    cluster.admin(ends)?;
    // The registry worker gives up a lock after 2 s and tries again: what is committed then counts.
    cluster.set("pg_oidc.wait_timeout", "10s")?;
    cluster.reload()?;
    lets_in(&cluster, &good(&cluster, USER), USER)?;
    admit(&cluster, "late")?;
    lets_in(&cluster, &good(&cluster, "late"), "late")?;
    calm(&cluster, &[&token(USER), &slow])
}

/// Commits a change of the policy that needs nothing of the locked table.
fn admit_without_reading(cluster: &Cluster) -> Result<()> {
    cluster.admin("UPDATE oidc.role_mapping SET comment = 'changed'").map(drop)
}
