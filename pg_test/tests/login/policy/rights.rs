//! Who may see and change the policy, where, and what of it is dumped.
//!
//! 1. n128: PUBLIC reads no table, changes nothing and calls nothing but the session functions, even where
//!    INSERT was granted.
//! 2. n140: in another database, and in a copy of the policy database, writes are refused and the right one is
//!    named; the session functions work there.
//! 3. n127: a schema `oidc` that was there before is not taken over.
//! 4. Every object has a comment.
//! 5. f027: a dump carries providers, rules and the sequence, and not the generation.

use anyhow::{Result, ensure};
use pg_oidc_test::cluster::until;
use pg_oidc_test::program;
use pg_oidc_test::psql::Way;
use serde_json::json;

use super::{stage, token};
use crate::scene::{SOON, Stage, good, issuer, provider_sql, rule_sql};

#[test]
fn n128_public_sees_and_changes_nothing() -> Result<()> {
    stage().trio("n128")?;
    let admin = stage().admin()?;
    let guest = stage().session("n128", &token("n128"))?;
    let list = "SELECT c.relname, c.relkind::text FROM pg_class c WHERE relnamespace = 'oidc'::regnamespace \
                AND relkind IN ('r', 'S', 'v')";
    let relations = admin.rows(list)?;
    ensure!(relations.len() >= 8, "{relations:?}");
    let denied = |sql: &str| -> Result<()> {
        let told = guest.error(sql)?;
        ensure!(told.code == "42501", "{sql}: {told:?}");
        Ok(())
    };
    for relation in relations {
        let [Some(name), Some(kind)] = relation.as_slice() else { anyhow::bail!("{relation:?}") };
        denied(&format!("SELECT * FROM oidc.{name}"))?;
        if kind == "r" {
            denied(&format!("INSERT INTO oidc.{name} DEFAULT VALUES"))?;
            denied(&format!("DELETE FROM oidc.{name}"))?;
            denied(&format!("TRUNCATE oidc.{name} CASCADE"))?;
            denied(&format!("COPY oidc.{name} TO STDOUT"))?;
            denied(&format!("ALTER TABLE oidc.{name} DISABLE TRIGGER ALL"))?;
            denied(&format!("DO 'BEGIN LOCK oidc.{name} IN ACCESS SHARE MODE; END'"))?;
        } else if kind == "S" {
            denied(&format!("SELECT nextval('oidc.{name}')"))?;
        }
    }
    for call in [
        "SELECT oidc.judge_provider('{}')",
        "SELECT oidc.judge_rule('{}')",
        "SELECT oidc.provider_row(NULL)",
        "SELECT oidc.key_rows()",
        "SELECT oidc.refresh_keys()",
        "SELECT oidc.rule_row(NULL)",
        "CREATE TABLE oidc.mine ()",
        "CREATE FUNCTION oidc.identity(int) RETURNS text LANGUAGE sql AS 'SELECT ''x'''",
        "DROP EXTENSION pg_oidc",
    ] {
        denied(call)?;
    }
    // Whatever can be called tells who one is, or only rewrites its argument.
    let callable = "SELECT p.oid::regprocedure::text FROM pg_proc p WHERE pronamespace = 'oidc'::regnamespace \
                    AND has_function_privilege('n128', p.oid, 'EXECUTE') ORDER BY 1";
    let those = [
        "oidc.claim(text)",
        "oidc.claims()",
        "oidc.claims_text()",
        "oidc.condition_text(text)",
        "oidc.identity()",
        "oidc.provider()",
    ];
    assert_eq!(admin.rows(callable)?, those.map(|name| vec![Some(name.to_owned())]));

    // A grant is not enough.
    admin.rows(
        "GRANT ALL ON ALL TABLES IN SCHEMA oidc TO n128; GRANT ALL ON ALL SEQUENCES IN SCHEMA oidc TO n128",
    )?;
    for sql in [
        rule_sql("n128", &json!({}), "n128"),
        provider_sql("n128x", &issuer("n128x"), &[]),
        "UPDATE oidc.role_mapping SET priority = 1 WHERE provider = 'n128'".to_owned(),
        "DELETE FROM oidc.role_mapping WHERE provider = 'n128'".to_owned(),
        "TRUNCATE oidc.role_mapping".to_owned(),
        "INSERT INTO oidc.jwks_cache VALUES ('n128', '{}', NULL, now(), now())".to_owned(),
        "TRUNCATE oidc.jwks_cache".to_owned(),
        "TRUNCATE oidc.provider CASCADE".to_owned(),
        "INSERT INTO oidc.revocation (provider, subject) VALUES ('n128', 'x')".to_owned(),
    ] {
        let told = guest.error(&sql)?;
        assert_eq!(told.code, "42501", "{sql}");
        assert_eq!(told.message, "permission denied to change the OIDC policy", "{sql}");
    }
    admin.rows("REVOKE ALL ON ALL TABLES IN SCHEMA oidc FROM n128; REVOKE ALL ON ALL SEQUENCES IN SCHEMA oidc FROM n128")?;
    stage().accepted("n128", &token("n128"), "nothing was changed")
}

