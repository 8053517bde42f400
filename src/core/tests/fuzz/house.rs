//! Providers of every kind, rules of every kind, and logins on them.

use std::sync::LazyLock;

use pg_oidc_core::algorithm::Algorithm;
use pg_oidc_core::decision::{Decision, Request, Selection, decide, is_current, select};
use pg_oidc_core::image::{
    ArchivedKeyringImage, ArchivedPolicyImage, KeyringImage, PolicyImage, ProviderKeys, check_keyring,
    check_policy, encode_keyring, encode_policy,
};
use pg_oidc_core::keys::{ParsedJwks, parse_jwks};
use pg_oidc_core::limits::{SECOND, WIRE_BYTES};
use pg_oidc_core::provider::{Provider, ProviderRow, compile_provider};
use pg_oidc_core::refusal::Refusal;
use pg_oidc_core::rules::{Rule, RuleRow, compile_rule};
use pg_oidc_core::token::{self, Untrusted};
use pg_oidc_core::verify::{Verified, verify};
use rkyv::util::AlignedVec;
use serde_json::{Value, json};

use crate::common::{ED25519, NOW, P256, P384, REQUEST, RSA_A, Signer, provider_row, rule_row};

/// The time of every login, in microseconds.
pub(crate) const AT: i64 = NOW * SECOND;

/// The issuer of the provider that uses every column.
pub(crate) const STRICT_ISSUER: &str = "https://strict.example/realms/a";

/// What a login may ask for; one of them is no role of any rule.
pub(crate) const USERS: [&str; 3] = ["reader", "writer", "nobody"];

/// A published policy and keyring.
pub(crate) struct House {
    policy: AlignedVec,
    keyring: AlignedVec,
}

pub(crate) static HOUSE: LazyLock<House> = LazyLock::new(|| {
    let providers: Vec<Provider> =
        provider_rows().iter().map(|row| compile_provider(row, false).unwrap()).collect();
    let keys_of = |provider: &Provider| match provider.name.as_str() {
        "pending" => None,
        "stale" => Some(entry(provider, 0)),
        "empty" => Some(ProviderKeys { keys: vec![], ..entry(provider, AT) }),
        _ => Some(entry(provider, AT)),
    };
    let keyring = KeyringImage::build(providers.iter().filter_map(keys_of).collect()).unwrap();
    House::new(PolicyImage::build(providers, rules()).unwrap(), &keyring)
});

impl House {
    pub(crate) fn new(policy: PolicyImage, keyring: &KeyringImage) -> House {
        House { policy: encode_policy(&policy).unwrap(), keyring: encode_keyring(keyring).unwrap() }
    }

    pub(crate) fn policy(&self) -> &ArchivedPolicyImage {
        check_policy(&self.policy).unwrap()
    }

    pub(crate) fn keyring(&self) -> &ArchivedKeyringImage {
        check_keyring(&self.keyring).unwrap()
    }

    pub(crate) fn policy_bytes(&self) -> &[u8] {
        &self.policy
    }

    pub(crate) fn keyring_bytes(&self) -> &[u8] {
        &self.keyring
    }

    /// From the bytes in the password field to the verified token.
    pub(crate) fn judge(&self, token: &[u8]) -> Result<Verified, Refusal> {
        judge(self.policy(), self.keyring(), token::parse(token, WIRE_BYTES)?)
    }

    pub(crate) fn decide(&self, verified: &Verified, user: &str) -> Result<Decision, Refusal> {
        decide(self.policy(), verified, &Request { user, ..REQUEST })
    }
}

/// What a login does with a parsed token.
pub(crate) fn judge(
    policy: &ArchivedPolicyImage,
    keyring: &ArchivedKeyringImage,
    untrusted: Untrusted,
) -> Result<Verified, Refusal> {
    match select(policy, keyring, &untrusted, AT)? {
        Selection::Ready(selected) => {
            assert!(is_current(policy, &selected));
            verify(untrusted, &selected, AT)
        }
        Selection::KeysPending { .. } => Err(Refusal::KeysPending),
        Selection::KeysLacking { why, .. } => {
            assert!(why.wants_keys().is_some(), "{why:?}");
            Err(why)
        }
    }
}

