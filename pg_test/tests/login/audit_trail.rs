//! Every login is a row of `oidc.audit_log`, and nothing waits for that.
//!
//! 1. An accepted login: who, from where, in which role by which rule, with which key, and the claims that decided.
//! 2. A refused login: the reason, and of the token nothing until its signature is verified.
//! 3. What client and issuer write cannot forge anything.
//! 4. f022, f028: the table is locked, gone, or refuses rows: logins go on, and their events come later.
//! 5. Where the queue is full, events are counted, and every login has its line in the server log.
//! 6. 20,000 refused logins as fast as they come: none is lost.
//! 7. Old events are deleted.
//! 8. `oidc.explain_login` says what such a login would meet today.
//! 9. `oidc.stat` counts by provider, outcome and reason.
//! 10. A session that is ended is an event with its cause.
//! 11. Nobody but superusers reads any of it.
//! 12. n108: a login that core turns away after it was accepted is a failed one, and no other is: [`failed`].
//! 13. n028: a token without `jti` is named by a hash; `log_connections` names the identity: [`named`].

mod failed;
mod failing;
mod flood;
mod named;
mod reading;

use std::sync::LazyLock;

use anyhow::{Context, Result, anyhow, ensure};
use pg_oidc_test::client::Session;
use pg_oidc_test::cluster::until;
use pg_oidc_test::keys::keys;
use pg_oidc_test::psql::Way;
use pg_oidc_test::token::tampered;
use pg_oidc_test::wire::{ASKED, Heard, Wire};
use serde_json::{Value, json};

use crate::scene::{SOON, Stage, good, issuer};
use crate::stage::calm;

static STAGE: LazyLock<Result<Stage, String>> =
    LazyLock::new(|| Stage::start().map_err(|error| format!("{error:#}")));

fn stage() -> Result<&'static Stage> {
    STAGE.as_ref().map_err(|error| anyhow!("{error}"))
}

/// The logins of this user that are in the table, oldest first, once there are as many as that.
fn logins(admin: &Session, user: &str, count: usize) -> Result<Vec<Value>> {
    let query = format!(
        "SELECT to_jsonb(a)::text FROM oidc.audit_log a WHERE event = 'login' AND requested_user = '{user}' ORDER BY id"
    );
    until("the logins are in the table", SOON, || Ok(admin.rows(&query)?.len() >= count))?;
    let rows: Vec<String> = admin.rows(&query)?.into_iter().flatten().flatten().collect();
    assert_eq!(rows.len(), count, "{rows:?}");
    rows.iter().map(|row| serde_json::from_str(row).context("no JSON")).collect()
}

/// The one login of this user.
fn login(admin: &Session, user: &str) -> Result<Value> {
    logins(admin, user, 1)?.pop().context("no login")
}

/// One figure of `oidc.stat`.
fn figure(admin: &Session, metric: &str) -> Result<i64> {
    let value = admin.value(&format!("SELECT value FROM oidc.stat WHERE metric = '{metric}'"))?;
    Ok(value.with_context(|| format!("no figure {metric}"))?.parse()?)
}

#[test]
fn an_accepted_login_is_a_row() -> Result<()> {
    let stage = stage()?;
    stage.trio("ann")?;
    let admin = stage.admin()?;
    admin.rows("UPDATE oidc.provider SET required_claims = '{\"env\": \"prod\"}' WHERE name = 'ann'")?;
    let token = good("ann").claim("env", json!("prod")).claim("jti", json!("t-1"));
    let token = token.claim("secret", json!("kept-out-of-the-audit")).sign(&keys().ec);
    let session = stage.session("ann", &token)?;
    let pid = session.value("SELECT pg_backend_pid()")?.context("no pid")?;
    let row = login(&admin, "ann")?;
    for (column, value) in [
        ("outcome", json!("accepted")),
        ("reason", Value::Null),
        ("provider", json!("ann")),
        ("subject", json!("ann")),
        ("identity", json!("ann")),
        ("role", json!("ann")),
        ("database", json!("postgres")),
        ("client_address", json!("127.0.0.1")),
        ("tls", json!(true)),
        ("token_id", json!("t-1")),
        ("session_user", json!("ann")),
        ("current_user", json!("ann")),
        ("before", Value::Null),
        ("after", Value::Null),
    ] {
        assert_eq!(row[column], value, "{column} of {row}");
    }
    assert_eq!(row["pid"].to_string(), pid);
    let rule = admin.value("SELECT id FROM oidc.role_mapping WHERE provider = 'ann'")?;
    assert_eq!(Some(row["rule_id"].to_string()), rule);
    let kid = admin.value(&format!(
        "SELECT count(*) FROM oidc.key WHERE provider = 'ann' AND kid = '{}'",
        row["kid"].as_str().unwrap_or_default()
    ))?;
    assert_eq!(kid.as_deref(), Some("1"), "{row}");
    let claims = &row["facts"]["claims"];
    assert_eq!(
        (&claims["env"], &claims["sub"], &claims["iss"]),
        (&json!("prod"), &json!("ann"), &json!(issuer("ann")))
    );
    ensure!(claims.get("secret").is_none(), "a claim that nobody looks at is kept: {row}");
    let recent = "SELECT \"time\" BETWEEN clock_timestamp() - interval '5 minutes' AND clock_timestamp() \
                  FROM oidc.audit_log WHERE requested_user = 'ann'";
    assert_eq!(admin.value(recent)?.as_deref(), Some("t"));
    calm(&stage.cluster, &[&token])
}

