//! From one server to another, from one version to the next, and the end.
//!
//! 1. f027: pg_dump, plain and custom, carries the policy to a fresh server: rows as they were, the sequence, logins as
//!    before. The roles are those of that server.
//! 2. f027: where the library is not preloaded there yet, and the roles are missing, it is restored all the same, and
//!    counts once the library is loaded and the roles are made.
//! 3. From version to version: [`update`].
//! 4. f020, n140: the extension dropped, its database renamed: [`gone`].

mod gone;
mod update;

use std::process::Command;

use anyhow::{Context, Result, ensure};
use pg_oidc_test::client::Session;
use pg_oidc_test::cluster::{Cluster, GUARDED_FILE, until};
use pg_oidc_test::keys::{jwks, keys};
use pg_oidc_test::program;
use pg_oidc_test::token::Token;
use serde_json::json;

use crate::scene::{SOON, Stage, is_constant, issuer, provider_sql, quoted, rule_sql, rule_with, text};
use crate::stage::calm;

/// What a dump must carry unharmed.
const ODD: &str = "it's \"odd\" $$ \\ \\. %s\ttwo\nlines";

/// As [`ODD`], for what must not hold control characters.
const ODD_NAME: &str = "it's \"odd\" $$ \\ %s";

/// Whose logins are compared: the role, the provider, groups, and what becomes of it where the roles are.
const LOGINS: [(&str, &str, &str, Option<&str>); 13] = [
    ("reader", "main", "readers", None),
    ("reader", "main", "reader", Some("no_rule")),
    ("team-red", "main", "team-red", None),
    ("team-red", "main", "team-blue", Some("user_not_mapped")),
    ("reader", "main", "readers,leavers", Some("denied_by_rule")),
    ("reader", "main", "local", None),
    ("reader", "main", "far", Some("no_rule")),
    ("reader", "main", "over", Some("no_rule")),
    ("reader", "main", "always", None),
    ("reader", "main", "off", Some("no_rule")),
    ("power", "main", "power", None),
    ("reader", "second", "readers", None),
    ("reader", "off", "readers", Some("provider_disabled")),
];

fn token(provider: &str, group: &str) -> String {
    let groups: Vec<&str> = group.split(',').collect();
    Token::for_user("job").issuer(&issuer(provider)).groups(&groups).sign(&keys().ed25519)
}

/// A policy with something in every column.
fn furnish(admin: &Session) -> Result<()> {
    admin.rows(
        "CREATE ROLE power LOGIN CREATEROLE; CREATE ROLE reader LOGIN; CREATE ROLE \"team-red\" LOGIN",
    )?;
    let keys = text(&jwks(&[&keys().ec, &keys().ed25519]));
    let (odd, claims) = (quoted(ODD), text(&json!({ "level": { "not": 1.50 }, "x": { "exists": false } })));
    let columns = [
        ("jwks", keys.as_str()),
        ("comment", &odd),
        ("required_claims", &claims),
        ("max_token_age", "'1 mon'"),
    ];
    admin.rows(&provider_sql("main", &issuer("main"), &columns))?;
    admin.rows(&provider_sql(ODD_NAME, &issuer("second"), &[("jwks", &keys)]))?;
    admin.rows(&provider_sql("off", &issuer("off"), &[("jwks", &keys), ("enabled", "false")]))?;
    let group = |name: &str| json!({ "groups": name });
    let comment = [("comment", odd.as_str())];
    let rules = [
        rule_with("main", &group("readers"), "reader", &comment),
        rule_with("main", &json!({ "groups": { "regex": "team-(.+)" } }), "team-\\1", &[("priority", "-5")]),
        rule_with(
            "main",
            &group("leavers"),
            "",
            &[("effect", "'deny'"), ("role", "NULL"), ("replication", "NULL")],
        ),
        rule_with(
            "main",
            &group("local"),
            "reader",
            &[
                ("addresses", "'{127.0.0.0/8,::1/128}'"),
                ("databases", "'{restored,postgres,second,\"a,\\\"b\"}'"),
            ],
        ),
        rule_with("main", &group("far"), "reader", &[("addresses", "'{10.0.0.0/8}'")]),
        rule_with(
            "main",
            &group("over"),
            "reader",
            &[("valid_from", "'2001-01-01'"), ("valid_until", "'2002-01-01 12:00:00.000001+05:30'")],
        ),
        rule_with(
            "main",
            &group("always"),
            "reader",
            &[("valid_from", "'-infinity'"), ("valid_until", "'infinity'")],
        ),
        rule_with("main", &group("off"), "reader", &[("enabled", "false")]),
        rule_with("main", &group("power"), "power", &[("allow_privileged", "true")]),
        rule_with("main", &group("wal"), "power", &[("allow_privileged", "true"), ("replication", "true")]),
        rule_with("main", &json!({ "level": 12345678901234567890_u64, "odd": ODD, ODD: 1.5 }), "reader", &[]),
        rule_with(ODD_NAME, &group("readers"), "reader", &comment),
        rule_with("off", &group("readers"), "reader", &[]),
        rule_with("main", &group("deleted"), "reader", &[]),
        "DELETE FROM oidc.role_mapping WHERE match @> '{\"groups\": \"deleted\"}'".to_owned(),
    ];
    rules.iter().try_for_each(|sql| admin.rows(sql).map(drop))
}

