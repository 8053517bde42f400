//! One issuer, its keys, and a login from token to decision.

use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512,
    RsaEncoding, RsaKeyPair, RsaPublicKeyComponents,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pg_oidc_core::account::Account;
use pg_oidc_core::algorithm::Algorithm;
use pg_oidc_core::decision::{Decision, Replication, Request, Selection, decide, is_current, select};
use pg_oidc_core::image::{
    KeyringImage, PolicyImage, ProviderKeys, check_keyring, check_policy, encode_keyring, encode_policy,
};
use pg_oidc_core::keys::parse_jwks;
use pg_oidc_core::limits::{SECOND, WIRE_BYTES};
use pg_oidc_core::provider::{ProviderRow, compile_provider};
use pg_oidc_core::refusal::Refusal;
use pg_oidc_core::revocation::Revocation;
use pg_oidc_core::rules::{RuleRow, compile_rule};
use pg_oidc_core::token;
use pg_oidc_core::verify::{Verified, verify_for};
use serde_json::{Value, json};

/// Seconds since the Unix epoch.
pub(crate) const NOW: i64 = 1_750_000_000;

pub(crate) const ISSUER: &str = "https://issuer.example";

/// The oid of every role in the rules of these tests, unless said otherwise.
pub(crate) const ROLE_OID: u32 = 16_384;

/// An ordinary connection over a Unix-domain socket, for the role that [`World::new`] gives.
pub(crate) const REQUEST: Request<'static> = Request {
    user: "reader",
    database: "app",
    role_oid: ROLE_OID,
    address: None,
    replication: Replication::None,
    now: NOW * SECOND,
};

/// A private key: test keys from `fixtures/forge.py`, which nothing trusts.
pub(crate) enum Signer {
    Rsa(&'static str, RsaKeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

pub(crate) static RSA_A: LazyLock<Signer> =
    LazyLock::new(|| rsa("rsa-a", include_bytes!("fixtures/test_rsa_a.pk8")));
pub(crate) static RSA_B: LazyLock<Signer> =
    LazyLock::new(|| rsa("rsa-b", include_bytes!("fixtures/test_rsa_b.pk8")));
pub(crate) static P256: LazyLock<Signer> = LazyLock::new(|| {
    let der = include_bytes!("fixtures/test_p256.pk8");
    Signer::P256(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).unwrap())
});
pub(crate) static P384: LazyLock<Signer> = LazyLock::new(|| {
    let der = include_bytes!("fixtures/test_p384.pk8");
    Signer::P384(EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, der).unwrap())
});
pub(crate) static ED25519: LazyLock<Signer> = LazyLock::new(|| {
    let der = include_bytes!("fixtures/test_ed25519.pk8");
    Signer::Ed25519(Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).unwrap())
});

fn rsa(kid: &'static str, der: &[u8]) -> Signer {
    Signer::Rsa(kid, RsaKeyPair::from_pkcs8(der).unwrap())
}

impl Signer {
    pub(crate) fn kid(&self) -> &'static str {
        match self {
            Signer::Rsa(kid, _) => kid,
            Signer::P256(_) => "p256",
            Signer::P384(_) => "p384",
            Signer::Ed25519(_) => "ed25519",
        }
    }

    /// The public key, with `kid` and without `alg`.
    pub(crate) fn jwk(&self) -> Value {
        let kid = self.kid();
        let point = |pair: &EcdsaKeyPair, curve: &str| {
            let (x, y) = pair.public_key().as_ref()[1..].split_at(pair.public_key().as_ref().len() / 2);
            json!({"kty": "EC", "crv": curve, "x": b64(x), "y": b64(y), "kid": kid})
        };
        match self {
            Signer::Rsa(_, pair) => {
                let public = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                json!({"kty": "RSA", "n": b64(public.n), "e": b64(public.e), "kid": kid})
            }
            Signer::P256(pair) => point(pair, "P-256"),
            Signer::P384(pair) => point(pair, "P-384"),
            Signer::Ed25519(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key()), "kid": kid})
            }
        }
    }

    pub(crate) fn sign(&self, algorithm: &str, input: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Signer::Rsa(_, pair) => {
                let encoding: &'static dyn RsaEncoding = match algorithm {
                    "RS384" => &RSA_PKCS1_SHA384,
                    "RS512" => &RSA_PKCS1_SHA512,
                    "PS256" => &RSA_PSS_SHA256,
                    "PS384" => &RSA_PSS_SHA384,
                    "PS512" => &RSA_PSS_SHA512,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &random, input, &mut signature).unwrap();
                signature
            }
            Signer::P256(pair) | Signer::P384(pair) => pair.sign(&random, input).unwrap().as_ref().to_vec(),
            Signer::Ed25519(pair) => pair.sign(input).as_ref().to_vec(),
        }
    }

    /// A token with this header and payload as they stand.
    pub(crate) fn token(&self, header: &str, payload: &str) -> String {
        let algorithm = serde_json::from_str::<Value>(header).unwrap_or_default();
        self.token_of_bytes(
            algorithm["alg"].as_str().unwrap_or_default(),
            header.as_bytes(),
            payload.as_bytes(),
        )
    }

    pub(crate) fn token_of_bytes(&self, algorithm: &str, header: &[u8], payload: &[u8]) -> String {
        let input = format!("{}.{}", b64(header), b64(payload));
        let signature = self.sign(algorithm, input.as_bytes());
        format!("{input}.{}", b64(signature))
    }
}

