//! Documents that are refused, as a whole and with the place of what is wrong.
//!
//! 1. What is not such a document: types, members, what is missing, what is there twice.
//! 2. What a trigger or a constraint refuses: its message, detail and hint, after the place.
//! 3. Calls that mean nothing: no dry_run, a snapshot that is too old.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{apply, applying, document, exported, provider, rule, stage, with};

#[test]
fn wrong_documents_change_nothing_and_say_where() -> Result<()> {
    let stage = stage()?;
    let admin = stage.admin()?;
    apply(&admin, &document(&[provider("a")], &[rule("a", "analyst")]))?;
    let before = exported(&admin)?;
    let providers = |members: Value| document(&[provider("a"), with(provider("b"), &members)], &[]);
    let rules = |members: Value| {
        document(&[provider("a")], &[rule("a", "analyst"), with(rule("a", "analyst"), &members)])
    };
    let without = |mut document: Value, part: &str, member: &str| {
        let element = document[part][0].as_object_mut();
        element.and_then(|members| members.remove(member)).expect("a member");
        document
    };
    let good = || document(&[provider("a")], &[rule("a", "analyst")]);
    let wrong = [
        (json!(null), "policy: must be of type object"),
        (json!([]), "policy: must be of type object"),
        (json!("{}"), "policy: must be of type object"),
        (json!(1), "policy: must be of type object"),
        (json!({}), "providers: is missing"),
        (json!({ "providers": [] }), "rules: is missing"),
        (json!({ "providers": [], "rules": [] }), "bindings: is missing"),
        (json!({ "rules": [], "bindings": [] }), "providers: is missing"),
        (
            json!({ "providers": [], "rules": [], "bindings": [], "revocations": [] }),
            "\"revocations\": unknown member",
        ),
        (json!({ "providers": {}, "rules": [], "bindings": [] }), "providers: must be of type array"),
        (json!({ "providers": [], "rules": null, "bindings": [] }), "rules: must be of type array"),
        (json!({ "providers": [], "rules": [], "bindings": "x" }), "bindings: must be of type array"),
        (document(&[provider("a"), json!(["b"])], &[]), "providers[1]: must be of type object"),
        (document(&[provider("a"), Value::Null], &[]), "providers[1]: must be of type object"),
        (document(&[provider("a")], &[json!("x")]), "rules[0]: must be of type object"),
        (providers(json!({ "isuer": "x" })), "providers[1].isuer: unknown member"),
        (providers(json!({ "a.b\n\"c": 1 })), "providers[1].\"a.b\\n\\\"c\": unknown member"),
        (providers(json!({ "": 1 })), "providers[1].\"\": unknown member"),
        (providers(json!({ "id": 1 })), "providers[1].id: unknown member"),
        (rules(json!({ "id": 1 })), "rules[1].id: unknown member"),
        (rules(json!({ "role_oid": 1 })), "rules[1].role_oid: unknown member"),
        (providers(json!({ "issuer": 1 })), "providers[1].issuer: must be of type string"),
        (providers(json!({ "comment": {} })), "providers[1].comment: must be of type string"),
        (providers(json!({ "enabled": "yes" })), "providers[1].enabled: must be of type boolean"),
        (providers(json!({ "enabled": 1 })), "providers[1].enabled: must be of type boolean"),
        (providers(json!({ "audiences": "w" })), "providers[1].audiences: must be of type array"),
        (providers(json!({ "audiences": "{w}" })), "providers[1].audiences: must be of type array"),
        (providers(json!({ "audiences": ["w", 1] })), "providers[1].audiences: must be an array of strings"),
        (
            providers(json!({ "audiences": ["w", null] })),
            "providers[1].audiences: must be an array of strings",
        ),
        (providers(json!({ "audiences": [["w"]] })), "providers[1].audiences: must be an array of strings"),
        (providers(json!({ "max_stale": 60 })), "providers[1].max_stale: must be of type string"),
        (
            providers(json!({ "max_stale": "a while" })),
            "providers[1].max_stale: invalid input syntax for type interval: \"a while\"",
        ),
        (rules(json!({ "priority": "x" })), "rules[1].priority: must be of type number"),
        (rules(json!({ "priority": "1" })), "rules[1].priority: must be of type number"),
        (
            rules(json!({ "priority": 1.5 })),
            "rules[1].priority: invalid input syntax for type integer: \"1.5\"",
        ),
        (
            rules(json!({ "priority": 2_147_483_648_u64 })),
            "rules[1].priority: value \"2147483648\" is out of range for type integer",
        ),
        (rules(json!({ "replication": "all" })), "rules[1].replication: must be of type boolean"),
        (
            rules(json!({ "addresses": ["10.0.0.1/8"] })),
            "rules[1].addresses: invalid cidr value: \"10.0.0.1/8\"",
        ),
        (
            rules(json!({ "valid_until": "2030-02-30" })),
            "rules[1].valid_until: date/time field value out of range: \"2030-02-30\"",
        ),
        (without(good(), "providers", "name"), "providers[0].name: is missing"),
        (without(good(), "providers", "issuer"), "providers[0].issuer: is missing"),
        (without(good(), "providers", "audiences"), "providers[0].audiences: is missing"),
        (without(good(), "rules", "match"), "rules[0].match: is missing"),
        (without(good(), "rules", "provider"), "rules[0].provider: is missing"),
        (rules(json!({ "provider": null })), "rules[1].provider: is missing"),
        (rules(json!({ "provider": "b" })), "rules[1].provider: provider \"b\" is not in the document"),
        (rules(json!({ "provider": "A" })), "rules[1].provider: provider \"A\" is not in the document"),
        (
            json!({ "providers": [], "rules": [], "bindings": [{ "provider": "a", "subject": "x", "role": "x" }] }),
            "bindings[0].provider: provider \"a\" is not in the document",
        ),
        (
            json!({ "providers": [provider("a")], "rules": [], "bindings": [{ "provider": "a", "subject": "x" }] }),
            "bindings[0].role: is missing",
        ),
        (providers(json!({ "name": "a" })), "providers[1].name: \"a\" is the name of providers[0] already"),
        (
            providers(json!({ "issuer": "https://a.example" })),
            "providers[1].issuer: \"https://a.example\" is the issuer of providers[0] already",
        ),
    ];
    for (document, message) in wrong {
        for dry_run in [true, false] {
            let told = admin.error(&applying(&document, dry_run))?;
            assert_eq!(told.message, message, "{document}");
            assert!(told.code.starts_with("22"), "{told:?}");
            let detail = told.detail.context("no detail")?;
            assert!(detail.ends_with("Nothing was changed."), "{detail}");
            assert!(told.hint.is_none_or(|hint| hint.ends_with('.')), "{document}");
        }
        assert_eq!(exported(&admin)?, before, "{document}");
    }
    let told = admin.error("SELECT oidc.apply_policy(NULL, false)")?;
    assert_eq!(told.message, "policy: must be of type object");
    Ok(())
}