/// One provider and two rules: small enough to try each of its bytes.
pub(crate) fn cottage() -> House {
    let provider = compile_provider(&provider_row(), false).unwrap();
    let keyring = KeyringImage::build(vec![entry(&provider, AT)]).unwrap();
    let rules = [(1, json!({"groups": "readers"})), (2, json!({"scope": "read", "sub": "u1"}))];
    let rules = rules.map(|(id, matches)| compile_rule(&rule_row(id, &matches, "reader")).unwrap());
    House::new(PolicyImage::build(vec![provider], rules.to_vec()).unwrap(), &keyring)
}

/// The keys of [`jwks`], as a provider's that were fetched at that time.
pub(crate) fn entry(provider: &Provider, fetched_at: i64) -> ProviderKeys {
    static PARSED: LazyLock<ParsedJwks> =
        LazyLock::new(|| parse_jwks(jwks().to_string().as_bytes(), &Algorithm::ALL).unwrap());
    let parsed = PARSED.clone();
    ProviderKeys {
        name: provider.name.clone(),
        key_source: provider.key_source,
        fetched_at,
        attempted_at: fetched_at,
        static_keys: false,
        keys: parsed.keys,
        reports: parsed.reports,
        origin: "https://keys.example/jwks".to_owned(),
        next_fetch_at: Some(fetched_at + 300 * SECOND),
        last_error: None,
    }
}

/// One key of each kind.
pub(crate) fn jwks() -> Value {
    let keys: Vec<Value> =
        [&RSA_A, &P256, &P384, &ED25519].iter().map(|signer| Signer::jwk(signer)).collect();
    json!({ "keys": keys })
}

fn provider_rows() -> Vec<ProviderRow> {
    let named = |name: &str| ProviderRow {
        name: name.to_owned(),
        issuer: format!("https://{name}.example"),
        ..provider_row()
    };
    let strict = ProviderRow {
        name: "strict".to_owned(),
        issuer: STRICT_ISSUER.to_owned(),
        audience_claim: "client_id".to_owned(),
        identity_claim: "email".to_owned(),
        groups_claim: Some("/realm_access/roles".to_owned()),
        accepted_typ: Some(vec![Some("at+jwt".to_owned()), Some(String::new())]),
        required_claims: Some(json!({"email_verified": true, "tenant": "t"}).to_string()),
        clock_skew_us: 30 * SECOND,
        max_token_age_us: Some(3600 * SECOND),
        ..provider_row()
    };
    let off = ProviderRow { enabled: false, ..named("off") };
    let narrow = ProviderRow { algorithms: vec![Some("ES256".to_owned())], ..named("narrow") };
    vec![provider_row(), strict, off, narrow, named("pending"), named("stale"), named("empty")]
}

/// Rules on every kind of claim. What the language does not have gives no rule.
fn rules() -> Vec<Rule> {
    let matches = [
        (json!({"groups": "readers"}), "reader"),
        (json!({"groups": "writers", "tenant": "t"}), "writer"),
        (json!({"scope": "read"}), "reader"),
        (json!({"/realm_access/roles": "dba"}), "writer"),
        (json!({"/realm_access/roles/1": "dba", "email": "a@corp.example"}), "reader"),
        (json!({"level": 1.5, "active": true}), "writer"),
        (json!({"ref": {"glob": "refs/heads/release-*"}}), "reader"),
        (json!({"groups": {"regex": "pg-(.+)"}}), "reader"),
        (json!({"amr": {"any": ["mfa", {"regex": "hw.*"}]}, "env": {"not": "dev"}}), "writer"),
        (json!({"tenant": {"exists": true}, "guest": {"exists": false}}), "reader"),
    ];
    let numbered = matches.iter().zip(1_i64..);
    let rows = numbered.flat_map(|((matches, role), id)| {
        ["corp", "strict", "narrow"].map(|provider| RuleRow {
            provider: provider.to_owned(),
            priority: 100 - i32::try_from(id).unwrap(),
            databases: (id % 2 == 0).then(|| vec![Some("app".to_owned())]),
            ..rule_row(id, matches, role)
        })
    });
    rows.filter_map(|row| compile_rule(&row).ok()).collect()
}