pub(crate) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(crate) fn unb64(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).unwrap()
}

/// The claims that [`World::new`] lets in as `reader`.
pub(crate) fn claims() -> Value {
    json!({
        "iss": ISSUER,
        "sub": "u1",
        "aud": "pg",
        "exp": NOW + 300,
        "iat": NOW - 10,
        "groups": ["readers", "staff"],
    })
}

/// The claims with some of them changed; null takes one away.
pub(crate) fn claims_with(changes: Value) -> Value {
    let mut all = claims();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            all.as_object_mut().unwrap().remove(name);
        } else {
            all[name] = value.clone();
        }
    }
    all
}

/// A token of the P-256 key.
pub(crate) fn token(claims: &Value) -> String {
    P256.token(r#"{"alg":"ES256","kid":"p256","typ":"JWT"}"#, &claims.to_string())
}

/// A token of the P-256 key with a payload that need not be JSON.
pub(crate) fn token_raw(payload: impl AsRef<[u8]>) -> String {
    P256.token_of_bytes("ES256", br#"{"alg":"ES256","kid":"p256","typ":"JWT"}"#, payload.as_ref())
}

/// A token whose claim has this JSON text.
pub(crate) fn with_text(name: &str, text: &str) -> String {
    let mut claims = claims();
    claims[name] = "PLACE".into();
    token_raw(claims.to_string().replace("\"PLACE\"", text))
}

/// A token without that claim.
pub(crate) fn without(name: &str) -> String {
    token(&claims_with(json!({name: null})))
}

/// A token of the P-256 key and the usual claims with this header.
pub(crate) fn token_with_header(header: &str) -> String {
    P256.token(header, &claims().to_string())
}

pub(crate) fn provider_row() -> ProviderRow {
    ProviderRow {
        name: "corp".to_owned(),
        issuer: ISSUER.to_owned(),
        audiences: vec![Some("pg".to_owned())],
        audience_claim: "aud".to_owned(),
        jwks_uri: None,
        jwks: None,
        ca_certificate: None,
        algorithms: Algorithm::ALL.iter().map(|algorithm| Some(algorithm.name().to_owned())).collect(),
        identity_claim: "sub".to_owned(),
        groups_claim: None,
        max_stale_us: 86_400 * SECOND,
        identity_pattern: None,
        identity_role: None,
        accepted_typ: None,
        required_claims: None,
        clock_skew_us: 0,
        max_token_age_us: None,
        session_limit: "none".to_owned(),
        session_limit_us: None,
        auto_provision: false,
        base_role: None,
        enabled: true,
    }
}

pub(crate) fn rule_row(id: i64, matches: &Value, role: &str) -> RuleRow {
    RuleRow {
        id,
        provider: "corp".to_owned(),
        matches: matches.to_string(),
        role: Some(role.to_owned()),
        role_oid: ROLE_OID,
        effect: "allow".to_owned(),
        priority: 100,
        databases: None,
        replication: Some(false),
        addresses: None,
        valid_from: None,
        valid_until: None,
        session_limit: None,
        session_limit_us: None,
        allow_privileged: false,
        enabled: true,
    }
}

/// Providers with their key sets, rules, and a request.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) providers: Vec<(ProviderRow, Option<Value>)>,
    pub(crate) rules: Vec<RuleRow>,
    pub(crate) revocations: Vec<Revocation>,
    /// Microseconds.
    pub(crate) now: i64,
    pub(crate) fetched_at: i64,
    /// The oid of the requested role, 0 for none.
    pub(crate) role_oid: u32,
    pub(crate) static_keys: bool,
    /// Of the names of tokens without `jti`.
    pub(crate) salt: u64,
    pub(crate) user: &'static str,
    /// None: a Unix-domain socket.
    pub(crate) address: Option<std::net::IpAddr>,
    pub(crate) replication: Replication,
    pub(crate) database: &'static str,
}

impl World {
    /// One provider with one key of each kind, and one rule: group `readers` gives role `reader`.
    pub(crate) fn new() -> World {
        let keys: Vec<Value> = [&RSA_A, &P256, &P384, &ED25519].iter().map(|signer| signer.jwk()).collect();
        World {
            providers: vec![(provider_row(), Some(json!({ "keys": keys })))],
            rules: vec![rule_row(1, &json!({"groups": "readers"}), "reader")],
            revocations: Vec::new(),
            now: NOW * SECOND,
            fetched_at: NOW * SECOND,
            role_oid: ROLE_OID,
            static_keys: false,
            salt: 0,
            user: "reader",
            address: None,
            replication: Replication::None,
            database: "app",
        }
    }

    pub(crate) fn with_provider(change: impl FnOnce(&mut ProviderRow)) -> World {
        let mut world = World::new();
        change(&mut world.providers[0].0);
        world
    }

    pub(crate) fn with_keys(keys: Value) -> World {
        let mut world = World::new();
        world.providers[0].1 = Some(json!({ "keys": keys }));
        world
    }

    pub(crate) fn with_rules(rules: Vec<RuleRow>) -> World {
        World { rules, ..World::new() }
    }

    pub(crate) fn login(&self, token: &str) -> Result<Decision, Refusal> {
        self.login_bytes(token.as_bytes())
    }

    pub(crate) fn login_bytes(&self, token: &[u8]) -> Result<Decision, Refusal> {
        self.run(&mut Account::default(), token, |policy, verified| {
            decide(policy, &verified, &self.request())
        })
    }

    /// What the client asks for.
    pub(crate) fn request(&self) -> Request<'static> {
        Request {
            user: self.user,
            database: self.database,
            role_oid: self.role_oid,
            address: self.address,
            replication: self.replication,
            now: self.now,
        }
    }

    pub(crate) fn verified(&self, token: &str) -> Result<Verified, Refusal> {
        self.run(&mut Account::default(), token.as_bytes(), |_, verified| Ok(verified))
    }

    /// What the audit may keep of the login with this token, however it ends.
    pub(crate) fn account(&self, token: &str) -> Account {
        let mut account = Account::salted(self.salt);
        drop(self.run(&mut account, token.as_bytes(), |_, _| Ok(())));
        account
    }

    /// The code of the refusal, or `accepted`.
    pub(crate) fn outcome(&self, token: &str) -> &'static str {
        self.login(token).map_or_else(|refusal| refusal.code(), |_| "accepted")
    }

    fn run<T>(
        &self,
        account: &mut Account,
        token: &[u8],
        last: impl FnOnce(&pg_oidc_core::image::ArchivedPolicyImage, Verified) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let compiled: Vec<_> =
            self.providers.iter().map(|(row, _)| compile_provider(row, false).unwrap()).collect();
        let keyring = compiled.iter().zip(&self.providers).filter_map(|(provider, (_, keys))| {
            let keys = parse_jwks(keys.as_ref()?.to_string().as_bytes(), &provider.algorithms);
            Some(ProviderKeys {
                name: provider.name.clone(),
                key_source: provider.key_source,
                fetched_at: self.fetched_at,
                attempted_at: self.fetched_at,
                static_keys: self.static_keys,
                keys: keys.map(|parsed| parsed.keys).unwrap_or_default(),
                reports: vec![],
                origin: String::new(),
                next_fetch_at: None,
                last_error: None,
            })
        });
        let keyring = encode_keyring(&KeyringImage::build(keyring.collect()).unwrap()).unwrap();
        let keyring = check_keyring(&keyring).unwrap();
        let rules = self.rules.iter().map(|row| compile_rule(row).unwrap()).collect();
        let policy = PolicyImage::build(compiled, rules).unwrap();
        let policy = encode_policy(&policy.with_revocations(self.revocations.clone()).unwrap()).unwrap();
        let policy = check_policy(&policy).unwrap();

        let untrusted = token::parse(token, WIRE_BYTES)?;
        let selected = match select(policy, keyring, &untrusted, self.now)? {
            Selection::Ready(selected) => selected,
            Selection::KeysPending { .. } => return Err(Refusal::KeysPending),
            // No newer keys ever come here. A static set has none to wait for and is never given as lacking.
            Selection::KeysLacking { why, .. } => {
                assert!(!self.static_keys && why.wants_keys().is_some(), "{why:?}");
                return Err(why);
            }
        };
        assert!(is_current(policy, &selected));
        last(policy, verify_for(account, untrusted, &selected, self.now)?)
    }
}

/// A policy of the provider `corp`, built once.
pub(crate) struct Policy(rkyv::util::AlignedVec);

impl Policy {
    pub(crate) fn new(rules: &[RuleRow]) -> Policy {
        let rules = rules.iter().map(|row| compile_rule(row).unwrap()).collect();
        let provider = compile_provider(&provider_row(), false).unwrap();
        Policy(encode_policy(&PolicyImage::build(vec![provider], rules).unwrap()).unwrap())
    }

    /// The rule that decides, or the code of the refusal.
    pub(crate) fn decide(&self, verified: &Verified, request: &Request<'_>) -> Result<i64, &'static str> {
        let decision = decide(check_policy(&self.0).unwrap(), verified, request);
        decision.map(|decision| decision.rule_id).map_err(|refusal| refusal.code())
    }
}

/// Asserts that every token is refused with that code.
#[track_caller]
pub(crate) fn all_refused(
    world: &World,
    code: &str,
    tokens: impl IntoIterator<Item = (impl std::fmt::Debug, String)>,
) {
    for (what, token) in tokens {
        assert_eq!(world.outcome(&token), code, "{what:?}");
    }
}
