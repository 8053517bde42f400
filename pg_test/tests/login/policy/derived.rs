//! Roles that a token names: `\1` in `role`.
//!
//! 1. Each value that matches gives one role, the role is looked up at each login, and whatever else limits a rule
//!    limits it too.
//! 2. n101: a privileged role is never given like that.
//! 3. n102: nor are reserved names.
//! 4. n103: 62 bytes is the longest name; what is longer is never cut to one.
//! 5. n105, n106: only `A-Z a-z 0-9 . _ @ + # : / -`: no look-alikes, no quotes, nothing that a statement stumbles over.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::matching::{deciding_rule, with};
use super::target::AWKWARD;
use super::{next_login, reason, signed, stage};
use crate::scene::{Stage, good, rule_with};

/// A provider of this name, and a rule that makes roles of `groups`.
fn derived(name: &str, regex: &str, role: &str) -> Result<&'static Stage> {
    let stage = stage();
    stage.provider(name)?;
    let claims = json!({ "groups": { "regex": regex } });
    stage.admin()?.rows(&rule_with(name, &claims, role, &[]))?;
    Ok(stage)
}

fn create(stage: &Stage, role: &str) -> Result<()> {
    stage.admin()?.rows(&format!("CREATE ROLE \"{}\" LOGIN", role.replace('"', "\"\""))).map(drop)
}

/// A token of this provider in these groups.
fn token(name: &str, groups: &[&str]) -> String {
    signed(&good(name).groups(groups))
}

#[test]
fn each_value_that_matches_gives_a_role() -> Result<()> {
    let stage = derived("dv", "pg-(.+)", "dv_\\1")?;
    let admin = stage.admin()?;
    for role in ["dv_red", "dv_blue", "dv_green", "dv_Red", "dv_", "dv_pg-red", "pg-red", "red"] {
        create(stage, role)?;
    }
    let both = token("dv", &["pg-red", "x", "pg-blue", "xpg-green", "pg-green\n", "green", "pg-"]);
    for role in ["dv_red", "dv_blue"] {
        stage.accepted(role, &both, role)?;
    }
    for role in ["dv_green", "dv_Red", "dv_", "dv_pg-red", "pg-red", "red"] {
        assert_eq!(next_login(stage, role, &both)?, reason("user_not_mapped"), "{role}");
    }
    assert_eq!(next_login(stage, "dv_none", &token("dv", &["pg-none"]))?, reason("role_missing"));
    assert_eq!(next_login(stage, "dv_red", &token("dv", &["pg_red"]))?, reason("no_rule"));
    let one = signed(&with("dv", &json!({ "groups": "pg-red" })));
    assert_eq!(next_login(stage, "dv_red", &one)?, None, "a string");
    let other = signed(&with("dv", &json!({ "groups": { "pg-red": 1 } })));
    assert_eq!(next_login(stage, "dv_red", &other)?, reason("no_rule"), "an object");
    // The role of today, whenever it was made: nobody chose it but the token.
    admin.rows("DROP ROLE dv_red")?;
    assert_eq!(next_login(stage, "dv_red", &both)?, reason("role_missing"), "dropped");
    create(stage, "dv_red")?;
    assert_eq!(next_login(stage, "dv_red", &both)?, None, "made again");
    let oids = "SELECT count(role_oid) FROM oidc.role_mapping WHERE provider = 'dv'";
    assert_eq!(admin.value(oids)?.as_deref(), Some("0"));
    admin.rows("ALTER ROLE dv_blue NOLOGIN")?;
    assert_eq!(next_login(stage, "dv_blue", &both)?, reason("role_cannot_login"));

    // Other members, confines and denials count as for every rule.
    let update = |columns: &str| {
        admin.rows(&format!("UPDATE oidc.role_mapping SET {columns} WHERE provider = 'dv'")).map(drop)
    };
    for (columns, outcome) in [
        ("addresses = '{10.0.0.0/8}'", Some("no_rule")),
        ("addresses = NULL, databases = '{elsewhere}'", Some("no_rule")),
        ("databases = NULL, valid_until = now()", Some("no_rule")),
        ("valid_until = NULL, match = match || '{\"sub\": \"other\"}'", Some("no_rule")),
        ("match = match || '{\"sub\": {\"glob\": \"d*\"}}'", None),
        ("match = match || '{\"env\": {\"not\": {\"regex\": \"x(.)\"}}}'", None),
        ("role = 'pg-\\1', match = '{\"groups\": {\"regex\": \"pg-((?:r|b).*)\"}}'", Some("user_not_mapped")),
        ("role = 'dv_\\1'", None),
        ("role = 'dv_red'", None),
        (
            "role = 'dv_\\1', match = '{\"groups\": {\"regex\": \"pg-(?:x(.))?red\"}}'",
            Some("user_not_mapped"),
        ),
        ("match = '{\"groups\": {\"regex\": \"pg-(?P<name>red)\"}}'", None),
        ("enabled = false", Some("no_rule")),
    ] {
        update(columns)?;
        assert_eq!(next_login(stage, "dv_red", &both)?.as_deref(), outcome, "{columns}");
    }
    Ok(())
}

