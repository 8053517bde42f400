//! Every limit at its value and one above. Those of tokens and key sets that a negative input is about are tested
//! there: n011 depth, n015 size, n016 counts, n041 kid, n050 RSA, n061 and n062 key sets, n087 times, n088 subject.

use pg_oidc_core::algorithm::Algorithm;
use pg_oidc_core::image::{ImageError, KeyringImage, PolicyImage, ProviderKeys};
use pg_oidc_core::limits;
use pg_oidc_core::provider::{Provider, ProviderRow, compile_provider};
use pg_oidc_core::rules::{RuleRow, compile_rule};
use serde_json::{Value, json};

use crate::common::{
    World, claims, claims_with, provider_row, rule_row, token, token_raw, token_with_header,
};

#[test]
fn header_bytes() {
    let padded = |bytes: usize| {
        let empty = r#"{"alg":"ES256","kid":"p256","x":""}"#.len();
        token_with_header(&json!({"alg": "ES256", "kid": "p256", "x": "p".repeat(bytes - empty)}).to_string())
    };
    assert_eq!(World::new().outcome(&padded(limits::HEADER_BYTES)), "accepted");
    assert_eq!(World::new().outcome(&padded(limits::HEADER_BYTES + 1)), "header_too_large");
    assert_eq!(World::new().outcome(&padded(limits::HEADER_BYTES + 3)), "header_too_large");
    assert_eq!(World::new().outcome(&padded(limits::HEADER_BYTES + 3000)), "header_too_large");
}

#[test]
fn every_limit_is_named_in_a_test() {
    // Bounds of what workers do and of names in messages are seen from outside.
    let elsewhere = ["FETCH_PAUSE", "KEY_REQUESTS", "SHOWN_BYTES"];
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let tests: String = files.filter_map(|path| std::fs::read_to_string(path).ok()).collect();
    for line in include_str!("../limits.rs").lines() {
        let Some((name, _)) = line.strip_prefix("pub const ").and_then(|rest| rest.split_once(':')) else {
            continue;
        };
        let named = tests.contains(&format!("limits::{name}"));
        assert!(named != elsewhere.contains(&name), "{name}: named in a test: {named}");
    }
}

#[test]
fn issuer_bytes() {
    let issuer = |bytes: usize| format!("https://issuer.example/{}", "p".repeat(bytes - 23));
    let row = |bytes| ProviderRow { issuer: issuer(bytes), ..provider_row() };
    assert!(compile_provider(&row(limits::ISSUER_BYTES), false).is_ok());
    assert!(compile_provider(&row(limits::ISSUER_BYTES + 1), false).is_err());
    let mut world = World::new();
    world.providers[0].0 = row(limits::ISSUER_BYTES);
    let with = |bytes| world.outcome(&token(&claims_with(json!({"iss": issuer(bytes)}))));
    assert_eq!(with(limits::ISSUER_BYTES), "accepted");
    assert_eq!(with(limits::ISSUER_BYTES + 1), "issuer_invalid");
}

#[test]
fn numbers() {
    let with = |number: String| {
        let mut text = claims().to_string();
        text.truncate(text.len() - 1);
        World::new().outcome(&token_raw(format!("{text},\"n\":{number}}}")))
    };
    assert_eq!(with("9".repeat(limits::NUMBER_BYTES)), "accepted");
    assert_eq!(with("9".repeat(limits::NUMBER_BYTES + 1)), "payload_invalid");
    for sign in ["", "-", "+"] {
        let with = |exponent: i64| with(format!("1e{sign}{exponent}"));
        assert_eq!(with(limits::NUMBER_EXPONENT), "accepted");
        assert_eq!(with(limits::NUMBER_EXPONENT + 1), "payload_invalid");
    }
}

