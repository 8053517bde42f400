//! What is made of the rows: retention, explanation, figures.

use anyhow::{Context, Result, ensure};
use pg_oidc_test::cluster::until;
use pg_oidc_test::keys::keys;
use pg_oidc_test::token::Token;
use serde_json::json;

use super::{figure, login, logins, stage};
use crate::keys::issuer_of;
use crate::scene::{SOON, Stage, good, provider_sql};
use crate::stage::{builder, install_in, rule_in};

#[test]
fn old_events_are_deleted() -> Result<()> {
    let stage = Stage::start()?;
    stage.trio("old")?;
    let admin = stage.admin()?;
    let old = "INSERT INTO oidc.audit_log (\"time\", event, outcome) \
               SELECT now() - interval '89 days' - n * interval '1 day', 'test', 'done' FROM generate_series(0, 2499) n";
    let count = "SELECT count(*) FROM oidc.audit_log WHERE event = 'test'";
    admin.rows("ALTER SYSTEM SET pg_oidc.audit_retention = 0")?;
    admin.rows("SELECT pg_reload_conf()")?;
    until("nothing is deleted any more", SOON, || {
        Ok(admin.value("SHOW pg_oidc.audit_retention")?.as_deref() == Some("0"))
    })?;
    admin.rows(old)?;
    // The worker sees the other setting, and looks at once.
    admin.rows("ALTER SYSTEM RESET pg_oidc.audit_retention")?;
    assert_eq!(admin.value(count)?.as_deref(), Some("2500"));
    admin.rows("SELECT pg_reload_conf()")?;
    until("old events are gone", SOON, || Ok(admin.value(count)?.as_deref() == Some("1")))?;
    assert_eq!(admin.value("SHOW pg_oidc.audit_retention")?.as_deref(), Some("90d"));
    let kept = admin.value("SELECT count(*) FROM oidc.audit_log WHERE event LIKE 'rule%'")?;
    ensure!(kept.as_deref() == Some("1"), "{kept:?} changes of rules are kept");
    Ok(())
}

#[test]
fn explain_login_is_the_login_again() -> Result<()> {
    let stage = stage()?;
    stage.trio("why")?;
    let admin = stage.admin()?;
    let key = &keys().ec;
    let steps = |id: &str| -> Result<Vec<String>> {
        let rows = admin.rows(&format!("SELECT name || ': ' || passed FROM oidc.explain_login({id})"))?;
        Ok(rows.into_iter().flatten().flatten().collect())
    };
    stage.session("why", &good("why").sign(key))?;
    let accepted = login(&admin, "why")?["id"].to_string();
    let seen = steps(&accepted)?;
    ensure!(seen.last().is_some_and(|last| last == "login: yes"), "{seen:?}");

    let refusal = stage.refusal(
        &stage.login("why", &good("why").claim("sub", json!("mallory")).sign(key)),
        "why",
        "no rule",
    )?;
    assert_eq!(refusal.reason, "no_rule");
    stage.refusal(&stage.login("why", &good("why").expired().sign(key)), "why", "expired")?;
    stage.refusal(&stage.login("why", "no token"), "why", "no token")?;
    let rows = logins(&admin, "why", 4)?;
    let ids: Vec<String> = rows.iter().map(|row| row["id"].to_string()).collect();
    let text = |id: &str| -> Result<String> {
        let rows =
            admin.rows(&format!("SELECT step || name || passed || detail FROM oidc.explain_login({id})"))?;
        Ok(rows.into_iter().flatten().flatten().collect::<Vec<_>>().join("\n"))
    };
    ensure!(text(&ids[1])?.contains("It would be refused: no_rule."), "{}", text(&ids[1])?);
    ensure!(text(&ids[2])?.contains("It was refused: token_expired."), "{}", text(&ids[2])?);
    ensure!(text(&ids[3])?.contains("It was refused: token_malformed."), "{}", text(&ids[3])?);

    // By the policy of today.
    admin.rows("UPDATE oidc.provider SET enabled = false WHERE name = 'why'")?;
    ensure!(text(&accepted)?.contains("It would be refused: provider_disabled."), "{}", text(&accepted)?);
    let told = admin.error("SELECT * FROM oidc.explain_login(0)")?;
    assert_eq!(told.message, "there is no login with the number 0 in oidc.audit_log");
    let change = admin
        .value("SELECT min(id) FROM oidc.audit_log WHERE event = 'provider_created'")?
        .context("no change")?;
    ensure!(
        admin.try_rows(&format!("SELECT * FROM oidc.explain_login({change})"))?.is_err(),
        "a change is no login"
    );
    Ok(())
}