#[test]
fn words_of_a_scope_and_more_than_one_place() -> Result<()> {
    let stage = stage();
    stage.provider("worded")?;
    let admin = stage.admin()?;
    let claims = json!({ "scope": { "regex": "role:([a-z]+)" } });
    let id = admin.value(&rule_with("worded", &claims, "worded_\\1.\\1", &[]))?.unwrap_or_default();
    for role in ["worded_a.a", "worded_a.b", "worded_b.b"] {
        create(stage, role)?;
    }
    let token = signed(&with("worded", &json!({ "scope": "openid role:a role:b" })));
    for role in ["worded_a.a", "worded_b.b"] {
        assert_eq!(deciding_rule(stage, role, &token)?, id, "{role}");
    }
    assert_eq!(next_login(stage, "worded_a.b", &token)?, reason("user_not_mapped"));
    let array = signed(&with("worded", &json!({ "scope": ["role:a role:b"] })));
    assert_eq!(next_login(stage, "worded_a.a", &array)?, reason("no_rule"), "a blank in an array");
    Ok(())
}

#[test]
fn n101_privileged_role_is_never_derived() -> Result<()> {
    let stage = derived("n101d", "(.+)", "\\1")?;
    let admin = stage.admin()?;
    create(stage, "n101d_role")?;
    admin.rows("CREATE ROLE n101d_power CREATEROLE")?;
    let token = token("n101d", &["n101d_role", "postgres", "pg_monitor", "pg_write_all_data"]);
    assert_eq!(next_login(stage, "n101d_role", &token)?, None, "an ordinary role");
    for (privilege, back) in [
        ("ALTER ROLE n101d_role SUPERUSER", "ALTER ROLE n101d_role NOSUPERUSER"),
        ("ALTER ROLE n101d_role CREATEROLE", "ALTER ROLE n101d_role NOCREATEROLE"),
        ("ALTER ROLE n101d_role REPLICATION", "ALTER ROLE n101d_role NOREPLICATION"),
        ("ALTER ROLE n101d_role BYPASSRLS", "ALTER ROLE n101d_role NOBYPASSRLS"),
        ("GRANT pg_read_server_files TO n101d_role", "REVOKE pg_read_server_files FROM n101d_role"),
        ("GRANT n101d_power TO n101d_role", "REVOKE n101d_power FROM n101d_role"),
    ] {
        admin.rows(privilege)?;
        stage.refused("n101d_role", &token, "role_privileged", privilege)?;
        admin.rows(back)?;
        assert_eq!(next_login(stage, "n101d_role", &token)?, None, "{back}");
    }
    stage.refused("postgres", &token, "role_privileged", "the bootstrap superuser")?;
    for name in ["pg_monitor", "pg_write_all_data"] {
        stage.refused(name, &token, "user_not_mapped", name)?;
    }
    // It cannot be allowed, neither now nor later.
    for sql in [
        "UPDATE oidc.role_mapping SET allow_privileged = true WHERE provider = 'n101d'",
        "INSERT INTO oidc.role_mapping (provider, match, role, allow_privileged) \
         VALUES ('n101d', '{\"groups\": {\"regex\": \"(.+)\"}}', '\\1', true)",
    ] {
        let told = admin.error(sql)?;
        assert_eq!(told.message, "a role with \"\\1\" must not be combined with \"allow_privileged\"");
        assert_eq!(told.code, "23514");
    }
    Ok(())
}

#[test]
fn n102_reserved_names_are_never_derived() -> Result<()> {
    let stage = derived("n102d", "(.*)", "\\1")?;
    let groups = ["", "public", "none", "pg_monitor", "pg_", "pg_n102", "n102d"];
    let token = token("n102d", &groups);
    create(stage, "n102d")?;
    stage.accepted("n102d", &token, "the one beside them")?;
    for name in ["public", "none", "pg_monitor", "pg_", "pg_n102"] {
        stage.refused(name, &token, "user_not_mapped", name)?;
    }
    // Nor by pieces.
    let pieces = derived("n102p", "x-(.*)", "\\1g_read_all_data")?;
    let token = self::token("n102p", &["x-p", "x-"]);
    pieces.refused("pg_read_all_data", &token, "user_not_mapped", "in two pieces")?;
    pieces.refused("g_read_all_data", &token, "user_not_mapped", "from nothing")
}