#[test]
fn refusal_of_a_trigger_comes_with_its_place() -> Result<()> {
    let stage = stage()?;
    let admin = stage.admin()?;
    apply(&admin, &document(&[provider("a")], &[rule("a", "analyst")]))?;
    let before = exported(&admin)?;
    let by_hand = |sql: &str| admin.error(sql);
    let cases = [
        (
            document(
                &[provider("a")],
                &[rule("a", "reader"), with(rule("a", "reader"), &json!({ "match": [] }))],
            ),
            "rules[1]: ",
            "INSERT INTO oidc.role_mapping (provider, match, role) VALUES ('a', '[]', 'reader')",
        ),
        (
            document(
                &[provider("a")],
                &[with(rule("a", "reader"), &json!({ "match": { "a": { "near": 1 } } }))],
            ),
            "rules[0]: ",
            "INSERT INTO oidc.role_mapping (provider, match, role) VALUES ('a', '{\"a\": {\"near\": 1}}', 'reader')",
        ),
        (
            document(&[with(provider("a"), &json!({ "clock_skew": "1 hour" }))], &[]),
            "providers[0]: ",
            "UPDATE oidc.provider SET clock_skew = '1 hour' WHERE name = 'a'",
        ),
        (
            document(
                &[provider("a"), provider("b"), with(provider("c"), &json!({ "issuer": "ftp://c" }))],
                &[],
            ),
            "providers[2]: ",
            "INSERT INTO oidc.provider (name, issuer, audiences) VALUES ('c', 'ftp://c', '{warehouse}')",
        ),
        (
            document(&[provider("a")], &[with(rule("a", "reader"), &json!({ "effect": "perhaps" }))]),
            "rules[0]: ",
            "INSERT INTO oidc.role_mapping (provider, match, role, effect) VALUES ('a', '{}', 'reader', 'perhaps')",
        ),
    ];
    for (document, place, sql) in cases {
        let expected = by_hand(sql)?;
        for dry_run in [true, false] {
            let told = admin.error(&applying(&document, dry_run))?;
            assert_eq!(told.message, format!("{place}{}", expected.message));
            assert_eq!((&told.code, &told.hint), (&expected.code, &expected.hint), "{told:?}");
            let detail = expected.detail.iter().map(String::as_str).chain(["Nothing was changed."]);
            assert_eq!(told.detail, Some(detail.collect::<Vec<_>>().join(" ")));
        }
        assert_eq!(exported(&admin)?, before);
    }
    Ok(())
}

#[test]
fn calls_that_mean_nothing() -> Result<()> {
    let stage = stage()?;
    let admin = stage.admin()?;
    apply(&admin, &document(&[provider("a")], &[]))?;
    let nothing = document(&[], &[]);
    let told = admin.error(&applying(&nothing, false).replace("false", "NULL"))?;
    assert_eq!((told.code.as_str(), told.message.as_str()), ("22004", "dry_run must be true or false"));
    for level in ["repeatable read", "serializable"] {
        admin.rows(&format!("BEGIN ISOLATION LEVEL {level}"))?;
        let told = admin.error(&applying(&nothing, false))?;
        assert_eq!(
            told.message,
            format!("cannot apply a policy in a transaction of isolation level {level}")
        );
        assert_eq!(told.hint.as_deref(), Some("Use BEGIN ISOLATION LEVEL READ COMMITTED."));
        admin.rows("ROLLBACK")?;
    }
    assert_eq!(admin.value("SELECT count(*) FROM oidc.provider")?.as_deref(), Some("1"));
    Ok(())
}
