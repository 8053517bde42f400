//! B6, from identity to role.

use pg_oidc_core::limits::SECOND;
use pg_oidc_core::rules::RuleRow;
use serde_json::{Value, json};

use crate::common::{ROLE_OID, World, claims, claims_with, provider_row, rule_row, token, token_raw};

fn matches(rule: Value, changes: Value) -> bool {
    let world = World::with_rules(vec![rule_row(1, &rule, "reader")]);
    match world.outcome(&token(&claims_with(changes))) {
        "accepted" => true,
        "no_rule" => false,
        other => panic!("{other}"),
    }
}

#[test]
fn n098_no_rule() {
    let token = token(&claims());
    assert_eq!(World::with_rules(vec![]).outcome(&token), "no_rule");
    assert_eq!(
        World::with_rules(vec![rule_row(1, &json!({"groups": "admins"}), "reader")]).outcome(&token),
        "no_rule"
    );
    let disabled = RuleRow { enabled: false, ..rule_row(1, &json!({"groups": "readers"}), "reader") };
    assert_eq!(World::with_rules(vec![disabled]).outcome(&token), "no_rule");
    let elsewhere = RuleRow { provider: "other".to_owned(), ..rule_row(1, &json!({}), "reader") };
    assert_eq!(World::with_rules(vec![elsewhere]).outcome(&token), "no_rule");
    assert_eq!(World::with_rules(vec![rule_row(1, &json!({}), "reader")]).outcome(&token), "accepted");
}

#[test]
fn n099_priority_then_id() {
    let token = token(&claims());
    let rule = |id, priority, groups: &str| RuleRow {
        priority,
        ..rule_row(id, &json!({"groups": groups}), "reader")
    };
    let first = |rules| World::with_rules(rules).login(&token).unwrap().rule_id;
    assert_eq!(first(vec![rule(2, 100, "readers"), rule(1, 100, "staff")]), 1);
    assert_eq!(first(vec![rule(1, 100, "readers"), rule(2, 99, "staff")]), 2);
    assert_eq!(first(vec![rule(1, 0, "readers"), rule(2, -1, "staff"), rule(3, i32::MIN, "others")]), 2);
    assert_eq!(first(vec![rule(-5, 1, "readers"), rule(i64::MAX, 1, "staff")]), -5);
    // A rule of higher rank for another role does not hide one for the role that is asked for.
    let other = RuleRow { priority: 1, ..rule_row(1, &json!({"groups": "readers"}), "writer") };
    let world = World::with_rules(vec![other, rule(2, 100, "readers")]);
    assert_eq!(world.login(&token).unwrap().rule_id, 2);
    assert_eq!(World { user: "writer", ..world }.login(&token).unwrap().rule_id, 1);
}

#[test]
fn n100_another_user() {
    let token = token(&claims());
    for user in
        ["admin", "Reader", "READER", "reader ", "", "u1", "reade", "readers", "public", "none", "pg_monitor"]
    {
        assert_eq!(World { user, ..World::new() }.outcome(&token), "user_not_mapped", "{user}");
    }
}

#[test]
fn n101_privilege_is_carried() {
    let token = token(&claims());
    let rule = |id, priority, allow_privileged| RuleRow {
        allow_privileged,
        priority,
        ..rule_row(id, &json!({"groups": "readers"}), "reader")
    };
    let privileged = |rules| World::with_rules(rules).login(&token).unwrap().allow_privileged;
    assert!(!privileged(vec![rule(1, 1, false)]));
    assert!(privileged(vec![rule(1, 1, true)]));
    assert!(!privileged(vec![rule(1, 1, false), rule(2, 2, true)]));
}

#[test]
fn rules_are_for_their_databases() {
    let rule = |databases: Option<Vec<&str>>| RuleRow {
        databases: databases.map(|names| names.into_iter().map(|name| Some(name.to_owned())).collect()),
        ..rule_row(1, &json!({"groups": "readers"}), "reader")
    };
    let outcome = |databases, database| {
        World { database, ..World::with_rules(vec![rule(databases)]) }.outcome(&token(&claims()))
    };
    assert_eq!(outcome(None, "app"), "accepted");
    assert_eq!(outcome(Some(vec!["app"]), "app"), "accepted");
    assert_eq!(outcome(Some(vec!["other", "app"]), "app"), "accepted");
    for near in ["App", "app2", "ap", "", "all", "replication"] {
        assert_eq!(outcome(Some(vec!["app"]), near), "no_rule", "{near}");
    }
    assert_eq!(outcome(Some(vec!["all"]), "app"), "no_rule");
}

#[test]
fn values_are_equal_or_contained() {
    assert!(matches(json!({"groups": "staff"}), json!({})));
    assert!(!matches(json!({"groups": "Staff"}), json!({})));
    assert!(!matches(json!({"groups": "staf"}), json!({})));
    assert!(!matches(json!({"staff": "groups"}), json!({})));
    assert!(matches(json!({"tenant": "t"}), json!({"tenant": "t"})));
    assert!(!matches(json!({"tenant": "t"}), json!({"tenant": {"t": "t"}})));
    assert!(!matches(json!({"tenant": "t"}), json!({"tenant": [["t"]]})));
    assert!(matches(json!({"mfa": true}), json!({"mfa": true})));
    assert!(!matches(json!({"mfa": true}), json!({"mfa": "true"})));
    assert!(!matches(json!({"mfa": true}), json!({"mfa": 1})));
    assert!(!matches(json!({"mfa": false}), json!({})));
    assert!(!matches(json!({"level": "1"}), json!({"level": 1})));
    // é, composed and decomposed: strings are bytes.
    assert!(!matches(json!({"name": "\u{e9}"}), json!({"name": "e\u{301}"})));
    // Null is a value, and a missing claim has none.
    assert!(!matches(json!({"x": null}), json!({})));
    assert!(matches(json!({"x": null}), json!({"x": [null]})));
}

