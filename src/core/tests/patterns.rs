//! Regular expressions and globs in rules: anchored whatever they hold, and found by the index whatever they hold. A
//! pattern that the index misses in a rule that denies would let somebody in.
//!
//! 1. an expression decides as the obvious matcher does, however it is spelled
//! 2. what the index and the literals leave out never fits, for any text that compiles at all
//! 3. n096: nothing in an expression gets out of its anchors
//! 4. globs decide as the obvious matcher does

use pg_oidc_core::decision::Request;
use pg_oidc_core::rules::{RuleRow, compile_rule};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::common::{Policy, World, claims, rule_row, token};
use crate::oracle::{Choices, expression, fits, glob_fits, sample, written};

/// For each pattern and text, whether a rule with that pattern matches a claim with that text.
fn decided(operator: &str, pairs: &[(String, String)]) -> Vec<bool> {
    let mut all = claims();
    let texts = pairs.iter().enumerate().map(|(number, (_, text))| (format!("t{number}"), json!(text)));
    all.as_object_mut().unwrap().extend(texts.collect::<Map<String, Value>>());
    let rules: Vec<RuleRow> = pairs
        .iter()
        .enumerate()
        .map(|(number, (pattern, _))| {
            let test = json!({ operator: pattern });
            rule_row(number as i64, &json!({ format!("t{number}"): test }), &format!("r{number}"))
        })
        .collect();
    let verified = World::new().verified(&token(&all)).unwrap();
    let policy = Policy::new(&rules);
    (0..pairs.len())
        .map(|number| {
            let request = Request { user: &format!("r{number}"), ..World::new().request() };
            policy.decide(&verified, &request).is_ok()
        })
        .collect()
}

fn matches(operator: &str, pattern: &str, text: &str) -> bool {
    decided(operator, &[(pattern.to_owned(), text.to_owned())]) == [true]
}

fn compiles(operator: &str, pattern: &str) -> bool {
    compile_rule(&rule_row(1, &json!({"t": {operator: pattern}}), "r")).is_ok()
}

/// A text that is nearly the one given.
fn nearly(text: &str, how: u8) -> String {
    match how % 10 {
        0 => format!("{text}\n"),
        1 => format!("\n{text}"),
        2 => text.chars().skip(1).collect(),
        3 => text.to_uppercase(),
        4 => format!("{text}{text}"),
        5 => format!("{text}a"),
        6 => text.replace('a', "\u{e9}"),
        _ => text.to_owned(),
    }
}

/// An expression as it is spelled, a text, and whether the one fits the other.
fn case() -> impl Strategy<Value = ((String, String), bool)> {
    let bytes = || prop::collection::vec(any::<u8>(), 40);
    (expression(), bytes(), bytes(), any::<u8>()).prop_map(|(re, spelling, choices, how)| {
        let text = nearly(&sample(&re, &mut Choices(choices.iter())), how);
        let text: String = text.chars().take(20).collect();
        let wanted = fits(&re, &text);
        ((written(&re, &mut Choices(spelling.iter())), text), wanted)
    })
}

