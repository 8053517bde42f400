//! What a session knows of its token, and that nobody can make it know something else. One server.
//!
//! 1. `oidc.identity()`, `provider()`, `claims()` and `claim()` give what the token says, in any database;
//!    without a token they give null; a name that is no pointer is an error.
//! 2. Parallel workers see the same.
//! 3. Row level security by a claim, in another database.
//! 4. n134: the settings cannot be forged: [`forgery`].
//! 5. n135: without shared_preload_libraries: [`unloaded`].
//! 6. n132: no password and no settings for later sessions: [`way_back`].

mod forgery;
mod unloaded;
mod way_back;

use std::sync::LazyLock;

use anyhow::{Result, ensure};
use pg_oidc_test::client::Session;
use pg_oidc_test::cluster::until;
use pg_oidc_test::keys::keys;
use pg_oidc_test::token::Token;
use serde_json::{Value, json};

use crate::scene::{SOON, Stage, admitted, good};

/// Another database than the one of the policy.
const APP: &str = "app";

fn stage() -> &'static Stage {
    static STAGE: LazyLock<Stage> = LazyLock::new(|| {
        // One user comes in with a password, to be held against those with tokens.
        let line = "hostssl all scrammed 127.0.0.1/32 scram-sha-256";
        let stage = Stage::with(|builder| builder.guarded(line)).expect("the server of the session tests");
        stage.cluster.admin("CREATE DATABASE app").expect("a second database");
        stage.cluster.admin_in(APP, "CREATE EXTENSION pg_oidc").expect("the extension in it");
        stage
    });
    &STAGE
}

