//! The two images that workers publish and logins read in place: policy and keyring.
//!
//! They are pointer-free (rkyv). The worker builds, encodes and checks one; a login only looks things up in it. An
//! image over a limit is refused whole, and the old one stays.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use rkyv::rancor;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

use crate::index::Index;
use crate::keys::{Key, KeyReport};
use crate::limits;
use crate::path::ClaimPath;
use crate::people::{Binding, People};
use crate::provider::{ArchivedProvider, Provider};
use crate::revocation::Revocation;
use crate::row::shown;
use crate::rules::{ArchivedRule, Effect, Rule};
use crate::subject::Subject;

/// All providers with their rules, ready to be looked up by issuer.
#[derive(Archive, Serialize, Deserialize, Debug, Clone)]
pub struct PolicyImage {
    /// Sorted by issuer.
    pub(crate) entries: Vec<PolicyEntry>,
    pub(crate) people: People,
}

/// One provider with its enabled rules.
#[derive(Archive, Serialize, Deserialize, Debug, Clone)]
pub(crate) struct PolicyEntry {
    pub(crate) provider: Provider,
    pub(crate) denials: RuleSet,
    pub(crate) allows: RuleSet,
    /// A rule that denies and does not compile any more: nobody knows whom it would refuse.
    pub(crate) broken_denial: Option<i64>,
    /// Sorted by subject.
    pub(crate) revocations: Vec<Revocation>,
    /// Sorted by subject.
    pub(crate) bindings: Vec<Binding>,
    /// The claims that its rules look at, each once, at most [`limits::FACT_CLAIMS`]: what the audit keeps.
    pub(crate) named: Vec<ClaimPath>,
}

/// Rules of one provider and effect.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, Default)]
pub(crate) struct RuleSet {
    /// Sorted by priority, then id: a lower position decides.
    pub(crate) rules: Vec<Rule>,
    pub(crate) index: Index,
}

/// The usable keys of all providers, ready to be looked up by [`Provider::key_source`].
#[derive(Archive, Serialize, Deserialize, Debug, Clone)]
pub struct KeyringImage {
    /// Sorted by key source.
    pub(crate) entries: Vec<ProviderKeys>,
}

/// The usable keys of one provider.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct ProviderKeys {
    /// The provider's name.
    pub name: String,
    /// What the keys were made from: [`Provider::key_source`].
    pub key_source: u64,
    /// When they were fetched, in microseconds since the Unix epoch. Not looked at for static keys.
    pub fetched_at: i64,
    /// When the last attempt to fetch them ended, well or not; the next one may be asked for
    /// [`limits::FETCH_PAUSE`] later.
    pub attempted_at: i64,
    /// They come from the column `jwks` and never grow old.
    pub static_keys: bool,
    /// The keys; empty if the provider has answered, but never with a usable one.
    pub keys: Vec<Key>,
    /// What became of each entry of the set that the keys come from.
    pub reports: Vec<KeyReport>,
    /// Where the keys come from: a URL, `jwks` for static ones, `cache` for those kept across a restart.
    pub origin: String,
    /// When they are fetched next, in microseconds since the Unix epoch; None for static ones.
    pub next_fetch_at: Option<i64>,
    /// Why the last attempt failed; None if it did not.
    pub last_error: Option<String>,
}

/// Why an image is refused whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageError {
    /// More providers than [`limits::PROVIDERS`].
    TooManyProviders,
    /// More rules than [`limits::RULES`].
    TooManyRules,
    /// More rules with a regular expression or a glob than [`limits::PATTERN_RULES`].
    TooManyPatterns,
    /// More revocations than [`limits::REVOCATIONS`].
    TooManyRevocations,
    /// More bindings than [`limits::BINDINGS`], or more memberships than [`limits::GRANTED`].
    TooManyPeople,
    /// More keys of one provider than [`limits::KEYS_PER_PROVIDER`].
    TooManyKeys,
    /// Two providers of this name or issuer, or two key sets of one source.
    Repeated(String),
    /// The bytes could not be written.
    Encode,
    /// The bytes are not an image of this version.
    Invalid,
}

