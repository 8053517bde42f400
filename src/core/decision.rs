//! What a verified token gives in this database to who asked for that role.

use crate::image::ArchivedPolicyImage;
use crate::matching::Subject;
use crate::refusal::Refusal;
use crate::verify::Verified;

pub use crate::selection::{Selected, Selection, is_current, select};

/// What the client asks for in its startup packet.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The user name, already cut to 63 bytes by the server.
    pub user: &'a str,
    /// The database name.
    pub database: &'a str,
    /// The oid of the role of that name, 0 if there is none. A rule written for another oid is inactive.
    pub role_oid: u32,
}

/// A granted login. Only [`decide`] makes one.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decision {
    /// The name of the provider.
    pub provider: String,
    /// The claim `sub`.
    pub subject: String,
    /// The identity claim.
    pub identity: String,
    /// The role that the session starts in.
    pub role: String,
    /// The rule that gave it.
    pub rule_id: i64,
    /// Whether the rule allows the role to be a privileged one.
    pub allow_privileged: bool,
    /// The claim `exp`, in microseconds since the Unix epoch.
    pub expires_at: i64,
    /// All claims, as compact JSON.
    pub claims: String,
}

impl std::fmt::Debug for Decision {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Decision")
            .field("provider", &self.provider)
            .field("role", &self.role)
            .field("rule_id", &self.rule_id)
            .finish_non_exhaustive()
    }
}

/// Looks the caller up in the rules. Runs under the board lock: it only compares, and copies out the result.
///
/// # Errors
/// [`Refusal`]: the provider changed since the token was verified, no rule matches, or none of those that match gives
/// the requested role.
pub fn decide(
    policy: &ArchivedPolicyImage,
    verified: &Verified,
    request: &Request<'_>,
) -> Result<Decision, Refusal> {
    let entry = policy.entry(&verified.issuer).ok_or(Refusal::IssuerUnknown)?;
    if !entry.provider.enabled {
        return Err(Refusal::ProviderDisabled { provider: verified.provider.clone() });
    }
    if entry.provider.revision.to_native() != verified.revision {
        return Err(Refusal::PolicyChanged);
    }
    let subject = Subject { claims: &verified.claims, email_trusted: verified.email_trusted };
    let mut some_rule_matches = false;
    let mut some_rule_is_stale = false;
    let mut first = None;
    entry.index.candidates(&subject, |number| {
        if first.is_some_and(|(first, _)| first <= number) {
            return;
        }
        let Some(rule) = usize::try_from(number).ok().and_then(|number| entry.rules.get(number)) else {
            return;
        };
        let gives_role = rule.role.as_str() == request.user;
        // Once a rule matches, only those that give the role can change the outcome.
        if (gives_role || !some_rule_matches) && rule.matches(&subject, request.database) {
            some_rule_matches = true;
            if gives_role && rule.role_oid.to_native() == request.role_oid && request.role_oid != 0 {
                first = Some((number, rule));
            } else if gives_role {
                some_rule_is_stale = true;
            }
        }
    });
    let rule = match first {
        Some((_, rule)) => rule,
        None if some_rule_is_stale && request.role_oid == 0 => return Err(Refusal::RoleMissing),
        None if some_rule_is_stale => return Err(Refusal::RoleReplaced),
        None if some_rule_matches => return Err(Refusal::UserNotMapped),
        None => return Err(Refusal::NoRule),
    };
    Ok(Decision {
        provider: verified.provider.clone(),
        subject: verified.subject.clone(),
        identity: verified.identity.clone(),
        role: rule.role.as_str().to_owned(),
        rule_id: rule.id.to_native(),
        allow_privileged: rule.allow_privileged,
        expires_at: verified.expires_at,
        claims: verified.claims_text.clone(),
    })
}
