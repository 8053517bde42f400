//! The one place where a token becomes believed.
//!
//! ```text
//! signature ─► aud ─► exp, nbf, iat ─► typ ─► required_claims ─► cnf ─► sub ─► identity ─► groups ─► Verified
//! ```
//! The signature comes first: no claim of a forged token is judged, so none can be probed.

use crate::account::Account;
use crate::checks::Checks;
use crate::effort::Effort;
use crate::json::Json;
use crate::limits;
use crate::path::ClaimPath;
use crate::refusal::Refusal;
use crate::row::shown;
use crate::selection::Selected;
use crate::subject::{Email, Subject, WORD_LISTS};
use crate::time::numeric_date;
use crate::token::Untrusted;
use crate::trace::{Login, Step, Trace};

/// A token that its provider's key has signed and whose claims passed every check of the provider. Only [`verify`]
/// makes one.
#[derive(Clone)]
pub struct Verified {
    pub(crate) provider: String,
    pub(crate) issuer: String,
    pub(crate) revision: u64,
    pub(crate) subject: String,
    pub(crate) identity: String,
    pub(crate) claims: Json,
    pub(crate) claims_text: String,
    pub(crate) expires_at: i64,
    pub(crate) issued_at: Option<i64>,
    pub(crate) email_trusted: bool,
    groups_claim: Option<ClaimPath>,
}

impl std::fmt::Debug for Verified {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Verified").field("provider", &self.provider).finish_non_exhaustive()
    }
}

/// Verifies a token with what was selected for it, at `now` in microseconds since the Unix epoch.
///
/// # Errors
/// The first [`Refusal`] in the order above.
pub fn verify(untrusted: Untrusted, selected: &Selected, now: i64) -> Result<Verified, Refusal> {
    verify_for(&mut Account::default(), untrusted, selected, now)
}

/// As [`verify`], and notes whose token it is as soon as the signature is verified.
///
/// # Errors
/// As [`verify`].
pub fn verify_for(
    account: &mut Account,
    untrusted: Untrusted,
    selected: &Selected,
    now: i64,
) -> Result<Verified, Refusal> {
    account.select(selected);
    if untrusted.header.algorithm != selected.algorithm || untrusted.issuer()? != selected.issuer {
        return Err(Refusal::InternalError);
    }
    if !signed(&untrusted, selected) {
        return Err(Refusal::SignatureInvalid);
    }
    account.believe(&untrusted, selected);
    let facts = judge(&untrusted, &selected.checks, now, &mut Login)?;
    account.keep(&untrusted.claims, selected);
    Ok(Verified {
        provider: selected.provider.clone(),
        issuer: selected.issuer.clone(),
        revision: selected.revision,
        subject: facts.subject,
        identity: facts.identity,
        claims_text: untrusted.claims.to_string(),
        expires_at: facts.expires_at,
        issued_at: facts.issued_at,
        email_trusted: facts.email_trusted,
        groups_claim: selected.checks.groups_claim.clone(),
        claims: untrusted.claims,
    })
}

/// Whether the selected key made the signature.
pub(crate) fn signed(untrusted: &Untrusted, selected: &Selected) -> bool {
    selected.key.verifies(selected.algorithm, &untrusted.signing_input, &untrusted.signature)
}

/// What the claims of a token say, believed or not: only [`verify`] makes a [`Verified`] of it.
pub(crate) struct Facts {
    pub(crate) subject: String,
    pub(crate) identity: String,
    pub(crate) expires_at: i64,
    pub(crate) issued_at: Option<i64>,
    pub(crate) email_trusted: bool,
}

