//! n127, n128: what others put in the way, in rows and around them, is never run and never believed; and whoever was
//! granted nothing sees nothing.
//!
//! 1. n127: text in every column that could be taken for SQL, a format or a line of the log. It decides logins as what
//!    it is, is shown, and is escaped in the log.
//! 2. n127: functions, operators, types, tables of the same names as those that the extension uses, before `pg_catalog`
//!    in the search path, in `pg_temp`, in the settings of the database: [`traps`].
//! 3. n127: the scripts run among them give the same objects.
//! 4. n127: a schema `oidc` that somebody made beforehand is neither taken over nor read.
//! 5. n128: PUBLIC runs no function and reads no relation but its own few, whatever is added.

mod traps;

use anyhow::{Context, Result, ensure};
use pg_oidc_test::client::Session;
use pg_oidc_test::cluster::Cluster;
use pg_oidc_test::extension::Server;
use pg_oidc_test::keys::{jwks, keys};
use pg_oidc_test::token::Token;
use serde_json::json;

use crate::scene::{SOON, Stage, good, issuer, provider_sql, quoted, rule_sql, rule_with, text};
use crate::stage::{calm, reasons};

/// What somebody may write who hopes that it is run, or believed.
const HOSTILE: [&str; 10] = [
    "'; CREATE TABLE public.hit (); --",
    "\"; CREATE TABLE public.hit (); --",
    "\\'; CREATE TABLE public.hit (); --",
    "$$; CREATE TABLE public.hit (); SELECT $$",
    "$body$; CREATE TABLE public.hit (); --",
    "%s %I %L %1$s %n %%",
    "two\nlines\r\n1999-01-01 00:00:00.000 UTC [1] LOG:  OIDC login accepted: role=\"postgres\"",
    "\u{1b}[2J\u{202e}\u{7f}\t\\",
    "{\"a\": [\"b\"]} {x,NULL}",
    "\\1 \\\\x00 $1 :x ?",
];

