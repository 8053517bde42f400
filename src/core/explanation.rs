//! Why a login would end as it would: the steps of the decision, one row each, by the code that decides logins.
//!
//! Nothing here makes a [`crate::verify::Verified`] or a [`crate::decision::Decision`]: an explanation goes on after a
//! refusal, and believes a token whose signature was cut off.

use rkyv::rancor;

use crate::checks::Checks;
pub use crate::decision::Given;
use crate::decision::{self, Request, Selection, select};
use crate::effort::Effort;
use crate::explained_rules;
use crate::image::{ArchivedKeyringImage, ArchivedPolicyEntry, ArchivedPolicyImage};
use crate::json::{self, Json};
use crate::limits;
use crate::person::{Person, Who};
use crate::refusal::Refusal;
use crate::revocation;
use crate::row::{RowError, shown};
use crate::subject::Subject;
use crate::time::numeric_date;
use crate::token::{self, Untrusted};
use crate::trace::{Step, Trace};
use crate::verify;

/// How a step went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passed {
    /// It lets the login go on.
    Yes,
    /// It refuses the login.
    No,
    /// It could not be looked at here.
    NotChecked,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What was looked at.
    pub name: String,
    /// How it went.
    pub passed: Passed,
    /// What was found.
    pub detail: String,
}

/// All that can be said without the catalog.
#[derive(Debug, Clone, Default)]
pub struct Explanation {
    /// The steps so far.
    pub rows: Vec<Row>,
    /// The roles that the rules give in this database to this client, by rank; each once.
    pub given: Vec<Given>,
    /// The rule that gives the role that is asked for.
    pub decided: Option<Given>,
    /// What an identity login would give, where the role that is asked for is the identity's own.
    pub person: Option<Person>,
    /// The first refusal; what comes later does not change it.
    pub refusal: Option<Refusal>,
}

impl Explanation {
    /// Adds a step.
    pub fn note(&mut self, name: impl Into<String>, passed: Passed, detail: impl Into<String>) {
        self.rows.push(Row { name: name.into(), passed, detail: detail.into() });
    }

    /// Adds a step that refuses, unless an earlier one did.
    pub fn refuse(&mut self, name: impl Into<String>, refusal: Refusal) {
        self.note(name, Passed::No, refusal.detail());
        self.refusal.get_or_insert(refusal);
    }
}

/// Takes note of every step, and goes on.
struct Watcher<'a> {
    explanation: &'a mut Explanation,
    /// Steps of which nothing can be said.
    unchecked: &'a [Step],
}

impl Trace for Watcher<'_> {
    fn step<T>(
        &mut self,
        step: Step,
        result: Result<T, Refusal>,
        said: impl FnOnce(&T) -> String,
        instead: impl FnOnce() -> T,
    ) -> Result<T, Refusal> {
        if self.unchecked.contains(&step) {
            self.explanation.note(step.name(), Passed::NotChecked, "There is none to look at.");
            return Ok(result.unwrap_or_else(|_| instead()));
        }
        match result {
            Ok(value) => {
                self.explanation.note(step.name(), Passed::Yes, said(&value));
                Ok(value)
            }
            Err(refusal) => {
                self.explanation.refuse(step.name(), refusal);
                Ok(instead())
            }
        }
    }
}

/// A token that somebody could log in with: it must not stand in a statement, since statements are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Live;