#[test]
fn a_refused_login_is_a_row() -> Result<()> {
    let stage = stage()?;
    stage.trio("bob")?;
    let admin = stage.admin()?;
    let key = &keys().ec;
    // Nothing of a token whose signature does not verify, whatever it says.
    let kid = json!("a-kid-of-nobody");
    let forged =
        tampered(&good("bob").sign(key), |claims| drop(claims.insert("jti".to_owned(), json!("forged"))));
    let tokens = [
        ("token_malformed", "no token".to_owned()),
        ("issuer_unknown", good("bob").issuer("https://elsewhere.example").sign(key)),
        ("key_unknown", good("bob").header("kid", kid).sign(key)),
        ("signature_invalid", forged),
    ];
    for (reason, token) in &tokens {
        stage.refusal(&stage.login("bob", token), "bob", reason)?;
    }
    let rows = logins(&admin, "bob", tokens.len())?;
    for (row, (reason, _)) in rows.iter().zip(&tokens) {
        assert_eq!((&row["outcome"], &row["reason"]), (&json!("refused"), &json!(reason)));
        for column in ["subject", "identity", "token_id", "facts", "role", "rule_id"] {
            assert_eq!(row[column], Value::Null, "{column} of {row}");
        }
        let known = matches!(*reason, "key_unknown" | "signature_invalid");
        assert_eq!(row["provider"], if known { json!("bob") } else { Value::Null }, "{row}");
        ensure!(*reason == "signature_invalid" || row["kid"] == Value::Null, "{row}");
    }
    // Who it was, of a token whose signature verifies.
    let tokens = [
        ("token_expired", good("bob").claim("jti", json!("t-2")).expired().sign(key)),
        ("no_rule", good("bob").claim("jti", json!("t-2")).claim("sub", json!("eve")).sign(key)),
    ];
    for (reason, token) in &tokens {
        stage.refusal(&stage.login("bob", token), "bob", reason)?;
    }
    let rows = logins(&admin, "bob", rows.len() + tokens.len())?;
    for (row, ((reason, _), sub)) in rows.iter().skip(4).zip(tokens.iter().zip(["bob", "eve"])) {
        assert_eq!((&row["reason"], &row["token_id"]), (&json!(reason), &json!("t-2")));
        assert_eq!((&row["subject"], &row["identity"]), (&json!(sub), &json!(sub)), "{row}");
        // The claims of one that is over are not kept.
        let kept = if *reason == "no_rule" { json!(sub) } else { Value::Null };
        assert_eq!(row["facts"]["claims"]["sub"], kept, "{row}");
    }
    // A rule that denies is named.
    let deny = "INSERT INTO oidc.role_mapping (provider, match, effect) VALUES ('bob', '{\"sub\": \"bob\"}', 'deny') RETURNING id";
    let id = admin.value(deny)?;
    stage.refused("bob", &good("bob").sign(key), "denied_by_rule", "denied")?;
    let rows = logins(&admin, "bob", rows.len() + 2)?;
    assert_eq!(rows.last().map(|row| row["rule_id"].to_string()), id);
    Ok(())
}

#[test]
fn n121_what_a_client_writes_forges_nothing() -> Result<()> {
    let stage = stage()?;
    stage.provider("odd")?;
    let admin = stage.admin()?;
    // The provider is not asked what its subject is called.
    let subject = "x\\\"'}, $$é\u{202e}";
    let token = good("odd").claim("sub", json!(subject)).sign(&keys().ec);
    let user = "o'd\"\\d";
    let (mut wire, name) = (Wire::connect(&stage.cluster, Way::Tls)?, "a'\"\\,;\u{e9}\n\u{1}".repeat(30));
    wire.startup(&[("user", user), ("database", "postgres"), ("application_name", &name)])?;
    assert_eq!(wire.hear()?, Some(ASKED));
    wire.password(&token)?;
    ensure!(matches!(wire.outcome()?, Heard::Error(_)), "this was not refused");
    let row = login(&admin, &user.replace('\'', "''"))?;
    assert_eq!((&row["requested_user"], &row["subject"]), (&json!(user), &json!(subject)));
    let shown = row["application_name"].as_str().context("no name")?;
    ensure!(shown.len() == 63 && shown.chars().all(|c| c.is_ascii() && !c.is_control()), "{shown:?}");
    Ok(())
}

#[test]
fn n128_only_superusers_read_it() -> Result<()> {
    let stage = stage()?;
    stage.trio("curious")?;
    let session = stage.session("curious", &good("curious").sign(&keys().ec))?;
    for sql in [
        "SELECT FROM oidc.audit_log",
        "SELECT FROM oidc.stat",
        "SELECT FROM oidc.stat_rows()",
        "SELECT FROM oidc.explain_login(1)",
        "SELECT FROM oidc.explain_facts('curious', '{}', 'x', 'x', NULL, false, now())",
    ] {
        assert_eq!(session.error(sql)?.code, "42501", "{sql}");
    }
    Ok(())
}

#[test]
fn the_claims_that_are_kept_are_bounded() -> Result<()> {
    let stage = stage()?;
    stage.trio("many")?;
    let admin = stage.admin()?;
    admin.rows("UPDATE oidc.provider SET groups_claim = 'groups' WHERE name = 'many'")?;
    let groups =
        |count: usize| -> Vec<String> { (0..count).map(|n| format!("group-{n:04}-of-many")).collect() };
    for count in [200, 450] {
        let token = good("many").claim("groups", json!(groups(count))).sign(&keys().ec);
        stage.session("many", &token)?;
    }
    let rows = logins(&admin, "many", 2)?;
    assert_eq!(rows[0]["facts"]["claims"]["groups"], json!(groups(200)));
    assert_eq!(rows[1]["facts"], Value::Null);
    let explained = admin.rows(&format!("SELECT name, passed FROM oidc.explain_login({})", rows[1]["id"]))?;
    assert_eq!(explained, [[Some("login".to_owned()), Some("yes".to_owned())]]);
    Ok(())
}