/// Writes are refused in this database, and the right one is named.
fn refuses_writes(stage: &Stage, database: &str) -> Result<()> {
    let session = stage.cluster.admin_session_in(database)?;
    for sql in [
        provider_sql("elsewhere", &issuer("elsewhere"), &[]),
        "UPDATE oidc.provider SET comment = 'x'".to_owned(),
        "TRUNCATE oidc.provider CASCADE".to_owned(),
        "TRUNCATE oidc.role_mapping".to_owned(),
        "INSERT INTO oidc.audit_log (event, outcome) VALUES ('x', 'done')".to_owned(),
        // ADMIN on the role does not help there.
        format!("BEGIN; SET LOCAL ROLE n140; {}", rule_sql("n140", &json!({}), "n140_team")),
        "ROLLBACK; DELETE FROM oidc.policy_state".to_owned(),
    ] {
        let told = match session.try_rows(&sql)? {
            Err(told) => told,
            // A row trigger has nothing to refuse in an empty table.
            Ok(_) => {
                ensure!(sql.starts_with("UPDATE"), "{sql} in {database} was not refused");
                continue;
            }
        };
        assert_eq!(
            told.message,
            format!("cannot change the OIDC policy in database \"{database}\""),
            "{sql}"
        );
        assert_eq!(told.detail.as_deref(), Some("The policy of this server is in database \"postgres\"."));
        ensure!(told.hint.is_some_and(|hint| hint.contains("Connect to \"postgres\"")), "{sql}");
    }
    Ok(())
}

#[test]
fn n140_other_databases_refuse_writes() -> Result<()> {
    let stage = Stage::start()?;
    stage.trio("n140")?;
    let admin = stage.admin()?;
    let grant = "GRANT ALL ON oidc.role_mapping TO n140";
    admin.rows("CREATE DATABASE second")?;
    admin.rows(&format!("CREATE ROLE n140_team; GRANT n140_team TO n140 WITH ADMIN OPTION; {grant}"))?;
    stage.session("n140", &token("n140"))?.rows(&rule_sql("n140", &json!({ "never": 1 }), "n140_team"))?;
    stage.cluster.admin_in("second", "CREATE EXTENSION pg_oidc")?;
    stage.cluster.admin_in("second", grant)?;
    refuses_writes(&stage, "second")?;
    let seen = stage.login("n140", &token("n140")).database("second").run("SELECT oidc.identity()")?;
    assert_eq!(seen.rows(), [["n140"]]);

    // The registry worker sits in the policy database, so it is copied while the policy is said to be elsewhere.
    drop(admin);
    stage.cluster.set("pg_oidc.database", "second")?;
    stage.cluster.restart()?;
    stage.cluster.admin_in("template1", "CREATE DATABASE copy TEMPLATE postgres")?;
    stage.cluster.set("pg_oidc.database", "postgres")?;
    stage.cluster.restart()?;
    refuses_writes(&stage, "copy")?;
    let rows = stage.cluster.admin_in("copy", "SELECT count(*) FROM oidc.role_mapping")?;
    assert_eq!(rows, [["2"]], "the copy has the rows");
    stage.accepted("n140", &token("n140"), "the policy is as it was")
}

#[test]
fn n127_schema_made_beforehand_is_not_taken_over() -> Result<()> {
    let admin = stage().admin()?;
    admin.rows("CREATE DATABASE squatted")?;
    let squatted = stage().cluster.admin_session_in("squatted")?;
    squatted.rows("CREATE SCHEMA oidc; CREATE TABLE oidc.provider ()")?;
    let told = squatted.error("CREATE EXTENSION pg_oidc")?;
    assert_eq!((told.code.as_str(), told.message.as_str()), ("42P06", "schema \"oidc\" already exists"));
    squatted.rows("DROP SCHEMA oidc CASCADE; CREATE EXTENSION pg_oidc").map(drop)
}