/// Why this login is refused, None if it is admitted.
fn outcome(cluster: &Cluster, database: &str, user: &str, token: &str) -> Result<Option<String>> {
    let mark = cluster.log_mark();
    let Err(told) = cluster.login(user).password(token).database(database).connect()? else {
        return Ok(None);
    };
    ensure!(is_constant(&told, user), "the client was told {told:?}");
    let line = cluster.await_log_since(mark, &format!(" user={user:?} database="), SOON)?;
    let (_, rest) = line.split_once("reason=").with_context(|| line.clone())?;
    Ok(rest.split(' ').next().map(str::to_owned))
}

/// All logins end as they should.
fn logins(cluster: &Cluster, database: &str) -> Result<()> {
    for (user, provider, group, expected) in LOGINS {
        let found = outcome(cluster, database, user, &token(provider, group))?;
        ensure!(
            found.as_deref() == expected,
            "{user} of {provider} in {group}: {found:?} instead of {expected:?}"
        );
    }
    Ok(())
}

/// The first login that is not told to try again.
fn settled(cluster: &Cluster, database: &str) -> Result<()> {
    until("the policy is published", SOON, || {
        let login = cluster.login("reader").password(token("main", "readers")).database(database);
        Ok(login.connect()?.err().is_none_or(|told| told.code == "28000"))
    })
}

/// A program of the server's, as the superuser over the unix socket.
fn client(cluster: &Cluster, name: &str, words: &[&str]) -> Result<Command> {
    let mut command = cluster.server().command(name)?;
    command.arg("-h").arg(cluster.folder()).args(["-U", "postgres", "-p", &cluster.port().to_string()]);
    command.args(words);
    Ok(command)
}

/// What must be the same on both sides.
const SAME: [&str; 4] = [
    "SELECT to_jsonb(p)::text FROM oidc.provider p ORDER BY name",
    "SELECT (to_jsonb(m) - 'role_oid')::text FROM oidc.role_mapping m ORDER BY id",
    "SELECT last_value, is_called FROM oidc.role_mapping_id_seq",
    "SELECT oidc.export_policy()::text",
];

fn same(from: &Session, to: &Session) -> Result<()> {
    for query in SAME {
        let rows = from.rows(query)?;
        ensure!(!rows.is_empty(), "{query}");
        assert_eq!(rows, to.rows(query)?, "{query}");
    }
    // The next rule gets the next number, on both sides.
    let next = rule_sql("main", &json!({ "nobody": 1 }), "reader");
    assert_eq!(from.value(&next)?, to.value(&next)?);
    Ok(())
}