#[test]
fn urls_names_and_certificates() {
    let check = |change: &dyn Fn(&mut ProviderRow, usize), most: usize| {
        for (size, good) in [(most, true), (most + 1, false)] {
            let mut row = provider_row();
            change(&mut row, size);
            assert_eq!(compile_provider(&row, false).is_ok(), good, "{size}");
        }
    };
    let url = |bytes: usize| format!("https://issuer.example/{}", "p".repeat(bytes - 23));
    check(&|row, size| row.jwks_uri = Some(url(size)), limits::URL_BYTES);
    check(&|row, size| row.audiences = vec![Some("a".repeat(size))], limits::NAME_BYTES);
    check(&|row, size| row.identity_claim = "a".repeat(size), limits::NAME_BYTES);
    check(&|row, size| row.identity_claim = "/a".repeat(size), limits::JSON_DEPTH);
    check(
        &|row, count| row.audiences = (0..count).map(|number| Some(number.to_string())).collect(),
        limits::AUDIENCES,
    );
    check(
        &|row, count| row.accepted_typ = Some((0..count).map(|number| Some(number.to_string())).collect()),
        limits::AUDIENCES,
    );
    check(&|row, size| row.audience_claim = "a".repeat(size), limits::NAME_BYTES);
    check(&|row, size| row.groups_claim = Some("a".repeat(size)), limits::NAME_BYTES);
    check(&|row, size| row.name = "a".repeat(size), limits::NAME_DATA_BYTES);
    let frame = "-----BEGIN CERTIFICATE----------END CERTIFICATE-----".len();
    check(
        &|row, size| {
            let body = "A".repeat(size - frame);
            row.ca_certificate = Some(format!("-----BEGIN CERTIFICATE-----{body}-----END CERTIFICATE-----"));
        },
        limits::CERTIFICATE_BYTES,
    );
}

#[test]
fn match_members_and_bytes() {
    let members = |count: usize| (0..count).map(|number| (format!("m{number}"), json!(1))).collect::<Value>();
    assert!(compile_rule(&rule_row(1, &members(limits::MATCH_MEMBERS), "reader")).is_ok());
    assert!(compile_rule(&rule_row(1, &members(limits::MATCH_MEMBERS + 1), "reader")).is_err());
    let sized = |bytes: usize| RuleRow {
        matches: format!("{{\"a\":\"{}\"}}", "p".repeat(bytes - 8)),
        ..rule_row(1, &json!({}), "reader")
    };
    assert!(compile_rule(&sized(limits::MATCH_BYTES)).is_ok());
    assert!(compile_rule(&sized(limits::MATCH_BYTES + 1)).is_err());
    let required = |count: usize| {
        let row = ProviderRow { required_claims: Some(members(count).to_string()), ..provider_row() };
        compile_provider(&row, false)
    };
    assert!(required(limits::MATCH_MEMBERS).is_ok());
    assert!(required(limits::MATCH_MEMBERS + 1).unwrap_err().message.contains("too many members"));
    let databases = |count: usize| RuleRow {
        databases: Some((0..count).map(|number| Some(format!("d{number}"))).collect()),
        ..rule_row(1, &json!({}), "reader")
    };
    assert!(compile_rule(&databases(limits::DATABASES)).is_ok());
    assert!(compile_rule(&databases(limits::DATABASES + 1)).is_err());
}

#[test]
fn algorithms() {
    // No list of ten is without a repeat; it is refused for its length.
    let names = |count: usize| {
        let names =
            Algorithm::ALL.iter().cycle().take(count).map(|algorithm| Some(algorithm.name().to_owned()));
        compile_provider(&ProviderRow { algorithms: names.collect(), ..provider_row() }, false)
    };
    assert_eq!(names(limits::ALGORITHMS).unwrap().algorithms, Algorithm::ALL);
    assert!(names(limits::ALGORITHMS + 1).unwrap_err().message.contains("1 to 9"));
}

#[test]
fn identity_bytes() {
    let world = World::with_provider(|row| row.identity_claim = "name".to_owned());
    let with = |bytes: usize| world.outcome(&token(&claims_with(json!({"name": "n".repeat(bytes)}))));
    assert_eq!(with(limits::SUBJECT_BYTES), "accepted");
    assert_eq!(with(limits::SUBJECT_BYTES + 1), "identity_invalid");
}