/// Every check of the provider but the signature's, in order.
pub(crate) fn judge(
    untrusted: &Untrusted,
    checks: &Checks,
    now: i64,
    trace: &mut impl Trace,
) -> Result<Facts, Refusal> {
    let claims = &untrusted.claims;
    trace.check(
        Step::Audience,
        check_audience(claims, checks),
        "It names one of the provider's audiences.",
    )?;
    let times = Times::read(claims).and_then(|times| times.check(checks, now).map(|()| times));
    let times = trace.step(Step::Times, times, |times| times.sentence(now), Times::default)?;
    trace.check(Step::Typ, check_typ(untrusted, checks), "The provider accepts it.")?;
    let effort = Effort::new();
    let subject = subject(claims, checks, &effort);
    let required = match checks.required.iter().find(|member| !subject.has(member.path.steps(), &member.test))
    {
        Some(failed) => Err(Refusal::RequiredClaimFailed { claim: failed.path.text() }),
        None if effort.is_spent() => Err(Refusal::PatternsTooCostly),
        None => Ok(()),
    };
    trace.check(Step::RequiredClaims, required, "Each of the provider's required_claims holds.")?;
    let binding = if claims.get("cnf").is_some() { Err(Refusal::TokenBound) } else { Ok(()) };
    trace.check(Step::Binding, binding, "The token is bound to no key of its holder.")?;
    let sub = name(claims.get("sub")).map(str::to_owned).ok_or(Refusal::SubjectInvalid);
    let sub = trace.step(Step::Subject, sub, |sub| format!("It is {}.", shown(sub)), String::new)?;
    let identity = trace.step(
        Step::Identity,
        identity(&subject, checks),
        |identity| format!("It is {}.", shown(identity)),
        String::new,
    )?;
    let groups = check_groups(claims, checks).and_then(|()| check_word_lists(claims));
    trace.check(Step::Groups, groups, "They are as the provider's groups_claim asks.")?;
    Ok(Facts {
        subject: sub,
        identity,
        expires_at: times.expires_at,
        issued_at: times.issued_at,
        email_trusted: subject.email == Email::Trusted,
    })
}

/// The claims as this provider's rules see them.
pub(crate) fn subject<'a>(claims: &'a Json, checks: &Checks, effort: &'a Effort) -> Subject<'a> {
    let email_trusted = checks.decides_email() || claims.get("email_verified") == Some(&Json::Bool(true));
    Subject::new(claims, email_trusted, effort)
}

fn check_typ(untrusted: &Untrusted, checks: &Checks) -> Result<(), Refusal> {
    let typ = untrusted.header.typ.as_deref().unwrap_or_default();
    if checks.accepted_typ.iter().any(|accepted| accepted == typ) { Ok(()) } else { Err(Refusal::TypRefused) }
}

pub(crate) fn identity(subject: &Subject<'_>, checks: &Checks) -> Result<String, Refusal> {
    let claim = &checks.identity_claim;
    let identity =
        name(claim.find(subject.claims)).ok_or_else(|| Refusal::IdentityInvalid { claim: claim.text() })?;
    if claim.is("email") && subject.email != Email::Trusted {
        return Err(Refusal::EmailUnverified);
    }
    Ok(identity.to_owned())
}

/// RFC 7519, section 4.1.3: a string, or an array of strings, one of which must be ours, byte for byte.
fn check_audience(claims: &Json, checks: &Checks) -> Result<(), Refusal> {
    let claim = || checks.audience_claim.text();
    let value =
        checks.audience_claim.find(claims).ok_or_else(|| Refusal::AudienceMissing { claim: claim() })?;
    let audiences = value.strings().filter(|audiences| !audiences.is_empty());
    let audiences = audiences.ok_or_else(|| Refusal::AudienceInvalid { claim: claim() })?;
    if audiences.iter().any(|audience| checks.audiences.iter().any(|ours| ours == audience)) {
        Ok(())
    } else {
        Err(Refusal::AudienceMismatch { claim: claim() })
    }
}

/// `exp`, `nbf` and `iat` (RFC 7519, sections 4.1.4 to 4.1.6), in microseconds since the Unix epoch.
#[derive(Default)]
struct Times {
    expires_at: i64,
    not_before: Option<i64>,
    issued_at: Option<i64>,
}

impl Times {
    fn read(claims: &Json) -> Result<Times, Refusal> {
        let date = |name, refusal| match claims.get(name) {
            None => Ok(None),
            Some(claim) => numeric_date(claim).map(Some).ok_or(refusal),
        };
        Ok(Times {
            expires_at: date("exp", Refusal::ExpiryInvalid)?.ok_or(Refusal::ExpiryMissing)?,
            not_before: date("nbf", Refusal::NotBeforeInvalid)?,
            issued_at: date("iat", Refusal::IssuedAtInvalid)?,
        })
    }

