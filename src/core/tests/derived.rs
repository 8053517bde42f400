//! Roles whose names come from a token: `\1`.
//!
//! 1. which names are given, and which are never: n102 reserved, n103 length, n105 and n106 characters
//! 2. which part of which element is group 1
//! 3. the role must exist; named and derived rules beside one another

use pg_oidc_core::decision::Request;
use pg_oidc_core::limits;
use pg_oidc_core::rules::RuleRow;
use serde_json::{Value, json};

use crate::common::{Policy, ROLE_OID, World, claims_with, rule_row, token};

/// What a rule that gives `role` for these groups does with somebody who asks for `user`.
fn outcome(role: &str, regex: &str, groups: Value, user: &str) -> Result<i64, &'static str> {
    let rule = RuleRow { role_oid: 0, ..rule_row(7, &json!({"groups": {"regex": regex}}), role) };
    let verified = World::new().verified(&token(&claims_with(json!({ "groups": groups })))).unwrap();
    Policy::new(&[rule]).decide(&verified, &Request { user, ..World::new().request() })
}

fn gives(role: &str, regex: &str, groups: Value, user: &str) -> bool {
    match outcome(role, regex, groups, user) {
        Ok(7) => true,
        Err("user_not_mapped" | "no_rule") => false,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_group_gives_the_role_of_its_name() {
    assert!(gives("\\1", "pg-(.+)", json!(["staff", "pg-reader"]), "reader"));
    for near in ["pg-reader", "Reader", "READER", "reade", "readerr", "staff", "", "\\1", "1"] {
        assert!(!gives("\\1", "pg-(.+)", json!(["staff", "pg-reader"]), near), "{near}");
    }
    assert!(gives("app_\\1_ro", "pg-(.+)", json!("pg-etl"), "app_etl_ro"));
    for near in ["etl", "app_etl", "etl_ro", "app__ro", "app_etl_ro2", "app_ETL_ro", "app_ro"] {
        assert!(!gives("app_\\1_ro", "pg-(.+)", json!("pg-etl"), near), "{near}");
    }
    // Several `\1`, and a part that is around and inside at once.
    assert!(gives("\\1\\1", "(.+)", json!("ab"), "abab"));
    assert!(!gives("\\1\\1", "(.+)", json!("ab"), "ab"));
    assert!(!gives("\\1\\1", "(.+)", json!("ab"), "ababab"));
    assert!(gives("\\1-x-\\1", "(.+)", json!("ab"), "ab-x-ab"));
    assert!(gives("a\\1a", "(.+)", json!("a"), "aaa"));
    assert!(!gives("a\\1a", "(.+)", json!("a"), "aa"));
    assert!(!gives("a\\1a", "(.+)", json!("a"), "a"));
}

#[test]
fn several_elements_give_several_roles() {
    let groups = json!(["pg-one", "other", "pg-two", 3, null, ["pg-four"], {"pg-five": "pg-five"}, "pg-one"]);
    for (user, wanted) in
        [("one", true), ("two", true), ("other", false), ("four", false), ("five", false), ("onetwo", false)]
    {
        assert_eq!(gives("\\1", "pg-(.+)", groups.clone(), user), wanted, "{user}");
    }
}

#[test]
fn words_of_a_scope_give_roles() {
    let rule = RuleRow { role_oid: 0, ..rule_row(7, &json!({"scope": {"regex": "db:(.+)"}}), "\\1") };
    let verified =
        World::new().verified(&token(&claims_with(json!({"scope": "openid db:read db:write"})))).unwrap();
    let decide = |user| {
        Policy::new(std::slice::from_ref(&rule))
            .decide(&verified, &Request { user, ..World::new().request() })
    };
    assert_eq!(decide("read"), Ok(7));
    assert_eq!(decide("write"), Ok(7));
    assert_eq!(decide("openid"), Err("user_not_mapped"));
    assert_eq!(decide("read db:write"), Err("user_not_mapped"));
}

#[test]
fn group_1_is_what_it_matched() {
    for (regex, claim, user, wanted) in [
        // One that took no part gives nothing, though the expression fits.
        ("(a)|b", "b", "b", false),
        ("(a)|b", "b", "", false),
        ("(a)|b", "a", "a", true),
        ("(a)?b", "b", "b", false),
        // One that is empty gives nothing.
        ("pg-(.*)", "pg-", "", false),
        ("pg-(.*)", "pg-", "pg-", false),
        ("(|a)b", "b", "b", false),
        // The last time round; the first alternative; the first and outermost group.
        ("(?:(.),?)+", "a,b", "b", true),
        ("(?:(.),?)+", "a,b", "a", false),
        ("(a+)(a*)", "aaa", "aaa", true),
        ("(a+?)(a*)", "aaa", "a", true),
        ("(a|ab)(.*)", "abc", "a", true),
        ("(a|ab)(.*)", "abc", "ab", false),
        ("((a)b)", "ab", "ab", true),
        ("(?:x)(?P<team>.+)", "xy", "y", true),
        ("(?i)PG-(.+)", "pg-Reader", "Reader", true),
        ("(?i)PG-(.+)", "pg-Reader", "reader", false),
    ] {
        assert_eq!(gives("\\1", regex, json!(claim), user), wanted, "{regex} {claim} {user}");
    }
    // The template never makes an empty part into a name.
    assert!(!gives("app_\\1", "pg-(.*)", json!("pg-"), "app_"));
    assert!(!gives("app_\\1x", "pg-(.*)", json!("pg-"), "app_x"));
}

#[test]
fn n102_reserved_names_are_never_made() {
    for (role, claim, user) in [
        ("\\1", "public", "public"),
        ("\\1", "none", "none"),
        ("\\1", "pg_monitor", "pg_monitor"),
        ("\\1", "pg_", "pg_"),
        ("p\\1", "g_monitor", "pg_monitor"),
        ("pg\\1", "_monitor", "pg_monitor"),
        ("publ\\1", "ic", "public"),
        ("\\1e", "non", "none"),
        ("n\\1\\1e", "on", "nonone"),
    ] {
        let given = gives(role, "(.+)", json!(claim), user);
        assert_eq!(given, user == "nonone", "{role} {claim}");
    }
    // Only those, to the letter.
    for name in ["Public", "NONE", "PG_x", "pgx", "publicx", "nones", "xpg_"] {
        assert!(gives("\\1", "(.+)", json!(name), name), "{name}");
    }
}

#[test]
fn n103_a_name_of_63_bytes_is_never_given() {
    assert_eq!(limits::ROLE_NAME_BYTES, 62);
    let name = |bytes: usize| "r".repeat(bytes);
    assert!(gives("\\1", "(.+)", json!(name(62)), &name(62)));
    assert!(!gives("\\1", "(.+)", json!(name(63)), &name(63)));
    // The user name comes cut to 63 bytes: no longer name is meant by it.
    assert!(!gives("\\1", "(.+)", json!(name(64)), &name(63)));
    assert!(!gives("\\1", "(.+)", json!(name(64)), &name(62)));
    assert!(gives("app_\\1", "(.+)", json!(name(58)), &format!("app_{}", name(58))));
    assert!(!gives("app_\\1", "(.+)", json!(name(59)), &format!("app_{}", name(59))));
    assert!(gives("\\1_\\1", "(.+)", json!(name(30)), &format!("{0}_{0}", name(30))));
    assert!(!gives("\\1_\\1", "(.+)", json!(name(31)), &format!("{0}_{0}", name(31))));
    // What goes before it fills the name already.
    let long = format!("{}\\1", name(61));
    assert!(gives(&long, "(.+)", json!("x"), &format!("{}x", name(61))));
    assert!(!gives(&long, "(.+)", json!("xy"), &format!("{}xy", name(61))));
    // A claim of many bytes in many places costs nothing.
    assert!(!gives(&"\\1".repeat(31), "(.+)", json!(name(9000)), &name(62)));
}

#[test]
fn n105_names_hold_only_plain_characters() {
    for (index, character) in ('\u{1}'..='\u{ff}').enumerate() {
        let name = format!("a{character}b");
        let wanted = character.is_ascii_alphanumeric() || "._@+#:/-".contains(character);
        assert_eq!(gives("\\1", "(?s)(.+)", json!(name), &name), wanted, "{index} {character:?}");
    }
    for name in [
        "\u{430}dmin",
        "re\u{430}der",
        "caf\u{e9}",
        "cafe\u{301}",
        "reader\u{200b}",
        "\u{feff}reader",
        "reader\u{202e}",
        "\u{ff52}eader",
        "rea\u{131}er",
        "\u{212a}elvin",
        "reader\u{ad}",
        "\u{1d42b}eader",
    ] {
        assert!(!gives("\\1", "(.+)", json!(name), name), "{name}");
        assert!(!gives("app_\\1", "(.+)", json!(name), &format!("app_{name}")), "{name}");
        // Nor does it stand for what it looks like.
        for plain in ["admin", "reader", "cafe", "kelvin", "Kelvin"] {
            assert!(!gives("\\1", "(.+)", json!(name), plain), "{name}");
        }
    }
}

#[test]
fn n106_names_hold_nothing_that_sql_reads() {
    for name in [
        "a\"b", "a'b", "a;b", "a\\b", "a$$b", "a\nb", "a b", "a,b", "a--b", "a/*b*/", "a%b", "a(b", "E'a'",
        "a\tb", "a=b", "\\1",
    ] {
        let plain = matches!(name, "a--b");
        assert_eq!(gives("\\1", "(?s)(.+)", json!(name), name), plain, "{name}");
    }
    // A template is filled in once: what comes in is never read again.
    assert!(!gives("\\1", "(.+)", json!("\\1"), "\\1"));
    assert!(!gives("x\\1", "(.+)", json!("\\1"), "xx\\1"));
}

#[test]
fn n108_the_role_must_exist() {
    let rule =
        |id, role_oid| RuleRow { role_oid, ..rule_row(id, &json!({"groups": {"regex": "(.+)"}}), "\\1") };
    let token = token(&claims_with(json!({"groups": ["reader"]})));
    let world = |role_oid, user| World { role_oid, user, ..World::with_rules(vec![rule(1, 0)]) };
    assert_eq!(world(ROLE_OID, "reader").outcome(&token), "accepted");
    assert_eq!(world(20_000, "reader").outcome(&token), "accepted", "whatever its oid is");
    assert_eq!(world(0, "reader").outcome(&token), "role_missing");
    assert_eq!(world(0, "writer").outcome(&token), "user_not_mapped");
    // An oid beside a derived role means nothing.
    let stored = World { role_oid: 20_000, ..World::with_rules(vec![rule(1, ROLE_OID)]) };
    assert_eq!(stored.outcome(&token), "accepted");
    let decision = world(ROLE_OID, "reader").login(&token).unwrap();
    assert!(!decision.allow_privileged && decision.role == "reader");
}

#[test]
fn a_derived_and_a_named_rule_stand_beside_one_another() {
    let named = |priority, role_oid| RuleRow {
        priority,
        role_oid,
        ..rule_row(1, &json!({"groups": "readers"}), "reader")
    };
    let derived = |priority| RuleRow {
        priority,
        role_oid: 0,
        ..rule_row(2, &json!({"groups": {"regex": "(.+)s"}}), "\\1")
    };
    let token = token(&claims_with(json!({"groups": ["readers", "writers"]})));
    let decides = |rules| {
        World::with_rules(rules).login(&token).map(|decision| decision.rule_id).map_err(|why| why.code())
    };
    assert_eq!(decides(vec![named(1, ROLE_OID), derived(2)]), Ok(1));
    assert_eq!(decides(vec![named(2, ROLE_OID), derived(1)]), Ok(2));
    assert_eq!(decides(vec![named(1, ROLE_OID), derived(1)]), Ok(1));
    // The rule that names the role is for one that was dropped; the token still gives the one that is there.
    assert_eq!(decides(vec![named(1, 9), derived(2)]), Ok(2));
    assert_eq!(decides(vec![named(1, 9)]), Err("role_replaced"));
    let writer = World { user: "writer", ..World::with_rules(vec![named(1, ROLE_OID), derived(2)]) };
    assert_eq!(writer.login(&token).unwrap().rule_id, 2);
}

#[test]
fn every_member_of_a_derived_rule_counts() {
    let rule = RuleRow {
        role_oid: 0,
        ..rule_row(1, &json!({"groups": {"regex": "pg-(.+)"}, "tenant": "t", "env": {"not": "dev"}}), "\\1")
    };
    let world = World::with_rules(vec![rule]);
    let outcome = |claims: Value| world.outcome(&token(&claims_with(claims)));
    assert_eq!(outcome(json!({"groups": ["pg-reader"], "tenant": "t"})), "accepted");
    assert_eq!(outcome(json!({"groups": ["pg-reader"], "tenant": "u"})), "no_rule");
    assert_eq!(outcome(json!({"groups": ["pg-reader"], "tenant": "t", "env": ["dev"]})), "no_rule");
    assert_eq!(outcome(json!({"groups": ["reader"], "tenant": "t"})), "no_rule");
    assert_eq!(outcome(json!({"groups": ["pg-writer"], "tenant": "t"})), "user_not_mapped");
}

#[test]
fn n090_an_unverified_address_gives_no_role() {
    let rule =
        RuleRow { role_oid: 0, ..rule_row(1, &json!({"email": {"regex": "(.+)@corp\\.example"}}), "\\1") };
    let world = World::with_rules(vec![rule]);
    let outcome = |verified: Value| {
        world.outcome(&token(&claims_with(
            json!({"email": "reader@corp.example", "email_verified": verified}),
        )))
    };
    assert_eq!(outcome(json!(true)), "accepted");
    for verified in [json!(false), json!("true"), json!(null)] {
        assert_eq!(outcome(verified), "no_rule");
    }
}
