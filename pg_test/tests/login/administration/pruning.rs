//! `oidc.prune_identities`: the own roles of people who do not come any more.

use anyhow::Result;
use pg_oidc_test::client::Session;

use super::{can_login, comes, noted, session, some, stage, token};

type Rows = Vec<Vec<Option<String>>>;

fn prune(admin: &Session, arguments: &str) -> Result<Rows> {
    admin.rows(&format!(
        "SELECT subject, role, action FROM oidc.prune_identities({arguments}) ORDER BY subject"
    ))
}

fn exists(admin: &Session, role: &str) -> Result<bool> {
    Ok(admin.value(&format!("SELECT count(*) FROM pg_roles WHERE rolname = '{role}'"))? == some("1"))
}

#[test]
fn drops_what_owns_nothing_and_locks_the_rest() -> Result<()> {
    let (stage, admin) = stage()?;
    admin.rows(
        "CREATE ROLE dora LOGIN NOINHERIT; GRANT CREATE ON SCHEMA public TO PUBLIC; CREATE TABLE shared (a int); \
         INSERT INTO oidc.identity_role (provider, subject, role) VALUES ('corp', 'dora', 'dora')",
    )?;
    for person in ["ann", "bob", "carl", "cleo", "dora", "eve"] {
        comes(&stage, person)?;
    }
    // bob owns something, cleo has a right, carl is there.
    let bob = stage.login("bob", &token("bob")).run("SET ROLE NONE; CREATE TABLE of_bob (a int)")?;
    assert!(bob.ok(), "{bob:?}");
    admin.rows("GRANT SELECT ON shared TO cleo")?;
    let carl = session(&stage, "carl")?;
    noted(&stage, &admin)?;
    admin.rows(
        "UPDATE oidc.identity_role SET last_login = now() - interval '91 days' WHERE subject <> 'eve'",
    )?;

    let wanted = [["ann", "ann", "drop"], ["bob", "bob", "nologin"], ["cleo", "cleo", "nologin"]];
    let wanted: Rows = wanted.iter().map(|row| row.map(some).to_vec()).collect();
    let state = "SELECT (SELECT array_agg(rolname || rolcanlogin ORDER BY oid) FROM pg_roles)::text, \
                        (SELECT array_agg(i::text ORDER BY role) FROM oidc.identity_role i)::text, \
                        (SELECT array_agg(g::text ORDER BY member) FROM oidc.granted_membership g)::text";
    let before = admin.rows(state)?;
    assert_eq!(prune(&admin, "'90 days', true")?, wanted, "a dry run");
    assert_eq!(admin.rows(state)?, before, "which changes nothing");
    assert_eq!(prune(&admin, "'92 days'")?, Rows::new());
    assert_eq!(prune(&admin, "'90 days'")?, wanted);
    assert_eq!(prune(&admin, "'90 days'")?, Rows::new(), "that was all");

    assert!(!exists(&admin, "ann")?);
    let left = "SELECT string_agg(role, ' ' ORDER BY role), (SELECT string_agg(member, ' ' ORDER BY member) \
                                                              FROM oidc.granted_membership) FROM oidc.identity_role";
    let people = "bob carl cleo dora eve";
    assert_eq!(admin.rows(left)?, [[some(people), some(people)]]);
    let logins = people.split(' ').map(|role| can_login(&admin, role)).collect::<Result<Vec<bool>>>()?;
    assert_eq!(logins, [false, true, false, true, true]);
    assert_eq!(carl.value("SELECT current_user")?, some("staff"));

    // Whoever was locked is unlocked by the administrator alone; whoever was dropped may come as on the first day.
    stage.refused("bob", &token("bob"), "role_cannot_login", "pruned")?;
    admin.rows("SELECT oidc.revoke('corp', 'bob'); SELECT oidc.reinstate('corp', 'bob')")?;
    stage.refused("bob", &token("bob"), "role_cannot_login", "pruned still")?;
    admin.rows("ALTER ROLE bob LOGIN")?;
    comes(&stage, "bob")?;
    comes(&stage, "ann")?;
    // He has come today.
    noted(&stage, &admin)?;
    assert_eq!(prune(&admin, "'1 day'")?.iter().filter(|row| row.first() == Some(&some("bob"))).count(), 0);
    let events = "SELECT event, role FROM oidc.audit_log WHERE event = 'binding_deleted' AND role <> 'last'";
    assert_eq!(admin.rows(events)?, [["binding_deleted", "ann"].map(some)]);
    Ok(())
}

#[test]
fn a_session_by_another_way_counts() -> Result<()> {
    let (stage, admin) = stage()?;
    comes(&stage, "ann")?;
    noted(&stage, &admin)?;
    admin.rows("ALTER ROLE ann PASSWORD 'secret'; UPDATE oidc.identity_role SET last_login = '-infinity'")?;
    stage.cluster.write_guarded("local all postgres peer\nhostssl all all 127.0.0.1/32 scram-sha-256")?;
    stage.cluster.reload()?;
    let inside = stage.session("ann", "secret")?;
    assert_eq!(prune(&admin, "'1 day'")?, Rows::new());
    assert_eq!(inside.value("SELECT 1")?, some("1"));
    Ok(())
}

#[test]
fn arguments_and_revoked_people() -> Result<()> {
    let (stage, admin) = stage()?;
    for wrong in ["NULL", "'-1 day'"] {
        assert_eq!(admin.error(&format!("SELECT oidc.prune_identities({wrong})"))?.code, "22023");
    }
    comes(&stage, "ann")?;
    comes(&stage, "bob")?;
    admin.rows(
        "SELECT oidc.revoke('corp', 'ann'); CREATE TABLE kept (a int); ALTER TABLE kept OWNER TO bob",
    )?;
    admin.rows("SELECT oidc.revoke('corp', 'bob')")?;
    // One that is locked already is not spoken of; one that owns nothing goes, revoked or not.
    assert_eq!(prune(&admin, "'0'")?, [["ann", "ann", "drop"].map(some)]);
    stage.refused("ann", &token("ann"), "identity_revoked", "still")?;
    admin.rows("SELECT oidc.reinstate('corp', 'ann'); SELECT oidc.reinstate('corp', 'bob')")?;
    comes(&stage, "ann")?;
    comes(&stage, "bob")
}
