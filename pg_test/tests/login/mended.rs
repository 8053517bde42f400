//! What broke once and must not break again, each test named after what it was.
//!
//! 1. An ERROR inside the hook (a lock timeout, a cancel) ends that login and nothing else: an ERROR under nested
//!    guards aborted the process, and with it the whole cluster.
//! 2. A rule whose role was made anew does not shadow a later rule for the role of today.
//! 3. What was changed while the triggers were disabled counts once they are enabled again.
//! 4. The policy of a database counts there only: a schema of the same name elsewhere moves nothing.
//! 5. Claims are exact to the last digit, and never null in a token session.
//! 6. A name that is not UTF-8 is refused: what is decided upon is what core would log in.
//! 7. Default privileges of the one who creates the extension give nobody anything.
//! 8. In a database of another encoding no name reads as another.
//! 9. A missing policy database costs one FATAL, not one every few seconds.
//! 10. What the owner of the policy database sets for its sessions does not reach the worker.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pg_oidc_test::cluster::until;
use pg_oidc_test::psql::Way;
use pg_oidc_test::token::Token;
use pg_oidc_test::wire::{Heard, Wire};
use serde_json::{Value, json};

use crate::scene::{SOON, Stage, good, issuer, rule_sql};
use crate::stage::calm;

#[test]
fn f001_a_lock_timeout_in_the_hook_aborted_the_process() -> Result<()> {
    let stage = Stage::with(|builder| builder.setting("lock_timeout", "300ms"))?;
    stage.trio("ada")?;
    let token = good("ada").sign(&pg_oidc_test::keys::keys().rsa);
    stage.accepted("ada", &token, "before")?;
    let holder = stage.admin()?;
    holder.rows("BEGIN")?;
    holder.rows("LOCK TABLE pg_catalog.pg_database, pg_catalog.pg_authid IN ACCESS EXCLUSIVE MODE")?;
    let mark = stage.cluster.log_mark();
    let seen = stage.login("ada", &token).run("SELECT 1")?;
    ensure!(!seen.ok(), "{seen:?}");
    holder.rows("ROLLBACK")?;
    // The reason is ours if the ERROR met our hook, core's own if core came to the catalog first.
    let log = stage.cluster.log_since(mark);
    ensure!(log.contains("lock timeout"), "{log}");
    stage.accepted("ada", &token, "afterwards")?;
    calm(&stage.cluster, &[&token])
}

#[test]
fn f001_a_cancel_while_a_login_waits_aborted_the_process() -> Result<()> {
    let stage = Stage::with(|builder| {
        builder.setting("pg_oidc.wait_timeout", "20s").setting("log_connections", "on")
    })?;
    stage.trio("bob")?;
    let token = good("bob").sign(&pg_oidc_test::keys::keys().rsa);
    stage.accepted("bob", &token, "before")?;
    // The worker cannot read the tables, so a login after a committed change waits.
    let holder = stage.admin()?;
    holder.rows("BEGIN")?;
    holder.rows("LOCK TABLE oidc.policy_state IN ACCESS EXCLUSIVE MODE")?;
    let changer = stage.admin()?;
    changer.rows("ALTER TABLE oidc.role_mapping SET (fillfactor = 90)")?;
    let mark = stage.cluster.log_mark();
    let (mut wire, _) = Wire::begin(&stage.cluster, Way::Tls, "bob")?;
    // A backend that is not yet authenticated is not in pg_stat_activity: its pid is in the log. The cancel comes while
    // the password is read, where it is kept, and is served in the wait.
    let received = stage.cluster.await_log_since(mark, "connection received", SOON)?;
    let pid = received.split(['[', ']']).nth(1).context("no pid in the log")?;
    ensure!(std::process::Command::new("kill").args(["-INT", pid]).status()?.success(), "could not signal");
    wire.password(&token)?;
    let Heard::Error(refused) = wire.outcome()? else { anyhow::bail!("it was not refused") };
    assert_eq!(refused.field('M'), crate::stage::line("bob"));
    stage.cluster.await_log_since(mark, "reason=internal_error", SOON)?;
    holder.rows("ROLLBACK")?;
    stage.accepted("bob", &token, "afterwards")?;
    calm(&stage.cluster, &[&token])
}

