//! What the document says, and that it says all of it.
//!
//! 1. What is exported makes the same policy on an empty server, whatever the session's settings and the characters in
//!    its columns; applied again it changes nothing.
//! 2. Null, absent and default are the same, in each column.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{AWKWARD, apply, differences, document, exported, provider, rule, stage, with};
use crate::scene::{Stage, good, provider_sql, quoted, rule_sql, rule_with};

#[test]
fn round_trip_to_an_empty_server() -> Result<()> {
    let from = stage()?;
    let to = Stage::start()?;
    to.cluster.admin("CREATE ROLE other; CREATE ROLE analyst LOGIN; CREATE ROLE reader LOGIN")?;
    let (admin, there) = (from.admin()?, to.admin()?);
    admin.rows(
        "SET datestyle = 'German'; SET intervalstyle = 'sql_standard'; SET timezone = 'Asia/Kolkata'",
    )?;
    there.rows(
        "SET datestyle = 'SQL, DMY'; SET intervalstyle = 'iso_8601'; SET timezone = 'America/New_York'",
    )?;
    from.provider("plain")?;
    let all = [
        ("audiences", "'{a,\"b,c\",\"d\\\\\"}'"),
        ("audience_claim", "'/x/~1y'"),
        ("jwks_uri", "'https://keys.example/a?b=c'"),
        ("algorithms", "'{ES384,RS256}'"),
        ("identity_claim", "'upn'"),
        ("groups_claim", "'groups'"),
        ("max_stale", "'1 day 02:03:04.5'"),
        ("accepted_typ", "'{\"\",at+jwt}'"),
        ("required_claims", "'{\"tier\": 1.50, \"left\": null}'"),
        ("clock_skew", "'0.000001 seconds'"),
        ("max_token_age", "'1 mon 1 hour'"),
        ("enabled", "false"),
        ("comment", &quoted(AWKWARD[0])),
    ];
    admin.rows(&provider_sql("all 'of' it", "https://all.example", &all))?;
    for (number, awkward) in AWKWARD.iter().enumerate() {
        let database = if awkward.is_empty() { "app" } else { *awkward };
        let columns = [
            ("comment", quoted(awkward)),
            ("databases", format!("ARRAY[{}, 'x,y']", quoted(database))),
            ("priority", number.to_string()),
        ];
        let columns = columns.each_ref().map(|(name, value)| (*name, value.as_str()));
        admin.rows(&rule_with("plain", &json!({ "claim": awkward, "n": null }), "analyst", &columns))?;
    }
    for (from, until) in [
        ("'2026-03-29 02:30:00.123456+01'", "'infinity'"),
        ("'0044-03-15 12:00:00+00 BC'", "'294276-12-31 23:59:59.999999+00'"),
        ("'-infinity'", "'12026-01-01 00:00+00'"),
    ] {
        let columns = [
            ("valid_from", from),
            ("valid_until", until),
            ("addresses", "'{10.0.0.0/8,::1/128,2001:db8::/32}'"),
        ];
        admin.rows(&rule_with(
            "all 'of' it",
            &json!({ "groups": { "any": ["a", { "glob": "b*" }] } }),
            "reader",
            &columns,
        ))?;
    }
    let deny = [("role", "NULL"), ("effect", "'deny'"), ("replication", "NULL")];
    admin.rows(&rule_with("plain", &json!({ "env": { "not": "prod" } }), "", &deny))?;
    admin.rows(&rule_sql("plain", &json!({ "sub": "plain" }), "analyst"))?;
    admin.rows(&rule_sql("plain", &json!({ "sub": "plain" }), "analyst"))?;

    let document = exported(&admin)?;
    let call = format!("SELECT * FROM oidc.apply_policy({}, false)", quoted(&document));
    let made = differences(&there, &call)?;
    assert_eq!(made.len(), 2 + AWKWARD.len() + 3 + 3, "{made:?}");
    assert!(made.iter().all(|made| made.action == "create" && made.before.is_none()), "{made:?}");
    assert_eq!(exported(&there)?, document);
    admin.rows("RESET ALL")?;
    there.rows("RESET ALL")?;
    for same in [
        "SELECT to_jsonb(p) FROM oidc.provider p ORDER BY name",
        "SELECT to_jsonb(m) - 'id' - 'role_oid' FROM oidc.role_mapping m ORDER BY 1",
    ] {
        assert_eq!(admin.rows(same)?, there.rows(same)?, "{same}");
    }
    for session in [&admin, &there] {
        assert_eq!(differences(session, &call)?, []);
    }
    let token = good("plain").claim("env", json!("prod")).sign(&pg_oidc_test::keys::keys().ec);
    to.accepted("analyst", &token, "the rules are there")
}

#[test]
fn null_absent_and_default_are_the_same() -> Result<()> {
    let stage = stage()?;
    let admin = stage.admin()?;
    let plain = document(&[provider("a")], &[rule("a", "analyst")]);
    apply(&admin, &plain)?;
    assert_eq!(serde_json::from_str::<Value>(&exported(&admin)?)?, plain);
    let own = ["id", "role_oid", "made_by_us", "last_login"];
    for (part, table) in [("providers", "oidc.provider"), ("rules", "oidc.role_mapping")] {
        let stored = admin.value(&format!("SELECT to_jsonb(t) FROM {table} t"))?.context("no row")?;
        let stored: Value = serde_json::from_str(&stored)?;
        let columns: Vec<&String> = stored
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, _)| name)
            .filter(|name| !own.contains(&name.as_str()))
            .collect();
        // As it is stored, defaults and nulls and all.
        let mut full = plain.clone();
        for name in &columns {
            full[part][0][name.as_str()] = stored[name.as_str()].clone();
        }
        assert_eq!(apply(&admin, &full)?, [], "{part}");
        for name in columns {
            if plain[part][0].get(name).is_none() {
                let mut null = plain.clone();
                null[part][0][name.as_str()] = Value::Null;
                assert_eq!(apply(&admin, &null)?, [], "{part}: {name}");
            }
        }
    }
    // Written in other words.
    let mut other = plain.clone();
    other["providers"][0] =
        with(provider("a"), &json!({ "max_stale": "86400 seconds", "clock_skew": "PT30S" }));
    other["rules"][0] = with(
        rule("a", "analyst"),
        &json!({ "priority": 100, "addresses": ["10.0.0.0/8"], "valid_until": "2030-01-01" }),
    );
    apply(&admin, &other)?;
    other["rules"][0]["addresses"] = json!(["10/8"]);
    other["rules"][0]["valid_until"] = json!("2030-01-01 05:30:00+05:30");
    assert_eq!(apply(&admin, &other)?, []);
    // A null of the claim's, not of the document's.
    let mut null = plain;
    null["rules"][0]["match"] = json!({ "sub": null });
    apply(&admin, &null)?;
    assert_eq!(serde_json::from_str::<Value>(&exported(&admin)?)?, null);
    Ok(())
}
