//! The language of `match` against an evaluator that is slow and obvious, and knows nothing of the code under test.
//!
//! 1. whole policies: members, operators, deny rules, priorities, untrusted e-mail addresses
//! 2. what each operator says of missing claims, nulls, arrays and mixed types
//! 3. n090: an e-mail address that nobody has verified
//! 4. n095: scopes are words

use pg_oidc_core::decision::Request;
use pg_oidc_core::rules::RuleRow;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::common::{Policy, World, claims, claims_with, rule_row, token};
use crate::oracle::{Choices, Re, expression, fits, glob_fits, written};

/// A member's value.
#[derive(Debug, Clone)]
enum Test {
    Plain(Value),
    Any(Vec<Test>),
    Not(Box<Test>),
    Exists(bool),
    Glob(String),
    Regex(Re, String),
}

#[derive(Debug, Clone)]
struct Rule {
    members: Vec<(&'static str, Test)>,
    deny: bool,
    priority: i32,
    role: &'static str,
}

const ROLES: [&str; 3] = ["reader", "writer", "owner"];

impl Test {
    fn json(&self) -> Value {
        match self {
            Test::Plain(value) => value.clone(),
            Test::Any(tests) => json!({"any": tests.iter().map(Test::json).collect::<Vec<_>>()}),
            Test::Not(test) => json!({"not": test.json()}),
            Test::Exists(wanted) => json!({ "exists": wanted }),
            Test::Glob(glob) => json!({ "glob": glob }),
            Test::Regex(_, text) => json!({ "regex": text }),
        }
    }

    fn holds(&self, claims: &Value, name: &str) -> bool {
        let values = values(claims, name);
        let string =
            |fits: &dyn Fn(&str) -> bool| values.iter().any(|value| value.as_str().is_some_and(fits));
        match self {
            Test::Plain(wanted) => values.iter().any(|value| equal(value, wanted)),
            Test::Any(tests) => tests.iter().any(|test| test.holds(claims, name)),
            Test::Not(test) => !test.holds(claims, name),
            Test::Exists(wanted) => found(claims, name).is_some() == *wanted,
            Test::Glob(glob) => {
                let chars = |text: &str| text.chars().collect::<Vec<_>>();
                string(&|text| glob_fits(&chars(glob), &chars(text)))
            }
            Test::Regex(re, _) => string(&|text| fits(re, text)),
        }
    }
}

fn found<'a>(claims: &'a Value, name: &str) -> Option<&'a Value> {
    if name.starts_with('/') { claims.pointer(name) } else { claims.get(name) }
}

/// What counts as the values of a claim.
fn values(claims: &Value, name: &str) -> Vec<Value> {
    match found(claims, name) {
        None => vec![],
        Some(Value::String(words)) if ["scope", "scp", "/scope", "/scp"].contains(&name) => {
            words.split(' ').filter(|word| !word.is_empty()).map(Value::from).collect()
        }
        Some(Value::Array(elements)) => elements.clone(),
        Some(value) => vec![value.clone()],
    }
}

fn equal(value: &Value, wanted: &Value) -> bool {
    match (value.as_f64(), wanted.as_f64()) {
        // The numbers of this file are small enough.
        (Some(value), Some(wanted)) => value.total_cmp(&wanted).is_eq(),
        _ => value == wanted,
    }
}

impl Rule {
    fn row(&self, id: i64) -> RuleRow {
        let members: Map<String, Value> =
            self.members.iter().map(|(name, test)| ((*name).to_owned(), test.json())).collect();
        let row = RuleRow { priority: self.priority, ..rule_row(id, &members.into(), self.role) };
        match self.deny {
            true => RuleRow { effect: "deny".to_owned(), role: None, replication: None, ..row },
            false => row,
        }
    }

    fn matches(&self, claims: &Value) -> bool {
        let trusted = claims.get("email_verified") == Some(&Value::Bool(true));
        self.members.iter().all(|(name, test)| {
            let email = name.trim_start_matches('/').split('/').next() == Some("email");
            match (email && !trusted, self.deny) {
                (false, _) => test.holds(claims, name),
                (true, false) => false,
                // An address that nobody has verified saves nobody from a denial.
                (true, true) => test.holds(claims, name) || test.holds(&Value::Null, name),
            }
        })
    }
}

