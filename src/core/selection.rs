//! From the unverified `iss`, `kid` and `alg` to the provider's checks and the one key that may verify the token.

use rkyv::rancor;

use crate::algorithm::Algorithm;
use crate::checks::Checks;
use crate::image::{ArchivedKeyringImage, ArchivedPolicyEntry, ArchivedPolicyImage, ArchivedProviderKeys};
use crate::keys::{ArchivedKey, Key};
use crate::path::ClaimPath;
use crate::provider::ArchivedProvider;
use crate::refusal::Refusal;
use crate::token::Untrusted;

/// An owned copy of all that verifying one token needs, so that the signature is checked outside the lock.
#[derive(Debug, Clone)]
pub struct Selected {
    pub(crate) provider: String,
    pub(crate) issuer: String,
    pub(crate) revision: u64,
    pub(crate) algorithm: Algorithm,
    pub(crate) key: Key,
    pub(crate) checks: Checks,
    /// The claims that rules of the provider name, for the audit.
    pub(crate) named: Vec<ClaimPath>,
}

/// What [`select`] found.
#[derive(Debug, Clone)]
#[expect(
    clippy::large_enum_variant,
    reason = "one lives on the stack of a login, and is taken apart at once"
)]
pub enum Selection {
    /// The token can be verified.
    Ready(Selected),
    /// The keys of the provider have not been published yet, as after a start or a change of where they come from.
    KeysPending {
        /// The name of the provider.
        provider: String,
    },
    /// No published key may verify the token, but the provider may have newer ones.
    KeysLacking {
        /// Where the keys come from: [`crate::image::ProviderKeys::key_source`].
        key_source: u64,
        /// When they were last asked for, in microseconds since the Unix epoch.
        attempted_at: i64,
        /// The refusal, if no newer ones come.
        why: Refusal,
    },
}

/// Finds provider and key for a token. Nothing of the token but `iss`, `kid` and `alg` is looked at. Runs under the
/// board lock: it copies a few strings and one key.
///
/// # Errors
/// [`Refusal`]: no such provider, disabled, algorithm not in its list, more than one key that fits, or a static key set
/// without one. `now` is in microseconds since the Unix epoch.
pub fn select(
    policy: &ArchivedPolicyImage,
    keyring: &ArchivedKeyringImage,
    untrusted: &Untrusted,
    now: i64,
) -> Result<Selection, Refusal> {
    let entry = policy.entry(untrusted.issuer()?).ok_or(Refusal::IssuerUnknown)?;
    let provider = &entry.provider;
    let name = || provider.name.as_str().to_owned();
    if !provider.enabled {
        return Err(Refusal::ProviderDisabled { provider: name() });
    }
    let algorithm = untrusted.header.algorithm;
    if !provider.algorithms.iter().any(|allowed| *allowed == algorithm) {
        return Err(Refusal::AlgorithmNotAllowed { provider: name(), algorithm });
    }
    let Some(published) = keyring.entry(provider.key_source.to_native()) else {
        return Ok(Selection::KeysPending { provider: name() });
    };
    match usable_key(published, provider, untrusted, now) {
        Ok(key) => Ok(Selection::Ready(copy(entry, algorithm, key)?)),
        Err(why) if !published.static_keys && why.wants_keys().is_some() => Ok(Selection::KeysLacking {
            key_source: published.key_source.to_native(),
            attempted_at: published.attempted_at.to_native(),
            why,
        }),
        Err(why) => Err(why),
    }
}

fn usable_key<'a>(
    published: &'a ArchivedProviderKeys,
    provider: &ArchivedProvider,
    untrusted: &Untrusted,
    now: i64,
) -> Result<&'a ArchivedKey, Refusal> {
    let name = || provider.name.as_str().to_owned();
    if published.keys.is_empty() {
        return Err(Refusal::KeysUnavailable { provider: name() });
    }
    let age = now.saturating_sub(published.fetched_at.to_native());
    if !published.static_keys && age > provider.max_stale.to_native() {
        return Err(Refusal::KeysStale { provider: name() });
    }
    only_fitting(&published.keys, untrusted, name)
}

/// The key that fits, if it is the only one: two would mean that the token chooses.
fn only_fitting<'a>(
    keys: &'a [ArchivedKey],
    untrusted: &Untrusted,
    provider: impl Fn() -> String,
) -> Result<&'a ArchivedKey, Refusal> {
    let header = &untrusted.header;
    let mut fitting = keys.iter().filter(|key| key.fits(header.kid.as_deref(), header.algorithm));
    match (fitting.next(), fitting.next()) {
        (Some(key), None) => Ok(key),
        (Some(_), Some(_)) => Err(Refusal::KeyAmbiguous { provider: provider() }),
        (None, _) => Err(Refusal::KeyUnknown { provider: provider() }),
    }
}

fn copy(entry: &ArchivedPolicyEntry, algorithm: Algorithm, key: &ArchivedKey) -> Result<Selected, Refusal> {
    let provider = &entry.provider;
    Ok(Selected {
        provider: provider.name.as_str().to_owned(),
        issuer: provider.issuer.as_str().to_owned(),
        revision: provider.revision.to_native(),
        algorithm,
        key: rkyv::deserialize::<Key, rancor::Failure>(key).map_err(|_| Refusal::InternalError)?,
        checks: rkyv::deserialize::<Checks, rancor::Failure>(&provider.checks)
            .map_err(|_| Refusal::InternalError)?,
        named: rkyv::deserialize::<Vec<ClaimPath>, rancor::Failure>(&entry.named)
            .map_err(|_| Refusal::InternalError)?,
    })
}

/// Whether the provider is still published as it was when it was selected.
pub fn is_current(policy: &ArchivedPolicyImage, selected: &Selected) -> bool {
    policy
        .entry(&selected.issuer)
        .is_some_and(|entry| entry.provider.revision.to_native() == selected.revision)
}

impl Selected {
    /// The name of the provider.
    pub fn provider_name(&self) -> &str {
        &self.provider
    }
}
