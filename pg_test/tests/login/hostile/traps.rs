//! Traps: for every function, operator, type and relation of `pg_catalog`, one of the same name and the same arguments in
//! a schema that comes first. Who touches one gets an error.

use anyhow::{Context, Result, ensure};
use pg_oidc_test::client::Session;
use pg_oidc_test::keys::{jwks, keys};
use pg_oidc_test::psql::Way;
use serde_json::json;

use crate::scene::{Stage, admitted, good, issuer, provider_sql, quoted, rule_sql, rule_with, text};
use crate::stage::calm;

/// The path of somebody who has been led astray.
const ASTRAY: &str = "-c search_path=traps,pg_temp,pg_catalog";

/// Traps in this schema, which PUBLIC may use.
fn set(admin: &Session, schema: &str) -> Result<()> {
    admin.rows(&format!(
        "CREATE SCHEMA IF NOT EXISTS {schema}; GRANT USAGE ON SCHEMA {schema} TO PUBLIC; SET check_function_bodies = off"
    ))?;
    // What cannot be made in plpgsql, such as what takes type internal, is left out.
    let body = "$b$BEGIN RAISE data_corrupted; END$b$";
    admin.rows(&format!(
        r#"DO $do$
        DECLARE
            o record;
        BEGIN
            FOR o IN SELECT p.oid, p.proname, p.proretset, p.prorettype, p.provariadic,
                            (SELECT string_agg(format_type(t, NULL), ', ' ORDER BY n)
                               FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY a (t, n)) AS arguments
                       FROM pg_proc p WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind IN ('f', 'a')
            LOOP
                BEGIN
                    EXECUTE format('CREATE FUNCTION {schema}.%I(%s) RETURNS %s %s LANGUAGE plpgsql AS {body}',
                        o.proname, o.arguments, CASE WHEN o.proretset THEN 'SETOF' END, format_type(o.prorettype, NULL));
                EXCEPTION WHEN OTHERS THEN NULL;
                END;
            END LOOP;
            FOR o IN SELECT oid, oprname, oprleft, oprright, oprresult FROM pg_operator WHERE oprnamespace = 'pg_catalog'::regnamespace
            LOOP
                BEGIN
                    EXECUTE format('CREATE FUNCTION {schema}.trap_%s(%s) RETURNS %s LANGUAGE plpgsql AS {body}', o.oid,
                        concat_ws(', ', format_type(nullif(o.oprleft, 0), NULL), format_type(o.oprright, NULL)), format_type(o.oprresult, NULL));
                    EXECUTE format('CREATE OPERATOR {schema}.%s (FUNCTION = {schema}.trap_%s, %s RIGHTARG = %s)', o.oprname, o.oid,
                        'LEFTARG = ' || format_type(nullif(o.oprleft, 0), NULL) || ',', format_type(o.oprright, NULL));
                EXCEPTION WHEN OTHERS THEN NULL;
                END;
            END LOOP;
        END
        $do$"#
    ))?;
    // Functions of any number of arguments, by arguments that fit better than "any".
    for arguments in [
        "text, text",
        "text, text, text",
        "text, text, text, text",
        "text, bigint, text, bigint, text, bigint",
        "text, VARIADIC text[]",
        "VARIADIC text[]",
        "VARIADIC anyarray",
    ] {
        for (name, result) in [
            ("format", "text"),
            ("concat", "text"),
            ("concat_ws", "text"),
            ("jsonb_build_object", "jsonb"),
            ("jsonb_build_array", "jsonb"),
        ] {
            let _ = admin.try_rows(&format!(
                "CREATE FUNCTION {schema}.{name}({arguments}) RETURNS {result} LANGUAGE plpgsql AS {}",
                body
            ))?;
        }
    }
    let count = format!("SELECT count(*) FROM pg_proc WHERE pronamespace = '{schema}'::regnamespace");
    let made: i64 = admin.value(&count)?.context("no count")?.parse()?;
    ensure!(made > 2500, "only {made} traps");
    // Last, since from here on names of types mean others.
    admin.rows(&format!(
        r#"DO $do$
        DECLARE
            o record;
        BEGIN
            FOR o IN SELECT typname FROM pg_type WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype = 'b' AND typcategory <> 'A' LOOP
                BEGIN
                    EXECUTE format('CREATE DOMAIN {schema}.%I AS pg_catalog.int4 CHECK (VALUE > 1000000)', o.typname);
                EXCEPTION WHEN OTHERS THEN NULL;
                END;
            END LOOP;
            FOR o IN SELECT DISTINCT relname FROM pg_class
                      WHERE relnamespace IN ('pg_catalog'::regnamespace, coalesce(to_regnamespace('oidc'), 0)) AND relkind IN ('r', 'v') LOOP
                EXECUTE format('CREATE TABLE {schema}.%I (trap pg_catalog.int4)', o.relname);
            END LOOP;
        END
        $do$; RESET check_function_bodies"#
    ))?;
    Ok(())
}