impl PolicyImage {
    /// Builds the policy. Disabled rules, and rules of a provider that is not in `providers` (its row did not
    /// compile), are left out: they give nothing.
    ///
    /// # Errors
    /// [`ImageError`]: the numbers are over the limits, or a name or issuer is there twice.
    pub fn build(mut providers: Vec<Provider>, rules: Vec<Rule>) -> Result<PolicyImage, ImageError> {
        if providers.len() > limits::PROVIDERS {
            return Err(ImageError::TooManyProviders);
        }
        if rules.len() > limits::RULES {
            return Err(ImageError::TooManyRules);
        }
        if rules.iter().filter(|rule| rule.enabled && rule.has_pattern()).count() > limits::PATTERN_RULES {
            return Err(ImageError::TooManyPatterns);
        }
        let mut rules_of: BTreeMap<String, Vec<Rule>> = BTreeMap::new();
        for provider in &providers {
            if rules_of.insert(provider.name.clone(), Vec::new()).is_some() {
                return Err(ImageError::Repeated(provider.name.clone()));
            }
        }
        for rule in rules.into_iter().filter(|rule| rule.enabled) {
            if let Some(list) = rules_of.get_mut(&rule.provider) {
                list.push(rule);
            }
        }
        providers.sort_by(|one, other| one.issuer.cmp(&other.issuer));
        let mut entries: Vec<PolicyEntry> = Vec::with_capacity(providers.len());
        for provider in providers {
            if entries.last().is_some_and(|entry| entry.provider.issuer == provider.issuer) {
                return Err(ImageError::Repeated(provider.issuer));
            }
            let rules = rules_of.remove(&provider.name).unwrap_or_default();
            let named = named(&rules);
            let (denials, allows) = rules.into_iter().partition(|rule| rule.effect == Effect::Deny);
            entries.push(PolicyEntry {
                provider,
                denials: RuleSet::build(denials),
                allows: RuleSet::build(allows),
                broken_denial: None,
                revocations: Vec::new(),
                bindings: Vec::new(),
                named,
            });
        }
        Ok(PolicyImage { entries, people: People::default() })
    }

    /// Refuses every login of a provider, because its rule `id` denies and does not compile.
    #[must_use]
    pub fn with_broken_denial(mut self, provider: &str, id: i64) -> PolicyImage {
        for entry in self.entries.iter_mut().filter(|entry| entry.provider.name == provider) {
            entry.broken_denial = Some(entry.broken_denial.map_or(id, |other| other.min(id)));
        }
        self
    }

    /// Refuses identities. Those of a provider that is not in the policy are left out.
    ///
    /// # Errors
    /// [`ImageError`]: there are too many, or an identity is there twice.
    pub fn with_revocations(mut self, mut revocations: Vec<Revocation>) -> Result<PolicyImage, ImageError> {
        if revocations.len() > limits::REVOCATIONS {
            return Err(ImageError::TooManyRevocations);
        }
        revocations
            .sort_by(|one, other| (&one.provider, &one.subject).cmp(&(&other.provider, &other.subject)));
        for (one, next) in revocations.iter().zip(revocations.iter().skip(1)) {
            if (&one.provider, &one.subject) == (&next.provider, &next.subject) {
                return Err(ImageError::Repeated(next.subject.clone()));
            }
        }
        let mut places: BTreeMap<String, &mut PolicyEntry> =
            self.entries.iter_mut().map(|entry| (entry.provider.name.clone(), entry)).collect();
        for revocation in revocations {
            if let Some(entry) = places.get_mut(&revocation.provider) {
                entry.revocations.push(revocation);
            }
        }
        Ok(self)
    }

    /// The providers, by issuer.
    pub fn providers(&self) -> impl Iterator<Item = &Provider> {
        self.entries.iter().map(|entry| &entry.provider)
    }
}

fn named(rules: &[Rule]) -> Vec<ClaimPath> {
    let paths: BTreeSet<&ClaimPath> =
        rules.iter().flat_map(|rule| &rule.members).map(|member| &member.path).collect();
    paths.into_iter().take(limits::FACT_CLAIMS).cloned().collect()
}

impl RuleSet {
    fn build(mut rules: Vec<Rule>) -> RuleSet {
        rules.sort_by_key(|rule| (rule.priority, rule.id));
        let index = Index::build(&rules);
        RuleSet { rules, index }
    }
}

impl ArchivedRuleSet {
    /// The first rule, by priority and id, of those that may count and for which `test` says yes.
    pub(crate) fn first(
        &self,
        subject: &Subject<'_>,
        mut test: impl FnMut(&ArchivedRule) -> bool,
    ) -> Option<&ArchivedRule> {
        let mut first = None;
        self.index.any_candidate(subject, |number| {
            if first.is_none_or(|first| number < first) && self.rule(number).is_some_and(&mut test) {
                first = Some(number);
            }
            first == Some(0)
        });
        self.rule(first?)
    }

    /// Every rule for which `test` says yes, by priority and id.
    pub(crate) fn all(
        &self,
        subject: &Subject<'_>,
        test: impl Fn(&ArchivedRule) -> bool,
    ) -> impl Iterator<Item = &ArchivedRule> {
        let mut candidates = Vec::new();
        self.index.any_candidate(subject, |number| {
            candidates.push(number);
            false
        });
        candidates.sort_unstable();
        candidates.dedup();
        candidates.into_iter().filter_map(|number| self.rule(number)).filter(move |rule| test(rule))
    }

    fn rule(&self, number: u32) -> Option<&ArchivedRule> {
        self.rules.get(usize::try_from(number).ok()?)
    }
}