#[test]
fn f027_plain_and_custom_dump_into_a_fresh_server() -> Result<()> {
    let source = Stage::start()?;
    let admin = source.admin()?;
    furnish(&admin)?;
    logins(&source.cluster, "postgres").context("the source")?;
    for format in ["plain", "custom"] {
        let file = source.cluster.file(&format!("policy.{format}")).display().to_string();
        let dump = ["-d", "postgres", "--format", format, "--file", &file];
        program::output(&mut client(&source.cluster, "pg_dump", &dump)?)?;
        if format == "plain" {
            let text = std::fs::read_to_string(&file)?;
            for kept in ["provider", "role_mapping"] {
                ensure!(text.contains(&format!("COPY oidc.{kept} ")), "{kept} is not in the dump");
            }
            for left in ["policy_state", "jwks_cache", "audit_log"] {
                ensure!(!text.contains(&format!("COPY oidc.{left} ")), "{left} is in the dump");
            }
        }
        // Roles of other oids.
        let target =
            Cluster::builder(source.cluster.server()).setting("pg_oidc.database", "restored").start()?;
        target.admin(
            "CREATE ROLE other; CREATE ROLE \"team-red\" LOGIN; CREATE ROLE reader LOGIN; \
             CREATE ROLE power LOGIN CREATEROLE; CREATE DATABASE restored",
        )?;
        if format == "plain" {
            let mut psql = client(
                &target,
                "psql",
                &["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "restored", "-f", &file],
            )?;
            program::output(&mut psql)?;
        } else {
            let words = ["-d", "restored", "--exit-on-error", "--single-transaction", &file];
            program::output(&mut client(&target, "pg_restore", &words)?)?;
        }
        let to = target.admin_session_in("restored")?;
        let own = "SELECT string_agg(m.id::text, ' ') FROM oidc.role_mapping m WHERE role_oid IS DISTINCT FROM \
                   (SELECT oid FROM pg_roles WHERE rolname = m.role)";
        assert_eq!(to.value(own)?, None, "rules are for the roles that are here");
        until("the restored policy counts", SOON, || {
            Ok(target
                .login("reader")
                .password(token("main", "readers"))
                .database("restored")
                .connect()?
                .is_ok())
        })?;
        logins(&target, "restored").with_context(|| format!("the {format} dump"))?;
        same(&admin, &to)?;
        assert_eq!(to.value("SELECT count(*) FROM oidc.policy_state")?.as_deref(), Some("1"));
        calm(&target, &[])?;
    }
    Ok(())
}

#[test]
fn f027_restored_before_library_and_roles_are_there() -> Result<()> {
    let source = Stage::start()?;
    let admin = source.admin()?;
    furnish(&admin)?;
    let file = source.cluster.file("policy.dump").display().to_string();
    program::output(&mut client(&source.cluster, "pg_dump", &["-d", "postgres", "-Fc", "-f", &file])?)?;

    let target = Cluster::builder(source.cluster.server()).plain().start()?;
    target.admin("CREATE DATABASE restored")?;
    let restored = program::captured(&mut client(
        &target,
        "pg_restore",
        &["-d", "restored", "--exit-on-error", &file],
    )?)?;
    let said = String::from_utf8_lossy(&restored.stderr);
    ensure!(restored.status.success(), "{said}");
    for role in ["reader", "power"] {
        let warning = format!("WARNING:  role \"{role}\" does not exist");
        ensure!(said.contains(&warning) || target.log().contains(&warning), "no {warning:?} in {said}");
    }
    let to = target.admin_session_in("restored")?;
    let number = to.value("SELECT count(*) FROM oidc.role_mapping WHERE role_oid IS NULL")?;
    assert_eq!(number, to.value("SELECT count(*) FROM oidc.role_mapping")?, "no rule has an oid");
    drop(to);

    for (name, value) in [
        ("shared_preload_libraries", "pg_oidc"),
        ("pg_oidc.hba_file", GUARDED_FILE),
        ("pg_oidc.database", "restored"),
    ] {
        target.set(name, value)?;
    }
    target.restart()?;
    settled(&target, "restored")?;
    let login = |user: &str, group: &str| outcome(&target, "restored", user, &token("main", group));
    let is = |code: &str| Some(code.to_owned());
    assert_eq!(login("reader", "readers")?, is("role_missing"));
    assert_eq!(login("team-red", "team-red")?, is("role_missing"));
    assert_eq!(login("reader", "readers,leavers")?, is("denied_by_rule"));
    target.admin(
        "CREATE ROLE \"team-red\" LOGIN; CREATE ROLE reader LOGIN; CREATE ROLE power LOGIN CREATEROLE",
    )?;
    // A name made of the token is for whatever role has it now, a rule is for the role that it was written for.
    assert_eq!(login("team-red", "team-red")?, None);
    assert_eq!(login("reader", "readers")?, is("role_replaced"));
    let to = target.admin_session_in("restored")?;
    let doctor = "SELECT count(*) FROM oidc.doctor() WHERE name = 'rule_roles' AND status = 'fail'";
    ensure!(to.value(doctor)?.as_deref() != Some("0"), "the doctor is content");
    to.rows("UPDATE oidc.role_mapping SET role = role")?;
    assert_eq!(to.value(doctor)?.as_deref(), Some("0"));
    logins(&target, "restored")?;
    same(&admin, &to)?;
    calm(&target, &[])
}
