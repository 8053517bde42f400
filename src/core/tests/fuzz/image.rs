//! Bytes that are taken for an image: refused, or whatever a login and a worker do with it ends well.

use pg_oidc_core::decision::{Request, decide};
use pg_oidc_core::image::{
    ArchivedKeyringImage, ArchivedPolicyImage, KeyringImage, PolicyImage, check_keyring, check_policy,
    encode_keyring,
};
use pg_oidc_core::keys::jwks_text;
use pg_oidc_core::limits::WIRE_BYTES;
use pg_oidc_core::provider::Provider;
use pg_oidc_core::token;
use rkyv::rancor::Error;
use rkyv::util::AlignedVec;

use super::forge::{GOOD, edited};
use super::house::{HOUSE, USERS, judge};
use crate::common::REQUEST;

/// A byte that says which image (bit 0) and whether the rest are edits of a good one (bit 1) or its bytes. Gives
/// whether the bytes are an image.
pub(crate) fn check(data: &[u8]) -> bool {
    let Some((mode, rest)) = data.split_first() else { return false };
    let (good, check): (_, fn(&[u8]) -> bool) = match mode & 1 {
        0 => (HOUSE.policy_bytes(), check_as_policy),
        _ => (HOUSE.keyring_bytes(), check_as_keyring),
    };
    if mode & 2 == 0 { check(rest) } else { check(&edited_in_place(good, rest)) }
}

/// Whether the bytes are a policy.
pub(crate) fn check_as_policy(bytes: &[u8]) -> bool {
    check_policy(&aligned(bytes)).map(|policy| use_policy(policy, bytes.len())).is_ok()
}

/// Whether the bytes are a keyring.
pub(crate) fn check_as_keyring(bytes: &[u8]) -> bool {
    check_keyring(&aligned(bytes)).map(use_keyring).is_ok()
}

fn aligned(bytes: &[u8]) -> AlignedVec {
    let mut aligned = AlignedVec::new();
    aligned.extend_from_slice(bytes);
    aligned
}

/// An image keeps its length mostly: positions in it count from where they stand.
fn edited_in_place(good: &[u8], edits: &[u8]) -> Vec<u8> {
    if edits.len() % 3 == 1 {
        return edited(good, edits);
    }
    let mut bytes = good.to_vec();
    for edit in edits.chunks_exact(3) {
        let place = usize::from(u16::from_be_bytes([edit[0], edit[1]])) % bytes.len();
        bytes[place] ^= edit[2];
    }
    bytes
}

fn use_policy(policy: &ArchivedPolicyImage, length: usize) {
    assert!(policy.rule_count() <= length);
    for provider in policy.providers() {
        let provider = rkyv::deserialize::<Provider, Error>(provider).expect("a provider that was checked");
        assert!(provider.name.len() <= length);
    }
    rkyv::deserialize::<PolicyImage, Error>(policy).expect("a policy that was checked");
    log_in(policy, HOUSE.keyring());
}

fn use_keyring(keyring: &ArchivedKeyringImage) {
    for provider in keyring.providers() {
        keyring.entry(provider.key_source.to_native());
    }
    let owned = rkyv::deserialize::<KeyringImage, Error>(keyring).expect("a keyring that was checked");
    let entries = owned.into_providers();
    for entry in &entries {
        jwks_text(&entry.keys, entry.key_source);
        for report in &entry.reports {
            assert!(!format!("{report:?}").is_empty());
        }
    }
    // The worker builds the next one from it. It may be over the limits.
    if let Ok(next) = KeyringImage::build(entries) {
        encode_keyring(&next).expect("a keyring that was read");
    }
    log_in(HOUSE.policy(), keyring);
}

fn log_in(policy: &ArchivedPolicyImage, keyring: &ArchivedKeyringImage) {
    for token in GOOD.iter() {
        let untrusted = token::parse(token.as_bytes(), WIRE_BYTES).expect("a good token");
        let Ok(verified) = judge(policy, keyring, untrusted) else { continue };
        for user in USERS {
            let request = Request { user, ..REQUEST };
            let _either = decide(policy, &verified, &request);
        }
    }
}
