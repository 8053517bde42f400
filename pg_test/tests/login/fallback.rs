//! The password fallback: where a token is asked for, the role's stored password does as well, if the setting says so.
//!
//! 1. Off, and by default, a right password is refused as what it is: no token.
//! 2. On, it opens a session without claims and without a slot; SCRAM and MD5; audited and counted apart.
//! 3. A wrong one, none, one past VALID UNTIL, no such role: refused with the constant line, reason `password_wrong`.
//! 4. What core has to say comes after it: NOLOGIN, a database without CONNECT.
//! 5. Tokens are judged as ever, and whatever may be a broken token is never tried as a password.
//! 6. n115: not over plain TCP. 7. Not without a policy. 8. No secret is in any log.

use std::sync::LazyLock;

use anyhow::{Context, Result, anyhow, ensure};
use pg_oidc_test::client::Session;
use pg_oidc_test::cluster::until;
use pg_oidc_test::keys::keys;
use pg_oidc_test::psql::Way;
use serde_json::{Value, json};

use crate::scene::{SOON, Stage, admitted, constant_refusal, good};
use crate::stage::{calm, silent};

static STAGE: LazyLock<Result<Stage, String>> = LazyLock::new(|| {
    let on = |builder: pg_oidc_test::cluster::Builder| {
        let every_way = "local all all trust\nhost all all 127.0.0.1/32 trust";
        builder.setting("pg_oidc.password_fallback", "on").guarded(every_way)
    };
    Stage::with(on).map_err(|error| format!("{error:#}"))
});

fn stage() -> Result<&'static Stage> {
    STAGE.as_ref().map_err(|error| anyhow!("{error}"))
}

/// A role with this password, which only the fallback lets in.
fn role(admin: &Session, name: &str, password: &str) -> Result<()> {
    admin.rows(&format!("CREATE ROLE {name} LOGIN PASSWORD '{password}'")).map(drop)
}

/// The password logins of this user that are in the audit, oldest first, once there are as many as that.
fn audited(admin: &Session, user: &str, count: usize) -> Result<Vec<Value>> {
    let query = format!(
        "SELECT to_jsonb(a)::text FROM oidc.audit_log a WHERE event = 'password_login' AND requested_user = '{user}' ORDER BY id"
    );
    until("the logins are in the table", SOON, || Ok(admin.rows(&query)?.len() >= count))?;
    let rows = admin.rows(&query)?.into_iter().flatten().flatten();
    rows.map(|row| serde_json::from_str(&row).context("no JSON")).collect()
}

/// The reason for which the log says that this password was refused; the client has seen the constant line.
fn refused(stage: &Stage, user: &str, password: &str) -> Result<String> {
    let mark = stage.cluster.log_mark();
    let told = match stage.login(user, password).connect()? {
        Ok(_) => anyhow::bail!("this was not refused"),
        Err(told) => told,
    };
    assert_eq!(told, constant_refusal(user));
    let line = stage.cluster.await_log_since(mark, &format!(" user={user:?} database="), SOON)?;
    let reason = line.split_once("login refused: reason=").context("no reason")?.1;
    let kind = if line.contains("password login refused") { "" } else { "token: " };
    Ok(format!("{kind}{}", reason.split(' ').next().unwrap_or_default()))
}

#[test]
fn off_by_default() -> Result<()> {
    let stage = Stage::start()?;
    let admin = stage.admin()?;
    role(&admin, "plain", "open sesame, please")?;
    assert_eq!(refused(&stage, "plain", "open sesame, please")?, "token: token_malformed");
    stage.cluster.set("pg_oidc.password_fallback", "on")?;
    stage.cluster.reload()?;
    let session = admitted(&stage.login("plain", "open sesame, please"))?;
    assert_eq!(session.value("SELECT session_user::text")?.as_deref(), Some("plain"));
    stage.cluster.set("pg_oidc.password_fallback", "off")?;
    stage.cluster.reload()?;
    assert_eq!(refused(&stage, "plain", "open sesame, please")?, "token: token_malformed");
    silent(&stage.cluster.log(), "open sesame, please")
}