#[test]
fn n127_hostile_text_in_every_column() -> Result<()> {
    // Without the user in it, whose name core writes as it is.
    let stage = Stage::with(|builder| builder.setting("log_line_prefix", "%m [%p] "))?;
    let admin = stage.admin()?;
    let keys_text = text(&jwks(&[&keys().ec, &keys().ed25519]));
    let relations = "SELECT count(*) FROM pg_class WHERE relnamespace NOT IN ('pg_toast'::regnamespace)";
    let before = admin.value(relations)?;
    let mut accepted = 0;
    for (number, odd) in HOSTILE.iter().enumerate() {
        let short = |text: &str| text.chars().take(40).collect::<String>();
        let role = short(&format!("r{number}{odd}")).replace("\\1", "\\x");
        let name = odd.replace(char::is_control, "");
        let name = format!("{}{number}", short(&name));
        let issuer = issuer(&format!("h{number}"));
        let (sql, list) = (quoted(odd), format!("ARRAY['warehouse', {}]", quoted(odd)));
        let (claims, types) = (text(&json!({ *odd: odd })), format!("ARRAY['JWT', {}]", quoted(odd)));
        let provider = [
            ("jwks", keys_text.as_str()),
            ("audiences", &list),
            ("groups_claim", &sql),
            ("accepted_typ", &types),
            ("required_claims", &claims),
            ("comment", &sql),
        ];
        admin.rows(&provider_sql(&name, &issuer, &provider))?;
        let unused = [
            ("enabled", "false"),
            ("identity_claim", sql.as_str()),
            ("audience_claim", &sql),
            ("algorithms", "'{RS256}'"),
        ];
        admin.rows(&provider_sql(&format!("unused{name}"), &format!("{issuer}/unused"), &unused))?;
        admin.rows(&format!("CREATE ROLE \"{}\" LOGIN", role.replace('"', "\"\"")))?;
        let databases = format!("ARRAY['postgres', {}]", quoted(odd));
        let columns = [("comment", sql.as_str()), ("databases", &databases)];
        let odd_claims = json!({ *odd: { "any": [odd, { "glob": odd }] }, format!("/a/{}", odd.replace('~', "~0").replace('/', "~1")): odd });
        admin.rows(&rule_with(&name, &odd_claims, &role, &columns))?;
        let deny = [("effect", "'deny'"), ("role", "NULL"), ("comment", sql.as_str())];
        admin.rows(&rule_with(
            &name,
            &json!({ "leaving": { "not": { "any": [{ "exists": false }, { "glob": odd }] } } }),
            "",
            &deny,
        ))?;

        let token =
            Token::for_user("s").issuer(&issuer).claim(odd, json!(odd)).claim("a", json!({ *odd: odd }));
        let sign = |token: &Token| token.sign(&keys().ed25519);
        let session = stage.session(&role, &sign(&token))?;
        accepted += 1;
        let seen = session.rows(&format!(
            "SELECT session_user, current_user, oidc.provider(), oidc.claim({})",
            quoted(odd)
        ))?;
        assert_eq!(seen, [[&role, &role, &name, *odd].map(|text| Some(text.to_owned()))], "{odd:?}");
        for (user, token, reason) in [
            (&role, sign(&token.clone().claim("leaving", json!("x"))), "denied_by_rule"),
            (&role, sign(&token.clone().claim("a", json!({}))), "no_rule"),
            (&role, sign(&token.clone().claim(odd, json!("x"))), "required_claim_failed"),
            (&role, sign(&token.clone().without(odd)), "required_claim_failed"),
            (&name, sign(&token), "user_not_mapped"),
        ] {
            let refused = stage.refusal(&stage.login(user, &token), user, odd)?;
            assert_eq!(refused.reason, reason, "{odd:?}");
        }
        let cut = token.signing_input(keys().ed25519.algorithm(), keys().ed25519.kid());
        let call =
            format!("SELECT detail FROM oidc.explain({}, {}, 'postgres')", quoted(&cut), quoted(&role));
        let last = admin.value(&call)?.context("no step")?;
        ensure!(!last.contains("refused"), "{odd:?}: {last}");
        let call = format!(
            "SELECT detail FROM oidc.explain_claims({}, {}, {})",
            quoted(&name),
            text(&json!({ *odd: odd, "a": { *odd: odd } })),
            quoted(&role)
        );
        let last = admin.value(&call)?.context("no step")?;
        ensure!(!last.contains("refused"), "{odd:?}: {last}");
        let unknown = admin.error(&format!("SELECT * FROM oidc.explain_claims({}, '{{}}')", quoted(odd)))?;
        ensure!(unknown.message.starts_with("OIDC provider \""), "{unknown:?}");
        admin.rows(&format!("SELECT oidc.refresh_keys({})", quoted(&name)))?;
    }

    // What shows them.
    let number = (2 * HOSTILE.len()).to_string();
    let shown = "SELECT count(*) FROM oidc.access WHERE comment IS NOT NULL AND condition <> ''";
    assert_eq!(admin.value(shown)?, Some(number));
    ensure!(!admin.rows("SELECT * FROM oidc.doctor()")?.is_empty());
    ensure!(!admin.rows("SELECT * FROM oidc.key")?.is_empty());
    let policy = admin.value("SELECT oidc.export_policy()")?.context("no document")?;
    let apply =
        |document: &str| admin.rows(&format!("SELECT * FROM oidc.apply_policy({}, false)", quoted(document)));
    assert_eq!(apply(&policy)?.len(), 0);
    assert_eq!(apply("{\"providers\": [], \"rules\": [], \"bindings\": []}")?.len(), 4 * HOSTILE.len());
    assert_eq!(apply(&policy)?.len(), 4 * HOSTILE.len());
    assert_eq!(admin.value("SELECT oidc.export_policy()")?, Some(policy));

    let told = admin.error(&provider_sql(HOSTILE[6], "https://control.example", &[]))?;
    assert_eq!(told.message, "\"name\" must have 1 to 63 bytes");
    let told = admin.error(&provider_sql("two\nlines", "https://control.example", &[]))?;
    assert_eq!(told.message, "\"name\" must not hold control characters, nor start or end with a blank");
    // Rows that do not compile are warned of with their names, on one line.
    let first = admin
        .value("SELECT name FROM oidc.provider WHERE issuer = 'https://h0.example'")?
        .context("no provider")?;
    for odd in HOSTILE {
        let broken = json!({ odd: { odd: odd } });
        admin.rows(&format!(
            "BEGIN; ALTER TABLE oidc.role_mapping DISABLE TRIGGER check_row, DISABLE TRIGGER check_stored_row; {}; \
             ALTER TABLE oidc.role_mapping ENABLE ALWAYS TRIGGER check_row, ENABLE ALWAYS TRIGGER check_stored_row; COMMIT",
            rule_with(&first, &broken, "postgres", &[])
        ))?;
        let told = admin.error(&rule_with(&first, &broken, "postgres", &[]))?;
        ensure!(!told.message.contains('\n') && told.message.contains("unknown operator"), "{told:?}");
    }
    admin.rows("ALTER TABLE oidc.provider DISABLE TRIGGER check_row, DISABLE TRIGGER check_stored_row")?;
    admin.rows("UPDATE oidc.provider SET identity_claim = '/~' WHERE name LIKE 'unused%'")?;
    stage.cluster.await_log("gives nothing", SOON)?;
    ensure!(!admin.rows("SELECT * FROM oidc.doctor()")?.is_empty());

    // Nothing was run, and no line of the log is forged: a line begins with the time, or with a tab where it goes on.
    assert_eq!(admin.value(relations)?, before);
    let log = stage.cluster.log();
    let forged = log.lines().find(|line| !line.starts_with('\t') && !line.starts_with("20"));
    ensure!(forged.is_none(), "{forged:?}");
    let said = log.lines().filter(|line| !line.starts_with('\t')).filter_map(|line| line.split_once("] "));
    assert_eq!(said.filter(|(_, said)| said.starts_with("LOG:  OIDC login accepted: ")).count(), accepted);
    calm(&stage.cluster, &[])
}