#[test]
fn n108_a_stale_rule_shadowed_a_good_one() -> Result<()> {
    let stage = Stage::start()?;
    stage.trio("cy")?;
    let token = good("cy").sign(&pg_oidc_test::keys::keys().rsa);
    stage.accepted("cy", &token, "the role of the rule")?;
    let admin = stage.admin()?;
    admin.rows("DROP ROLE cy")?;
    stage.refused("cy", &token, "role_missing", "dropped")?;
    admin.rows("CREATE ROLE cy LOGIN")?;
    stage.refused("cy", &token, "role_replaced", "made anew")?;
    admin.rows(&rule_sql("cy", &json!({ "sub": "cy" }), "cy"))?;
    stage.accepted("cy", &token, "a rule for the role of today, beside the stale one")
}

#[test]
fn n137_changes_behind_disabled_triggers_were_missed() -> Result<()> {
    let stage = Stage::start()?;
    stage.trio("dan")?;
    let token = good("dan").sign(&pg_oidc_test::keys::keys().rsa);
    stage.accepted("dan", &token, "before")?;
    let admin = stage.admin()?;
    admin.rows("ALTER TABLE oidc.role_mapping DISABLE TRIGGER USER")?;
    admin.rows("DELETE FROM oidc.role_mapping")?;
    admin.rows("ALTER TABLE oidc.role_mapping ENABLE ALWAYS TRIGGER policy_changed")?;
    stage.refused("dan", &token, "no_rule", "deleted while no trigger looked")
}

#[test]
fn a_schema_of_the_same_name_elsewhere_moved_the_policy() -> Result<()> {
    let stage = Stage::start()?;
    stage.trio("eve")?;
    stage.cluster.admin("CREATE DATABASE elsewhere")?;
    stage.cluster.admin_in("elsewhere", "CREATE SCHEMA oidc; CREATE TABLE oidc.t (x int)")?;
    let token = good("eve").sign(&pg_oidc_test::keys::keys().rsa);
    // The worker is kept from reading. Did the ALTER elsewhere count, this login would have to wait for it.
    let holder = stage.admin()?;
    stage.accepted("eve", &token, "before")?;
    holder.rows("BEGIN")?;
    holder.rows("LOCK TABLE oidc.policy_state, oidc.provider IN ACCESS EXCLUSIVE MODE")?;
    stage.cluster.admin_in("elsewhere", "ALTER TABLE oidc.t ADD y int; DROP TABLE oidc.t")?;
    let after = stage.accepted("eve", &token, "after an ALTER elsewhere");
    holder.rows("ROLLBACK")?;
    after
}