/// What `user` gets: the rule that decides, or the code of the refusal.
fn expected(rules: &[Rule], claims: &Value, user: &str) -> Result<i64, &'static str> {
    let numbered = || rules.iter().zip(1_i64..).filter(|(rule, _)| rule.matches(claims));
    if numbered().any(|(rule, _)| rule.deny) {
        return Err("denied_by_rule");
    }
    let first = numbered().filter(|(rule, _)| rule.role == user).map(|(rule, id)| (rule.priority, id)).min();
    match first {
        Some((_, id)) => Ok(id),
        None if numbered().next().is_some() => Err("user_not_mapped"),
        None => Err("no_rule"),
    }
}

const TEXTS: &[&str] = &["a", "b", "ab", "ba", "A", "k", "\u{212a}", "1", "a/b", "aa"];

const NAMES: &[&str] = &[
    "x", "y", "/x", "/n/x", "/x/0", "/x/1/x", "/a~1b", "a/b", "email", "/email", "/email/0", "scope", "/scp",
    "scp", "gone",
];

fn plain() -> impl Strategy<Value = Value> {
    prop_oneof![
        6 => prop::sample::select(TEXTS).prop_map(Value::from),
        2 => prop::sample::select(vec![json!(1), json!(1.0), json!(2), json!(-1), json!(0), json!(10)]),
        2 => prop::sample::select(vec![json!(true), json!(false), json!(null)]),
    ]
}

/// Expressions that texts of this file often fit, and any others.
fn regex() -> impl Strategy<Value = Test> {
    let rest = || Re::Repeat { part: Re::Dot.into(), least: 0, most: None, lazy: false };
    let letter = || prop::sample::select(&['a', 'b', 'k', '1'][..]).prop_map(Re::Char);
    let re = prop_oneof![
        letter().prop_map(move |c| Re::All(vec![c, rest()])),
        letter().prop_map(move |c| Re::All(vec![rest(), c])),
        letter().prop_map(move |c| Re::All(vec![rest(), c, rest()])),
        (letter(), letter()).prop_map(|(a, b)| Re::OneOf(vec![a, b])),
        (letter(), letter()).prop_map(move |(a, b)| Re::All(vec![a, rest(), b])),
        expression(),
    ];
    (re, prop::collection::vec(any::<u8>(), 30)).prop_map(|(re, spelling)| {
        let text = written(&re, &mut Choices(spelling.iter()));
        Test::Regex(re, text)
    })
}

fn test() -> impl Strategy<Value = Test> {
    let leaf = prop_oneof![
        6 => plain().prop_map(Test::Plain),
        1 => any::<bool>().prop_map(Test::Exists),
        2 => prop::sample::select(&["a*", "*b", "**", "?", "a/*", "*a*", "ab", "?b"][..])
            .prop_map(|glob| Test::Glob(glob.to_owned())),
        2 => regex(),
    ];
    leaf.prop_recursive(3, 8, 3, |part| {
        prop_oneof![
            prop::collection::vec(part.clone(), 1..4).prop_map(Test::Any),
            part.prop_map(|part| Test::Not(part.into())),
        ]
    })
}

fn rule() -> impl Strategy<Value = Rule> {
    let members = prop::collection::btree_map(prop::sample::select(NAMES), test(), 0..4);
    (members, 0..6_u8, -2..3_i32, prop::sample::select(&ROLES[..])).prop_map(
        |(members, deny, priority, role)| Rule {
            members: members.into_iter().collect(),
            deny: deny == 0,
            priority,
            role,
        },
    )
}

fn claim() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => plain(),
        4 => prop::collection::vec(plain(), 0..4).prop_map(Value::from),
        1 => Just(json!({"x": "a"})),
        1 => Just(json!(["b", {"x": "a"}, ["a"], null, 1])),
        2 => prop::sample::select(vec![json!("a b"), json!(" a  ab "), json!(""), json!(" ")]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn policies_decide_as_the_obvious_evaluator_does(
        rules in prop::collection::vec(rule(), 0..10),
        given in prop::collection::btree_map(
            prop::sample::select(&["x", "y", "a/b", "email", "scope", "scp"][..]), claim(), 2..7),
        nested in claim(),
        verified in prop::option::of(any::<bool>()),
    ) {
        let mut all = claims();
        for (name, value) in given {
            all[name] = value;
        }
        all["n"] = json!({ "x": nested });
        if let Some(verified) = verified {
            all["email_verified"] = verified.into();
        }
        let rows: Vec<RuleRow> = rules.iter().zip(1..).map(|(rule, id)| rule.row(id)).collect();
        let policy = Policy::new(&rows);
        let verified = World::new().verified(&token(&all)).unwrap();
        for user in ROLES {
            let found = policy.decide(&verified, &Request { user, ..World::new().request() });
            prop_assert_eq!(found, expected(&rules, &all, user), "{} {:?}", all, rows);
        }
    }
}