    fn sentence(&self, now: i64) -> String {
        let left = self.expires_at.saturating_sub(now).div_euclid(limits::SECOND);
        format!("The token expires in {left} s.")
    }

    fn check(&self, checks: &Checks, now: i64) -> Result<(), Refusal> {
        let skew = checks.clock_skew;
        let latest = now.saturating_add(skew);
        if self.expires_at.saturating_add(skew) <= now {
            return Err(Refusal::TokenExpired);
        }
        if self.not_before.is_some_and(|not_before| not_before > latest) {
            return Err(Refusal::NotYetValid);
        }
        if self.issued_at.is_some_and(|issued_at| issued_at > latest) {
            return Err(Refusal::IssuedInFuture);
        }
        let Some(max_age) = checks.max_token_age else {
            return Ok(());
        };
        let issued_at = self.issued_at.ok_or(Refusal::IssuedAtMissing)?;
        if now.saturating_sub(issued_at) > max_age.saturating_add(skew) {
            return Err(Refusal::TokenTooOld);
        }
        // Both times come from the issuer's clock, so there is no skew in their difference.
        if self.expires_at.saturating_sub(issued_at) > max_age {
            return Err(Refusal::LifetimeTooLong);
        }
        Ok(())
    }
}

/// A name of a person or workload: it goes into logs and views, so it holds no control characters.
pub(crate) fn name(claim: Option<&Json>) -> Option<&str> {
    let name = claim?.as_str()?;
    let sound =
        !name.is_empty() && name.len() <= limits::SUBJECT_BYTES && !name.chars().any(char::is_control);
    sound.then_some(name)
}

/// Groups that are missing are not "no groups": the rules would give less than they should, and deny rules would not
/// deny. Entra leaves them out above 200 and says so in `_claim_names` or `hasgroups`.
fn check_groups(claims: &Json, checks: &Checks) -> Result<(), Refusal> {
    let groups_claim = checks.groups_claim.as_ref();
    let claim = || groups_claim.map_or_else(|| "groups".to_owned(), ClaimPath::text);
    let top_level = groups_claim.map_or("groups", |path| path.steps().next().unwrap_or_default());
    let elsewhere = claims.get("_claim_names").is_some_and(|names| names.get(top_level).is_some());
    let has_groups = claims.get("hasgroups").is_some_and(|value| match value {
        Json::Bool(value) => *value,
        Json::String(text) => text.eq_ignore_ascii_case("true"),
        _ => false,
    });
    if elsewhere || (has_groups && top_level == "groups") {
        return Err(Refusal::GroupsOverage { claim: claim() });
    }
    let Some(path) = groups_claim else {
        return Ok(());
    };
    let groups = path.find(claims).ok_or_else(|| Refusal::GroupsMissing { claim: claim() })?;
    groups.strings().map(|_| ()).ok_or_else(|| Refusal::GroupsInvalid { claim: claim() })
}

/// A scope is an array in other clothes: each word costs a look-up in the rules, under the lock.
fn check_word_lists(claims: &Json) -> Result<(), Refusal> {
    let words = |name| claims.get(name).and_then(Json::as_str).map_or(0, |text| text.split(' ').count());
    if WORD_LISTS.into_iter().any(|name| words(name) > limits::GROUPS) {
        return Err(Refusal::TooManyGroups { limit: limits::GROUPS });
    }
    Ok(())
}

impl Verified {
    /// The name of the provider.
    pub fn provider_name(&self) -> &str {
        &self.provider
    }

    /// The claim `sub`: with the provider, who this is.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The identity claim: what this person or workload is shown as.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// All claims.
    pub fn claims(&self) -> &Json {
        &self.claims
    }

    /// The claim `exp` without any skew, in microseconds since the Unix epoch.
    pub fn expires_at(&self) -> i64 {
        self.expires_at
    }

    /// The claim `iat`, in microseconds since the Unix epoch.
    pub fn issued_at(&self) -> Option<i64> {
        self.issued_at
    }

    /// The groups, if the provider names a groups claim.
    pub fn groups(&self) -> Option<Vec<&str>> {
        self.groups_claim.as_ref()?.find(&self.claims)?.strings()
    }
}