/// Pieces of which tricky expressions are made.
const PIECES: &[&str] = &[
    "a",
    "b",
    "k",
    "1",
    "é",
    "\u{212a}",
    "\u{17f}",
    "A",
    " ",
    "\n",
    "#",
    "-",
    "&",
    "_",
    "!",
    "]",
    "}",
    "{",
    "(",
    ")",
    "|",
    "[",
    "[^",
    "(?:",
    "(?i)",
    "(?i:",
    "(?-i)",
    "(?x)",
    "(?-x)",
    "(?s)",
    "(?m)",
    "(?u)",
    "(?-u)",
    "(?R)",
    "(?U)",
    "(?ix-s:",
    "?",
    "*",
    "+",
    "{1}",
    "{0}",
    "{2,}",
    "{0,1}",
    "{ 1 }",
    "??",
    "\\A",
    "\\z",
    "^",
    "$",
    "\\b",
    "\\B",
    "\\<",
    "\\b{start}",
    "\\b{end-half}",
    ".",
    "\\d",
    "\\w",
    "\\W",
    "\\S",
    "\\x41",
    "\\x{61}",
    "\\u00e9",
    "\\U00000041",
    "\\xFF",
    "\\xC3",
    "\\xA9",
    "\\n",
    "\\ ",
    "\\#",
    "\\.",
    "\\-",
    "\\v",
    "\\a",
    "[a]",
    "[^a]",
    "[ab]",
    "[a-k]",
    "[\\w]",
    "[^\\W\\d_]",
    "[[:alpha:]]",
    "[[:^alpha:]]",
    "[[:x:]]",
    "[]]",
    "[^]a]",
    "[-a]",
    "[a&&b]",
    "[a--b]",
    "\\x00-",
    "-\\x{10FFFF}",
    "(?P<n>",
    "(?<m>",
    "&&",
    "--",
    "~~",
    "\\pL",
    "\\p{Greek}",
    "(?",
    ":",
    ",",
    "\\",
    "/",
    "(?#",
    "\u{a0}",
    "\u{85}",
    "\u{2028}",
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_expression_decides_as_the_obvious_matcher_does(cases in prop::collection::vec(case(), 8)) {
        let (pairs, wanted): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
        prop_assert_eq!(decided("regex", &pairs), wanted, "{:?}", pairs);
    }

    #[test]
    fn nothing_that_fits_is_left_out(
        parts in prop::collection::vec(
            (
                prop::collection::vec(prop::sample::select(PIECES), 0..7).prop_map(|pieces| pieces.concat()),
                "[abk1é\u{e9}\u{212a}\u{17f}A \n#!]{0,5}",
            ),
            12,
        ),
    ) {
        let pairs: Vec<_> = parts.into_iter().filter(|(pattern, _)| compiles("regex", pattern)).collect();
        // The whole expression, with nothing before it.
        let wanted: Vec<bool> = pairs
            .iter()
            .map(|(pattern, text)| regex_lite::Regex::new(&format!(r"\A(?:{pattern})\z")).unwrap().is_match(text))
            .collect();
        prop_assert_eq!(decided("regex", &pairs), wanted, "{:?}", pairs);
    }

    #[test]
    fn a_glob_decides_as_the_obvious_matcher_does(
        pairs in prop::collection::vec(("(a|b|/|\\*|\\*\\*|\\?|\\.|\\[|\\\\|é|\n|\\{2\\}|#| ){0,6}", "[ab/.\\[\\\\é\n*{}2# ]{0,8}"), 12),
    ) {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        let wanted: Vec<bool> = pairs.iter().map(|(glob, text)| glob_fits(&chars(glob), &chars(text))).collect();
        prop_assert_eq!(decided("glob", &pairs), wanted, "{:?}", pairs);
    }
}

#[test]
fn literals_are_what_the_matching_engine_means() {
    // Where Unicode and ASCII disagree, one character of a class may be left in the one reading and two in the other.
    for (pattern, text) in [
        (r"x(?i)[^\x00-02-JL-jl-\x{10FFFF}]", "xk"),
        (r"x(?i)[^\x00-02-JL-jl-\x{10FFFF}]", "xK"),
        (r"x(?i)[^\x00-02-JL-jl-\x{10FFFF}]", "x1"),
        (r"[^\w\x00-\x20\x22-\xe8\xea-\x{10FFFF}]-a", "\u{e9}-a"),
        (r"[^\w\x00-\x20\x22-\xe8\xea-\x{10FFFF}]-a", "!-a"),
        (r"a[^\s\x00-\x9f\xa2-\x{10FFFF}]", "a\u{a0}"),
        (r"a[^\d\x00-0\x3a-\x{65f}\x{662}-\x{10FFFF}]", "a\u{661}"),
    ] {
        assert!(matches("regex", pattern, text), "{pattern} {text}");
    }
}

#[test]
fn n096_an_expression_is_anchored_whatever_it_holds() {
    for (pattern, fits, near) in [
        ("a", "a", &["aa", "ba", "ab", "a\n", "\na", "A", ""][..]),
        ("a|b", "b", &["ab", "ax", "xb", "a\n"]),
        ("|a", "", &["b", "ba", "\n"]),
        ("a|", "a", &["ab", "ba"]),
        ("(?m)^a$", "a", &["a\nb", "b\na", "a\n", "\na"]),
        ("(?m)a$\n^b", "a\nb", &["a\nb\n", "a\nbc"]),
        ("(?mR)^a$", "a", &["a\r\n", "\r\na", "a\rb"]),
        ("a$", "a", &["a\n", "a$", "ab"]),
        (r"a\z", "a", &["a\n", "ab"]),
        (r"\Aa", "a", &["ba", "\na"]),
        (r"a\z|b", "b", &["bb", "a\n", "xa"]),
        ("(?s).", "\n", &["\n\n", ""]),
        (".", "\u{e9}", &["\n", "e\u{301}", ""]),
        ("(?x) a b # c\n", "ab", &["a b", "abc"]),
        ("(?x)a # b\n c", "ac", &["a", "a # b\n c", "acc"]),
        ("(?i)pg-admin", "PG-Admin", &["pg-admin2", "p\u{131}g-admin", "pg-adm\u{131}n", "pg-adm\u{130}n"]),
        ("(?i)k", "K", &["\u{212a}", "kk"]),
        ("(?i)s", "S", &["\u{17f}"]),
        ("(?i)\u{e9}", "\u{e9}", &["\u{c9}"]),
        (r"\d", "7", &["\u{667}", "77", "\u{ff17}"]),
        (r"\w+", "a_1", &["\u{430}", "a b", "a\u{301}"]),
        (r"\s", " ", &["\u{a0}", "  "]),
        (r"pg\b.*", "pg-x", &["pgx", "xpg"]),
        ("", "", &["a", "\n"]),
        ("(a)(b)?", "a", &["b", "abb"]),
        ("a*?", "aaa", &["b", "aab"]),
        ("a{2}", "aa", &["a", "aaa", "a{2}"]),
    ] {
        assert!(matches("regex", pattern, fits), "{pattern:?} {fits:?}");
        for text in near {
            assert!(!matches("regex", pattern, text), "{pattern:?} {text:?}");
        }
    }
}

