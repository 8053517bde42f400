//! The OAUTHBEARER door: core's `oauth` method of PostgreSQL 18, with this library as its validator. (That what is
//! behind the doors is the same is shown by running the other tests with `PG_OIDC_TEST_DOOR=oauth`.)
//!
//! 1. A good token opens a session: role, claims, `system_user`, one record of core's in the log, the audit, the list of
//!    sessions; a person comes as herself, and a walsender too. Sessions end as others do.
//! 2. Discovery: core says where to go; nothing is validated, logged or counted.
//! 3. `n121` Every refusal is core's one line, byte for byte, with the reason in our log; nothing of a token is in it.
//! 4. `n068`, `n095` The line's issuer and each word of its scope.
//! 5. `n115` Without TLS a token is refused, however good.
//! 6. Without `delegate_ident_mapping` core's user map has the last word, and what it refuses is noted.
//! 7. `n133` The locks: a library over our hook; lines of other validators are none of our business: [`neighbours`].
//! 8. The library is only a validator; it is not preloaded: [`alone`].
//! 9. `f001` A step of the decision fails, by a panic or an ERROR, and core still ends who then keeps silent: [`failing`].
//! 10. `n117` Messages that core refuses never come here.

mod alone;
mod failing;
mod neighbours;

use std::collections::BTreeSet;
use std::io::Write;

use anyhow::{Context, Result, anyhow, bail, ensure};
use pg_oidc_test::bearer::{Ended, SASL, with_auth};
use pg_oidc_test::client::Session;
use pg_oidc_test::cluster::{Builder, Cluster, VALIDATORS, until};
use pg_oidc_test::door;
use pg_oidc_test::keys::keys;
use pg_oidc_test::postgres::Postgres;
use pg_oidc_test::psql::{Login, Way};
use pg_oidc_test::token::{ISSUER, Token, tampered};
use pg_oidc_test::wire::{Heard, Refused, Wire};
use serde_json::{Value, json};

use crate::stage::{SOON, admit, builder, calm, furnished, install, reasons, token};

/// Whether this server has the door. Where it has none, that is said: a test that was not run is no pass.
fn here(test: &str) -> Result<bool> {
    let major = Postgres::chosen()?.major();
    if major < 18 {
        // Not by a macro of print's, which cargo keeps for itself.
        writeln!(std::io::stderr(), "bearer::{test} was not run: PostgreSQL {major} has no OAUTHBEARER")?;
    }
    Ok(major >= 18)
}

/// A cluster whose general token line is one of core's method, after these lines.
fn at_the_door(lines: &[&str]) -> Result<Builder> {
    let general = format!("hostssl all,replication all 127.0.0.1/32 {}", door::method(ISSUER));
    let builder = builder()?.setting(VALIDATORS, "pg_oidc").setting("log_connections", "on");
    Ok(lines.iter().copied().chain([general.as_str()]).fold(builder, Builder::guarded))
}

fn login<'a>(cluster: &'a Cluster, user: &str, token: &str) -> Login<'a> {
    cluster.login(user).password(token).way(Way::Bearer)
}

fn session(cluster: &Cluster, user: &str, token: &str) -> Result<Session> {
    login(cluster, user, token).connect()?.map_err(|told| anyhow!("{told:?}\n{}", cluster.log()))
}

/// The refusal of this token, for this reason.
fn refusal(cluster: &Cluster, user: &str, token: &str, reason: &str) -> Result<Refused> {
    let mark = cluster.log_mark();
    let Ended { challenge, heard } = Wire::bear(cluster, Way::Tls, user, token)?;
    let Heard::Error(refused) = heard else { bail!("{reason}: {heard:?}") };
    ensure!(challenge.is_some_and(|said| said.contains("invalid_token")), "{reason}");
    assert_eq!(reasons(cluster, mark, user), [reason]);
    Ok(refused)
}

/// The rows of the audit of this user's logins, once there are as many.
fn audit(cluster: &Cluster, user: &str, count: usize) -> Result<Vec<Value>> {
    let sql = format!("SELECT to_jsonb(a) FROM oidc.audit_log a WHERE requested_user = '{user}' ORDER BY id");
    until("the audit has them", SOON, || Ok(cluster.admin(&sql)?.len() >= count))?;
    let rows = cluster.admin(&sql)?.into_iter().flatten();
    rows.map(|row| serde_json::from_str(&row).context("no JSON")).collect()
}