#[test]
fn stat_shows_the_shared_memory() -> Result<()> {
    let admin = stage()?.admin()?;
    for metric in
        ["audit_queue_capacity", "policy_capacity", "keyring_capacity", "policy_bytes", "policy_publications"]
    {
        ensure!(figure(&admin, metric)? > 0, "{metric}");
    }
    assert_eq!(figure(&admin, "audit_events_dropped")?, 0);
    assert_eq!(figure(&admin, "logins_uncounted")?, 0);
    Ok(())
}

#[test]
fn stat_counts_fetches() -> Result<()> {
    let stage = Stage::start()?;
    let admin = stage.admin()?;
    assert_eq!((figure(&admin, "key_fetches")?, figure(&admin, "key_fetches_failed")?), (0, 0));
    let _issuer = issuer_of(&stage, "fetched")?;
    until("keys are fetched", SOON, || Ok(figure(&admin, "key_fetches")? == 1))?;
    assert_eq!(figure(&admin, "key_fetches_failed")?, 0);
    // Nobody listens there.
    admin.rows(&provider_sql("dead", "http://127.0.0.1:1", &[]))?;
    until("a fetch fails", SOON, || Ok(figure(&admin, "key_fetches_failed")? > 0))?;
    Ok(())
}

#[test]
fn a_session_that_is_ended_is_an_event() -> Result<()> {
    let stage = stage()?;
    stage.trio("out")?;
    let admin = stage.admin()?;
    let session = stage.session("out", &good("out").sign(&keys().ec))?;
    let pid = session.value("SELECT pg_backend_pid()")?;
    let ended = "SELECT count(*) FROM oidc.audit_log WHERE event = 'session_end' AND subject = 'out'";
    let quiet = stage.session("out", &good("out").sign(&keys().ec))?;
    // Who leaves by himself is not ended.
    drop(quiet);
    let live = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'out'";
    until("the other session is gone", SOON, || Ok(admin.value(live)?.as_deref() == Some("1")))?;
    admin.rows("DELETE FROM oidc.role_mapping WHERE provider = 'out'")?;
    until("the event is in the table", SOON, || Ok(admin.value(ended)?.as_deref() == Some("1")))?;
    let row = admin.rows(
        "SELECT outcome, reason, provider, identity, role, database, host(client_address), pid::text \
         FROM oidc.audit_log WHERE event = 'session_end' AND subject = 'out'",
    )?;
    let wanted = ["ended", "rule_gone", "out", "out", "out", "postgres", "127.0.0.1"]
        .map(|text| Some(text.to_owned()));
    assert_eq!(row, [wanted.into_iter().chain([pid]).collect::<Vec<_>>()]);
    Ok(())
}

#[test]
fn a_database_of_another_encoding_has_escapes() -> Result<()> {
    let cluster = builder()?.setting("pg_oidc.database", "latin").start()?;
    cluster
        .admin("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'")?;
    install_in(&cluster, "latin")?;
    cluster.admin("CREATE ROLE reader LOGIN")?;
    rule_in(&cluster, "latin", "reader")?;
    let token = Token::for_user("日é").groups(&["reader"]).sign(&keys().ec);
    let seen = cluster.login("reader").password(token).run("SELECT 1")?;
    ensure!(seen.ok(), "{seen:?}");
    let query = "SELECT subject, facts->'claims'->>'sub' FROM oidc.audit_log WHERE event = 'login'";
    until("the login is in the table", SOON, || Ok(!cluster.admin_in("latin", query)?.is_empty()))?;
    let written = r"\u{65e5}\u{e9}";
    assert_eq!(cluster.admin_in("latin", query)?, [[written, written]]);
    Ok(())
}