#[test]
fn n103_longest_derived_name() -> Result<()> {
    let stage = derived("n103d", "(.+)", "\\1")?;
    let admin = stage.admin()?;
    let name = |bytes: usize| format!("n103d{}", "x".repeat(bytes - 5));
    for bytes in [61, 62, 63] {
        create(stage, &name(bytes))?;
    }
    for (bytes, outcome) in [(61, None), (62, None), (63, Some("user_not_mapped"))] {
        let token = token("n103d", &[&name(bytes)]);
        assert_eq!(next_login(stage, &name(bytes), &token)?.as_deref(), outcome, "{bytes} bytes");
    }
    // The server cuts the requested name to 63 bytes; what the token says is not.
    for bytes in [64, 65, 200] {
        let token = token("n103d", &[&name(bytes)]);
        for asked in [61, 62, 63] {
            let found = next_login(stage, &name(asked), &token)?;
            assert_eq!(found, reason("user_not_mapped"), "{bytes} bytes asked as {asked}");
        }
        let mark = stage.cluster.log_mark();
        let seen = stage.login(&name(bytes), &token).run("SELECT 1")?;
        ensure!(!seen.ok(), "{seen:?}");
        let cut = format!("reason=user_not_mapped user={:?} database=", name(63));
        stage.cluster.await_log_since(mark, &cut, crate::scene::SOON)?;
    }
    // What is around the group counts.
    admin.rows("UPDATE oidc.role_mapping SET role = 'n10\\1x' WHERE provider = 'n103d'")?;
    for (bytes, outcome) in [(62, None), (63, Some("user_not_mapped"))] {
        let whole = name(bytes);
        let middle = whole.trim_start_matches("n10");
        let token = token("n103d", &[&middle[..middle.len() - 1]]);
        assert_eq!(next_login(stage, &whole, &token)?.as_deref(), outcome, "{bytes} bytes in pieces");
    }
    // A rule of the DBA's gives all 63.
    let id = rule_with("n103d", &json!({ "sub": "n103d" }), &name(63), &[]);
    admin.rows(&id)?;
    assert_eq!(next_login(stage, &name(63), &token("n103d", &[]))?, None, "by a rule");
    Ok(())
}

/// No token gives these roles, though they exist and it names them; a rule does.
fn only_by_a_rule(name: &str, roles: &[String]) -> Result<()> {
    let stage = derived(name, "(?s)(.+)", "\\1")?;
    create(stage, name)?;
    let mut groups: Vec<&str> = roles.iter().map(String::as_str).collect();
    groups.push(name);
    let token = token(name, &groups);
    assert_eq!(next_login(stage, name, &token)?, None, "the plain one beside them");
    let admin = stage.admin()?;
    for role in roles {
        create(stage, role)?;
        assert_eq!(next_login(stage, role, &token)?, reason("user_not_mapped"), "{role:?}");
        let exact: Value = json!({ "groups": role });
        admin.rows(&rule_with(name, &exact, role, &[]))?;
        assert_eq!(next_login(stage, role, &token)?, None, "{role:?} by a rule");
    }
    Ok(())
}

#[test]
fn n105_look_alikes_are_never_derived() -> Result<()> {
    let names = [
        "n105\u{435}",
        "n105e\u{301}",
        "n105\u{e9}",
        "n105\u{200b}x",
        "\u{202e}501n",
        "\u{feff}n105",
        "ｎ105",
        "n105\u{a0}",
        "n10\u{665}",
        "N105\u{131}",
        "n105\u{212a}",
    ];
    only_by_a_rule("n105", &names.map(str::to_owned))?;
    // Nor does a look-alike give the plain name.
    for name in names {
        let token = token("n105", &[name]);
        assert_eq!(next_login(stage(), "n105", &token)?, reason("user_not_mapped"), "{name:?}");
    }
    Ok(())
}

#[test]
fn n106_quotes_and_the_like_are_never_derived() -> Result<()> {
    let others = [
        "n106d x",
        "n106d,x",
        "n106d(x)",
        "n106d=x",
        "n106d*",
        "n106d?",
        "n106d\t",
        "n106d\u{7f}",
        "n106d|x",
    ];
    let awkward = AWKWARD.map(|end| format!("n106d{end}"));
    let all: Vec<String> = others.map(str::to_owned).into_iter().chain(awkward).collect();
    only_by_a_rule("n106d", &all)?;
    // All that is allowed.
    let plain = "n106d-AZ.az_09@x+#:/";
    create(stage(), plain)?;
    stage().accepted(plain, &token("n106d", &[plain]), plain)
}