/// Explains a token whose signature has been cut off, or that has expired.
///
/// # Errors
/// [`Live`]: it has a signature and may still be good somewhere.
pub fn explain_token(
    policy: &ArchivedPolicyImage,
    keyring: &ArchivedKeyringImage,
    token: &str,
    max_bytes: usize,
    request: &Request<'_>,
) -> Result<Explanation, Live> {
    let mut explanation = Explanation::default();
    let token = token.trim();
    let cut = cut(token);
    let untrusted = match token::parse(cut.as_deref().unwrap_or(token).as_bytes(), max_bytes) {
        Ok(untrusted) => untrusted,
        Err(refusal) => {
            explanation.refuse(Step::Token.name(), refusal);
            return Ok(explanation);
        }
    };
    if cut.is_none() && !long_over(&untrusted, request.now) {
        return Err(Live);
    }
    let algorithm = untrusted.header.algorithm.name();
    explanation.note(
        Step::Token.name(),
        Passed::Yes,
        format!("It is well-formed, for algorithm {algorithm}."),
    );
    let entry = match untrusted.issuer().and_then(|issuer| policy.entry(issuer).ok_or(Refusal::IssuerUnknown))
    {
        Ok(entry) => entry,
        Err(refusal) => {
            explanation.refuse(Step::Provider.name(), refusal);
            return Ok(explanation);
        }
    };
    key(&mut explanation, policy, keyring, &untrusted, request.now, cut.is_some());
    claims(&mut explanation, policy, entry, &untrusted, request, &[]);
    Ok(explanation)
}

/// Explains what claims would give. Those of `iss`, `aud`, `exp`, `iat` and `sub` that are missing are made up.
///
/// # Errors
/// The provider is not in the policy, or the claims are not a JSON object within the bounds of a token.
pub fn explain_claims(
    policy: &ArchivedPolicyImage,
    provider: &str,
    claims_text: &str,
    request: &Request<'_>,
) -> Result<Explanation, RowError> {
    if claims_text.len() > limits::WIRE_BYTES {
        return Err(RowError::new("the claims are too long").detail(format!(
            "They have {} bytes; a token has at most {}.",
            claims_text.len(),
            limits::WIRE_BYTES
        )));
    }
    let entry = policy.entries().find(|entry| entry.provider.name.as_str() == provider).ok_or_else(|| {
        RowError::new(format!("OIDC provider {} does not exist", shown(provider)))
            .hint("The table oidc.provider lists the providers.")
    })?;
    let mut json = json::parse_object(claims_text.as_bytes(), json::TOKEN_BOUNDS).map_err(|problem| {
        RowError::new("could not read the claims").detail(crate::matching::problem_sentence(problem))
    })?;
    let checks = checks(entry)?;
    let made_up = make_up(&mut json, entry.provider.issuer.as_str(), &checks, request.now);
    let untrusted = Untrusted::of_claims(json);
    let mut explanation = Explanation::default();
    explanation.note(
        "claims",
        Passed::Yes,
        if made_up.is_empty() {
            "They are complete.".to_owned()
        } else {
            format!("Made up, because they are not given: {}.", made_up.join(", "))
        },
    );
    note_provider(&mut explanation, entry);
    claims(&mut explanation, policy, entry, &untrusted, request, &[Step::Typ]);
    Ok(explanation)
}

/// The token with a signature to be parsed with, if its own has been cut off.
fn cut(token: &str) -> Option<String> {
    match token.split('.').collect::<Vec<_>>().as_slice() {
        [_, _] => Some(format!("{token}.AA")),
        [_, _, ""] => Some(format!("{token}AA")),
        _ => None,
    }
}

/// Whether its time is over by any clock that may be set here.
fn long_over(untrusted: &Untrusted, now: i64) -> bool {
    let end = untrusted.claims.get("exp").and_then(numeric_date);
    end.is_some_and(|end| end.saturating_add(limits::CLOCK_SKEW_MAX) <= now)
}

fn note_provider(explanation: &mut Explanation, entry: &ArchivedPolicyEntry) {
    let name = entry.provider.name.as_str();
    if entry.provider.enabled {
        explanation.note(Step::Provider.name(), Passed::Yes, format!("It is {}.", shown(name)));
    } else {
        let refusal = Refusal::ProviderDisabled { provider: name.to_owned() };
        explanation.refuse(Step::Provider.name(), refusal);
    }
}