#[test]
fn n127_schema_made_beforehand_is_neither_taken_over_nor_read() -> Result<()> {
    // No extension yet, and somebody else has made what it would find.
    let stage = Stage { cluster: Cluster::builder(Server::shared()?).start()? };
    let admin = stage.admin()?;
    admin.rows(
        "CREATE ROLE squatter LOGIN; CREATE SCHEMA oidc AUTHORIZATION squatter; CREATE ROLE ada LOGIN",
    )?;
    admin.rows("SET ROLE squatter")?;
    let keys_text = jwks(&[&keys().ed25519]);
    for sql in [
        "CREATE TABLE oidc.fired (who text)".to_owned(),
        "CREATE TABLE oidc.provider (name text, issuer text, audiences text[], jwks jsonb)".to_owned(),
        "CREATE TABLE oidc.role_mapping (id bigint, provider text, match jsonb, role text, effect text, enabled boolean)".to_owned(),
        "CREATE TABLE oidc.policy_state (generation bigint)".to_owned(),
        "CREATE TABLE oidc.jwks_cache (provider text, body jsonb, fetched_at timestamptz)".to_owned(),
        "CREATE FUNCTION oidc.provider_row(oidc.provider) RETURNS text LANGUAGE plpgsql AS \
         'BEGIN INSERT INTO oidc.fired VALUES (current_user); ALTER ROLE squatter SUPERUSER; RETURN to_jsonb($1)::text; END'".to_owned(),
        "CREATE FUNCTION oidc.rule_row(oidc.role_mapping) RETURNS text LANGUAGE plpgsql AS \
         'BEGIN INSERT INTO oidc.fired VALUES (current_user); RETURN to_jsonb($1)::text; END'".to_owned(),
        "CREATE FUNCTION oidc.claims_text() RETURNS text LANGUAGE sql AS $$ SELECT '{\"sub\": \"boss\"}' $$".to_owned(),
        "INSERT INTO oidc.policy_state VALUES (1)".to_owned(),
        format!("INSERT INTO oidc.provider VALUES ('ada', 'https://ada.example', '{{warehouse}}', '{keys_text}')"),
        "INSERT INTO oidc.role_mapping VALUES (1, 'ada', '{}', 'ada', 'allow', true)".to_owned(),
    ] {
        admin.rows(&sql)?;
    }
    admin.rows("RESET ROLE")?;
    let objects = "SELECT (SELECT count(*) FROM pg_class WHERE relnamespace = 'oidc'::regnamespace), \
                   (SELECT count(*) FROM pg_proc WHERE pronamespace = 'oidc'::regnamespace), \
                   (SELECT nspowner::regrole FROM pg_namespace WHERE nspname = 'oidc')";
    let before = admin.rows(objects)?;
    for create in [
        "CREATE EXTENSION pg_oidc",
        "CREATE EXTENSION IF NOT EXISTS pg_oidc CASCADE",
        "CREATE EXTENSION pg_oidc VERSION '0.1.0'",
    ] {
        let told = admin.error(create)?;
        assert_eq!(
            (told.code.as_str(), told.message.as_str()),
            ("42P06", "schema \"oidc\" already exists"),
            "{create}"
        );
    }
    let told = admin.error("CREATE EXTENSION pg_oidc SCHEMA oidc")?;
    ensure!(told.message.contains("must be installed in schema \"pg_catalog\""), "{told:?}");
    let token = good("ada").sign(&keys().ed25519);
    for _ in 0..10 {
        stage.refused("ada", &token, "policy_absent", "a schema without the extension")?;
    }
    assert_eq!(admin.rows(objects)?, before, "something was made or taken");
    assert_eq!(admin.value("SELECT count(*) FROM oidc.fired")?.as_deref(), Some("0"), "something was run");
    admin.rows("ALTER SCHEMA oidc RENAME TO aside; CREATE EXTENSION pg_oidc")?;
    stage.refused("ada", &token, "issuer_unknown", "nothing of theirs came along")?;
    stage.provider("ada")?;
    admin.rows(&rule_sql("ada", &json!({ "sub": "ada" }), "ada"))?;
    stage.accepted("ada", &token, "the extension's own")?;
    assert_eq!(admin.value("SELECT count(*) FROM aside.fired")?.as_deref(), Some("0"), "something was run");
    assert_eq!(reasons(&stage.cluster, 0, "ada").len(), 22);
    calm(&stage.cluster, &[&token])
}