/// Whether a rule with this `match` matches a token with these claims.
fn matches(rule: Value, changes: Value) -> bool {
    let mut all = claims();
    all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    let outcome = |row| World::with_rules(vec![rule_row(2, &json!({}), "reader"), row]).outcome(&token(&all));
    let deny = RuleRow { effect: "deny".to_owned(), role: None, ..rule_row(1, &rule, "") };
    let denied = outcome(deny) == "denied_by_rule";
    let allowed = World::with_rules(vec![rule_row(1, &rule, "reader")]).outcome(&token(&all)) == "accepted";
    assert_eq!(allowed, denied, "{rule}");
    allowed
}

#[test]
fn operators_on_every_kind_of_claim() {
    let claims = [
        ("gone", json!({})),
        ("null", json!({"x": null})),
        ("a", json!({"x": "a"})),
        ("b", json!({"x": "b"})),
        ("[]", json!({"x": []})),
        ("[a, 1]", json!({"x": ["a", 1]})),
        ("[b, [a]]", json!({"x": ["b", ["a"]]})),
        ("{}", json!({"x": {"a": "a"}})),
        ("true", json!({"x": true})),
    ];
    for (rule, wanted) in [
        (json!("a"), &["a", "[a, 1]"][..]),
        (json!(null), &["null"]),
        (json!(true), &["true"]),
        (json!({"not": "a"}), &["gone", "null", "b", "[]", "[b, [a]]", "{}", "true"]),
        (json!({"not": {"not": "a"}}), &["a", "[a, 1]"]),
        (json!({"exists": true}), &["null", "a", "b", "[]", "[a, 1]", "[b, [a]]", "{}", "true"]),
        (json!({"exists": false}), &["gone"]),
        (json!({"not": {"exists": true}}), &["gone"]),
        (json!({"any": ["a", "b"]}), &["a", "b", "[a, 1]", "[b, [a]]"]),
        (json!({"any": [1, {"glob": "b*"}]}), &["b", "[a, 1]", "[b, [a]]"]),
        (json!({"any": [{"exists": false}, {"regex": "b"}]}), &["gone", "b", "[b, [a]]"]),
        (json!({"any": [{"any": ["a"]}]}), &["a", "[a, 1]"]),
        (json!({"not": {"any": ["a", "b", null]}}), &["gone", "[]", "{}", "true"]),
        (json!({"not": {"regex": "(?s).*"}}), &["gone", "null", "[]", "{}", "true"]),
        (json!({"glob": "?"}), &["a", "b", "[a, 1]", "[b, [a]]"]),
    ] {
        for (name, claims) in &claims {
            assert_eq!(matches(json!({ "x": rule }), claims.clone()), wanted.contains(name), "{rule} {name}");
        }
    }
}

#[test]
fn the_examples_of_the_language() {
    let token = json!({
        "groups": ["analytics-read", "pg-etl"],
        "realm_access": {"roles": ["dba"]},
        "email_verified": true,
        "repository": "acme/etl",
        "ref": "refs/heads/release-7",
        "amr": ["pwd", "mfa"],
        "env": "prod",
        "tenant": "t",
    });
    for rule in [
        json!({"groups": "analytics-read"}),
        json!({"/realm_access/roles": "dba", "email_verified": true}),
        json!({"repository": "acme/etl", "ref": {"glob": "refs/heads/release-*"}}),
        json!({"groups": {"regex": "pg-(.+)"}}),
        json!({"amr": {"any": ["mfa", "hwk"]}, "env": {"not": "dev"}, "tenant": {"exists": true}}),
    ] {
        assert!(matches(rule.clone(), token.clone()), "{rule}");
        // Each member counts.
        for name in rule.as_object().unwrap().keys() {
            let mut near = token.clone();
            let top = name.trim_start_matches('/').split('/').next().unwrap();
            near[top] = if name == "env" { json!(["prod", "dev"]) } else { json!("other") };
            near.as_object_mut().unwrap().retain(|claim, _| !(claim == "tenant" && name == "tenant"));
            assert!(!matches(rule.clone(), near), "{rule} {name}");
        }
    }
}