#[test]
fn n096_what_would_leave_its_anchors_is_refused() {
    for pattern in [
        "a)|(?:b",
        "a)|(b",
        ")|(",
        "a)(?:b",
        "(?:a))|(?:(?:b)",
        "a\\",
        "[a",
        "a)\\z|\\A(?:b",
        "(?x)a)|(?:b #",
        // The end of the anchors would be a part of the comment.
        "(?x)a #",
        "(?x)a #)",
        "(?=a)",
        "(?<!a)b",
        "(a)\\1",
        "\\pL",
        "\\Q)\\E",
        "\\Z",
        "[a&&b]",
        "(?#a)",
        "a{2",
        "a**{",
        "*",
    ] {
        assert!(!compiles("regex", pattern), "{pattern}");
    }
}

#[test]
fn globs() {
    for (glob, fits, near) in [
        ("", &[""][..], &["a", "\n"][..]),
        (
            "release-*",
            &["release-", "release-1.2", "release-\n", "release-é"],
            &["release", "xrelease-1", "release-1/2", "Release-1"],
        ),
        ("refs/**", &["refs/", "refs/heads/a", "refs/\n/b"], &["refs", "xrefs/a"]),
        ("refs/*/a", &["refs//a", "refs/x/a"], &["refs/x/y/a", "refs/x/a/"]),
        ("**/a", &["/a", "x/y/a"], &["a", "/a/"]),
        ("a**b", &["ab", "a/b", "axb"], &["ab/", "a"]),
        ("***", &["", "a/b", "//"], &[]),
        ("****", &["", "a/b"], &[]),
        ("a***b", &["ab", "a/x/b"], &["a/x/b/"]),
        ("*", &["", "abc"], &["/", "a/", "a/b"]),
        ("?", &["a", "/", "é", "\n", "*"], &["", "ab", "e\u{301}"]),
        ("a.c", &["a.c"], &["abc", "a.c\n"]),
        ("(a|b)+$", &["(a|b)+$"], &["a", "b"]),
        ("[ab]", &["[ab]"], &["a", "b"]),
        ("{a,b}", &["{a,b}"], &["a"]),
        ("a\\*", &["a\\", "a\\x"], &["a*", "a"]),
        ("(?i)a", &["(?i)a", "(xi)a"], &["A", "a"]),
        ("a # b", &["a # b"], &["a"]),
        ("^a$", &["^a$"], &["a"]),
        ("a)|(?:b", &["a)|(x:b"], &["a", "b"]),
        ("\u{436}*", &["\u{436}", "\u{436}x"], &["\u{416}x"]),
    ] {
        for text in fits {
            assert!(matches("glob", glob, text), "{glob:?} {text:?}");
        }
        for text in near {
            assert!(!matches("glob", glob, text), "{glob:?} {text:?}");
        }
    }
}

#[test]
fn patterns_fit_only_strings() {
    let decided = |test: Value, claim: Value| {
        let world = World::with_rules(vec![rule_row(1, &json!({"t": test}), "reader")]);
        let mut all = claims();
        all["t"] = claim;
        world.outcome(&token(&all))
    };
    for claim in
        [json!(1), json!(true), json!(null), json!({"a": "b"}), json!([]), json!([["a"]]), json!([1, null])]
    {
        for test in [json!({"regex": "(?s).*"}), json!({"glob": "**"})] {
            assert_eq!(decided(test.clone(), claim.clone()), "no_rule", "{test} {claim}");
            assert_eq!(decided(json!({"not": test}), claim.clone()), "accepted", "{claim}");
        }
    }
    assert_eq!(decided(json!({"regex": "1"}), json!([1, "1"])), "accepted");
}