#[test]
fn a_token_opens_a_session() -> Result<()> {
    if !here("a_token_opens_a_session")? {
        return Ok(());
    }
    let cluster = furnished(at_the_door(&[])?, &["guest"])?;
    let mark = cluster.log_mark();
    let session = session(&cluster, "guest", &token("guest"))?;
    let own =
        "SELECT session_user, current_user, oidc.identity(), oidc.provider(), oidc.claim('sub'), system_user";
    let row = ["guest", "guest", "job", "test", "job", "oauth:job"].map(|text| Some(text.to_owned()));
    assert_eq!(session.rows(own)?, [row]);
    let log = cluster.log_since(mark);
    assert_eq!(log.matches("connection authenticated: ").count(), 1, "{log}");
    ensure!(log.contains("connection authenticated: identity=\"job\" method=oauth"), "{log}");
    ensure!(log.contains("OIDC login accepted: role=\"guest\" user=\"guest\" identity=\"job\""), "{log}");
    let rows = audit(&cluster, "guest", 1)?;
    let [row] = rows.as_slice() else { bail!("{rows:?}") };
    let seen =
        ["outcome", "role", "session_user", "provider", "subject", "kid"].map(|name| row[name].as_str());
    let expected = ["accepted", "guest", "guest", "test", "job", keys().ec.kid()];
    assert_eq!(seen, expected.map(Some));
    assert_eq!((&row["tls"], &row["facts"]["door"]), (&json!(true), &json!("oauth")), "{row}");
    assert_eq!(row["facts"]["claims"]["sub"], "job");
    ensure!(row["token_id"].is_string(), "{row}");
    let listed = cluster.admin("SELECT role, identity FROM oidc.session")?;
    assert_eq!(listed, [["guest", "job"]]);
    // What a login may not do by the other door it may not do by this one.
    assert_eq!(session.error("ALTER ROLE guest PASSWORD 'x'")?.code, "42501");
    assert_eq!(session.error("SET pg_oidc.identity = 'x'")?.code, "55P02");

    // It ends as any other does.
    cluster.admin("SELECT oidc.revoke('test', 'job')")?;
    let told = session.last_words()?;
    assert_eq!(told.detail.as_deref(), Some("The OIDC token session was ended: its identity is revoked."));
    refusal(&cluster, "guest", &token("guest"), "identity_revoked")?;
    cluster.admin("SELECT oidc.reinstate('test', 'job')")?;
    cluster.admin("UPDATE oidc.provider SET session_limit = '1 s'")?;
    let told = crate::bearer::session(&cluster, "guest", &token("guest"))?;
    until("its time is over", SOON, || Ok(told.last_words().is_ok()))?;
    calm(&cluster, &[&token("guest")])
}

#[test]
fn people_and_walsenders() -> Result<()> {
    if !here("people_and_walsenders")? {
        return Ok(());
    }
    let cluster = at_the_door(&[])?.start()?;
    crate::people::furnish(&cluster)?;
    let token = crate::people::token("alice", &["writer", "analyst"]);
    let seen = login(&cluster, "alice", &token).run("SELECT session_user, current_user, system_user")?;
    assert_eq!(seen.rows(), [["alice", "analyst", "oauth:alice@corp.example"]], "{seen:?} {}", cluster.log());
    let chosen = login(&cluster, "alice", &token).options("-c role=writer").run("SELECT current_user")?;
    assert_eq!(chosen.rows(), [["writer"]], "{chosen:?}");
    let other = crate::people::token("bob", &["writer"]);
    refusal(&cluster, "alice", &other, "user_not_mapped")?;

    cluster.admin("CREATE ROLE streamer LOGIN REPLICATION")?;
    let rule = "INSERT INTO oidc.role_mapping (provider, match, role, replication, allow_privileged) \
                VALUES ('corp', '{\"groups\": \"streamer\"}', 'streamer', true, true)";
    cluster.admin(rule)?;
    let token = crate::people::token("mill", &["streamer"]);
    for kind in ["true", "database"] {
        let login = login(&cluster, "streamer", &token).parameter(format!("replication={kind}"));
        let seen = login.run("IDENTIFY_SYSTEM")?;
        ensure!(seen.ok(), "{kind}: {seen:?}");
    }
    let ordinary = login(&cluster, "streamer", &token).run("SELECT 1")?;
    assert_eq!(ordinary.code, Some(2));
    calm(&cluster, &[&token])
}