/// Provider, algorithm, key and signature.
fn key(
    explanation: &mut Explanation,
    policy: &ArchivedPolicyImage,
    keyring: &ArchivedKeyringImage,
    untrusted: &Untrusted,
    now: i64,
    cut: bool,
) {
    let refusal = match select(policy, keyring, untrusted, now) {
        Ok(Selection::Ready(selected)) => {
            let name = selected.provider_name();
            explanation.note(Step::Provider.name(), Passed::Yes, format!("It is {}.", shown(name)));
            explanation.note(Step::Algorithm.name(), Passed::Yes, "It is in the provider's list.");
            explanation.note(Step::Key.name(), Passed::Yes, "The provider has one key that fits.");
            if cut {
                explanation.note(Step::Signature.name(), Passed::NotChecked, "It has been cut off.");
            } else if verify::signed(untrusted, &selected) {
                explanation.note(Step::Signature.name(), Passed::Yes, "It verifies with that key.");
            } else {
                explanation.refuse(Step::Signature.name(), Refusal::SignatureInvalid);
            }
            return;
        }
        Ok(Selection::KeysPending { provider }) => {
            explanation.note(Step::Provider.name(), Passed::Yes, format!("It is {}.", shown(&provider)));
            Refusal::KeysPending
        }
        Ok(Selection::KeysLacking { why, .. }) => why,
        Err(refusal) => refusal,
    };
    let step = match refusal {
        Refusal::IssuerUnknown | Refusal::IssuerInvalid | Refusal::ProviderDisabled { .. } => Step::Provider,
        Refusal::AlgorithmNotAllowed { .. } => Step::Algorithm,
        _ => Step::Key,
    };
    explanation.refuse(step.name(), refusal);
    explanation.note(Step::Signature.name(), Passed::NotChecked, "There is no key to check it with.");
}

/// The provider's checks, then the rules.
fn claims(
    explanation: &mut Explanation,
    policy: &ArchivedPolicyImage,
    entry: &ArchivedPolicyEntry,
    untrusted: &Untrusted,
    request: &Request<'_>,
    unchecked: &[Step],
) {
    let Ok(checks) = checks(entry) else {
        explanation.refuse(Step::Provider.name(), Refusal::InternalError);
        return;
    };
    let mut watcher = Watcher { explanation, unchecked };
    let Ok(facts) = verify::judge(untrusted, &checks, request.now, &mut watcher) else {
        return;
    };
    let revoked = revocation::check(entry, &facts.subject, facts.issued_at, request.now);
    let _ = watcher.check(Step::Revocation, revoked, "The identity is not revoked.");
    let effort = Effort::new();
    let subject = Subject::new(&untrusted.claims, facts.email_trusted, &effort);
    let denied = decision::denied(entry, &subject, request);
    let none = format!("None of {} matches.", entry.denials.rules.len());
    let _ = watcher.check(Step::DenyRules, denied, &none);
    let who = Who { subject: &facts.subject, identity: &facts.identity };
    explained_rules::explain(explanation, policy, entry, who, &subject, request);
}

fn checks(entry: &ArchivedPolicyEntry) -> Result<Checks, RowError> {
    rkyv::deserialize::<Checks, rancor::Failure>(&entry.provider.checks)
        .map_err(|_| RowError::new("could not read the provider"))
}

/// Adds what every token has, and gives the names of what was added.
fn make_up(claims: &mut Json, issuer: &str, checks: &Checks, now: i64) -> Vec<String> {
    let seconds = |micros: i64| micros.div_euclid(limits::SECOND).to_string();
    let text = |text: &str| Some(Json::String(text.to_owned()));
    let number = |text: String| json::Number::parse(&text).map(Json::Number);
    let audience_claim = checks.audience_claim.text();
    let usual = [
        ("iss", text(issuer)),
        (audience_claim.as_str(), checks.audiences.first().and_then(|audience| text(audience))),
        ("exp", number(seconds(now.saturating_add(limits::SECOND.saturating_mul(60))))),
        ("iat", number(seconds(now))),
        ("sub", text("somebody")),
    ];
    let Json::Object(members) = claims else {
        return Vec::new();
    };
    let mut added = Vec::new();
    for (name, value) in usual {
        if let Some(value) = value
            && !name.starts_with('/')
            && !members.iter().any(|(known, _)| known == name)
        {
            members.push((name.to_owned(), value));
            added.push(name.to_owned());
        }
    }
    added
}