#[test]
fn every_member_must_hold() {
    let both = json!({"groups": "staff", "tenant": "t"});
    assert!(matches(both.clone(), json!({"tenant": "t"})));
    assert!(!matches(both.clone(), json!({"tenant": "u"})));
    assert!(!matches(both, json!({"tenant": "t", "groups": ["readers"]})));
}

#[test]
fn numbers_are_exact() {
    let token_with = |number: &str| {
        let mut text = claims().to_string();
        text.truncate(text.len() - 1);
        token_raw(format!("{text},\"n\":{number}}}"))
    };
    let holds = |rule: &str, claim: &str| {
        let row = RuleRow { matches: format!("{{\"n\":{rule}}}"), ..rule_row(1, &json!({}), "reader") };
        World::with_rules(vec![row]).outcome(&token_with(claim)) == "accepted"
    };
    for (rule, claim) in [
        ("1", "1.0"),
        ("1", "1e0"),
        ("10", "1E1"),
        ("1", "10e-1"),
        ("0.5", "5e-1"),
        ("0", "-0.0"),
        ("-1", "-1.00"),
        ("9007199254740993", "9007199254740993"),
        ("1e1000", "10e999"),
    ] {
        assert!(holds(rule, claim), "{rule} {claim}");
        assert!(holds(claim, rule), "{claim} {rule}");
    }
    for (rule, claim) in [
        ("9007199254740993", "9007199254740992"),
        ("12345678901234567890123", "12345678901234567890124"),
        ("0.1", "0.10000000000000000001"),
        ("1", "-1"),
        ("1", "10"),
        ("1", "1e1"),
        ("0", "1e-1000"),
    ] {
        assert!(!holds(rule, claim), "{rule} {claim}");
    }
}

#[test]
fn pointers() {
    let nested = json!({"realm_access": {"roles": ["dba"]}, "a/b": {"m~n": "x"}, "list": ["zero", "one"]});
    assert!(matches(json!({"/realm_access/roles": "dba"}), nested.clone()));
    assert!(!matches(json!({"realm_access": "dba"}), nested.clone()));
    assert!(!matches(json!({"/realm_access/role": "dba"}), nested.clone()));
    assert!(!matches(json!({"realm_access/roles": "dba"}), nested.clone()));
    assert!(matches(json!({"/a~1b/m~0n": "x"}), nested.clone()));
    assert!(matches(json!({"/list/0": "zero"}), nested.clone()));
    assert!(matches(json!({"/list/1": "one"}), nested.clone()));
    for pointer in ["/list/01", "/list/-", "/list/2", "/list/+1", "/list/1/0", "/list/18446744073709551616"] {
        assert!(!matches(json!({pointer: "one"}), nested.clone()), "{pointer}");
    }
    // Names that look like paths are names.
    let named = json!({"https://corp.example/groups": "g", "cognito:groups": ["c"], "a.b": "d", "": "e"});
    assert!(matches(json!({"https://corp.example/groups": "g"}), named.clone()));
    assert!(matches(json!({"cognito:groups": "c"}), named.clone()));
    assert!(matches(json!({"a.b": "d"}), named.clone()));
    assert!(matches(json!({"/": "e"}), named));
}

#[test]
fn a_changed_provider_is_noticed_between_verify_and_decide() {
    use pg_oidc_core::decision::decide;
    use pg_oidc_core::image::{PolicyImage, check_policy, encode_policy};
    use pg_oidc_core::provider::compile_provider;
    use pg_oidc_core::rules::compile_rule;

    let verified = World::new().verified(&token(&claims())).unwrap();
    let decide_with = |row| {
        let rules = vec![compile_rule(&rule_row(1, &json!({}), "reader")).unwrap()];
        let image = PolicyImage::build(vec![compile_provider(&row, false).unwrap()], rules).unwrap();
        let bytes = encode_policy(&image).unwrap();
        let policy = check_policy(&bytes).unwrap();
        decide(policy, &verified, &World::new().request()).map_err(|refusal| refusal.code())
    };
    assert!(decide_with(provider_row()).is_ok());
    let mut changed = provider_row();
    changed.max_token_age_us = Some(60 * SECOND);
    assert_eq!(decide_with(changed).unwrap_err(), "policy_changed");
    let mut disabled = provider_row();
    disabled.enabled = false;
    assert_eq!(decide_with(disabled).unwrap_err(), "provider_disabled");
    let mut moved = provider_row();
    moved.issuer = "https://moved.example".to_owned();
    assert_eq!(decide_with(moved).unwrap_err(), "issuer_unknown");
}

#[test]
fn n108_a_rule_for_a_role_that_was_made_anew_is_inactive() {
    let token = token(&claims());
    let rule = |id, role_oid| RuleRow { role_oid, ..rule_row(id, &json!({}), "reader") };
    let made_anew = |rules| World { role_oid: 20_000, ..World::with_rules(rules) };
    assert_eq!(made_anew(vec![rule(1, ROLE_OID)]).outcome(&token), "role_replaced");
    assert_eq!(
        made_anew(vec![rule(1, 0)]).outcome(&token),
        "role_replaced",
        "written before there was a role"
    );
    // It does not stand in the way of one that was written since.
    assert_eq!(made_anew(vec![rule(1, ROLE_OID), rule(2, 20_000)]).login(&token).unwrap().rule_id, 2);
    let gone = World { role_oid: 0, ..World::with_rules(vec![rule(1, 0)]) };
    assert_eq!(gone.outcome(&token), "role_missing");
}