#[test]
fn a_stored_password_opens_a_session_without_claims() -> Result<()> {
    let stage = stage()?;
    let admin = stage.admin()?;
    role(&admin, "scram", "first-of-all-passwords")?;
    admin.rows("SET password_encryption = 'md5'")?;
    role(&admin, "hashed", "second-of-all-passwords")?;
    let mark = stage.cluster.log_mark();
    for (user, password) in [("scram", "first-of-all-passwords"), ("hashed", "second-of-all-passwords")] {
        let session = admitted(&stage.login(user, password))?;
        let rows = session.rows(
            "SELECT session_user, current_user, oidc.identity(), oidc.provider(), oidc.claims()::text, oidc.claim('sub')",
        )?;
        let me = Some(user.to_owned());
        assert_eq!(rows, [vec![me.clone(), me, None, None, None, None]]);
        let pid = session.value("SELECT pg_backend_pid()")?.context("no pid")?;
        assert_eq!(admin.rows(&format!("SELECT FROM oidc.session WHERE pid = {pid}"))?.len(), 0);
        let line =
            format!("password login accepted: role={user:?} database=\"postgres\" client=\"127.0.0.1\"");
        stage.cluster.await_log_since(mark, &line, SOON)?;
        let [row] = &audited(&admin, user, 1)?[..] else { anyhow::bail!("not one row") };
        let known =
            ["outcome", "reason", "role", "database", "client_address", "tls", "provider"].map(|c| &row[c]);
        let wanted = [
            json!("accepted"),
            Value::Null,
            json!(user),
            json!("postgres"),
            json!("127.0.0.1"),
            json!(true),
            Value::Null,
        ];
        assert_eq!(known.map(Clone::clone), wanted, "{row}");
        assert_eq!(row["pid"].to_string(), pid);
        for column in ["subject", "identity", "token_id", "kid", "facts", "rule_id"] {
            assert_eq!(row[column], Value::Null, "{column} of {row}");
        }
    }
    ensure!(!stage.cluster.log_since(mark).contains("OIDC login accepted: role=\"scram\""), "no token came");
    calm(&stage.cluster, &["first-of-all-passwords", "second-of-all-passwords"])
}

#[test]
fn passwords_that_are_refused() -> Result<()> {
    let stage = stage()?;
    let admin = stage.admin()?;
    role(&admin, "strict", "the right password")?;
    role(&admin, "over", "the right password")?;
    admin.rows("ALTER ROLE over VALID UNTIL 'yesterday'; CREATE ROLE unlocked LOGIN")?;
    admitted(&stage.login("strict", "the right password"))?;
    let wrong = [
        ("strict", "the wrong password"),
        ("strict", "the right password "),
        ("strict", "The right password"),
        ("strict", "the right passwor"),
        ("over", "the right password"),
        ("unlocked", "the right password"),
        ("nobody_at_all", "the right password"),
        ("od\"d\n", "the right password"),
    ];
    for (user, password) in wrong {
        assert_eq!(refused(stage, user, password)?, "password_wrong", "{user} {password}");
    }
    assert_eq!(refused(stage, "strict", &"x".repeat(256))?, "password_wrong");
    let rows = audited(&admin, "strict", 6)?;
    assert_eq!(rows.iter().filter(|row| row["outcome"] == "accepted").count(), 1);
    assert_eq!(rows.iter().filter(|row| row["reason"] == "password_wrong").count(), 5, "{rows:?}");
    // Counted apart from tokens.
    let figures = "SELECT count(*) FILTER (WHERE outcome = 'accepted' AND reason IS NULL AND value > 0), \
                          count(*) FILTER (WHERE outcome = 'refused' AND reason = 'password_wrong' AND value >= 9) \
                     FROM oidc.stat WHERE metric = 'password_logins' AND provider IS NULL";
    let one = || Some("1".to_owned());
    assert_eq!(admin.rows(figures)?, [vec![one(), one()]]);
    let mixed = "SELECT count(*) FROM oidc.stat WHERE metric = 'logins' AND reason = 'password_wrong'";
    assert_eq!(admin.value(mixed)?.as_deref(), Some("0"));
    calm(&stage.cluster, &["the right password", "the wrong password"])
}