/// A session in a database, with the token of the trio of this name.
fn session_in(database: &str, name: &str, token: &Token) -> Result<Session> {
    admitted(&stage().login(name, &token.sign(&keys().ec)).database(database))
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn functions_give_what_the_token_says() -> Result<()> {
    stage().trio("says")?;
    let token = good("says")
        .claim("tenant", json!("red & \"blue\"\n'green' \\ Ü"))
        .claim("number", json!(12345678901234567890_u64))
        .claim("fraction", json!(1.5))
        .claim("yes", json!(true))
        .claim("nothing", json!(null))
        .claim("list", json!(["a", 1, { "b": [true] }]))
        .claim("object", json!({ "a/b": { "c~d": "deep" }, "": "empty name" }))
        .claim("https://corp.example/team", json!("namespaced"));
    for database in ["postgres", APP] {
        let session = session_in(database, "says", &token)?;
        let value = |sql: &str| session.value(&format!("SELECT {sql}"));
        assert_eq!(value("oidc.identity()")?, some("says"));
        assert_eq!(value("oidc.provider()")?, some("says"));
        let claims: Value = serde_json::from_str(&value("oidc.claims()")?.unwrap_or_default())?;
        assert_eq!(claims.as_object(), Some(token.claims()));
        assert_eq!(value("pg_typeof(oidc.claims())")?, some("jsonb"));
        let cases = [
            ("tenant", some("red & \"blue\"\n'green' \\ Ü")),
            ("/tenant", some("red & \"blue\"\n'green' \\ Ü")),
            ("number", some("12345678901234567890")),
            ("fraction", some("1.5")),
            ("yes", some("true")),
            ("nothing", None),
            ("missing", None),
            ("Tenant", None),
            ("/list/0", some("a")),
            ("/list/1", some("1")),
            ("/list/2/b/0", some("true")),
            ("/list/3", None),
            ("/list/-", None),
            ("/list/00", None),
            ("list/0", None),
            ("/object/a~1b/c~0d", some("deep")),
            ("/object/", some("empty name")),
            ("/object/a/b", None),
            ("https://corp.example/team", some("namespaced")),
            ("/sub/0", None),
        ];
        for (name, expected) in cases {
            assert_eq!(value(&format!("oidc.claim('{name}')"))?, expected, "{name}");
        }
        for (name, expected) in
            [("list", &json!(["a", 1, { "b": [true] }])), ("object", &token.claims()["object"])]
        {
            let text = value(&format!("oidc.claim('{name}')"))?.unwrap_or_default();
            assert_eq!(&serde_json::from_str::<Value>(&text)?, expected, "{name}");
        }
        for name in ["", "/a~", "/a~2"] {
            let told = session.error(&format!("SELECT oidc.claim('{name}')"))?;
            assert_eq!(
                (told.code.as_str(), told.message.starts_with("claim name ")),
                ("22023", true),
                "{told:?}"
            );
        }
        assert_eq!(value("oidc.claim(NULL)")?, None);
        assert_eq!(value("oidc.identity()")?, some("says"), "after errors");
    }
    Ok(())
}

#[test]
fn identity_is_the_claim_that_the_provider_names() -> Result<()> {
    stage().provider_with(
        "upn",
        &pg_oidc_test::keys::jwks(&[&keys().ec]),
        &[("identity_claim", "'/person/upn'")],
    )?;
    stage().role_and_rule("upn", "upn", &json!({ "sub": "upn" }))?;
    let token = good("upn").claim("person", json!({ "upn": "ann@corp.example" }));
    let session = session_in("postgres", "upn", &token)?;
    assert_eq!(session.value("SELECT oidc.identity()")?, some("ann@corp.example"));
    assert_eq!(session.value("SELECT oidc.claim('sub')")?, some("upn"));
    Ok(())
}

#[test]
fn without_a_token_there_is_nothing() -> Result<()> {
    for database in ["postgres", APP] {
        let session = stage().cluster.admin_session_in(database)?;
        let row =
            session.rows("SELECT oidc.identity(), oidc.provider(), oidc.claims(), oidc.claim('sub')")?;
        assert_eq!(row, [[const { None::<String> }; 4]]);
    }
    Ok(())
}

#[test]
fn parallel_workers_see_the_same() -> Result<()> {
    stage().trio("parallel")?;
    let admin = stage().admin()?;
    admin.rows(
        "CREATE TABLE parallel_rows AS SELECT CASE WHEN n % 4 = 0 THEN 'parallel' ELSE 'other' END AS owner, \
         repeat('x', 100) AS filler FROM generate_series(1, 20000) n; \
         ANALYZE parallel_rows; GRANT SELECT ON parallel_rows TO parallel",
    )?;
    let session = session_in("postgres", "parallel", &good("parallel"))?;
    session.rows(
        "SET max_parallel_workers_per_gather = 2; SET parallel_leader_participation = off; \
         SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0",
    )?;
    let filter = "owner = oidc.identity() AND oidc.claim('/sub') = owner AND oidc.provider() = owner \
                  AND oidc.claims() ->> 'sub' = owner";
    let query = format!("SELECT count(*) FROM parallel_rows WHERE {filter}");
    // Workers may be busy with another test's query for a moment; only with them does the answer mean anything.
    until("a query with parallel workers", SOON, || {
        let plan = session.rows(&format!("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, FORMAT JSON) {query}"))?;
        let plan = format!("{plan:?}");
        ensure!(plan.contains("Parallel Seq Scan") || plan.contains("Parallel Aware\\\": true"), "{plan}");
        Ok(plan.contains("Workers Launched\\\": 2"))
    })?;
    assert_eq!(session.value(&query)?, some("5000"));
    // All of the query in one worker.
    session.rows("SET force_parallel_mode = on")?;
    let values = "SELECT oidc.identity(), oidc.provider(), oidc.claim('sub'), oidc.claims() ->> 'sub'";
    let plan = format!("{:?}", session.rows(&format!("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {values}"))?);
    ensure!(plan.contains("Workers Launched: 1"), "{plan}");
    assert_eq!(session.rows(values)?, [[const { "parallel" }; 4].map(some)]);
    Ok(())
}

#[test]
fn row_level_security_by_a_claim() -> Result<()> {
    stage().trio("tenants")?;
    stage().cluster.admin_in(
        APP,
        "CREATE TABLE orders (tenant text, amount int); \
         INSERT INTO orders VALUES ('red', 1), ('red', 2), ('blue', 4), (NULL, 8); \
         GRANT SELECT, INSERT ON orders TO tenants; ALTER TABLE orders ENABLE ROW LEVEL SECURITY; \
         CREATE POLICY own ON orders USING (tenant = oidc.claim('/tenant'))",
    )?;
    let sum = |token: &Token| session_in(APP, "tenants", token)?.value("SELECT sum(amount) FROM orders");
    let of = |tenant: Value| good("tenants").claim("tenant", tenant);
    assert_eq!(sum(&of(json!("red")))?, some("3"));
    assert_eq!(sum(&of(json!("blue")))?, some("4"));
    for other in [json!("Red"), json!("re"), json!(["red"]), json!(null), json!({ "tenant": "red" })] {
        assert_eq!(sum(&of(other.clone()))?, None, "{other}");
    }
    assert_eq!(sum(&good("tenants"))?, None, "no tenant at all");
    let red = session_in(APP, "tenants", &of(json!("red")))?;
    red.rows("INSERT INTO orders VALUES ('red', 16)")?;
    let told = red.error("INSERT INTO orders VALUES ('blue', 16)")?;
    assert_eq!(told.code, "42501", "{told:?}");
    Ok(())
}
