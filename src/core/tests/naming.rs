//! Names of people's own roles: `identity_pattern` and `identity_role`.
//!
//! 1. both or none; the pattern has a group, the name has `\1` and no other; what `auto_provision` needs
//! 2. `base_role`: its length, and names that are reserved
//! 3. which identities have a name: the whole identity must fit, in its own case; n102, n103 and n105 for what comes out
//! 4. a pattern that costs too much refuses the login

use pg_oidc_core::limits;
use pg_oidc_core::provider::ProviderRow;
use serde_json::json;

use crate::common::{World, claims_with, token};
use crate::people;
use crate::rows::{provider, refused_provider};

/// A change of the two columns.
fn naming(pattern: Option<&str>, role: Option<&str>) -> impl FnOnce(&mut ProviderRow) {
    let (pattern, role) = (pattern.map(str::to_owned), role.map(str::to_owned));
    move |row| (row.identity_pattern, row.identity_role) = (pattern, role)
}

/// Whether somebody of this identity who asks for `user`, which nobody has, is to have it made.
fn names(pattern: &str, role: &str, identity: &str, user: &'static str) -> bool {
    let mut world = people::world(user, 0);
    naming(Some(pattern), Some(role))(&mut world.providers[0].0);
    match world.login(&token(&claims_with(json!({ "upn": identity })))) {
        Ok(decision) => decision.person.is_some_and(|person| !person.bound),
        Err(refusal) => {
            assert_eq!(refusal.code(), "user_not_mapped", "{identity} {user}");
            false
        }
    }
}

#[test]
fn both_columns_or_none() {
    provider(naming(None, None)).unwrap();
    provider(naming(Some(r"^(.*)@corp\.example$"), Some("\\1"))).unwrap();
    provider(naming(Some("(.*)"), Some("u_\\1"))).unwrap();
    refused_provider("must be set together", naming(Some("(.*)"), None));
    refused_provider("must be set together", naming(None, Some("\\1")));
    refused_provider("needs a group", naming(Some(""), Some("\\1")));
    refused_provider("needs a group", naming(Some(".*"), Some("\\1")));
    refused_provider("needs a group", naming(Some("(?:.*)"), Some("\\1")));
    for pattern in ["(", "(.*", "(.*)(", "(.*){1000000}", "a)|(?:b", "(?P<x", "\\p{Greek}(.*)"] {
        refused_provider("\"identity_pattern\" cannot be compiled", naming(Some(pattern), Some("\\1")));
    }
    for role in ["", "everybody", "\\", "\\x", "1"] {
        refused_provider("\"identity_role\" must hold \\1", naming(Some("(.*)"), Some(role)));
    }
    for role in ["\\0", "\\2", "\\1\\2", "\\9x"] {
        refused_provider("another group than \\1", naming(Some("(.*)(.*)"), Some(role)));
    }
    for role in ["a b\\1", "\\1é", "\\1\"", "\\1'", "\\1;", "\\1\\x", "\\1\n", "\\1\u{202e}"] {
        refused_provider("can never be given", naming(Some("(.*)"), Some(role)));
    }
}

#[test]
fn auto_provision_needs_names() {
    refused_provider("\"auto_provision\" needs", |row| row.auto_provision = true);
    provider(|row| {
        naming(Some("(.*)"), Some("\\1"))(row);
        row.auto_provision = true;
    })
    .unwrap();
}

#[test]
fn n102_base_roles() {
    let base = |role: &str| {
        let role = role.to_owned();
        move |row: &mut ProviderRow| row.base_role = Some(role)
    };
    provider(base("base")).unwrap();
    provider(base("It is \"odd\"")).unwrap();
    provider(base(&"b".repeat(limits::NAME_DATA_BYTES))).unwrap();
    refused_provider("\"base_role\"", base(""));
    refused_provider("\"base_role\"", base(&"b".repeat(limits::NAME_DATA_BYTES + 1)));
    for name in ["public", "none", "pg_monitor", "pg_"] {
        refused_provider("is reserved", base(name));
    }
}