#[test]
fn n108_the_rest_is_left_to_core() -> Result<()> {
    let stage = stage()?;
    let admin = stage.admin()?;
    role(&admin, "parked", "still the right one")?;
    admin.rows("ALTER ROLE parked NOLOGIN")?;
    let told = stage.login("parked", "still the right one").connect()?.err().context("not refused")?;
    assert_eq!(told.message, "role \"parked\" is not permitted to log in");
    // Who has not the password learns nothing of it.
    assert_eq!(refused(stage, "parked", "a wrong one")?, "password_wrong");
    role(&admin, "outside", "still the right one")?;
    admin.rows("CREATE DATABASE closed")?;
    admin.rows("REVOKE CONNECT ON DATABASE closed FROM PUBLIC")?;
    let told = stage.login("outside", "still the right one").database("closed").connect()?.err();
    assert_eq!(told.context("not refused")?.message, "permission denied for database \"closed\"");
    admitted(&stage.login("outside", "still the right one")).map(drop)
}

#[test]
fn tokens_are_judged_as_ever() -> Result<()> {
    let stage = stage()?;
    stage.trio("twofold")?;
    let admin = stage.admin()?;
    admin.rows("ALTER ROLE twofold PASSWORD 'a password beside the rule'")?;
    let token = good("twofold").sign(&keys().ec);
    stage.accepted("twofold", &token, "a token")?;
    let session = admitted(&stage.login("twofold", "a password beside the rule"))?;
    assert_eq!(session.value("SELECT oidc.identity()")?, None);
    let (start, _) = token.rsplit_once('.').context("no dot")?;
    for broken in [
        start.to_owned(),
        format!("{start}."),
        format!("Bearer {token}"),
        format!(" {token}"),
        "ey.".to_owned(),
        "x".repeat(257),
    ] {
        stage.refused("twofold", &broken, "token_malformed", &broken)?;
    }
    stage.refused("twofold", "{\"payload\":\"\"}", "token_json_serialization", "JSON")?;
    stage.refused("twofold", &good("twofold").expired().sign(&keys().ec), "token_expired", "expired")?;
    // Not even where it is the password.
    admin.rows("ALTER ROLE twofold PASSWORD 'eyjafjalla.2010'")?;
    stage.refused("twofold", "eyjafjalla.2010", "token_malformed", "looks like a token")?;
    admin.rows("ALTER ROLE twofold PASSWORD 'eyjafjalla 2010'")?;
    admitted(&stage.login("twofold", "eyjafjalla 2010"))?;
    calm(&stage.cluster, &[&token, "a password beside the rule"])
}

#[test]
fn n115_not_over_plain_tcp() -> Result<()> {
    let stage = stage()?;
    role(&stage.admin()?, "careful", "only over TLS, if at all")?;
    let login = |way| stage.login("careful", "only over TLS, if at all").way(way);
    let told = login(Way::Plain).connect()?.err().context("not refused")?;
    assert_eq!(told.message, "tokens are accepted only over TLS");
    for way in [Way::Tls, Way::Socket] {
        admitted(&login(way)).with_context(|| format!("{way:?}"))?;
    }
    Ok(())
}

#[test]
fn not_without_a_policy() -> Result<()> {
    let stage = Stage::with(|builder| builder.setting("pg_oidc.password_fallback", "on"))?;
    let admin = stage.admin()?;
    role(&admin, "early", "right but too early")?;
    admitted(&stage.login("early", "right but too early"))?;
    admin.rows("DROP EXTENSION pg_oidc")?;
    assert_eq!(refused(&stage, "early", "right but too early")?, "policy_absent");
    admin.rows("CREATE EXTENSION pg_oidc")?;
    admitted(&stage.login("early", "right but too early")).map(drop)
}
