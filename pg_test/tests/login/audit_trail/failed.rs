//! Logins that are accepted and then fail, because core has the last word; and that others are not taken for such.

use anyhow::{Context, Result, ensure};
use pg_oidc_test::cluster::until;
use pg_oidc_test::keys::keys;
use pg_oidc_test::psql::Login;
use serde_json::{Value, json};

use super::{logins, stage};
use crate::scene::{SOON, Stage, good};

const LINE: &str = "OIDC login failed after it was accepted: reason=turned_away role=";

/// The login is accepted, and core then refuses it with this text: two rows, of one login.
fn turned_away(stage: &Stage, user: &str, login: &Login<'_>, text: &str) -> Result<()> {
    let admin = stage.admin()?;
    let ended = format!(
        "SELECT count(*) FROM oidc.audit_log WHERE event = 'login' AND requested_user = '{user}' AND outcome = 'failed'"
    );
    let mark = stage.cluster.log_mark();
    let count = || -> Result<usize> { Ok(admin.value(&ended)?.context("no count")?.parse()?) };
    let before = count()?;
    let told = login.connect()?.err().context("this was not refused")?;
    ensure!(told.message.contains(text), "{told:?}");
    until("the failure is in the table", SOON, || Ok(count()? == before + 1))?;
    let log = stage.cluster.log_since(mark);
    assert_eq!(
        log.matches(&format!("{LINE}{user:?} identity={user:?} provider={user:?}")).count(),
        1,
        "{log}"
    );
    Ok(())
}

#[test]
fn n108_a_login_that_core_turns_away_is_a_failed_one() -> Result<()> {
    let stage = stage()?;
    stage.trio("late")?;
    let admin = stage.admin()?;
    let token = good("late").claim("jti", json!("t-late")).sign(&keys().ec);
    for sql in [
        "ALTER ROLE late CONNECTION LIMIT 1",
        "CREATE DATABASE shut",
        "REVOKE CONNECT ON DATABASE shut FROM PUBLIC",
    ] {
        admin.rows(sql)?;
    }
    let first = stage.session("late", &token)?;
    turned_away(stage, "late", &stage.login("late", &token), "too many connections for role \"late\"")?;
    let rows = logins(&admin, "late", 3)?;
    let outcomes: Vec<&Value> = rows.iter().map(|row| &row["outcome"]).collect();
    assert_eq!(outcomes, ["accepted", "accepted", "failed"]);
    let (accepted, failed) = (&rows[1], &rows[2]);
    assert_eq!((&accepted["reason"], &failed["reason"]), (&Value::Null, &json!("turned_away")));
    for (column, value) in accepted.as_object().context("no row")? {
        let same = !["id", "time", "outcome", "reason"].contains(&column.as_str());
        ensure!(!same || &failed[column] == value, "{column}: {failed} of {accepted}");
    }
    assert_eq!((&failed["token_id"], &failed["subject"]), (&json!("t-late"), &json!("late")));
    let steps = admin.rows(&format!("SELECT FROM oidc.explain_login({})", failed["id"]))?;
    ensure!(steps.len() > 5, "it is explained as any login");
    let counted = "SELECT outcome, reason, value::text FROM oidc.stat WHERE metric = 'logins' AND provider = 'late' ORDER BY 1";
    let some = |text: &str| Some(text.to_owned());
    let wanted =
        [vec![some("accepted"), None, some("2")], vec![some("failed"), some("turned_away"), some("1")]];
    assert_eq!(admin.rows(counted)?, wanted);
    drop(first);

    let live = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'late'";
    until("the first session is gone", SOON, || Ok(admin.value(live)?.as_deref() == Some("0")))?;
    let login = || stage.login("late", &token);
    // What the door sees itself it refuses itself.
    for database in ["shut", "missing"] {
        let told = login().database(database).connect()?.err().context("this was not refused")?;
        ensure!(!told.message.contains(database), "{told:?}");
    }
    let denied =
        "SELECT count(*) FROM oidc.audit_log WHERE reason = 'connect_denied' AND requested_user = 'late'";
    until("both refusals are in the table", SOON, || Ok(admin.value(denied)?.as_deref() == Some("2")))?;
    turned_away(stage, "late", &login().options("-c work_mem=much"), "invalid value for parameter")?;
    assert_eq!(
        admin.value("SELECT count(*) FROM oidc.session WHERE provider = 'late'")?.as_deref(),
        Some("0")
    );
    // Nothing is left of them: the next one gets in.
    stage.session("late", &token).map(drop)
}

#[test]
fn n108_others_are_not_failed() -> Result<()> {
    let stage = Stage::start()?;
    stage.trio("sound")?;
    let admin = stage.admin()?;
    let token = good("sound").sign(&keys().ec);
    let live = "SELECT count(*) FROM oidc.session";
    let quiet = || until("it is gone", SOON, || Ok(admin.value(live)?.as_deref() == Some("0")));
    // It ends by itself, is ended by pg_oidc, is ended by a superuser.
    drop(stage.session("sound", &token)?);
    quiet()?;
    let ended = stage.session("sound", &token)?;
    admin.rows("SELECT oidc.end_sessions('sound', 'sound')")?;
    quiet()?;
    drop(ended);
    admin.rows("DELETE FROM oidc.revocation")?;
    let killed = stage.session("sound", &token)?;
    admin.rows("SELECT pg_terminate_backend(pid) FROM oidc.session")?;
    quiet()?;
    drop(killed);
    // Refused at the last step of the door, when it had a slot already.
    admin.rows("ALTER ROLE sound NOLOGIN")?;
    stage.refused("sound", &token, "role_cannot_login", "NOLOGIN")?;
    let rows = logins(&admin, "sound", 5)?;
    let outcomes: Vec<&Value> = rows.iter().map(|row| &row["outcome"]).collect();
    assert_eq!(outcomes, ["accepted", "accepted", "accepted", "refused", "refused"]);
    ensure!(!stage.cluster.log().contains(LINE), "{}", stage.cluster.log());
    Ok(())
}