#[test]
fn addresses() {
    let addresses = |count: usize| RuleRow {
        addresses: Some(
            (0..count).map(|number| Some(format!("10.0.{}.{}/32", number / 256, number % 256))).collect(),
        ),
        ..rule_row(1, &json!({}), "reader")
    };
    assert!(compile_rule(&addresses(limits::ADDRESSES)).is_ok());
    assert!(compile_rule(&addresses(limits::ADDRESSES + 1)).is_err());
}

#[test]
fn pattern_bytes() {
    let compiles = |test: Value| compile_rule(&rule_row(1, &json!({ "a": test }), "reader")).map(|_| ());
    // What one repeated character costs is regex-lite's affair; that there is a bound below ours is this crate's.
    let most = (0..20).rev().fold(0, |count, bit| {
        let more = count | 1 << bit;
        if compiles(json!({"regex": format!("a{{{more}}}")})).is_ok() { more } else { count }
    });
    assert!((1000..limits::PATTERN_BYTES).contains(&most), "{most}");
    let error = compiles(json!({"regex": format!("a{{{}}}", most + 1)})).unwrap_err();
    assert!(error.detail.unwrap().contains("size"));
    let error = compiles(json!({"glob": "?".repeat(limits::MATCH_BYTES - 100)})).unwrap_err();
    assert!(error.message.contains("has a glob that cannot be compiled"), "{error:?}");
    assert!(compiles(json!({"glob": "?".repeat(most / 2)})).is_ok());
}

#[test]
fn patterns_of_a_rule() {
    let with = |count: usize| {
        let patterns: Vec<Value> = (0..count).map(|number| json!({"glob": format!("g{number}*")})).collect();
        compile_rule(&rule_row(1, &json!({"a": {"any": patterns}}), "reader")).map(|_| ())
    };
    assert_eq!(with(limits::PATTERNS), Ok(()));
    let error = with(limits::PATTERNS + 1).unwrap_err();
    assert_eq!(error.message, "\"match\" has too many regular expressions and globs");
}

/// Rules whose patterns cost more than a decision may: about a quarter each, for a claim of 8,000 bytes.
pub(crate) fn costly(count: i64, effect: &str) -> Vec<RuleRow> {
    let pattern = json!({"regex": "(?:b{1000})?[cd]"});
    let row = |id| RuleRow {
        effect: effect.to_owned(),
        role: (effect == "allow").then(|| "reader".to_owned()),
        ..rule_row(id, &json!({"c": {"any": [pattern.clone(), pattern.clone()]}}), "reader")
    };
    (0..count).map(row).collect()
}

#[test]
fn pattern_effort() {
    let token = token(&claims_with(json!({"c": "a".repeat(8000)})));
    let plain = rule_row(1000, &json!({}), "reader");
    let outcome = |mut rules: Vec<RuleRow>| {
        rules.push(plain.clone());
        World::with_rules(rules).outcome(&token)
    };
    // Few of them are only slow. More than that are not tried, and what they would have said is not known.
    assert_eq!(outcome(costly(1, "deny")), "accepted");
    assert_eq!(outcome(costly(200, "deny")), "patterns_too_costly");
    assert_eq!(outcome(costly(200, "allow")), "patterns_too_costly");
    let few = World::with_rules([costly(200, "deny"), vec![plain.clone()]].concat());
    assert_eq!(few.outcome(&crate::common::token(&claims())), "accepted", "a token without that claim");
    // 1,000 plain patterns on 20 groups of 20 bytes are within it.
    const { assert!(limits::PATTERN_EFFORT >= 1000 * 20 * 20 * 512) }
}

