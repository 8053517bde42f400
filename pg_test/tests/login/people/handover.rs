//! n131: what a session may not take on it makes no owner of anything either, and lends its own role to nobody.

use anyhow::{Result, anyhow};
use pg_oidc_test::client::Session;
use pg_oidc_test::cluster::Cluster;
use pg_oidc_test::psql::Login;

use super::{furnish, login, token};
use crate::stage::builder;

/// Statements that make `auditor` the owner of something, or act for it; each is refused.
const BEYOND: [&str; 12] = [
    "ALTER FUNCTION app.f() OWNER TO auditor",
    "ALTER TABLE app.t OWNER TO auditor",
    "ALTER VIEW app.v OWNER TO auditor",
    "ALTER SEQUENCE app.s OWNER TO auditor",
    "ALTER TYPE app.y OWNER TO auditor",
    "CREATE SCHEMA AUTHORIZATION auditor",
    "CREATE SCHEMA hers AUTHORIZATION auditor",
    "REASSIGN OWNED BY analyst TO auditor",
    "ALTER DEFAULT PRIVILEGES FOR ROLE auditor GRANT SELECT ON TABLES TO analyst",
    "ALTER DEFAULT PRIVILEGES FOR ROLE analyst, auditor GRANT SELECT ON TABLES TO analyst",
    "DO $$ BEGIN EXECUTE 'ALTER FUNCTION app.f() OWNER TO auditor'; END $$",
    "CREATE DATABASE hers OWNER auditor",
];

fn open(login: &Login<'_>) -> Result<Session> {
    login.connect()?.map_err(|told| anyhow!("{told:?}"))
}

/// Objects of `analyst` in a schema where `auditor` may create too, as ALTER … OWNER asks for.
fn objects(cluster: &Cluster) -> Result<()> {
    cluster.admin(
        "CREATE SCHEMA app; GRANT CREATE, USAGE ON SCHEMA app TO analyst, auditor; \
         GRANT CREATE ON DATABASE postgres TO analyst, auditor; ALTER ROLE analyst CREATEDB; SET ROLE analyst; \
         CREATE FUNCTION app.f() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT current_user::text'; \
         CREATE TABLE app.t (); CREATE VIEW app.v AS SELECT 1; CREATE SEQUENCE app.s; CREATE TYPE app.y AS (a int)",
    )?;
    Ok(())
}

#[test]
fn n131_a_function_given_to_another_role_ran_with_its_rights() -> Result<()> {
    let cluster = builder()?.start()?;
    furnish(&cluster)?;
    objects(&cluster)?;
    // She was given it once, so that her role is a member of it, and a session that has it keeps it there.
    let held = open(&login(&cluster, "alice", &["analyst", "auditor"]))?;
    for statement in BEYOND {
        let session = open(&login(&cluster, "alice", &["analyst"]))?;
        let told = session.error(statement)?;
        assert_eq!(told.code, "42501", "{statement}: {told:?}");
        assert_eq!(told.message, "permission denied for role \"auditor\"", "{statement}");
    }
    assert_eq!(
        cluster.admin_value("SELECT pg_get_userbyid(proowner) FROM pg_proc WHERE proname = 'f'")?,
        "analyst"
    );
    // The session that was given the role may do all of it, as core decides.
    for statement in ["SET ROLE analyst", "ALTER TABLE app.t OWNER TO analyst"] {
        held.rows(statement)?;
    }
    assert_eq!(
        held.error("ALTER TABLE app.t OWNER TO writer")?.message,
        "permission denied for role \"writer\""
    );
    // Where no token opened the session all is as ever.
    cluster.admin("ALTER FUNCTION app.f() OWNER TO auditor; ALTER FUNCTION app.f() OWNER TO analyst")?;
    Ok(())
}

#[test]
fn n132_nobody_lends_the_role_of_the_session() -> Result<()> {
    let cluster = builder()?.start()?;
    furnish(&cluster)?;
    cluster.admin(
        "CREATE ROLE mallory LOGIN PASSWORD 'x'; CREATE ROLE job LOGIN; CREATE ROLE part; GRANT part TO job",
    )?;
    cluster.admin(
        "INSERT INTO oidc.role_mapping (provider, match, role) VALUES ('corp', '{\"groups\": \"job\"}', 'job')",
    )?;
    let person = open(&login(&cluster, "carol", &["analyst"]))?;
    let job = open(&cluster.login("job").password(token("carol", &["job"])))?;
    for (session, role) in [(&person, "carol"), (&job, "job")] {
        for before in ["SELECT", "SET ROLE NONE"] {
            session.rows(before)?;
            let told = session.error(&format!("GRANT {role} TO mallory"))?;
            assert_eq!(told.code, "42501", "{role} {told:?}");
        }
        assert_eq!(
            cluster.admin_value("SELECT count(*) FROM pg_auth_members WHERE member = 'mallory'::regrole")?,
            "0"
        );
    }
    // What the administrator let a role grant it may grant.
    cluster.admin("GRANT part TO job WITH ADMIN OPTION")?;
    job.rows("GRANT part TO mallory")?;
    Ok(())
}