/// What PUBLIC may run: it tells who one is, or puts its argument into words.
const FOR_EVERYBODY: [&str; 6] = [
    "oidc.claim(text)",
    "oidc.claims()",
    "oidc.claims_text()",
    "oidc.condition_text(text)",
    "oidc.identity()",
    "oidc.provider()",
];

fn denied(guest: &Session, sql: &str) -> Result<()> {
    let told = guest.error(sql)?;
    ensure!(told.code == "42501" && told.message.starts_with("permission denied for "), "{sql}: {told:?}");
    Ok(())
}

#[test]
fn n128_every_function_and_every_relation() -> Result<()> {
    let stage = Stage::start()?;
    stage.trio("guest")?;
    let admin = stage.admin()?;
    admin.rows("CREATE ROLE plain LOGIN")?;
    let guest = stage.session("guest", &good("guest").sign(&keys().ed25519))?;
    // Each function is called with nulls of its own types, which the planner must not see: it calls no strict function
    // with those.
    let calls = admin.rows(
        "SELECT p.oid::regprocedure::text, format('SELECT %s(%s) FROM (SELECT %s OFFSET 0) a', p.oid::regproc, a.names, \
           a.nulls), has_function_privilege('plain', p.oid, 'EXECUTE')::text \
         FROM pg_proc p, LATERAL (SELECT string_agg('a' || place, ', ' ORDER BY place), \
                                         string_agg(format('NULL::%s AS a%s', format_type(t, NULL), place), ', ' ORDER BY place) \
                                    FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY u (t, place)) a (names, nulls) \
        WHERE pronamespace = 'oidc'::regnamespace ORDER BY 1",
    )?;
    ensure!(calls.len() > 25, "{calls:?}");
    let mut open = Vec::new();
    for call in &calls {
        let [Some(name), Some(sql), Some(may)] = call.as_slice() else { anyhow::bail!("{call:?}") };
        if FOR_EVERYBODY.contains(&name.as_str()) {
            guest.rows(sql)?;
            open.push(name.as_str());
        } else {
            denied(&guest, sql)?;
        }
        assert_eq!(may == "true", FOR_EVERYBODY.contains(&name.as_str()), "{name}");
    }
    assert_eq!(open, FOR_EVERYBODY);

    let relations = admin.rows(
        "SELECT c.oid::regclass::text, c.relkind::text FROM pg_class c \
          WHERE relnamespace = 'oidc'::regnamespace AND relkind IN ('r', 'v', 'm', 'f', 'p', 'S') ORDER BY 1",
    )?;
    ensure!(relations.len() >= 12, "{relations:?}");
    for relation in &relations {
        let [Some(name), Some(kind)] = relation.as_slice() else { anyhow::bail!("{relation:?}") };
        denied(&guest, &format!("SELECT * FROM {name}"))?;
        denied(&guest, &format!("SELECT count(*) FROM {name}"))?;
        if kind == "S" {
            for call in ["nextval('{}')", "setval('{}', 1)", "currval('{}')"] {
                denied(&guest, &format!("SELECT {}", call.replace("{}", name)))?;
            }
            continue;
        }
        denied(&guest, &format!("COPY (TABLE {name}) TO STDOUT"))?;
        denied(&guest, &format!("SELECT FROM {name} FOR UPDATE"))?;
        if kind == "r" {
            denied(&guest, &format!("DELETE FROM {name}"))?;
        }
    }
    // And by the catalog: no right of any kind, on no column.
    let rights = "SELECT c.oid::regclass::text FROM pg_class c WHERE relnamespace = 'oidc'::regnamespace AND relkind IN ('r', 'v') \
                  AND (has_table_privilege('plain', c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER') \
                       OR has_any_column_privilege('plain', c.oid, 'SELECT, INSERT, UPDATE, REFERENCES'))";
    assert_eq!(admin.rows(rights)?, [] as [Vec<Option<String>>; 0]);
    let rights = "SELECT has_schema_privilege('plain', 'oidc', 'CREATE')";
    assert_eq!(admin.value(rights)?.as_deref(), Some("f"));
    for sql in [
        "CREATE TABLE oidc.mine ()",
        "CREATE FUNCTION oidc.provider_row(int) RETURNS text LANGUAGE sql AS 'SELECT NULL'",
        "CREATE TYPE oidc.jsonb AS (x int)",
        "CREATE OPERATOR oidc.= (FUNCTION = int4eq, LEFTARG = int, RIGHTARG = int)",
    ] {
        denied(&guest, sql)?;
    }
    stage.accepted("guest", &good("guest").sign(&keys().ed25519), "nothing was changed")
}
