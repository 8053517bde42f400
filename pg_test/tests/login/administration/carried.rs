//! f027: to another server, as a document and as a dump.

use anyhow::{Context, Result, ensure};
use pg_oidc_test::cluster::{Cluster, until};
use pg_oidc_test::keys::keys;
use pg_oidc_test::program;
use pg_oidc_test::psql::Way;
use serde_json::{Value, json};

use super::{can_login, comes, of, some, stage, token};
use crate::scene::{SOON, Stage, text};

#[test]
fn document_holds_the_bindings_of_the_administrator() -> Result<()> {
    let (stage, admin) = stage()?;
    comes(&stage, "ann")?;
    admin.rows(
        "CREATE ROLE ada LOGIN NOINHERIT; CREATE ROLE base; UPDATE oidc.provider SET base_role = 'base'; \
         INSERT INTO oidc.identity_role (provider, subject, role) VALUES ('corp', 'ada', 'ada')",
    )?;
    let exported = admin.value("SELECT oidc.export_policy()")?.context("nothing exported")?;
    let mut document: Value = serde_json::from_str(&exported)?;
    assert_eq!(document["bindings"], json!([{ "provider": "corp", "subject": "ada", "role": "ada" }]));
    let provider = &document["providers"][0];
    let people = ["identity_pattern", "identity_role", "auto_provision", "base_role"]
        .map(|name| provider[name].clone());
    assert_eq!(people, [json!("(.+)"), json!("\\1"), json!(true), json!("base")]);

    let apply = |document: &Value, dry_run: bool| {
        let call = format!("SELECT action, object FROM oidc.apply_policy({}, {dry_run})", text(document));
        admin.rows(&call)
    };
    assert_eq!(apply(&document, false)?.len(), 0, "it is what it is");
    // A person is bound to another role, and the base role goes.
    admin.rows("CREATE ROLE ada2 LOGIN NOINHERIT")?;
    document["bindings"] = json!([{ "provider": "corp", "subject": "ada", "role": "ada2" }]);
    document["providers"][0]["base_role"] = Value::Null;
    let wanted = [
        ["delete", "binding of corp: ada"].map(some),
        ["change", "provider corp"].map(some),
        ["create", "binding of corp: ada"].map(some),
    ];
    assert_eq!(apply(&document, true)?, wanted);
    comes(&stage, "ada")?;
    assert_eq!(apply(&document, false)?, wanted);
    let seen = stage.login("ada2", &token("ada")).run("SELECT session_user, current_user")?;
    assert_eq!(seen.rows(), [["ada2", "staff"]], "{seen:?}");
    // Roles that pg_oidc made are not in it and not touched by it.
    comes(&stage, "ann")?;
    document["bindings"] = json!([{ "provider": "corp", "subject": "eve", "role": "ann" }]);
    let told = admin.error(&format!("SELECT * FROM oidc.apply_policy({}, false)", text(&document)))?;
    assert_eq!(told.code, "23505", "{told:?}");
    Ok(())
}

/// What must be the same on both sides, as far as it is not of the server.
const SAME: [&str; 3] = [
    "SELECT to_jsonb(p)::text FROM oidc.provider p",
    "SELECT (to_jsonb(i) - '{role_oid,last_login}'::text[])::text FROM oidc.identity_role i ORDER BY role",
    "SELECT (to_jsonb(g) - '{role_oid,member_oid}'::text[])::text FROM oidc.granted_membership g ORDER BY member",
];

