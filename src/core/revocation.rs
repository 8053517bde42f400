//! Identities whose tokens are refused: rows of `oidc.revocation`.

use rkyv::with::Skip;
use rkyv::{Archive, Deserialize, Serialize};

use crate::image::ArchivedPolicyEntry;
use crate::refusal::Refusal;

/// A row of `oidc.revocation`. Times are in microseconds since the Unix epoch.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Name of the provider; in the image a revocation stands under it.
    #[rkyv(with = Skip)]
    pub provider: String,
    /// The claim `sub` of the identity.
    pub subject: String,
    /// The first time at which its tokens are accepted again; in the past: they are not refused for this.
    pub until: i64,
    /// Tokens issued at this time or before are refused, and those that do not say when they were issued.
    pub tokens_before: Option<i64>,
}

/// How a revocation bears upon a token or a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bar {
    /// The identity is revoked.
    Revoked,
    /// The token is from before its sessions were ended.
    Ended,
}

pub(crate) fn bar(until: i64, tokens_before: Option<i64>, issued_at: Option<i64>, now: i64) -> Option<Bar> {
    if until > now {
        return Some(Bar::Revoked);
    }
    let ended = tokens_before.is_some_and(|before| issued_at.is_none_or(|issued_at| issued_at <= before));
    ended.then_some(Bar::Ended)
}

/// Refuses a token whose identity is revoked, or that is from before its sessions were ended.
pub(crate) fn check(
    entry: &ArchivedPolicyEntry,
    subject: &str,
    issued_at: Option<i64>,
    now: i64,
) -> Result<(), Refusal> {
    let place = entry.revocations.binary_search_by(|revocation| revocation.subject.as_str().cmp(subject));
    let Some(revocation) = place.ok().and_then(|place| entry.revocations.get(place)) else {
        return Ok(());
    };
    let tokens_before = revocation.tokens_before.as_ref().map(|before| before.to_native());
    match bar(revocation.until.to_native(), tokens_before, issued_at, now) {
        Some(Bar::Revoked) => Err(Refusal::IdentityRevoked),
        Some(Bar::Ended) => Err(Refusal::SessionsEnded),
        None => Ok(()),
    }
}
