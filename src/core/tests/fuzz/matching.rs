//! A match document: it is refused with a reason, or it means the same wherever it stands.

use std::sync::LazyLock;

use pg_oidc_core::image::{KeyringImage, PolicyImage};
use pg_oidc_core::provider::{ProviderRow, compile_provider};
use pg_oidc_core::refusal::Refusal;
use pg_oidc_core::row::RowError;
use pg_oidc_core::rules::{Rule, RuleRow, compile_rule};
use pg_oidc_core::verify::Verified;
use serde_json::{Value, json};

use super::house::{AT, House, entry};
use super::{PART, assert_is_one_line};
use crate::common::{ED25519, claims_with, provider_row, rule_row};

/// A byte (bit 0: the rule takes its role from the match), the match document, and perhaps claims beside the usual
/// ones, as a JSON object. Gives whether the document compiles, and whether it matched something.
pub(crate) fn check(data: &[u8]) -> (bool, bool) {
    let Some((mode, rest)) = data.split_first() else { return (false, false) };
    let mut parts = rest.splitn(2, |byte| *byte == PART);
    let Ok(text) = std::str::from_utf8(parts.next().unwrap_or_default()) else { return (false, false) };
    let role = if mode & 1 == 1 { r"\1" } else { "reader" };
    let document = Document::new(text, role);
    let own = parts.next().map(Login::with);
    let matched = LOGINS.iter().chain(&own).map(|login| document.check_on(login));
    (document.as_rule.is_some(), matched.fold(false, |some, this| some | this))
}

/// A match document, in every place that it may stand in.
struct Document<'a> {
    text: &'a str,
    /// As the only rule, and as the last of three.
    as_rule: Option<[House; 2]>,
    /// As `required_claims` of a provider without rules; none if it may mean another thing there.
    as_required: Option<House>,
}

impl<'a> Document<'a> {
    fn new(text: &'a str, role: &str) -> Document<'a> {
        let row = |id, matches: &str| RuleRow {
            id,
            matches: matches.to_owned(),
            ..rule_row(id, &json!({}), "reader")
        };
        let rule = compile_rule(&RuleRow { role: Some(role.to_owned()), ..row(1, text) });
        let other = |id, matches| compile_rule(&RuleRow { priority: 1, ..row(id, matches) }).unwrap();
        let as_rule = rule.inspect_err(check_error).ok().map(|rule| {
            let others = [other(2, r#"{"groups":"nobody"}"#), other(3, r#"{"sub":"u1","groups":"nobody"}"#)];
            let several = others.into_iter().chain([rule.clone()]).collect();
            [house(&provider_row(), vec![rule]), house(&provider_row(), several)]
        });
        let asking = ProviderRow { required_claims: Some(text.to_owned()), ..provider_row() };
        let asked = compile_provider(&asking, false).inspect_err(check_error).is_ok();
        // Whether an e-mail address counts differs between the two places.
        let comparable = asked && as_rule.is_some() && role == "reader" && !text.contains("mail");
        Document { text, as_rule, as_required: comparable.then(|| house(&asking, vec![])) }
    }

    /// Whether the document matches the claims: the same wherever it stands.
    fn check_on(&self, login: &Login) -> bool {
        let (Some(houses), Ok(verified)) = (&self.as_rule, &login.verified) else { return false };
        let [alone, among] = houses.each_ref().map(|house| {
            let decided = house.decide(verified, "reader");
            decided.map_or_else(|refusal| refusal.code().to_owned(), |decision| decision.rule_id.to_string())
        });
        assert_eq!(alone, among, "{} on {}", self.text, login.claims);
        let matches = alone == "1";
        if let Some(expected) = expected(self.text, &login.claims) {
            assert_eq!(matches, expected, "{} on {}: {alone}", self.text, login.claims);
        }
        if let Some(asking) = &self.as_required {
            match asking.judge(login.token.as_bytes()) {
                Ok(_) => assert!(matches, "{} on {}: {alone}", self.text, login.claims),
                Err(refusal) => {
                    assert_eq!(refusal.code(), "required_claim_failed");
                    assert!(!matches, "{} on {}", self.text, login.claims);
                }
            }
        }
        matches
    }
}

fn check_error(error: &RowError) {
    for text in [Some(&error.message), error.detail.as_ref(), error.hint.as_ref()].into_iter().flatten() {
        assert_is_one_line(text);
    }
}

fn house(provider: &ProviderRow, rules: Vec<Rule>) -> House {
    let provider = compile_provider(provider, false).unwrap();
    let keyring = KeyringImage::build(vec![entry(&provider, AT)]).unwrap();
    House::new(PolicyImage::build(vec![provider], rules).unwrap(), &keyring)
}

/// What a document of plain strings and truth values on plain claims means, without any of the code under test. None:
/// it is of another kind.
fn expected(matches: &str, claims: &Value) -> Option<bool> {
    let document: Value = serde_json::from_str(matches).ok()?;
    let mut all = true;
    for (name, wanted) in document.as_object()? {
        if !(wanted.is_string() || wanted.is_boolean() || wanted.is_null())
            || name.starts_with('/')
            || ["scope", "scp", "email"].contains(&name.as_str())
        {
            return None;
        }
        all &= match claims.get(name) {
            Some(Value::Array(elements)) => elements.contains(wanted),
            Some(value) => value == wanted,
            None => false,
        };
    }
    Some(all)
}

/// A token with claims that a document may match.
struct Login {
    token: String,
    claims: Value,
    verified: Result<Verified, Refusal>,
}

static LOGINS: LazyLock<Vec<Login>> = LazyLock::new(|| {
    let changes = [
        json!({}),
        json!({"groups": ["pg-reader", "pg-writer", "staff"], "scope": "read write", "email": "a@corp.example",
            "email_verified": true, "amr": ["pwd", "mfa"], "ref": "refs/heads/release-1", "env": "prod",
            "realm_access": {"roles": ["dba"]}, "level": 1.50, "tenant": "", "a/b": {"~": "t"}}),
        json!({"groups": "reader", "scp": ["read"], "email": "A@corp.example", "nested": [[1, "x"], {"y": []}],
            "level": 9007199254740993_u64, "tenant": false, "": "empty", "ref": "refs/heads/ünï\u{2028}code"}),
    ];
    changes.into_iter().map(|change| Login::new(&claims_with(change).to_string())).collect()
});

impl Login {
    fn new(claims: &str) -> Login {
        let token = ED25519.token(r#"{"alg":"EdDSA"}"#, claims);
        let verified = house(&provider_row(), vec![]).judge(token.as_bytes());
        Login { token, claims: serde_json::from_str(claims).unwrap_or_default(), verified }
    }

    /// The usual claims and, after them, those of an object's text.
    fn with(text: &[u8]) -> Login {
        let usual = claims_with(json!({"groups": null})).to_string();
        let text = String::from_utf8_lossy(text);
        match text.trim_start().strip_prefix('{') {
            Some(members) if members.trim_start() != "}" => {
                Login::new(&format!("{},{members}", usual.trim_end_matches('}')))
            }
            _ => Login::new(&usual),
        }
    }
}