#[test]
fn every_object_has_a_comment() -> Result<()> {
    let admin = stage().admin()?;
    let functions = "SELECT p.oid::regprocedure::text FROM pg_proc p WHERE pronamespace = 'oidc'::regnamespace \
                     AND obj_description(p.oid, 'pg_proc') IS NULL";
    assert_eq!(admin.rows(functions)?, [] as [Vec<Option<String>>; 0], "functions");
    let relations = "SELECT c.oid::regclass::text FROM pg_class c WHERE relnamespace = 'oidc'::regnamespace \
                     AND relkind IN ('r', 'v', 'm', 'f') AND obj_description(c.oid, 'pg_class') IS NULL";
    assert_eq!(admin.rows(relations)?, [] as [Vec<Option<String>>; 0], "relations");
    let schema = "SELECT obj_description('oidc'::regnamespace, 'pg_namespace') IS NOT NULL, \
                  (SELECT obj_description(oid, 'pg_extension') IS NOT NULL FROM pg_extension WHERE extname = 'pg_oidc')";
    assert_eq!(admin.rows(schema)?, [[Some("t".to_owned()), Some("t".to_owned())]]);
    let columns = "SELECT a.attrelid::regclass || '.' || a.attname FROM pg_attribute a \
                   WHERE attrelid IN ('oidc.provider'::regclass, 'oidc.role_mapping'::regclass) \
                   AND attnum > 0 AND NOT attisdropped AND col_description(attrelid, attnum) IS NULL";
    assert_eq!(admin.rows(columns)?, [] as [Vec<Option<String>>; 0], "columns");
    Ok(())
}

#[test]
fn f027_dump_and_restore() -> Result<()> {
    let source = Stage::start()?;
    source.trio("dumped")?;
    source.trio("dumped2")?;
    let admin = source.admin()?;
    for number in 0..5 {
        admin.rows(&rule_sql("dumped", &json!({ "number": number }), "dumped"))?;
    }
    let cluster = &source.cluster;
    let mut dump = cluster.server().command("pg_dump")?;
    dump.arg("-h").arg(cluster.folder()).args(["-U", "postgres", "-d", "postgres", "-p"]);
    let dump = program::output(dump.arg(cluster.port().to_string()))?;
    ensure!(dump.contains("COPY oidc.role_mapping") && !dump.contains("COPY oidc.policy_state"), "{dump}");

    // A fresh server that keeps its policy in another database, with roles of other oids.
    let target = pg_oidc_test::cluster::Cluster::builder(cluster.server());
    let target = target.setting("pg_oidc.database", "restored").start()?;
    target.admin(
        "CREATE ROLE other; CREATE ROLE dumped2 LOGIN; CREATE ROLE dumped LOGIN; CREATE DATABASE restored",
    )?;
    let seen = target.login("postgres").way(Way::Socket).database("restored").run(&dump)?;
    ensure!(seen.ok(), "{seen:?}");
    let target = Stage { cluster: target };
    let (from, to) = (admin, target.cluster.admin_session_in("restored")?);
    for same in [
        "SELECT to_jsonb(p)::text FROM oidc.provider p ORDER BY name",
        "SELECT (to_jsonb(m) - 'role_oid')::text FROM oidc.role_mapping m ORDER BY id",
        "SELECT last_value, is_called FROM oidc.role_mapping_id_seq",
    ] {
        assert_eq!(from.rows(same)?, to.rows(same)?, "{same}");
    }
    assert_eq!(to.value("SELECT count(*) FROM oidc.policy_state")?.as_deref(), Some("1"));
    let own = "SELECT bool_and(role_oid = role::regrole) FROM oidc.role_mapping";
    assert_eq!(to.value(own)?.as_deref(), Some("t"), "rules are for the roles that are here");
    let token = good("dumped").sign(&pg_oidc_test::keys::keys().ec);
    until("the restored policy counts", SOON, || Ok(target.login("dumped", &token).connect()?.is_ok()))?;
    to.rows(&rule_sql("dumped", &json!({}), "dumped")).map(drop)
}
