//! What the trigger of `oidc.role_mapping` accepts and refuses.
//!
//! 1. every bad `match` is refused with a message that names the member, a detail and a hint
//! 2. deny rules, derived roles, confines: what must not stand together
//! 3. n102, n103: names of roles

use pg_oidc_core::limits;
use pg_oidc_core::provider::{ProviderRow, compile_provider};
use pg_oidc_core::row::RowError;
use pg_oidc_core::rules::{RuleRow, compile_rule};
use serde_json::json;

use crate::common::{provider_row, rule_row};
use crate::rows::{in_style, some};

fn row(change: impl FnOnce(&mut RuleRow)) -> RuleRow {
    let mut row = rule_row(1, &json!({"groups": "readers"}), "reader");
    change(&mut row);
    row
}

#[track_caller]
fn refused(message: &str, change: impl FnOnce(&mut RuleRow)) -> RowError {
    let error = compile_rule(&row(change)).unwrap_err();
    assert!(error.message.contains(message), "{error:?}");
    in_style(&error);
    error
}

#[track_caller]
fn accepted(change: impl FnOnce(&mut RuleRow)) {
    compile_rule(&row(change)).unwrap();
}

/// A deny rule.
fn deny(row: &mut RuleRow) {
    row.effect = "deny".to_owned();
    row.role = None;
}