/// Whether the test holds for a claim that is missing.
fn holds_without(test: &Value) -> bool {
    match (test.get("not"), test.get("any").and_then(Value::as_array)) {
        (Some(test), _) => !holds_without(test),
        (_, Some(tests)) => tests.iter().any(holds_without),
        _ => test.get("exists") == Some(&Value::Bool(false)),
    }
}

#[test]
fn n090_an_unverified_address_gives_nothing_and_denies() {
    let allow = |test: &Value| rule_row(1, &json!({"email": test}), "reader");
    let deny = |test: &Value| RuleRow {
        effect: "deny".to_owned(),
        role: None,
        ..rule_row(2, &json!({"email": test}), "")
    };
    let all = rule_row(3, &json!({}), "reader");
    for (test, holds) in [
        (json!("a@corp.example"), true),
        (json!({"regex": ".*@corp\\.example"}), true),
        (json!({"glob": "*@corp.example"}), true),
        (json!({"any": ["a@corp.example", "b"]}), true),
        (json!({"exists": true}), true),
        (json!({"not": "b@corp.example"}), true),
        (json!({"exists": false}), false),
        (json!({"not": {"exists": true}}), false),
        (json!("b@corp.example"), false),
        (json!({"not": {"glob": "*@corp.example"}}), false),
        (json!({"any": [{"not": {"glob": "*@corp.example"}}, "b"]}), false),
    ] {
        for (verified, trusted) in [
            (json!(true), true),
            (json!(false), false),
            (json!("true"), false),
            (json!(1), false),
            (json!(null), false),
        ] {
            let token = token(&claims_with(json!({"email": "a@corp.example", "email_verified": verified})));
            let outcome = World::with_rules(vec![allow(&test)]).outcome(&token);
            assert_eq!(outcome, if trusted && holds { "accepted" } else { "no_rule" }, "{test} {verified}");
            let outcome = World::with_rules(vec![deny(&test), all.clone()]).outcome(&token);
            // Nor does an unverified address save anybody from a denial.
            let denied = holds || !trusted && holds_without(&test);
            assert_eq!(outcome, if denied { "denied_by_rule" } else { "accepted" }, "{test} {verified}");
        }
        // Not there at all: nothing to trust, `not` and `exists` included.
        assert_ne!(World::with_rules(vec![allow(&test)]).outcome(&token(&claims())), "accepted", "{test}");
    }
    // A pointer to it, or into it, is no way around.
    let token = token(&claims_with(json!({"email": ["a@corp.example"]})));
    for name in ["/email", "/email/0"] {
        let rule = rule_row(1, &json!({name: "a@corp.example"}), "reader");
        assert_eq!(World::with_rules(vec![rule]).outcome(&token), "no_rule", "{name}");
    }
    let other = rule_row(1, &json!({"emails": "a@corp.example"}), "reader");
    let token = crate::common::token(&claims_with(json!({"emails": ["a@corp.example"]})));
    assert_eq!(World::with_rules(vec![other]).outcome(&token), "accepted");
}

#[test]
fn n095_scopes_are_words() {
    for (test, scope, holds) in [
        (json!("db:read"), json!("openid db:read"), true),
        (json!("db:read"), json!(["openid", "db:read"]), true),
        (json!("db:read"), json!("db:reader db"), false),
        (json!("db:read"), json!("openid\tdb:read"), false),
        (json!("db:read"), json!(["openid db:read"]), false),
        (json!({"not": "db:write"}), json!("openid db:read"), true),
        (json!({"not": "db:write"}), json!("db:write openid"), false),
        (json!({"glob": "db:*"}), json!("openid db:read"), true),
        (json!({"glob": "openid*"}), json!("openid db:read"), true),
        (json!({"glob": "openid?db:read"}), json!("openid db:read"), false),
        (json!({"regex": ".*"}), json!(""), false),
        (json!({"regex": "db:.* .*"}), json!("db:read openid"), false),
        (json!({"any": ["a", "openid"]}), json!("  openid "), true),
        (json!({"exists": true}), json!(""), true),
    ] {
        for name in ["scope", "scp", "/scope"] {
            let claim = name.trim_start_matches('/');
            assert_eq!(
                matches(json!({ name: test }), json!({ claim: scope })),
                holds,
                "{test} {scope} {name}"
            );
        }
    }
    // Only there.
    assert!(!matches(json!({"note": "a"}), json!({"note": "a b"})));
    assert!(!matches(json!({"/n/scope": "a"}), json!({"n": {"scope": "a b"}})));
}
