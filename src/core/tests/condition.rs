//! A `match` in words.
//!
//! 1. Each operator of the language, alone, negated and inside `any`.
//! 2. What the language does not know is shown as its JSON, never left out.
//! 3. One reads in one way: names and values with quotes, words of ours and characters that cannot be seen are escaped.
//! 4. What is no JSON object is an error.

use pg_oidc_core::condition::describe;

#[track_caller]
fn reads(pairs: &[(&str, &str)]) {
    for (condition, words) in pairs {
        assert_eq!(&describe(condition).unwrap(), words, "{condition}");
    }
}

#[test]
fn plain_values() {
    reads(&[
        ("{}", "every token"),
        (r#"{"groups": "analytics-read"}"#, r#"groups has "analytics-read""#),
        (r#"{"/realm_access/roles": "dba"}"#, r#"/realm_access/roles has "dba""#),
        (r#"{"https://acme.example/roles": "dba"}"#, r#"https://acme.example/roles has "dba""#),
        (r#"{"cognito:groups": "dba"}"#, r#"cognito:groups has "dba""#),
        (r#"{"scope": "db:read"}"#, r#"scope has "db:read""#),
        (r#"{"subgroups": "x"}"#, r#"subgroups is "x""#),
        (r#"{"sub": "ci", "email_verified": true}"#, r#"sub is "ci" and email_verified is true"#),
        (r#"{"tier": 1, "left": null}"#, "tier is 1 and left is null"),
        // A number keeps its digits.
        (r#"{"account": 9007199254740993, "x": 1.50}"#, "account is 9007199254740993 and x is 1.50"),
    ]);
}

#[test]
fn operators() {
    reads(&[
        (r#"{"ref": {"glob": "refs/heads/release-*"}}"#, r#"ref like "refs/heads/release-*""#),
        (r#"{"groups": {"regex": "pg-(.+)"}}"#, r#"groups matches "pg-(.+)""#),
        (r#"{"amr": {"any": ["mfa", "hwk"]}}"#, r#"amr is one of "mfa", "hwk""#),
        (r#"{"groups": {"any": ["a", "b"]}}"#, r#"groups has one of "a", "b""#),
        (r#"{"tier": {"any": [1, true, null, "x"]}}"#, r#"tier is one of 1, true, null, "x""#),
        (
            r#"{"ref": {"any": ["main", {"glob": "release-*"}, {"not": "x"}]}}"#,
            r#"(ref is "main" or ref like "release-*" or ref is not "x")"#,
        ),
        (
            r#"{"ref": {"any": [{"any": ["a", "b"]}, {"exists": false}]}}"#,
            r#"(ref is one of "a", "b" or ref is not there)"#,
        ),
        (r#"{"tenant": {"exists": true}}"#, "tenant is there"),
        (r#"{"tenant": {"exists": false}}"#, "tenant is not there"),
        (
            r#"{"env": {"not": "dev"}, "groups": "a", "tenant": {"exists": true}}"#,
            r#"env is not "dev" and groups has "a" and tenant is there"#,
        ),
    ]);
}

#[test]
fn negated_operators() {
    reads(&[
        (r#"{"env": {"not": "dev"}}"#, r#"env is not "dev""#),
        (r#"{"groups": {"not": "dev"}}"#, r#"groups has not "dev""#),
        (r#"{"env": {"not": {"any": ["dev", "test"]}}}"#, r#"env is none of "dev", "test""#),
        (r#"{"groups": {"not": {"any": ["dev", "test"]}}}"#, r#"groups has none of "dev", "test""#),
        (r#"{"env": {"not": {"any": ["dev", {"glob": "t*"}]}}}"#, r#"not (env is "dev" or env like "t*")"#),
        (r#"{"env": {"not": {"glob": "t*"}}}"#, r#"env not like "t*""#),
        (r#"{"env": {"not": {"regex": "t.*"}}}"#, r#"env does not match "t.*""#),
        (r#"{"env": {"not": {"exists": true}}}"#, "env is not there"),
        (r#"{"env": {"not": {"exists": false}}}"#, "env is there"),
        (r#"{"env": {"not": {"not": "dev"}}}"#, r#"not (env is not "dev")"#),
    ]);
}

#[test]
fn unknown_is_shown_as_json() {
    reads(&[
        (r#"{"env": {"near": "dev"}}"#, r#"env {"near":"dev"}"#),
        (r#"{"env": {"glob": "a", "not": "b"}}"#, r#"env {"glob":"a","not":"b"}"#),
        (r#"{"env": {"exists": "yes"}}"#, r#"env {"exists":"yes"}"#),
        (r#"{"env": {"glob": 1}}"#, r#"env {"glob":1}"#),
        (r#"{"env": {"regex": null}}"#, r#"env {"regex":null}"#),
        (r#"{"env": {"any": "dev"}}"#, r#"env {"any":"dev"}"#),
        (r#"{"env": {"any": []}}"#, r#"env {"any":[]}"#),
        (r#"{"env": {}}"#, "env {}"),
        (r#"{"env": ["a", 1.0]}"#, r#"env ["a",1.0]"#),
        (r#"{"env": {"not": {"near": 1}}}"#, r#"env not {"near":1}"#),
        (r#"{"env": {"not": ["a"]}}"#, r#"env not ["a"]"#),
        (r#"{"env": {"any": ["a", {"near": 1}]}}"#, r#"(env is "a" or env {"near":1})"#),
    ]);
}

#[test]
fn reads_in_one_way() {
    reads(&[
        (r#"{"env": "x\" and sub is \"y"}"#, r#"env is "x\" and sub is \"y""#),
        (r#"{"env is \"x\" and sub": "y"}"#, r#""env is \"x\" and sub" is "y""#),
        (r#"{"": "y"}"#, r#""" is "y""#),
        (r#"{"über": "größe"}"#, r#""über" is "größe""#),
        // Greek for Latin in a name is at least quoted.
        (r#"{"gr\u03bfups": "a"}"#, "\"gr\u{3bf}ups\" is \"a\""),
        (r#"{"a": "it's\n\u001b[1m\\d"}"#, r#"a is "it's\n\u{1b}[1m\\d""#),
        // Right-to-left override, zero-width space.
        (r#"{"a": "\u202e\u200b"}"#, r#"a is "\u{202e}\u{200b}""#),
    ]);
}

#[test]
fn no_object_is_an_error() {
    for text in ["", "null", "[]", "1", "\"groups\"", "{", r#"{"a": 1, "a": 2}"#] {
        let error = describe(text).unwrap_err();
        assert_eq!(error.message, "could not read the condition", "{text}");
        assert!(error.detail.is_some_and(|detail| detail.ends_with('.')), "{text}");
    }
}
