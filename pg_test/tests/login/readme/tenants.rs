//! The README's worked example: tenants apart by row-level security, and what does not change whose rows are seen.

use anyhow::{Context, Result, ensure};
use pg_oidc_test::client::Session;
use pg_oidc_test::cluster::{Cluster, until};
use pg_oidc_test::keys::keys;
use pg_oidc_test::psql::{Login, Way};
use serde_json::json;

use super::people::{peopled, token};
use super::{blocks, readme};
use crate::scene::{SOON, admitted};

const MARK: &str = "<!-- run by pg_test/tests/login/readme/tenants.rs -->";
/// Rows of each tenant.
const EACH: &str = "1000";
/// All rows that are seen, and the tenants in them.
const SEEN: &str = "SELECT count(*), min(tenant), max(tenant) FROM public.invoice";

/// The README's example, with rows of two tenants.
fn example() -> Result<Cluster> {
    let cluster = peopled()?;
    let text = readme()?;
    let [policy, app] = blocks(&text, MARK)?[..] else { anyhow::bail!("other blocks") };
    // CREATE DATABASE runs in no transaction: each statement by itself.
    let seen = cluster.login("postgres").way(Way::Socket).run(policy)?;
    ensure!(seen.ok(), "{seen:?}");
    cluster.admin_in("app", app)?;
    cluster.admin_in(
        "app",
        &format!(
            "INSERT INTO invoice SELECT t, n, n FROM unnest('{{blue,red}}'::text[]) t, generate_series(1, {EACH}) n; \
             ANALYZE invoice; CREATE ROLE reviewer; GRANT SELECT ON invoice TO reviewer"
        ),
    )?;
    Ok(cluster)
}

fn login<'a>(cluster: &'a Cluster, person: &str, tenant: &str) -> Login<'a> {
    let token = token(person, &["app"]).claim("tenant", json!(tenant));
    cluster.login(person).password(token.sign(&keys().rsa)).database("app")
}

fn sees(session: &Session, tenant: &str, about: &str) -> Result<()> {
    let row = [EACH, tenant, tenant].map(|text| Some(text.to_owned()));
    let found = session.rows(SEEN)?;
    // The answer is the last row, whatever else was asked with it.
    assert_eq!(found.last().map(Vec::as_slice), Some(&row[..]), "{about}");
    Ok(())
}

#[test]
fn each_tenant_has_its_rows() -> Result<()> {
    let cluster = example()?;
    let (ann, bob) = (admitted(&login(&cluster, "ann", "blue"))?, admitted(&login(&cluster, "bob", "red"))?);
    assert_eq!(
        ann.rows("SELECT session_user, current_user")?,
        [["ann", "app_user"].map(|name| Some(name.to_owned()))]
    );
    sees(&ann, "blue", "her own")?;
    sees(&bob, "red", "his own")?;
    // Writing: her tenant by default, and no other, neither new nor by a change.
    ann.rows("INSERT INTO invoice (number, amount) VALUES (0, 7)")?;
    assert_eq!(ann.value("SELECT tenant FROM invoice WHERE number = 0")?.as_deref(), Some("blue"));
    for write in [
        "INSERT INTO invoice VALUES ('red', 0, 7)",
        "UPDATE invoice SET tenant = 'red' WHERE number = 0",
        "INSERT INTO invoice VALUES ('red', 1, 7) ON CONFLICT (tenant, number) DO UPDATE SET amount = 7",
    ] {
        assert_eq!(ann.error(write)?.code, "42501", "{write}");
    }
    ann.rows("DELETE FROM invoice WHERE number = 0; DELETE FROM invoice WHERE tenant = 'red'")?;
    sees(&bob, "red", "still his own")?;
    // The same number is free in each tenant: nothing is told by it.
    bob.rows("INSERT INTO invoice (number, amount) VALUES (0, 7); DELETE FROM invoice WHERE number = 0")?;
    // The same person with a token of another tenant.
    sees(&admitted(&login(&cluster, "ann", "red"))?, "red", "what this token says")
}

#[test]
fn parallel_workers_and_other_roles_see_the_same() -> Result<()> {
    let cluster = example()?;
    // Her role is made when she first comes; what is granted to it counts from her next login on.
    drop(admitted(&login(&cluster, "ann", "blue"))?);
    cluster.admin_in("app", "GRANT reviewer TO ann; GRANT app_owner TO ann")?;
    let ann = admitted(&login(&cluster, "ann", "blue"))?;
    let force = ann.value(
        "SELECT name FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query')",
    )?;
    let force = force.context("no setting that forces parallel plans")?;
    let parallel = "SET max_parallel_workers_per_gather = 2; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; \
                    SET min_parallel_table_scan_size = 0; SET enable_indexscan = off; SET enable_indexonlyscan = off; \
                    SET enable_bitmapscan = off; SET parallel_leader_participation = off";
    // app_owner: FORCE, so that the owner's eyes are no others.
    for role in ["app_user", "reviewer", "app_owner"] {
        ann.rows(&format!("SET ROLE {role}; RESET max_parallel_workers_per_gather; RESET {force}"))?;
        sees(&ann, "blue", role)?;
        ann.rows(parallel)?;
        until("a query with parallel workers", SOON, || {
            let plan = ann.rows(&format!("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) {SEEN}"))?;
            Ok(plan.iter().flatten().flatten().any(|line| line.contains("Workers Launched: 2")))
        })?;
        sees(&ann, "blue", &format!("{role} in parallel"))?;
        ann.rows(&format!("SET {force} = on"))?;
        sees(&ann, "blue", &format!("{role}, forced"))?;
    }
    // Her own role has no right at all.
    assert_eq!(ann.error("SET ROLE NONE; SELECT * FROM public.invoice")?.code, "42501");
    Ok(())
}

