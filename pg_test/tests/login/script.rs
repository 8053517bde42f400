//! The SQL script of this version stands in `sql/` as it is installed, so that a change of the SQL surface is seen in
//! review, and the script of a finished version is never changed. Who updates from a finished version has the same
//! objects as who starts with this one.

use anyhow::{Context, Result, ensure};
use pg_oidc_test::client::Session;
use pg_oidc_test::cluster::Cluster;
use pg_oidc_test::extension::Server;
use pg_oidc_test::workspace;

/// The lines of a script, sorted: pgrx does not promise an order. Comments that name a line of the source are left out.
fn lines(script: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = script
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("-- src/"))
        .collect();
    lines.sort_unstable();
    lines
}

#[test]
fn the_installed_script_is_the_one_in_review() -> Result<()> {
    let cluster = Cluster::builder(Server::shared()?).start()?;
    let folder = cluster.admin_value("SELECT setting FROM pg_config WHERE name = 'SHAREDIR'")?;
    let version =
        cluster.admin_value("SELECT default_version FROM pg_available_extensions WHERE name = 'pg_oidc'")?;
    let name = format!("pg_oidc--{version}.sql");
    let installed = std::fs::read_to_string(format!("{folder}/extension/{name}"))?;
    let reviewed = std::fs::read_to_string(workspace().join("sql").join(&name))
        .with_context(|| format!("sql/{name}: copy what `cargo pgrx package` writes there"))?;
    assert_eq!(lines(&reviewed), lines(&installed), "sql/{name}");
    Ok(())
}

/// What there is of the extension, by name: everything that a user can see, and who may.
const OBJECTS: &[&str] = &[
    "SELECT pg_describe_object(classid, objid, objsubid) FROM pg_depend \
      WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e' \
        AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_oidc')",
    "SELECT extversion, (SELECT string_agg(c::regclass::text, ' ' ORDER BY c::regclass::text) \
                           FROM unnest(extconfig) c) FROM pg_extension WHERE extname = 'pg_oidc'",
    "SELECT nspname, nspacl::text, obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = 'oidc'",
    "SELECT oid::regprocedure::text, pg_get_functiondef(oid), proacl::text, obj_description(oid, 'pg_proc') \
       FROM pg_proc WHERE pronamespace = 'oidc'::regnamespace",
    "SELECT oid::regclass::text, relkind::text, relacl::text, obj_description(oid, 'pg_class'), \
            CASE relkind WHEN 'v' THEN pg_get_viewdef(oid) WHEN 'i' THEN pg_get_indexdef(oid) END \
       FROM pg_class WHERE relnamespace = 'oidc'::regnamespace",
    "SELECT attrelid::regclass::text, attnum::text, attname, format_type(atttypid, atttypmod), attnotnull::text, \
            attidentity::text, attacl::text, pg_get_expr(adbin, adrelid), col_description(attrelid, attnum) \
       FROM pg_attribute JOIN pg_class c ON c.oid = attrelid LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum \
      WHERE relnamespace = 'oidc'::regnamespace AND attnum > 0",
    "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint \
      WHERE connamespace = 'oidc'::regnamespace",
    "SELECT tgrelid::regclass::text, tgname, pg_get_triggerdef(t.oid), tgenabled::text FROM pg_trigger t \
       JOIN pg_class c ON c.oid = tgrelid WHERE relnamespace = 'oidc'::regnamespace AND NOT tgisinternal",
];

#[test]
fn update_from_each_finished_version_gives_the_same_objects() -> Result<()> {
    let cluster = Cluster::builder(Server::shared()?).start()?;
    // Privileges that whoever runs the scripts gives away by default must not reach what they make.
    let generous = "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO guest; \
                    ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO guest;";
    cluster.admin("CREATE ROLE guest")?;
    cluster.admin(&format!("{generous} CREATE EXTENSION pg_oidc"))?;
    let fresh = cluster.admin_session()?;
    for version in ["0.1.0", "0.2.0", "0.3.0"] {
        let database = format!("from {version}");
        cluster.admin(&format!("CREATE DATABASE \"{database}\""))?;
        let update = format!("CREATE EXTENSION pg_oidc VERSION '{version}'; ALTER EXTENSION pg_oidc UPDATE");
        cluster.admin_in(&database, &format!("{generous} {update}"))?;
        let updated = cluster.admin_session_in(&database)?;
        for query in OBJECTS {
            let rows = |session: &Session| -> Result<Vec<Vec<Option<String>>>> {
                let mut rows = session.rows(query)?;
                rows.sort_unstable();
                Ok(rows)
            };
            let (wanted, found) = (rows(&fresh)?, rows(&updated)?);
            ensure!(!wanted.is_empty(), "nothing from {query}");
            assert_eq!(found, wanted, "from {version}: {query}");
        }
    }
    Ok(())
}