#[test]
fn rules_with_patterns() {
    let rules = |patterns: usize, change: fn(&mut RuleRow)| {
        let with = |id: usize, test: Value| {
            let mut row = rule_row(id as i64, &json!({"a": 1, "b": test}), "reader");
            change(&mut row);
            compile_rule(&row).unwrap()
        };
        // Wherever it is in the rule; and what has none is not counted.
        let tests = [
            json!({"regex": "a"}),
            json!({"glob": "a"}),
            json!({"not": {"glob": "a"}}),
            json!({"any": ["a", {"any": [{"not": {"regex": "a"}}]}]}),
        ];
        let patterns = (0..patterns).map(|id| with(id, tests[id % tests.len()].clone()));
        let plain = (0..50).map(|id| with(id + 9000, json!({"any": ["a", {"exists": true}]})));
        PolicyImage::build(providers(1), patterns.chain(plain).collect()).map(|_| ())
    };
    assert_eq!(rules(limits::PATTERN_RULES, |_| ()), Ok(()));
    assert_eq!(rules(limits::PATTERN_RULES + 1, |_| ()), Err(ImageError::TooManyPatterns));
    // Rules that deny count like the others, disabled ones do not count.
    let deny = |row: &mut RuleRow| (row.effect, row.role) = ("deny".to_owned(), None);
    assert_eq!(rules(limits::PATTERN_RULES + 1, deny), Err(ImageError::TooManyPatterns));
    assert_eq!(rules(limits::PATTERN_RULES + 1, |row| row.enabled = false), Ok(()));
    assert!(
        ImageError::TooManyPatterns.to_string().contains("1000 rules have a regular expression or a glob")
    );
}

fn providers(count: usize) -> Vec<Provider> {
    (0..count)
        .map(|number| {
            let row = ProviderRow {
                name: format!("p{number}"),
                issuer: format!("https://issuer.example/{number}"),
                ..provider_row()
            };
            compile_provider(&row, false).unwrap()
        })
        .collect()
}

#[test]
fn providers_and_rules() {
    assert!(PolicyImage::build(providers(limits::PROVIDERS), vec![]).is_ok());
    let over = PolicyImage::build(providers(limits::PROVIDERS + 1), vec![]);
    assert_eq!(over.unwrap_err(), ImageError::TooManyProviders);

    let rule = compile_rule(&rule_row(1, &json!({}), "reader")).unwrap();
    assert!(PolicyImage::build(vec![], vec![rule.clone(); limits::RULES]).is_ok());
    let over = PolicyImage::build(vec![], vec![rule; limits::RULES + 1]);
    assert_eq!(over.unwrap_err(), ImageError::TooManyRules);

    let keys = |count: u64| {
        let entry = |key_source: u64| ProviderKeys {
            name: key_source.to_string(),
            key_source,
            fetched_at: 0,
            attempted_at: 0,
            static_keys: false,
            keys: vec![],
            reports: vec![],
            origin: String::new(),
            next_fetch_at: None,
            last_error: None,
        };
        KeyringImage::build((0..count).map(entry).collect())
    };
    assert!(keys(limits::PROVIDERS as u64).is_ok());
    assert_eq!(keys(limits::PROVIDERS as u64 + 1).unwrap_err(), ImageError::TooManyProviders);
}

#[test]
fn repeated_names_are_refused_whole() {
    let named = |name: &str, issuer: &str| {
        let row = ProviderRow { name: name.to_owned(), issuer: issuer.to_owned(), ..provider_row() };
        compile_provider(&row, false).unwrap()
    };
    let (one, two) = ("https://one.example", "https://two.example");
    assert!(PolicyImage::build(vec![named("a", one), named("b", two)], vec![]).is_ok());
    let error = PolicyImage::build(vec![named("a", one), named("a", two)], vec![]).unwrap_err();
    assert_eq!(error, ImageError::Repeated("a".to_owned()));
    let error = PolicyImage::build(vec![named("a", one), named("b", one)], vec![]).unwrap_err();
    assert_eq!(error.to_string(), "\"https://one.example\" is there twice");
}