#[test]
fn whole_identity_must_fit() {
    let corp = r"^(.*)@corp\.example$";
    assert!(names(corp, "\\1", "ann@corp.example", "ann"));
    for near in [
        "ann@corp.example.evil.example",
        "ann@corpXexample",
        "ann@Corp.example",
        "ann@corp.example\u{200b}",
        "xann@corp.example",
        "Ann@corp.example",
        "ANN@corp.example",
        "ann@evil.example@corp.example",
        "ann",
        "@corp.example",
    ] {
        assert!(!names(corp, "\\1", near, "ann"), "{near}");
    }
    // Anchored without being told to be, on every side of an alternative.
    assert!(names("([a-z]+)@corp", "\\1", "ann@corp", "ann"));
    for near in ["ann@corp.evil", "1ann@corp", "ann@corp ", "ann@corp@corp"] {
        assert!(!names("([a-z]+)@corp", "\\1", near, "ann"), "{near}");
    }
    assert!(names("([a-z]+)@a|([a-z]+)@b", "\\1", "ann@a", "ann"));
    for near in ["ann@b", "ann@a@b", "xx ann@a"] {
        assert!(!names("([a-z]+)@a|([a-z]+)@b", "\\1", near, "ann"), "group 1 takes no part: {near}");
    }
    // Lower case is nobody's business but the pattern's.
    assert!(names("(?i)(.*)@CORP", "\\1", "Ann@corp", "Ann"));
    assert!(!names("(?i)(.*)@CORP", "\\1", "Ann@corp", "ann"));
    assert!(names("(.*)@corp", "p_\\1_x", "ann@corp", "p_ann_x"));
    assert!(!names("(.*)@corp", "p_\\1_x", "ann@corp", "ann"));
    assert!(names("(.*)", "\\1", "ann.b+c#d:e/f-g@corp", "ann.b+c#d:e/f-g@corp"));
}

#[test]
fn n102_n103_n105_names_that_are_never_given() {
    let all = |identity: &str, user: &'static str| names("(?s)(.*)", "\\1", identity, user);
    assert!(all("anna", "anna"));
    for name in ["public", "none", "pg_x", "pg_monitor", "pg_"] {
        assert!(!all(name, name), "{name}");
    }
    assert!(all("postgres2", "postgres2") && all("Public", "Public") && all("xpg_a", "xpg_a"));
    let sized = |bytes: usize| -> &'static str { Box::leak("n".repeat(bytes).into_boxed_str()) };
    assert!(all(sized(limits::ROLE_NAME_BYTES), sized(limits::ROLE_NAME_BYTES)));
    // The server cuts what the client asks for to 63 bytes.
    assert!(!all(sized(63), sized(63)));
    assert!(!all(sized(64), sized(63)) && !all(sized(100), sized(63)) && !all(sized(63), sized(62)));
    assert!(!names("(.*)", "12\\1", sized(61), Box::leak(format!("12{}", sized(61)).into_boxed_str())));
    for name in [
        "аnn",
        "ann\u{301}",
        "\u{e1}nn",
        "an\u{200b}n",
        "\u{202e}nna",
        "\u{ff41}nn",
        "an n",
        "ann\u{a0}",
        "ann\"",
        "ann'",
        "ann\\",
        "ann;drop",
        "ann$",
        "ann,b",
        "ann=b",
        "(ann)",
    ] {
        assert!(!all(name, Box::leak(name.to_owned().into_boxed_str())), "{name:?}");
    }
}

#[test]
fn costly_pattern_refuses() {
    let mut world: World = people::world("mate", 0);
    naming(Some("((?:b{1000})?[cd]|.*)"), Some("\\1"))(&mut world.providers[0].0);
    // Within its bound whatever the identity is: it is tried once.
    let long = "a".repeat(limits::SUBJECT_BYTES);
    assert_eq!(world.outcome(&token(&claims_with(json!({ "upn": long })))), "user_not_mapped");
    assert_eq!(world.outcome(&token(&claims_with(json!({"upn": "mate"})))), "accepted");
    // What other patterns have spent is not there for it.
    world.rules = crate::bounds::costly(200, "allow");
    let outcome = world.outcome(&token(&claims_with(json!({"upn": "mate", "c": "a".repeat(8000)}))));
    assert_eq!(outcome, "patterns_too_costly");
}
