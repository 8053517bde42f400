//! What the audit keeps of a login: whose token it was, which key judged it, and the claims that decide anything.

use std::fmt::Write;

use aws_lc_rs::digest::{Context, SHA256};

use crate::checks::Checks;
use crate::effort::Effort;
use crate::json::Json;
use crate::limits;
use crate::path::ClaimPath;
use crate::selection::Selected;
use crate::token::Untrusted;
use crate::verify;

/// What may be told of a token. Filled while the token is judged, so that a refused login has one too.
///
/// Nothing here comes from a token whose signature was not verified: until then there is only the provider, whose name
/// is configured, and the `kid` of that provider's own key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// The name of the provider whose issuer the token names.
    pub provider: Option<String>,
    /// The `kid` of the provider's key that fits the token.
    pub kid: Option<String>,
    /// The claim `sub`.
    pub subject: Option<String>,
    /// The identity claim.
    pub identity: Option<String>,
    /// What names this one token: the claim `jti`, if it is a text of at most [`limits::TOKEN_ID_BYTES`] without control
    /// characters; else `sha256:` and half of a salted hash of what is signed.
    pub token_id: Option<String>,
    /// The claims that the provider and its rules look at, as one JSON object, once they passed the provider's checks;
    /// None also where they have more than [`limits::FACTS_BYTES`].
    pub facts: Option<String>,
    /// Goes into the hash of a token without `jti`.
    pub salt: u64,
}

/// Claims that every decision looks at, but for those that a provider or a rule names.
const ALWAYS: [&str; 8] = ["iss", "sub", "exp", "nbf", "iat", "email_verified", "hasgroups", "jti"];

impl Account {
    /// An empty account. `salt` is the server's own: whoever has a list of tokens does not find their names in it, nor
    /// the same name in the audit of another server.
    pub fn salted(salt: u64) -> Account {
        Account { salt, ..Account::default() }
    }

    /// The provider and its key are known.
    pub fn select(&mut self, selected: &Selected) {
        self.provider = Some(selected.provider.clone());
        self.kid.clone_from(&selected.key.kid);
    }

    /// The signature is verified.
    pub(crate) fn believe(&mut self, untrusted: &Untrusted, selected: &Selected) {
        let (claims, checks) = (&untrusted.claims, &selected.checks);
        self.subject = verify::name(claims.get("sub")).map(str::to_owned);
        let effort = Effort::new();
        self.identity = verify::identity(&verify::subject(claims, checks, &effort), checks).ok();
        let token_id = verify::name(claims.get("jti")).filter(|id| id.len() <= limits::TOKEN_ID_BYTES);
        self.token_id = Some(token_id.map_or_else(|| self.digest(&untrusted.signing_input), str::to_owned));
    }

    /// The first 16 bytes of SHA-256 over salt and signing input. Not over the signature: there may be two good ones of
    /// one token (ECDSA), and both are the same token.
    fn digest(&self, signing_input: &[u8]) -> String {
        let mut context = Context::new(&SHA256);
        context.update(&self.salt.to_be_bytes());
        context.update(signing_input);
        let mut name = "sha256:".to_owned();
        for byte in context.finish().as_ref().iter().take(16) {
            let _ = write!(name, "{byte:02x}");
        }
        name
    }

    /// The claims passed every check of the provider. Those of a token that did not, which may be meant for somebody
    /// else, are not kept.
    pub(crate) fn keep(&mut self, claims: &Json, selected: &Selected) {
        let facts = facts(claims, &selected.checks, &selected.named).to_string();
        self.facts = (facts.len() <= limits::FACTS_BYTES).then_some(facts);
    }
}

/// The part of the claims that decides.
fn facts(claims: &Json, checks: &Checks, named: &[ClaimPath]) -> Json {
    let mut kept = Vec::new();
    for name in ALWAYS {
        keep(claims, &[name], &mut kept);
    }
    let of_checks =
        [Some(&checks.audience_claim), Some(&checks.identity_claim), checks.groups_claim.as_ref()];
    let of_members = checks.required.iter().map(|member| &member.path);
    for path in of_checks.into_iter().flatten().chain(of_members).chain(named) {
        keep(claims, &path.steps().collect::<Vec<_>>(), &mut kept);
    }
    Json::Object(kept)
}

/// Keeps the value at the end of the steps where it was, with the objects around it but not what else is in them. An
/// array on the way is kept whole.
fn keep(object: &Json, steps: &[&str], kept: &mut Vec<(String, Json)>) {
    let Some((step, rest)) = steps.split_first() else { return };
    let Some(value) = object.get(step) else { return };
    let known = kept.iter_mut().find(|(name, _)| name == step);
    match (value, known) {
        (Json::Object(_), Some((_, Json::Object(inside)))) if !rest.is_empty() => keep(value, rest, inside),
        (Json::Object(_), None) if !rest.is_empty() => {
            let mut inside = Vec::new();
            keep(value, rest, &mut inside);
            kept.push(((*step).to_owned(), Json::Object(inside)));
        }
        (_, Some((_, known))) => known.clone_from(value),
        (_, None) => kept.push(((*step).to_owned(), value.clone())),
    }
}