#[test]
fn claims_lost_digits() -> Result<()> {
    let stage = Stage::start()?;
    stage.trio("fay")?;
    let payload = good("fay").claims().clone();
    let mut text = Value::Object(payload).to_string();
    text.pop();
    text.push_str(r#","account":12345678901234567890,"tiny":1.50,"huge":1e400}"#);
    let token = good("fay").raw_payload(text).sign(&pg_oidc_test::keys::keys().rsa);
    let session = stage.session("fay", &token)?;
    let value = |sql: &str| session.value(&format!("SELECT {sql}"));
    assert_eq!(value("oidc.claims()->>'account'")?.as_deref(), Some("12345678901234567890"));
    assert_eq!(value("oidc.claims()->>'tiny'")?.as_deref(), Some("1.50"));
    assert_eq!(value("oidc.claim('account')")?.as_deref(), Some("12345678901234567890"));
    assert_eq!(value("(oidc.claims()->'huge')::numeric = 1e400")?.as_deref(), Some("t"));
    assert_eq!(value("oidc.claims()->>'sub'")?.as_deref(), Some("fay"));
    Ok(())
}

#[test]
fn n105_names_were_decided_upon_in_another_form() -> Result<()> {
    let stage = Stage::start()?;
    let mut wire = Wire::connect(&stage.cluster, Way::Tls)?;
    let mark = stage.cluster.log_mark();
    // Startup packet (protocol 3.0) with a user name that is not UTF-8.
    let mut body = 196_608_i32.to_be_bytes().to_vec();
    body.extend_from_slice(b"user\0a\xff\0database\0postgres\0\0");
    let length = i32::try_from(body.len() + 4).context("too long")?;
    wire.raw(&[length.to_be_bytes().to_vec(), body].concat())?;
    let Heard::Error(refused) = wire.outcome()? else { anyhow::bail!("it was not refused") };
    assert_eq!(refused.field('C'), "28000");
    stage.cluster.await_log_since(mark, "reason=name_invalid", SOON)?;
    Ok(())
}

#[test]
fn n128_default_privileges_gave_rights() -> Result<()> {
    let stage = Stage::start()?;
    let admin = stage.admin()?;
    admin.rows("DROP EXTENSION pg_oidc")?;
    admin.rows("CREATE ROLE app LOGIN")?;
    for kind in ["TABLES", "SEQUENCES", "FUNCTIONS", "SCHEMAS"] {
        admin.rows(&format!("ALTER DEFAULT PRIVILEGES GRANT ALL ON {kind} TO app, PUBLIC"))?;
    }
    admin.rows("CREATE EXTENSION pg_oidc")?;
    let tables = "SELECT count(*) FROM pg_class c WHERE relnamespace = 'oidc'::regnamespace AND relkind IN ('r', 'v') \
                  AND has_table_privilege('app', c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')";
    assert_eq!(admin.value(tables)?.as_deref(), Some("0"));
    let sequences = "SELECT count(*) FROM pg_sequences WHERE schemaname = 'oidc' \
                     AND has_sequence_privilege('app', format('oidc.%I', sequencename), 'USAGE, SELECT, UPDATE')";
    assert_eq!(admin.value(sequences)?.as_deref(), Some("0"));
    let functions = "SELECT string_agg(proname, ' ' ORDER BY proname) FROM pg_proc p \
                     WHERE pronamespace = 'oidc'::regnamespace AND has_function_privilege('app', p.oid, 'EXECUTE')";
    assert_eq!(
        admin.value(functions)?.as_deref(),
        Some("claim claims claims_text condition_text identity provider")
    );
    let schema = "SELECT has_schema_privilege('app', 'oidc', 'CREATE')";
    assert_eq!(admin.value(schema)?.as_deref(), Some("f"));
    // Even with EXECUTE, the trigger that moves the generation is for the policy's own tables.
    admin.rows("GRANT EXECUTE ON FUNCTION oidc.policy_changed() TO app; CREATE TABLE public.t (x int)")?;
    admin.rows(
        "CREATE TRIGGER t AFTER INSERT ON public.t FOR EACH ROW EXECUTE FUNCTION oidc.policy_changed()",
    )?;
    let told = admin.error("INSERT INTO public.t VALUES (1)")?;
    ensure!(told.message.contains("only for the tables of schema \"oidc\""), "{told:?}");
    Ok(())
}

#[test]
fn names_read_as_others_in_another_encoding() -> Result<()> {
    let stage = Stage::start()?;
    stage.provider("gil")?;
    stage.role_and_rule("gil", "gil", &json!({ "team": "x" }))?;
    stage
        .cluster
        .admin("CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")?;
    stage.cluster.admin_in("latin", "CREATE EXTENSION pg_oidc")?;
    let token = |subject: &str| {
        let token = Token::for_user(subject).issuer(&issuer("gil")).claim("team", json!("x"));
        token.sign(&pg_oidc_test::keys::keys().rsa)
    };
    let ask =
        |subject: &str| stage.login("gil", &token(subject)).database("latin").run("SELECT oidc.identity()");
    assert_eq!(ask("jose")?.rows(), [["jose"]]);
    let seen = ask("josé")?;
    ensure!(seen.stderr.contains("could not show the value in the encoding of this database"), "{seen:?}");
    Ok(())
}

#[test]
fn f018_a_missing_database_was_a_fatal_every_two_seconds() -> Result<()> {
    let stage = Stage::with(|builder| builder.setting("pg_oidc.database", "policy"))?;
    let cluster = &stage.cluster;
    let missing = "database \"policy\" does not exist";
    cluster.await_log(missing, SOON)?;
    // The next life of the worker looks for the database and stays.
    let looks = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_oidc registry' AND datname IS NULL \
                 AND backend_start < now() - interval '5 seconds'";
    until("a worker has looked for 5 s", SOON, || Ok(!cluster.admin(looks)?.is_empty()))?;
    assert_eq!(cluster.log().matches(missing).count(), 1);
    cluster.admin("CREATE DATABASE policy")?;
    let there =
        "SELECT 1 FROM pg_stat_activity WHERE backend_type = 'pg_oidc registry' AND datname = 'policy'";
    until("it connects", Duration::from_secs(30), || Ok(!cluster.admin(there)?.is_empty()))
}

#[test]
fn n129_settings_of_the_policy_database_reached_the_worker() -> Result<()> {
    let stage = Stage::start()?;
    let admin = stage.admin()?;
    admin.rows("CREATE ROLE powerless")?;
    admin.rows("ALTER DATABASE postgres SET role = 'powerless'")?;
    admin.rows("ALTER DATABASE postgres SET default_transaction_isolation = 'serializable'")?;
    stage.cluster.restart()?;
    stage.cluster.admin("SET ROLE NONE; ALTER DATABASE postgres RESET role")?;
    stage.trio("hal")?;
    stage.accepted("hal", &good("hal").sign(&pg_oidc_test::keys::keys().rsa), "the worker reads as itself")
}