#[test]
fn f027_dump_carries_people() -> Result<()> {
    let (source, admin) = stage()?;
    admin.rows(
        "CREATE ROLE ada LOGIN NOINHERIT; \
         INSERT INTO oidc.identity_role (provider, subject, role) VALUES ('corp', 'ada', 'ada')",
    )?;
    for person in ["ada", "ann", "bob", "cy"] {
        comes(&source, person)?;
    }
    admin.rows(
        "UPDATE oidc.granted_membership SET keep = true WHERE member = 'ann'; \
         SELECT oidc.revoke('corp', 'bob', 'left'); \
         SELECT oidc.revoke('corp', 'cy', 'short', clock_timestamp() + '2 s')",
    )?;
    let cluster = &source.cluster;
    let dump = |program: &str, words: &[&str]| -> Result<String> {
        let mut command = cluster.server().command(program)?;
        command.arg("-h").arg(cluster.folder()).args(["-U", "postgres", "-p", &cluster.port().to_string()]);
        program::output(command.args(words))
    };
    let roles = dump("pg_dumpall", &["--roles-only"])?;
    let policy = dump("pg_dump", &["-d", "postgres"])?;
    let rows: Vec<_> = SAME.iter().map(|query| admin.rows(query)).collect::<Result<_>>()?;
    // The short one is over by the time of the restore.
    let over = "SELECT until <= clock_timestamp() FROM oidc.revocation WHERE subject = 'cy'";
    until("it is over", SOON, || Ok(admin.value(over)? == some("t")))?;

    let target = Cluster::builder(cluster.server()).setting("pg_oidc.database", "restored").start()?;
    target.admin("CREATE ROLE in_between; CREATE DATABASE restored")?;
    let admin_login = |database: &str| target.login("postgres").way(Way::Socket).database(database);
    // The superuser is there already.
    let roles = roles.replace("CREATE ROLE postgres;", "");
    for (database, script) in [("postgres", &roles), ("restored", &policy)] {
        let seen = admin_login(database).run(script)?;
        ensure!(seen.ok(), "{seen:?}");
    }
    let to = target.admin_session_in("restored")?;
    let found: Vec<_> = SAME.iter().map(|query| to.rows(query)).collect::<Result<_>>()?;
    assert_eq!(found, rows);
    let own = "SELECT bool_and(role_oid = role::regrole) FROM oidc.identity_role";
    assert_eq!(to.value(own)?, some("t"), "bound to the roles that are here");
    let own = "SELECT bool_and(role_oid = role::regrole AND member_oid = member::regrole) FROM oidc.granted_membership";
    assert_eq!(to.value(own)?, some("t"));

    let target = Stage { cluster: target };
    let login = |person: &str| target.login(person, &token(person)).database("restored");
    until("the restored policy counts", SOON, || Ok(login("ann").connect()?.is_ok()))?;
    let seen = login("ada").run("SELECT session_user, current_user")?;
    assert_eq!(seen.rows(), [["ada", "staff"]], "{seen:?}");
    // Locked there, too, and unlocked when it is over.
    assert!(!can_login(&to, "bob")?);
    assert_eq!(to.value("SELECT oidc.reinstate('corp', 'bob')")?, some("t"));
    assert!(login("bob").connect()?.is_ok());
    until("the other lock is taken away", SOON, || can_login(&to, "cy"))?;
    assert!(login("cy").connect()?.is_ok());
    // The ledger still knows what is ours, and what is to be kept.
    for (person, kept) in [("ann", "1"), ("bob", "0")] {
        to.rows(
            "INSERT INTO oidc.role_mapping (provider, match, role) \
                 SELECT 'corp', '{\"groups\": \"guests\"}', 'in_between' WHERE NOT EXISTS \
                     (SELECT FROM oidc.role_mapping WHERE role = 'in_between')",
        )?;
        let guest = of(person).groups(&["guests"]).sign(&keys().ec);
        let seen = target.login(person, &guest).database("restored").run("SELECT current_user")?;
        assert_eq!(seen.rows(), [["in_between"]], "{seen:?}");
        let member = format!(
            "SELECT count(*) FROM pg_auth_members WHERE roleid = 'staff'::regrole AND member = '{person}'::regrole"
        );
        until("memberships are settled", SOON, || Ok(to.value(&member)? == some(kept)))?;
    }
    Ok(())
}