/// A superuser's session that has been led astray.
fn astray(stage: &Stage, database: &str) -> Result<Session> {
    let session =
        admitted(&stage.cluster.login("postgres").way(Way::Socket).database(database).options(ASTRAY))?;
    session.rows(
        "CREATE TEMP TABLE provider (x pg_catalog.int4); CREATE TEMP TABLE role_mapping (x pg_catalog.int4); \
         CREATE TEMP TABLE pg_settings (x pg_catalog.int4); CREATE TEMP TABLE policy_state (x pg_catalog.int4); \
         CREATE TYPE pg_temp.jsonb AS (x pg_catalog.int4); CREATE DOMAIN pg_temp.text AS pg_catalog.int4",
    )?;
    Ok(session)
}

#[test]
fn n127_shadows_have_no_effect() -> Result<()> {
    let stage = Stage::start()?;
    stage.trio("ada")?;
    let admin = stage.admin()?;
    let token = good("ada").claim("team", json!("red")).sign(&keys().ed25519);
    set(&admin, "traps")?;
    let hostile = astray(&stage, "postgres")?;
    // The traps work.
    for sql in
        ["SELECT 1 = 1", "SELECT pg_catalog.length('a') + 1", "SELECT to_jsonb(1)", "SELECT lower('A')"]
    {
        assert_eq!(hostile.error(sql)?.message, "data_corrupted", "{sql}");
    }

    // What is written there is what is written elsewhere.
    let keys_text = text(&jwks(&[&keys().ed25519]));
    let write = |session: &Session, name: &str| -> Result<()> {
        let columns = [
            ("jwks", keys_text.as_str()),
            ("max_token_age", "'1 day'"),
            ("required_claims", "'{\"team\": {\"not\": \"blue\"}}'"),
        ];
        session.rows(&provider_sql(name, &issuer(name), &columns))?;
        let confines = [
            ("addresses", "'{127.0.0.0/8}'"),
            ("databases", "'{postgres}'"),
            ("valid_from", "'2001-01-01'"),
            ("valid_until", "'infinity'"),
        ];
        session.rows(&rule_with(name, &json!({ "sub": name }), "ada", &confines))?;
        session.rows(&rule_with(name, &json!({ "g": { "regex": "x(.+)" } }), "\\1", &[]))?;
        session.rows(&rule_with(
            name,
            &json!({ "g": "out" }),
            "",
            &[("effect", "'deny'"), ("role", "NULL")],
        ))?;
        session.rows(&format!(
            "UPDATE oidc.role_mapping SET priority = 5 WHERE provider OPERATOR(pg_catalog.=) '{name}'"
        ))?;
        session
            .rows(&format!(
                "UPDATE oidc.provider SET comment = 'x' WHERE name OPERATOR(pg_catalog.=) '{name}'"
            ))
            .map(drop)
    };
    write(&admin, "bea")?;
    write(&hostile, "cia")?;
    let rows = |name: &str| -> Result<Vec<Vec<Option<String>>>> {
        let rows = admin.rows(&format!(
            "SELECT replace((to_jsonb(m) - 'id')::text, '{name}', '_') FROM oidc.role_mapping m WHERE provider = '{name}' ORDER BY id"
        ))?;
        Ok([
            rows,
            admin.rows(&format!(
                "SELECT replace(to_jsonb(p)::text, '{name}', '_') FROM oidc.provider p WHERE name = '{name}'"
            ))?,
            admin.rows(&format!(
                "SELECT event, outcome FROM oidc.audit_log WHERE provider = '{name}' ORDER BY id"
            ))?,
        ]
        .concat())
    };
    assert_eq!(rows("bea")?, rows("cia")?);
    for name in ["bea", "cia"] {
        let sign = |group: &str| good(name).groups(&[]).claim("g", json!(group)).sign(&keys().ed25519);
        stage.accepted("ada", &sign("x"), name)?;
        stage.refused("ada", &sign("out"), "denied_by_rule", name)?;
    }

    // What is read there is what is read elsewhere.
    let cut =
        good("bea").claim("g", json!("xada")).signing_input(keys().ed25519.algorithm(), keys().ed25519.kid());
    for sql in [
        "SELECT provider, effect, condition, role, databases, addresses, validity, comment FROM oidc.access".to_owned(),
        "SELECT name, status, detail, hint FROM oidc.doctor()".to_owned(),
        "SELECT oidc.export_policy()".to_owned(),
        "SELECT provider, kid, kty, alg, usable, problem, origin, fetched_at, age FROM oidc.key".to_owned(),
        "SELECT oidc.rule_row(m), oidc.judge_rule(oidc.rule_row(m)) FROM oidc.role_mapping m".to_owned(),
        "SELECT oidc.provider_row(p), oidc.judge_provider(oidc.provider_row(p)) FROM oidc.provider p".to_owned(),
        "SELECT * FROM oidc.explain_claims('bea', '{\"sub\": \"bea\", \"g\": \"xada\"}', 'ada', 'postgres', '127.0.0.1')".to_owned(),
        format!("SELECT * FROM oidc.explain({}, 'ada', 'postgres')", quoted(&cut)),
        "SELECT * FROM oidc.apply_policy(oidc.export_policy(), false)".to_owned(),
        "SELECT oidc.identity(), oidc.provider(), oidc.claims(), oidc.claim('sub')".to_owned(),
        "SELECT oidc.refresh_keys()".to_owned(),
    ] {
        let (there, here) = (hostile.rows(&sql)?, admin.rows(&sql)?);
        assert_eq!(there, here, "{sql}");
        ensure!(!format!("{there:?}").contains("data_corrupted"), "{sql}: {there:?}");
    }
    let guest = admitted(&stage.login("ada", &token).options(ASTRAY))?;
    let facts = "SELECT oidc.identity(), oidc.provider(), oidc.claim('team'), oidc.claims() OPERATOR(pg_catalog.->>) 'sub'";
    assert_eq!(guest.rows(facts)?, [["ada", "ada", "red", "ada"].map(|text| Some(text.to_owned()))]);

    // Changes that go back.
    hostile.rows("DELETE FROM oidc.role_mapping WHERE provider OPERATOR(pg_catalog.=) 'cia'")?;
    hostile.rows("DELETE FROM oidc.provider WHERE name OPERATOR(pg_catalog.=) 'cia'")?;
    stage.refused("ada", &good("cia").sign(&keys().ed25519), "issuer_unknown", "deleted")?;
    for sql in [rule_with("bea", &json!(7), "ada", &[]), rule_sql("bea", &json!({}), "pg_x")] {
        assert_eq!(hostile.error(&sql)?.message, admin.error(&sql)?.message);
    }

    // The settings of the policy database are the worker's too, until it sets its own.
    admin.rows("ALTER DATABASE postgres SET search_path = traps, pg_temp, pg_catalog")?;
    admin.rows("ALTER ROLE postgres SET search_path = traps, pg_temp, pg_catalog")?;
    drop((admin, hostile, guest));
    stage.cluster.restart()?;
    stage.accepted("ada", &token, "after a start among traps")?;
    let admin = stage.admin()?;
    admin.rows(&rule_with(
        "ada",
        &json!({ "team": "red" }),
        "",
        &[("effect", "'deny'"), ("role", "NULL")],
    ))?;
    stage.refused("ada", &token, "denied_by_rule", "a change among traps")?;
    hostile_log(&stage)?;
    calm(&stage.cluster, &[&token])
}