impl KeyringImage {
    /// Builds the keyring.
    ///
    /// # Errors
    /// [`ImageError`]: the numbers are over the limits, or a key source is there twice.
    pub fn build(mut entries: Vec<ProviderKeys>) -> Result<KeyringImage, ImageError> {
        if entries.len() > limits::PROVIDERS {
            return Err(ImageError::TooManyProviders);
        }
        if entries.iter().any(|entry| entry.keys.len() > limits::KEYS_PER_PROVIDER) {
            return Err(ImageError::TooManyKeys);
        }
        entries.sort_by_key(|entry| entry.key_source);
        for (entry, next) in entries.iter().zip(entries.iter().skip(1)) {
            if entry.key_source == next.key_source {
                return Err(ImageError::Repeated(next.name.clone()));
            }
        }
        Ok(KeyringImage { entries })
    }
}

impl KeyringImage {
    /// The key sets, by key source.
    pub fn into_providers(self) -> Vec<ProviderKeys> {
        self.entries
    }
}

impl ArchivedPolicyImage {
    /// The providers, by issuer.
    pub fn providers(&self) -> impl Iterator<Item = &ArchivedProvider> {
        self.entries.iter().map(|entry| &entry.provider)
    }

    /// How many enabled rules there are.
    pub fn rule_count(&self) -> usize {
        self.entries
            .iter()
            .map(|entry| entry.denials.rules.len().saturating_add(entry.allows.rules.len()))
            .sum()
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &ArchivedPolicyEntry> {
        self.entries.iter()
    }

    pub(crate) fn entry(&self, issuer: &str) -> Option<&ArchivedPolicyEntry> {
        let place = self.entries.binary_search_by(|entry| entry.provider.issuer.as_str().cmp(issuer)).ok()?;
        self.entries.get(place)
    }
}

impl ArchivedKeyringImage {
    /// The key sets, by key source.
    pub fn providers(&self) -> impl Iterator<Item = &ArchivedProviderKeys> {
        self.entries.iter()
    }

    /// The key set of a source.
    pub fn entry(&self, key_source: u64) -> Option<&ArchivedProviderKeys> {
        let place =
            self.entries.binary_search_by_key(&key_source, |entry| entry.key_source.to_native()).ok()?;
        self.entries.get(place)
    }
}

/// The bytes of a policy, to be copied to a place aligned to 16 bytes.
///
/// # Errors
/// [`ImageError::Encode`].
pub fn encode_policy(image: &PolicyImage) -> Result<AlignedVec, ImageError> {
    rkyv::to_bytes::<rancor::Failure>(image).map_err(|_| ImageError::Encode)
}

/// Reads the bytes of a policy in place, after checking every one of them.
///
/// # Errors
/// [`ImageError::Invalid`]: not such bytes, or not aligned.
pub fn check_policy(bytes: &[u8]) -> Result<&ArchivedPolicyImage, ImageError> {
    rkyv::access::<ArchivedPolicyImage, rancor::Failure>(bytes).map_err(|_| ImageError::Invalid)
}

/// The bytes of a keyring, to be copied to a place aligned to 16 bytes.
///
/// # Errors
/// [`ImageError::Encode`].
pub fn encode_keyring(image: &KeyringImage) -> Result<AlignedVec, ImageError> {
    rkyv::to_bytes::<rancor::Failure>(image).map_err(|_| ImageError::Encode)
}

/// Reads the bytes of a keyring in place, after checking every one of them.
///
/// # Errors
/// [`ImageError::Invalid`]: not such bytes, or not aligned.
pub fn check_keyring(bytes: &[u8]) -> Result<&ArchivedKeyringImage, ImageError> {
    rkyv::access::<ArchivedKeyringImage, rancor::Failure>(bytes).map_err(|_| ImageError::Invalid)
}

impl fmt::Display for ImageError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageError::TooManyProviders => {
                write!(formatter, "there are more than {} providers", limits::PROVIDERS)
            }
            ImageError::TooManyRules => write!(formatter, "there are more than {} rules", limits::RULES),
            ImageError::TooManyPatterns => write!(
                formatter,
                "more than {} rules have a regular expression or a glob",
                limits::PATTERN_RULES
            ),
            ImageError::TooManyRevocations => {
                write!(formatter, "there are more than {} revocations", limits::REVOCATIONS)
            }
            ImageError::TooManyPeople => write!(
                formatter,
                "there are more than {} bindings, or {} granted memberships",
                limits::BINDINGS,
                limits::GRANTED
            ),
            ImageError::TooManyKeys => {
                write!(formatter, "a provider has more than {} keys", limits::KEYS_PER_PROVIDER)
            }
            ImageError::Repeated(name) => write!(formatter, "{} is there twice", shown(name)),
            ImageError::Encode => formatter.write_str("the image could not be encoded"),
            ImageError::Invalid => formatter.write_str("the image is not valid"),
        }
    }
}

impl std::error::Error for ImageError {}