#[test]
fn discovery_is_cores() -> Result<()> {
    if !here("discovery_is_cores")? {
        return Ok(());
    }
    let line = format!("hostssl all scoped 127.0.0.1/32 {}", door::method(ISSUER)).replace("\"\"", "\"a b\"");
    let cluster = furnished(at_the_door(&[&line])?, &["guest"])?;
    admit(&cluster, "scoped")?;
    let before = cluster.admin("SELECT * FROM oidc.stat WHERE metric ~ 'login' ORDER BY 1, 2")?;
    let mark = cluster.log_mark();
    for user in ["scoped", "nobody_at_all"] {
        let (mut wire, first) = Wire::begin(&cluster, Way::Tls, user)?;
        assert_eq!(first, Heard::Authentication(SASL));
        wire.sasl(&with_auth(""))?;
        let Ended { challenge, heard } = wire.exchange()?;
        ensure!(matches!(heard, Heard::Error(_)), "{heard:?}");
        let said: Value = serde_json::from_str(&challenge.context("nothing said")?)?;
        assert_eq!(said["openid-configuration"], format!("{ISSUER}/.well-known/openid-configuration"));
        assert_eq!(said["scope"], if user == "scoped" { "a b" } else { "" });
    }
    ensure!(!cluster.log_since(mark).contains("OIDC login"), "{}", cluster.log_since(mark));
    assert_eq!(cluster.admin("SELECT * FROM oidc.stat WHERE metric ~ 'login' ORDER BY 1, 2")?, before);
    // The near miss: a token in the next connection counts.
    refusal(&cluster, "scoped", &token("scoped"), "scope_missing")?;
    ensure!(cluster.admin("SELECT * FROM oidc.stat WHERE metric ~ 'login' ORDER BY 1, 2")? != before);
    calm(&cluster, &[])
}

#[test]
fn n121_one_line_for_every_cause() -> Result<()> {
    if !here("n121_one_line_for_every_cause")? {
        return Ok(());
    }
    let cluster = furnished(at_the_door(&[])?, &["guest", "other"])?;
    let good = || Token::for_user("job").groups(&["guest"]);
    let ec = &keys().ec;
    let forged = tampered(&good().sign(ec), |claims| drop(claims.insert("x".to_owned(), json!(1))));
    let cases = [
        ("secret".to_owned(), "token_malformed"),
        ("a.b.c.d.e".to_owned(), "token_encrypted"),
        ("a".repeat(20_000), "token_too_large"),
        (good().raw_header("[]").sign(ec), "header_invalid"),
        (good().header("alg", json!("none")).sign(ec), "algorithm_unsupported"),
        (good().sign(&keys().other_ec), "key_unknown"),
        (forged.clone(), "signature_invalid"),
        (good().audience("billing").sign(ec), "audience_mismatch"),
        (good().expired().sign(ec), "token_expired"),
        (good().not_yet_valid().sign(ec), "not_yet_valid"),
        (good().header("typ", json!("dpop+jwt")).sign(ec), "typ_refused"),
        (good().claim("cnf", json!({"jkt": "x"})).sign(ec), "token_bound"),
        (good().without("sub").sign(ec), "subject_invalid"),
        (good().without("iss").sign(ec), "issuer_invalid"),
        (good().issuer("https://other.example").sign(ec), "issuer_not_of_line"),
        (good().groups(&["strangers"]).sign(ec), "no_rule"),
        (good().groups(&["other"]).sign(ec), "user_not_mapped"),
    ];
    let mut told = BTreeSet::new();
    for (token, reason) in &cases {
        told.insert(refusal(&cluster, "guest", token, reason)?.bytes);
    }
    let changes = [
        ("ALTER ROLE guest NOLOGIN", "ALTER ROLE guest LOGIN", "role_cannot_login"),
        ("ALTER ROLE guest CREATEROLE", "ALTER ROLE guest NOCREATEROLE", "role_privileged"),
        (
            "UPDATE oidc.provider SET enabled = false",
            "UPDATE oidc.provider SET enabled = true",
            "provider_disabled",
        ),
        // The client is not told to retry: core has one line.
        (
            "UPDATE oidc.provider SET issuer = 'https://else.example'",
            "UPDATE oidc.provider SET issuer = 'https://issuer.example'",
            "issuer_unknown",
        ),
    ];
    for (worse, better, reason) in changes {
        cluster.admin(worse)?;
        told.insert(refusal(&cluster, "guest", &token("guest"), reason)?.bytes);
        cluster.admin(better)?;
    }
    session(&cluster, "guest", &token("guest"))?;
    assert_eq!(told.len(), 1, "{told:?}");
    let refused = Refused { bytes: told.pop_first().unwrap_or_default() };
    assert_eq!(refused.field('M'), door::Door::Oauth.refusal("guest"));
    assert_eq!((refused.field('S'), refused.field('C')), ("FATAL".into(), "28000".into()));
    assert_eq!((refused.field('D'), refused.field('H')), (String::new(), String::new()));

    let rows = audit(&cluster, "guest", cases.len() + changes.len() + 1)?;
    let audited: Vec<&str> = rows.iter().filter_map(|row| row["reason"].as_str()).collect();
    let mut expected: Vec<&str> = cases.iter().map(|(_, reason)| *reason).collect();
    expected.extend(changes.map(|(_, _, reason)| reason));
    assert_eq!(audited, expected);
    ensure!(!cluster.log().contains("WARNING:  internal error in OAuth"), "{}", cluster.log());
    calm(&cluster, &[&token("guest"), &forged])
}

