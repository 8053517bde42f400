//! n129: the worker makes roles as the bootstrap superuser, whatever names and settings there are.
//!
//! 1. names that are words of SQL, in capitals, with every character that is allowed
//! 2. settings of the policy database and of the superuser, objects in schemas that everybody searches
//! 3. no piece of SQL comes from a claim

use anyhow::{Result, ensure};
use pg_oidc_test::keys::keys;
use serde_json::json;

use super::{exists, furnish, ledger, login, memberships, of, session, users};
use crate::stage::{builder, calm};

#[test]
fn n129_names_are_quoted() -> Result<()> {
    let cluster = builder()?.start()?;
    furnish(&cluster)?;
    cluster.admin("CREATE ROLE \"Mixed Case; DROP ROLE writer\"; CREATE ROLE \"select\"")?;
    cluster.admin(
        "INSERT INTO oidc.role_mapping (provider, match, role, priority) VALUES \
           ('corp', '{\"groups\": \"odd\"}', 'Mixed Case; DROP ROLE writer', 1), ('corp', '{\"groups\": \"odd\"}', 'select', 2)",
    )?;
    for person in [
        "user",
        "table",
        "CamelCase",
        "1",
        "-",
        "--",
        "a.b",
        "#x",
        "current_user",
        "session_user",
        "/",
        "@",
        ":a",
    ] {
        let session = session(&cluster, person, &["odd", "analyst"])?;
        assert_eq!(users(&session)?, [person, "Mixed Case; DROP ROLE writer"]);
        let all = ["Mixed Case; DROP ROLE writer", "analyst", "select"];
        assert_eq!(
            (memberships(&cluster, person)?, ledger(&cluster, person)?),
            (all.map(str::to_owned).to_vec(), all.map(str::to_owned).to_vec())
        );
        ensure!(!exists(&cluster, &person.to_lowercase())? || person == person.to_lowercase());
    }
    // What else a token says goes nowhere near SQL.
    let token = of("zoe", &["analyst"]).claim("sub", json!("'); DROP ROLE writer; --\\")).sign(&keys().ec);
    ensure!(cluster.login("zoe").password(&token).run("SELECT 1")?.ok());
    ensure!(exists(&cluster, "writer")?);
    calm(&cluster, &[&token])
}

#[test]
fn n129_settings_and_objects_of_others() -> Result<()> {
    let cluster = builder()?.start()?;
    furnish(&cluster)?;
    cluster.admin(
        "CREATE ROLE planter; CREATE TABLE witness (what text); GRANT INSERT ON witness TO PUBLIC; \
         CREATE SCHEMA evil; GRANT USAGE ON SCHEMA evil TO PUBLIC; \
         CREATE TABLE evil.identity_role (LIKE oidc.identity_role); \
         CREATE TABLE evil.pg_authid (oid oid, rolname name); \
         CREATE TABLE evil.pg_auth_members (member oid, roleid oid); \
         CREATE FUNCTION evil.quote_ident(text) RETURNS text LANGUAGE plpgsql \
           AS $$ BEGIN INSERT INTO public.witness VALUES ('quote_ident'); RETURN 'postgres'; END $$; \
         CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE plpgsql \
           AS $$ BEGIN INSERT INTO public.witness VALUES ('now'); RETURN 'epoch'; END $$; \
         CREATE FUNCTION evil.eq(text, text) RETURNS boolean LANGUAGE plpgsql \
           AS $$ BEGIN INSERT INTO public.witness VALUES ('='); RETURN true; END $$; \
         CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.eq); \
         CREATE FUNCTION evil.eq(oid, oid) RETURNS boolean LANGUAGE plpgsql \
           AS $$ BEGIN INSERT INTO public.witness VALUES ('oid ='); RETURN true; END $$; \
         CREATE OPERATOR evil.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = evil.eq); \
         ALTER DATABASE postgres SET search_path = evil, pg_catalog; \
         ALTER DATABASE postgres SET default_transaction_read_only = on; \
         ALTER DATABASE postgres SET check_function_bodies = off; \
         ALTER DATABASE postgres SET session_replication_role = replica; \
         ALTER ROLE postgres SET role = planter",
    )?;
    let before = format!("{:?}", super::column(&cluster, "SELECT oid::text FROM pg_roles ORDER BY 1")?);
    cluster.restart()?;
    let seen = login(&cluster, "ann", &["analyst", "writer"]).run("SELECT session_user, current_user")?;
    assert_eq!(seen.rows(), [["ann", "analyst"]], "{seen:?}\n{}", cluster.log());
    let quiet = "SET search_path = pg_catalog; SET ROLE NONE; SELECT count(*) FROM public.witness";
    assert_eq!(cluster.admin_value(quiet)?, "0");
    let as_made = "SET search_path = pg_catalog; SET ROLE NONE; SELECT concat_ws(' ', rolinherit, rolsuper, rolcreaterole) \
                   FROM pg_authid WHERE rolname = 'ann'";
    assert_eq!(cluster.admin_value(as_made)?, "f f f");
    let granted = "SET search_path = pg_catalog; SET ROLE NONE; SELECT string_agg(role, ' ' ORDER BY role) \
                   FROM oidc.granted_membership WHERE member = 'ann'";
    assert_eq!(cluster.admin_value(granted)?, "analyst writer");
    let grantor = "SET search_path = pg_catalog; SET ROLE NONE; SELECT string_agg(DISTINCT grantor::regrole::text, ' ') \
                   FROM pg_auth_members WHERE member = 'ann'::regrole";
    assert_eq!(cluster.admin_value(grantor)?, "postgres");
    ensure!(!before.is_empty());
    calm(&cluster, &[])
}
