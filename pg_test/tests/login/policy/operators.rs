//! The operators of `match`, each with what nearly matches.
//!
//! 1. `any`, `not`, `exists`, nested.
//! 2. `glob`: `*` stops at `/`, `**` does not, `?` is one character, everything else is itself.
//! 3. n096: a regular expression fits the whole value, whatever flags it sets; its classes are ASCII.
//! 4. Several operators in one rule must all hold.

use anyhow::Result;
use serde_json::json;

use super::matching::judge;

#[test]
fn any_of_values_and_operators() -> Result<()> {
    judge(
        "any",
        vec![
            (
                json!({ "amr": { "any": ["mfa", "hwk"] } }),
                vec![json!({ "amr": "mfa" }), json!({ "amr": ["pwd", "hwk"] })],
                vec![
                    json!({}),
                    json!({ "amr": "MFA" }),
                    json!({ "amr": ["pwd"] }),
                    json!({ "amr": [] }),
                    json!({ "amr": "mfa,hwk" }),
                    json!({ "amr": "mfa hwk" }),
                    json!({ "amr": { "mfa": true } }),
                    json!({ "amr": [["mfa"]] }),
                    json!({ "amr": null }),
                ],
            ),
            (
                json!({ "env": { "any": [{ "glob": "prod-*" }, { "regex": "v[0-9]+" }, "test", 3] } }),
                vec![
                    json!({ "env": "prod-eu" }),
                    json!({ "env": "v12" }),
                    json!({ "env": ["x", "test"] }),
                    json!({ "env": 3 }),
                ],
                vec![
                    json!({ "env": "prod" }),
                    json!({ "env": "prod-eu/x" }),
                    json!({ "env": "v12x" }),
                    json!({ "env": "3" }),
                    json!({ "env": 3.5 }),
                ],
            ),
            (
                json!({ "env": { "any": [{ "exists": false }, { "not": { "any": ["dev", "test"] } }] } }),
                vec![json!({}), json!({ "env": "prod" }), json!({ "env": null })],
                vec![json!({ "env": "dev" }), json!({ "env": ["prod", "test"] })],
            ),
        ],
    )
}

#[test]
fn not_and_exists() -> Result<()> {
    judge(
        "negated",
        vec![
            (
                json!({ "env": { "not": "dev" } }),
                vec![
                    json!({}),
                    json!({ "env": "prod" }),
                    json!({ "env": ["prod", "test"] }),
                    json!({ "env": [] }),
                    json!({ "env": "Dev" }),
                    json!({ "env": null }),
                ],
                vec![json!({ "env": "dev" }), json!({ "env": ["prod", "dev"] })],
            ),
            (
                json!({ "ref": { "not": { "glob": "refs/heads/dev-*" } } }),
                vec![json!({ "ref": "refs/heads/main" }), json!({ "ref": "refs/heads/dev-a/b" })],
                vec![
                    json!({ "ref": "refs/heads/dev-a" }),
                    json!({ "ref": ["refs/heads/main", "refs/heads/dev-a"] }),
                ],
            ),
            (
                json!({ "env": { "not": { "not": "dev" } } }),
                vec![json!({ "env": "dev" }), json!({ "env": ["prod", "dev"] })],
                vec![json!({}), json!({ "env": "prod" })],
            ),
            (
                json!({ "tenant": { "exists": true } }),
                vec![
                    json!({ "tenant": null }),
                    json!({ "tenant": "" }),
                    json!({ "tenant": [] }),
                    json!({ "tenant": false }),
                    json!({ "tenant": {} }),
                ],
                vec![json!({}), json!({ "Tenant": 1 }), json!({ "x": { "tenant": 1 } })],
            ),
            (
                json!({ "tenant": { "exists": false } }),
                vec![json!({}), json!({ "tenants": 1 })],
                vec![json!({ "tenant": null }), json!({ "tenant": false }), json!({ "tenant": [] })],
            ),
            (
                json!({ "/a/b": { "exists": true } }),
                vec![json!({ "a": { "b": null } })],
                vec![json!({ "a": {} }), json!({ "a": ["b"] }), json!({ "/a/b": 1 }), json!({ "a/b": 1 })],
            ),
            (
                json!({ "tenant": { "not": { "exists": true } } }),
                vec![json!({})],
                vec![json!({ "tenant": null })],
            ),
            (
                json!({ "env": { "not": "dev" }, "amr": { "any": ["mfa"] }, "team": { "exists": true } }),
                vec![json!({ "amr": ["mfa"], "team": 1 })],
                vec![
                    json!({ "amr": ["mfa"], "team": 1, "env": "dev" }),
                    json!({ "amr": ["pwd"], "team": 1 }),
                    json!({ "amr": ["mfa"] }),
                ],
            ),
        ],
    )
}