#[test]
fn n068_n095_what_the_line_asks_for() -> Result<()> {
    if !here("n068_n095_what_the_line_asks_for")? {
        return Ok(());
    }
    let line = |user: &str, issuer: &str, scope: &str| {
        let method = door::method(issuer).replace("scope=\"\"", &format!("scope=\"{scope}\""));
        format!("hostssl all {user} 127.0.0.1/32 {method}")
    };
    let lines = [
        line("scoped", ISSUER, "db:read db:write"),
        line("elsewhere", "https://elsewhere.example", ""),
        line("slashed", &format!("{ISSUER}/"), ""),
        line("discovered", &format!("{ISSUER}/.well-known/openid-configuration"), ""),
    ];
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let cluster = at_the_door(&lines)?.start()?;
    install(&cluster)?;
    for role in ["scoped", "elsewhere", "slashed", "discovered", "guest"] {
        admit(&cluster, role)?;
    }
    let scoped = |name: &str, value: Value| {
        Token::for_user("job").groups(&["scoped"]).claim(name, value).sign(&keys().ec)
    };
    for good in [
        scoped("scope", json!("openid db:write db:read")),
        scoped("scope", json!(["db:read", "db:write"])),
        scoped("scp", json!("db:read db:write")),
        scoped("scp", json!(["db:write", "x", "db:read"])),
    ] {
        session(&cluster, "scoped", &good)?;
    }
    for bad in [
        token("scoped"),
        scoped("scope", json!("db:read")),
        scoped("scope", json!("db:read db:writ")),
        scoped("scp", json!(["db:read db:write"])),
        scoped("roles", json!("db:read db:write")),
    ] {
        refusal(&cluster, "scoped", &bad, "scope_missing")?;
    }
    // A forged scope is not even looked at.
    let forged = tampered(&token("scoped"), |claims| {
        drop(claims.insert("scope".to_owned(), json!("db:read db:write")));
    });
    refusal(&cluster, "scoped", &forged, "signature_invalid")?;
    // The policy trusts the token's issuer, and would give the role; the line names another.
    for user in ["elsewhere", "slashed", "discovered"] {
        refusal(&cluster, user, &token(user), "issuer_not_of_line")?;
    }
    // The line names an issuer that no provider has.
    let stranger = Token::for_user("job").groups(&["elsewhere"]).issuer("https://elsewhere.example");
    refusal(&cluster, "elsewhere", &stranger.sign(&keys().ec), "issuer_unknown")?;
    session(&cluster, "guest", &token("guest"))?;
    calm(&cluster, &[&forged, &token("guest")])
}

#[test]
fn n115_a_token_without_tls() -> Result<()> {
    if !here("n115_a_token_without_tls")? {
        return Ok(());
    }
    let method = door::method(ISSUER);
    let lines = [format!("hostnossl all all 127.0.0.1/32 {method}"), format!("local all guest {method}")];
    let cluster = furnished(at_the_door(&[&lines[0], &lines[1]])?, &["guest"])?;
    let mark = cluster.log_mark();
    let ended = Wire::bear(&cluster, Way::Plain, "guest", &token("guest"))?;
    ensure!(matches!(ended.heard, Heard::Error(_)), "{ended:?}");
    assert_eq!(reasons(&cluster, mark, "guest"), ["tls_required"]);
    assert_eq!(Wire::bear(&cluster, Way::Socket, "guest", &token("guest"))?.heard, Heard::Ready);
    assert_eq!(Wire::bear(&cluster, Way::Tls, "guest", &token("guest"))?.heard, Heard::Ready);
    cluster.set("pg_oidc.require_tls", "off")?;
    cluster.reload()?;
    assert_eq!(Wire::bear(&cluster, Way::Plain, "guest", &token("guest"))?.heard, Heard::Ready);
    calm(&cluster, &[&token("guest")])
}