/// The worker did not step on a trap.
fn hostile_log(stage: &Stage) -> Result<()> {
    let log = stage.cluster.log();
    let trapped = |line: &&str| line.contains("data_corrupted") && line.contains("WARNING");
    let line = log.lines().find(trapped);
    ensure!(line.is_none(), "{line:?}");
    let failed: Vec<&str> =
        log.lines().skip_while(|line| !line.contains("could not read the OIDC policy")).take(2).collect();
    ensure!(failed.is_empty(), "{failed:?}");
    Ok(())
}

#[test]
fn n127_scripts_among_traps() -> Result<()> {
    let stage = Stage::start()?;
    let plain = stage.admin()?;
    let objects = "SELECT pg_catalog.string_agg(o.object, E'\\n' ORDER BY o.object COLLATE pg_catalog.\"C\") FROM ( \
        SELECT pg_catalog.pg_get_functiondef(p.oid) FROM pg_catalog.pg_proc p \
         WHERE p.pronamespace OPERATOR(pg_catalog.=) 'oidc'::pg_catalog.regnamespace UNION ALL \
        SELECT pg_catalog.pg_get_viewdef(c.oid) FROM pg_catalog.pg_class c \
         WHERE c.relnamespace OPERATOR(pg_catalog.=) 'oidc'::pg_catalog.regnamespace AND c.relkind OPERATOR(pg_catalog.=) 'v' UNION ALL \
        SELECT pg_catalog.pg_get_triggerdef(t.oid) FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.tgrelid \
         WHERE c.relnamespace OPERATOR(pg_catalog.=) 'oidc'::pg_catalog.regnamespace AND NOT t.tgisinternal UNION ALL \
        SELECT pg_catalog.pg_get_expr(d.adbin, d.adrelid) FROM pg_catalog.pg_attrdef d JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) d.adrelid \
         WHERE c.relnamespace OPERATOR(pg_catalog.=) 'oidc'::pg_catalog.regnamespace) o (object)";
    for (number, script) in [
        "CREATE EXTENSION pg_oidc",
        "CREATE EXTENSION pg_oidc VERSION '0.1.0'; ALTER EXTENSION pg_oidc UPDATE",
    ]
    .into_iter()
    .enumerate()
    {
        let (clean, trapped) = (format!("clean{number}"), format!("trapped{number}"));
        plain.rows(&format!("CREATE DATABASE {clean}"))?;
        plain.rows(&format!("CREATE DATABASE {trapped}"))?;
        stage.cluster.admin_session_in(&clean)?.rows(script)?;
        set(&stage.cluster.admin_session_in(&trapped)?, "traps")?;
        astray(&stage, &trapped)?.rows(script)?;
        // Read with an honest path, so that names are written in the same way.
        let read = |database: &str| -> Result<String> {
            stage.cluster.admin_session_in(database)?.value(objects)?.context("no objects")
        };
        let (expected, found) = (read(&clean)?, read(&trapped)?);
        let differs = found.lines().zip(expected.lines()).find(|(found, expected)| found != expected);
        ensure!(found == expected, "{script}: {differs:?}");
    }
    calm(&stage.cluster, &[])
}