#[test]
fn globs() -> Result<()> {
    judge(
        "globbed",
        vec![
            (
                json!({ "ref": { "glob": "refs/heads/release-*" } }),
                vec![
                    json!({ "ref": "refs/heads/release-1" }),
                    json!({ "ref": "refs/heads/release-" }),
                    json!({ "ref": ["x", "refs/heads/release-2"] }),
                ],
                vec![
                    json!({}),
                    json!({ "ref": "refs/heads/release" }),
                    json!({ "ref": "refs/heads/release-1/x" }),
                    json!({ "ref": "xrefs/heads/release-1" }),
                    json!({ "ref": "refs/heads/Release-1" }),
                    json!({ "ref": { "refs/heads/release-1": 1 } }),
                    json!({ "ref": [["refs/heads/release-1"]] }),
                ],
            ),
            (
                json!({ "path": { "glob": "acme/**/x" } }),
                vec![json!({ "path": "acme/a/x" }), json!({ "path": "acme/a/b/x" })],
                vec![
                    json!({ "path": "acme/x" }),
                    json!({ "path": "acme/a/xx" }),
                    json!({ "path": "acme/a/X" }),
                ],
            ),
            (
                json!({ "env": { "glob": "env-?" } }),
                vec![json!({ "env": "env-1" }), json!({ "env": "env-é" })],
                vec![json!({ "env": "env-" }), json!({ "env": "env-12" }), json!({ "env": "env" })],
            ),
            (
                json!({ "v": { "glob": "a.b+c[1](x)\\d^$|{2}" } }),
                vec![json!({ "v": "a.b+c[1](x)\\d^$|{2}" })],
                vec![
                    json!({ "v": "aXb+c[1](x)\\d^$|{2}" }),
                    json!({ "v": "a.bbc1x7" }),
                    json!({ "v": "{2}" }),
                ],
            ),
            (
                json!({ "n": { "glob": "1*" } }),
                vec![json!({ "n": "1" })],
                vec![json!({ "n": 1 }), json!({ "n": 12 })],
            ),
        ],
    )
}

#[test]
fn n096_regular_expression_fits_the_whole_value() -> Result<()> {
    let only_admin = || {
        vec![
            json!({ "g": "xadmin" }),
            json!({ "g": "admins" }),
            json!({ "g": "admin\n" }),
            json!({ "g": "\nadmin" }),
        ]
    };
    let lines =
        || vec![json!({ "g": "x\nadmin" }), json!({ "g": "admin\nx" }), json!({ "g": "x\nadmin\nx" })];
    let admin = || vec![json!({ "g": "admin" }), json!({ "g": ["x", "admin"] })];
    let all = |one: Vec<serde_json::Value>, two: Vec<serde_json::Value>| one.into_iter().chain(two).collect();
    judge(
        "n096",
        vec![
            (json!({ "g": { "regex": "admin" } }), admin(), all(only_admin(), lines())),
            (json!({ "g": { "regex": "^admin$" } }), admin(), all(only_admin(), lines())),
            // Flags that make ^ and $ fit at lines, or . fit line breaks, do not move the ends.
            (json!({ "g": { "regex": "(?m)^admin$" } }), admin(), all(only_admin(), lines())),
            (json!({ "g": { "regex": "(?ms)^admin$" } }), admin(), all(only_admin(), lines())),
            (
                json!({ "g": { "regex": "(?x) admin " } }),
                admin(),
                all(only_admin(), vec![json!({ "g": " admin " })]),
            ),
            (
                json!({ "g": { "regex": "(?i)admins" } }),
                vec![json!({ "g": "ADMINs" })],
                vec![json!({ "g": "ADMİNS" }), json!({ "g": "admin\u{17f}" }), json!({ "g": "xADMINS" })],
            ),
            (
                json!({ "g": { "regex": "a|b" } }),
                vec![json!({ "g": "a" }), json!({ "g": "b" })],
                vec![json!({ "g": "ab" }), json!({ "g": "xb" }), json!({ "g": "ax" }), json!({ "g": "a|b" })],
            ),
            (
                json!({ "g": { "regex": "pg-.+" } }),
                vec![json!({ "g": "pg-x" })],
                vec![
                    json!({ "g": "pg-" }),
                    json!({ "g": "xpg-x" }),
                    json!({ "g": "pg-x\n" }),
                    json!({ "g": "PG-x" }),
                ],
            ),
            (
                json!({ "g": { "regex": "\\w\\d" } }),
                vec![json!({ "g": "a1" })],
                vec![json!({ "g": "а1" }), json!({ "g": "a١" }), json!({ "g": "é1" })],
            ),
            (json!({ "n": { "regex": "\\d+" } }), vec![json!({ "n": "12" })], vec![json!({ "n": 12 })]),
        ],
    )
}