#[test]
fn nobody_forges_the_claim() -> Result<()> {
    let cluster = example()?;
    // Whoever could plant something for others: settings of roles and databases, functions in their path.
    let refused = [
        "SET pg_oidc.claims = '{\"tenant\": \"red\"}'",
        "SET LOCAL pg_oidc.claims = '{\"tenant\": \"red\"}'",
        "SELECT set_config('pg_oidc.claims', '{\"tenant\": \"red\"}', false)",
        "ALTER ROLE ann SET pg_oidc.claims = '{\"tenant\": \"red\"}'",
        "CREATE FUNCTION oidc.claim(name) RETURNS text LANGUAGE sql AS 'SELECT ''red'''",
        "CREATE OR REPLACE FUNCTION oidc.claim(text) RETURNS text LANGUAGE sql AS 'SELECT ''red'''",
        "ALTER TABLE invoice DISABLE ROW LEVEL SECURITY",
        "CREATE POLICY more ON invoice USING (true)",
        "SET row_security = off; SELECT * FROM public.invoice",
        "SET SESSION AUTHORIZATION bob",
        "SET ROLE app_owner",
    ];
    let ann = admitted(&login(&cluster, "ann", "blue"))?;
    for sql in refused {
        ensure!(ann.try_rows(sql)?.is_err(), "this went well: {sql}");
        sees(&ann, "blue", sql)?;
    }
    // What may be set, or made, and changes nothing.
    cluster.admin_in("app", "CREATE SCHEMA traps; GRANT ALL ON SCHEMA traps TO app_user; GRANT TEMPORARY ON DATABASE app TO app_user")?;
    for sql in [
        "SET my.claims = '{\"tenant\": \"red\"}'; SET pg_oidc_claims.tenant = 'red'",
        "CREATE FUNCTION traps.claim(text) RETURNS text LANGUAGE sql AS 'SELECT ''red'''; \
         CREATE FUNCTION traps.eq(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true'; \
         CREATE OPERATOR traps.= (LEFTARG = text, RIGHTARG = text, FUNCTION = traps.eq); \
         CREATE FUNCTION pg_temp.claim(text) RETURNS text LANGUAGE sql AS 'SELECT ''red'''; \
         SET search_path = pg_temp, traps, pg_catalog, public",
        "UPDATE pg_settings SET setting = '{\"tenant\": \"red\"}' WHERE name = 'pg_oidc.claims'",
        "RESET ALL",
        "DISCARD ALL",
        "RESET ROLE",
        "DROP OWNED BY CURRENT_USER",
    ] {
        let told = ann.try_rows(sql)?;
        let may_fail = sql.starts_with("DROP") || sql.starts_with("UPDATE");
        ensure!(may_fail || told.is_ok(), "{sql}: {told:?}");
        if !sql.starts_with("DROP") {
            sees(&ann, "blue", sql)?;
        }
    }
    drop(ann);
    // The right that DROP OWNED took from the role is the administrator's to give.
    cluster.admin_in("app", "GRANT SELECT ON invoice TO app_user")?;
    for options in ["-c pg_oidc.claims={}", "-c session_authorization=bob", "-c role=app_owner"] {
        ensure!(login(&cluster, "ann", "blue").options(options).connect()?.is_err(), "{options}");
    }
    // A superuser's settings for the role or the database do not reach it.
    for target in ["ROLE ann", "DATABASE app", "ROLE ALL", "ROLE ann IN DATABASE app", "ROLE app_user"] {
        let set = format!("ALTER {target} SET pg_oidc.claims = '{{\"tenant\": \"red\"}}'");
        let _ = cluster.login("postgres").way(Way::Socket).run(&set)?;
        sees(&admitted(&login(&cluster, "ann", "blue"))?, "blue", &set)?;
    }
    let paths =
        "ALTER DATABASE app SET search_path = traps, public; ALTER DATABASE app SET row_security = off";
    cluster.admin_in("app", paths)?;
    let ann = admitted(&login(&cluster, "ann", "blue"))?;
    ensure!(ann.error(SEEN)?.message.contains("row-level security"), "an error, and no row");
    ann.rows("SET row_security = on")?;
    sees(&ann, "blue", paths)
}

#[test]
fn without_a_token_there_is_no_row() -> Result<()> {
    let cluster = example()?;
    let lines = "local all all peer\nhostssl all all 127.0.0.1/32 scram-sha-256";
    cluster.admin("CREATE ROLE plain LOGIN PASSWORD 'secret'; GRANT app_user, app_owner TO plain")?;
    cluster.write_guarded(lines)?;
    cluster.reload()?;
    let plain = admitted(&cluster.login("plain").password("secret").database("app"))?;
    for role in ["plain", "app_user", "app_owner"] {
        plain.rows(&format!("SET ROLE {role}"))?;
        let found = plain.rows(SEEN)?;
        assert_eq!(found, [[Some("0".to_owned()), None, None]], "{role}");
        assert_eq!(plain.value("SELECT oidc.claim('/tenant')")?, None);
        assert_eq!(
            plain.error("INSERT INTO invoice (number, amount) VALUES (0, 1)")?.code,
            "42501",
            "{role}"
        );
        assert_eq!(plain.error("INSERT INTO invoice VALUES ('blue', 0, 1)")?.code, "42501", "{role}");
    }
    Ok(())
}