#[test]
fn a_bad_member_is_named_with_what_it_is_and_what_to_write() {
    let operators = "The operators are \"any\"";
    for (text, message, detail, hint) in [
        (r#"{"g": ["a", "b"]}"#, "must not be an array", "compared with one value", "{\"any\": [...]}"),
        (r#"{"g": {}}"#, "has an empty object", "never with an object", operators),
        (
            r#"{"g": {"a": 1, "b\n": 2}}"#,
            "has more than one operator in one object",
            "They are \"a\", \"b\\n\".",
            "nest them",
        ),
        (
            r#"{"g": {"any": ["a"], "not": "b"}}"#,
            "has more than one operator in one object",
            "They are \"any\", \"not\".",
            "one rule for each",
        ),
        (r#"{"g": {"like": "a"}}"#, "has the unknown operator \"like\"", "never with an object", operators),
        (r#"{"g": {"Regex": "a"}}"#, "has the unknown operator \"Regex\"", "never with an object", operators),
        (r#"{"g": {"": "a"}}"#, "has the unknown operator \"\"", "never with an object", operators),
        (r#"{"g": {"any": []}}"#, "can never match", "empty array", "Write the values"),
        (
            r#"{"g": {"any": "a"}}"#,
            "operator \"any\" with a value of the wrong type",
            "It is a string.",
            "an array",
        ),
        (r#"{"g": {"any": {"glob": "a"}}}"#, "operator \"any\" with a", "It is an object.", "an array"),
        (r#"{"g": {"any": [["a"]]}}"#, "must not be an array", "compared with one value", "{\"any\": [...]}"),
        (r#"{"g": {"any": ["a", {}]}}"#, "has an empty object", "never with an object", operators),
        (
            r#"{"g": {"any": [{"like": "a"}]}}"#,
            "unknown operator \"like\"",
            "never with an object",
            operators,
        ),
        (r#"{"g": {"not": ["a"]}}"#, "must not be an array", "compared with one value", "{\"any\": [...]}"),
        (r#"{"g": {"not": {"not": {}}}}"#, "has an empty object", "never with an object", operators),
        (r#"{"g": {"exists": "yes"}}"#, "operator \"exists\" with a", "It is a string.", "true or false"),
        (r#"{"g": {"exists": null}}"#, "operator \"exists\" with a", "It is null.", "true or false"),
        (r#"{"g": {"exists": 1}}"#, "operator \"exists\" with a", "It is a number.", "true or false"),
        (r#"{"g": {"glob": ["a"]}}"#, "operator \"glob\" with a", "It is an array.", "refs/heads/release-*"),
        (r#"{"g": {"regex": true}}"#, "operator \"regex\" with a", "It is true or false.", "pg-(.+)"),
        (
            r#"{"g": {"regex": "a)|(?:b"}}"#,
            "has a regular expression that cannot be compiled",
            "')'",
            "Perl's",
        ),
        (r#"{"g": {"regex": "[a"}}"#, "has a regular expression that cannot", "bracket", "Perl's"),
        (r#"{"g": {"regex": "(?=a)"}}"#, "has a regular expression that cannot", "look-around", "Perl's"),
        (r#"{"g": {"regex": "(a)\\1"}}"#, "has a regular expression that cannot", "backreferences", "Perl's"),
        (r#"{"g": {"regex": "\\p{Greek}"}}"#, "has a regular expression that cannot", "Unicode", "Perl's"),
        (r#"{"g": {"regex": "a{99999}{99999}"}}"#, "has a regular expression that cannot", "size", "Perl's"),
        (
            r#"{"g": {"any": ["a", {"not": {"regex": "("}}]}}"#,
            "has a regular expression that",
            "')'",
            "Perl's",
        ),
    ] {
        let error = refused("member \"g\" of \"match\" ", |row| row.matches = text.to_owned());
        assert!(error.message.contains(message), "{text} {error:?}");
        assert!(error.detail.as_ref().is_some_and(|found| found.contains(detail)), "{text} {error:?}");
        assert!(error.hint.as_ref().is_some_and(|found| found.contains(hint)), "{text} {error:?}");
        // The provider's required_claims are of the same language.
        let provider = ProviderRow { required_claims: Some(text.to_owned()), ..provider_row() };
        let again = compile_provider(&provider, false).unwrap_err();
        assert_eq!(again.message, error.message.replace("\"match\"", "\"required_claims\""));
        // The second member is looked at like the first, and nested in a deny rule.
        let second = text.replacen('{', "{\"a\": 1, ", 1);
        assert_eq!(compile_rule(&row(|row| row.matches = second.clone())).unwrap_err(), error);
        let denying = row(|row| {
            deny(row);
            row.matches = second;
        });
        assert_eq!(compile_rule(&denying).unwrap_err(), error);
    }
}

#[test]
fn match_objects() {
    for text in ["", "[]", "1", "\"groups\"", "null", "{", "{'groups':'a'}", "{} {}", "{\"a\":1,}"] {
        refused("\"match\"", |row| row.matches = text.to_owned());
    }
    refused("\"match\"", |row| row.matches = r#"{"a":1,"a":1}"#.to_owned());
    let deep = format!("{{\"a\":{}\"b\"{}}}", "{\"not\":".repeat(32), "}".repeat(32));
    refused("\"match\" is not acceptable JSON", |row| row.matches = deep);
    for name in ["", "/a~", "/~2"] {
        let error = refused("names no claim", |row| row.matches = json!({name: "x"}).to_string());
        assert!(error.message.starts_with(&format!("member {name:?} of \"match\"")), "{error:?}");
        assert!(error.detail.is_some() && error.hint.is_some(), "{error:?}");
    }
    for value in ["", "a b", " a"] {
        for test in [json!(value), json!({"not": value}), json!({"any": ["a", {"not": value}]})] {
            let error = refused("can never match", |row| row.matches = json!({"scope": test}).to_string());
            assert!(error.message.starts_with("member \"scope\" of") && error.hint.is_some(), "{error:?}");
            refused("can never match", |row| row.matches = json!({"/scp": test}).to_string());
            accepted(|row| row.matches = json!({"note": test}).to_string());
        }
    }
    accepted(|row| row.matches = "{}".to_owned());
    accepted(|row| row.matches = r#"{"a":"x","/b/c":1.5,"d":true,"e":null}"#.to_owned());
    accepted(|row| {
        row.matches = r#"{"a":{"any":["x",1,null,{"not":{"glob":"*"}},{"any":["y"]}]}}"#.to_owned()
    });
}

#[test]
fn effects() {
    accepted(deny);
    for effect in ["Allow", "DENY", "", "permit", "allow "] {
        refused("\"effect\" must be 'allow' or 'deny'", |row| row.effect = effect.to_owned());
    }
    refused("a rule that denies must not name a role", |row| row.effect = "deny".to_owned());
    refused("a rule that denies must not set \"allow_privileged\"", |row| {
        deny(row);
        row.allow_privileged = true;
    });
    refused("a rule that allows must name a role", |row| row.role = None);
    // A disabled row is refused too: it would break the day it is enabled.
    refused("a rule that denies must not name a role", |row| {
        row.enabled = false;
        row.effect = "deny".to_owned();
    });
    refused("\"provider\"", |row| row.provider = String::new());
}

#[test]
fn session_limits() {
    for limit in ["8 hours", "", "None", "Token", " token"] {
        refused("\"session_limit\" must be 'token', 'none' or an interval", |row| {
            row.session_limit = Some(limit.to_owned())
        });
    }
    for micros in [0, -1, i64::MIN] {
        refused("\"session_limit\" must be longer than 0", |row| {
            row.session_limit = Some("0".to_owned());
            row.session_limit_us = Some(micros);
        });
    }
    for limit in ["none", "token"] {
        accepted(|row| row.session_limit = Some(limit.to_owned()));
    }
    accepted(|row| {
        row.session_limit = Some("8 hours".to_owned());
        row.session_limit_us = Some(1);
    });
}

#[test]
fn derived_roles() {
    let derived = |role: &str, matches: &str| {
        row(|row| {
            row.role = Some(role.to_owned());
            row.matches = matches.to_owned();
        })
    };
    let one = r#"{"groups": {"regex": "pg-(.+)"}}"#;
    for (role, matches) in [
        ("\\1", one),
        ("app_\\1", one),
        ("\\1_\\1", one),
        ("\\1x", r#"{"groups": {"regex": "(?P<team>a)|b"}, "tenant": "t", "env": {"glob": "*"}}"#),
        // Those inside of other operators are no source, and no obstacle.
        ("\\1", r#"{"groups": {"regex": "(.+)"}, "env": {"not": {"regex": "dev(.*)"}}}"#),
        ("\\1", r#"{"groups": {"regex": "(.+)"}, "env": {"any": [{"regex": "a(.*)"}]}}"#),
        // A backslash that no digit follows is a part of an ordinary name.
        ("a\\b", one),
        ("a\\", one),
        ("\\", r"{}"),
    ] {
        compile_rule(&derived(role, matches)).unwrap_or_else(|error| panic!("{role} {matches} {error:?}"));
    }
    let two = r#"{"groups": {"regex": "(.+)"}, "/groups": {"regex": "(.+)"}}"#;
    for (role, matches, message) in [
        ("\\1", r"{}", "needs exactly one regular expression"),
        ("\\1", r#"{"groups": {"glob": "pg-*"}}"#, "needs exactly one regular expression"),
        ("\\1", r#"{"groups": {"any": [{"regex": "(.+)"}]}}"#, "needs exactly one regular expression"),
        ("\\1", r#"{"groups": {"not": {"regex": "(.+)"}}}"#, "needs exactly one regular expression"),
        ("\\1", two, "needs exactly one regular expression"),
        ("\\1", r#"{"groups": {"regex": "pg-.+"}}"#, "needs a group"),
        ("\\1", r#"{"groups": {"regex": "pg-(?:.+)"}}"#, "needs a group"),
        ("\\1", r#"{"groups": {"regex": "pg-\\(.+\\)"}}"#, "needs a group"),
        ("\\2", one, "another group than \\1"),
        ("\\0", one, "another group than \\1"),
        ("\\1\\2", one, "another group than \\1"),
        ("x\\9", r"{}", "another group than \\1"),
        ("\\\\1", one, "can never be given"),
        ("a b\\1", one, "can never be given"),
        ("\\1\"", one, "can never be given"),
        ("b\u{fc}cher\\1", one, "can never be given"),
        ("\u{430}\\1", one, "can never be given"),
        ("\\1;", one, "can never be given"),
        ("\\1\n", one, "can never be given"),
        ("pg_\\1", one, "is reserved"),
    ] {
        let error = compile_rule(&derived(role, matches)).expect_err(role);
        assert!(error.message.replace("\\\\", "\\").contains(message), "{role:?} {matches} {error:?}");
        assert!(error.hint.is_some() || error.detail.is_some(), "{error:?}");
        in_style(&error);
    }
    let mut privileged = derived("\\1", one);
    privileged.allow_privileged = true;
    let error = compile_rule(&privileged).unwrap_err();
    assert!(error.message.contains("must not be combined with \"allow_privileged\""), "{error:?}");
    in_style(&error);
}

#[test]
fn n102_role_names() {
    for name in ["public", "none", "pg_", "pg_read_all_data"] {
        refused("reserved", |row| row.role = Some(name.to_owned()));
    }
    refused("\"role\"", |row| row.role = Some(String::new()));
    refused("must name a role", |row| row.role = None);
    refused("U+0000", |row| row.role = Some("a\0b".to_owned()));
    // Names of the DBA's own choice; whether they exist and are privileged is seen at login.
    for name in ["postgres", "Public", "PG_x", "pgx", "a b", "bücher", "a\"b'c;$$"] {
        accepted(|row| row.role = Some(name.to_owned()));
    }
}

#[test]
fn n103_role_name_length() {
    accepted(|row| row.role = Some("r".repeat(63)));
    refused("\"role\" must have 1 to 63 bytes", |row| row.role = Some("r".repeat(64)));
    refused("\"role\" must have 1 to 63 bytes", |row| row.role = Some("é".repeat(32)));
}

#[test]
fn databases() {
    accepted(|row| row.databases = Some(some(&["app", "replication"])));
    refused("\"databases\"", |row| row.databases = Some(vec![]));
    refused("nulls", |row| row.databases = Some(vec![None]));
    refused("\"databases\"", |row| row.databases = Some(some(&[""])));
    refused("twice", |row| row.databases = Some(some(&["app", "app"])));
}

#[test]
fn addresses() {
    for good in [
        "10.0.0.0/8",
        "0.0.0.0/0",
        "10.1.2.3/32",
        "10.1.2.3",
        "::/0",
        "2001:db8::/32",
        "::1/128",
        "::1",
        "::ffff:10.0.0.0/104",
    ] {
        accepted(|row| row.addresses = Some(some(&[good])));
    }
    for bad in [
        "",
        "10.0.0.0/33",
        "::/129",
        "10.0.0/8",
        "host",
        "10.0.0.0/",
        "/8",
        "10.0.0.0/8/8",
        "10.0.0.0/-1",
        "::1%lo/128",
        " ::1",
    ] {
        refused("\"addresses\"", |row| row.addresses = Some(some(&[bad])));
    }
    refused("at least one network", |row| row.addresses = Some(vec![]));
    refused("nulls", |row| row.addresses = Some(vec![None]));
    refused("twice", |row| row.addresses = Some(some(&["::1/128", "::1/128"])));
}

#[test]
fn kinds_of_connection() {
    accepted(|row| row.replication = Some(true));
    refused("\"replication\" of a rule that allows must be true or false", |row| row.replication = None);
    for replication in [None, Some(true), Some(false)] {
        accepted(|row| {
            deny(row);
            row.replication = replication;
        });
    }
}

#[test]
fn validity() {
    let between = |from, until| move |row: &mut RuleRow| (row.valid_from, row.valid_until) = (from, until);
    for (from, until) in [
        (None, None),
        (Some(0), Some(1)),
        (Some(i64::MIN), Some(i64::MAX)),
        (Some(i64::MIN), Some(i64::MIN + 1)),
        (None, Some(i64::MIN + 1)),
        (Some(i64::MAX - 1), None),
    ] {
        accepted(between(from, until));
    }
    for (from, until) in [
        (Some(1), Some(1)),
        (Some(2), Some(1)),
        // infinity, and -infinity
        (Some(i64::MAX), None),
        (None, Some(i64::MIN)),
        (Some(i64::MAX), Some(i64::MAX)),
        (Some(i64::MIN), Some(i64::MIN)),
    ] {
        refused("\"valid_until\" must be later than \"valid_from\"", between(from, until));
    }
}

#[test]
fn names_in_messages_are_escaped_and_short() {
    let message = refused("", |row| row.matches = json!({"x\n\"y": ["a"]}).to_string()).message;
    assert!(message.contains(r#""x\n\"y""#), "{message}");
    let long = refused("", |row| row.matches = json!({"n".repeat(2000): ["a"]}).to_string());
    assert!(long.message.len() < 300);
    let long = refused("", |row| row.matches = json!({"a": {"o".repeat(9000): 1}}).to_string());
    assert!(long.message.len() < 300);
    let many: serde_json::Value = (0..500).map(|number| (format!("{number:0>100}"), json!(1))).collect();
    let long = refused("", |row| row.matches = json!({ "a": many }).to_string());
    assert!(long.detail.unwrap().len() < 1000);
    let long = refused("", |row| row.effect = "e".repeat(limits::MATCH_BYTES));
    assert!(long.detail.unwrap().len() < 300);
}