#[test]
fn the_user_map_of_core() -> Result<()> {
    if !here("the_user_map_of_core")? {
        return Ok(());
    }
    let bare = door::method(ISSUER).replace("delegate_ident_mapping=1 ", "");
    let lines = [
        format!("hostssl all guest,job 127.0.0.1/32 {bare}"),
        format!("hostssl all mapped 127.0.0.1/32 {bare} map=jobs"),
    ];
    let cluster = furnished(at_the_door(&[&lines[0], &lines[1]])?, &["guest", "job", "mapped"])?;
    let ident = std::fs::read_to_string(cluster.file("data/pg_ident.conf"))?;
    cluster.write("data/pg_ident.conf", &format!("{ident}jobs job mapped\n"))?;
    cluster.reload()?;
    // The identity is called as the role is, or the map says that it may be the role.
    for user in ["job", "mapped"] {
        let seen = login(&cluster, user, &token(user)).run("SELECT current_user, system_user")?;
        assert_eq!(seen.rows(), [[user, "oauth:job"]], "{seen:?}");
    }
    let mark = cluster.log_mark();
    let ended = Wire::bear(&cluster, Way::Tls, "guest", &token("guest"))?;
    ensure!(matches!(ended.heard, Heard::Error(_)), "{ended:?}");
    let said = cluster.await_log_since(mark, "OIDC login failed after it was accepted", SOON)?;
    ensure!(said.contains("role=\"guest\" identity=\"job\""), "{said}");
    let rows = audit(&cluster, "guest", 1)?;
    let [row] = rows.as_slice() else { bail!("{rows:?}") };
    assert_eq!(row["outcome"], "failed", "{row}");
    // The same rule admits where core leaves it to us; and what the policy refuses no map admits.
    let stranger = Token::for_user("job").groups(&["nobody"]).sign(&keys().ec);
    refusal(&cluster, "mapped", &stranger, "no_rule")?;
    assert_eq!(cluster.admin("SELECT 1 FROM oidc.session")?, Vec::<Vec<String>>::new());
    calm(&cluster, &[&token("guest"), &stranger])
}

#[test]
fn n117_messages_that_core_refuses() -> Result<()> {
    if !here("n117_messages_that_core_refuses")? {
        return Ok(());
    }
    let cluster = furnished(at_the_door(&[])?, &["guest"])?;
    let good = token("guest");
    let mark = cluster.log_mark();
    let messages: [Vec<u8>; 8] = [
        b"".to_vec(),
        b"n,,".to_vec(),
        format!("n,a=guest,\x01auth=Bearer {good}\x01\x01").into_bytes(),
        format!("p=tls,,\x01auth=Bearer {good}\x01\x01").into_bytes(),
        format!("n,,\x01auth=Bearer {good}\x01auth=Bearer {good}\x01\x01").into_bytes(),
        format!("n,,\x01auth=Bearer {good}\x01\x01more").into_bytes(),
        with_auth(&format!("Basic {good}")),
        with_auth(&format!("Bearer {good} ")),
    ];
    for data in messages {
        let (mut wire, _) = Wire::begin(&cluster, Way::Tls, "guest")?;
        wire.sasl(&data)?;
        let ended = wire.exchange()?;
        ensure!(matches!(ended.heard, Heard::Error(_)), "{:?}: {ended:?}", String::from_utf8_lossy(&data));
    }
    // Gone in the middle of it, before and after the token was judged.
    for data in [None, Some(with_auth("")), Some(with_auth("Bearer x"))] {
        let (mut wire, _) = Wire::begin(&cluster, Way::Tls, "guest")?;
        if let Some(data) = data {
            wire.sasl(&data)?;
            wire.hear()?;
        }
    }
    session(&cluster, "guest", &good)?;
    let ours = reasons(&cluster, mark, "guest");
    assert_eq!(ours, ["token_malformed"], "only what core passed on");
    calm(&cluster, &[&good])
}
