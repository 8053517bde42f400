//! One row of `oidc.provider`, compiled.

use rkyv::{Archive, Deserialize, Serialize};

use crate::algorithm::Algorithm;
use crate::checks::Checks;
use crate::fingerprint::Fingerprint;
use crate::jwks::parse_jwks;
use crate::keys::JwksError;
use crate::limits;
use crate::naming::{self, Naming};
use crate::row::{self, RowError, shown};
use crate::session_limit::SessionLimit;
use crate::url::{self, Query};

/// A row of `oidc.provider` as it is stored. Times are in microseconds.
#[derive(serde::Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct ProviderRow {
    /// The key of the table.
    pub name: String,
    /// Compared byte for byte with the claim `iss`.
    pub issuer: String,
    /// At least one of them must be in the token.
    pub audiences: Vec<Option<String>>,
    /// Name of or pointer to the audience claim, usually `aud`.
    pub audience_claim: String,
    /// Where the keys are; null: asked of the issuer by discovery.
    pub jwks_uri: Option<String>,
    /// Static keys as JSON text.
    #[serde(deserialize_with = "row::optional_json")]
    pub jwks: Option<String>,
    /// PEM certificates that the issuer's TLS certificate is checked with.
    pub ca_certificate: Option<String>,
    /// Names of the algorithms that may sign.
    pub algorithms: Vec<Option<String>>,
    /// Name of or pointer to the claim that names the person or workload.
    pub identity_claim: String,
    /// Name of or pointer to the groups claim, which must then be in every token.
    pub groups_claim: Option<String>,
    /// How old fetched keys may be.
    pub max_stale_us: i64,
    /// Which identities have a role of their own, and which part of them names it.
    pub identity_pattern: Option<String>,
    /// The name of that role; `\1` stands for what group 1 of the pattern matched.
    pub identity_role: Option<String>,
    /// Accepted `typ` values; null: absent, `JWT`, `at+jwt`; an empty string: absent.
    pub accepted_typ: Option<Vec<Option<String>>>,
    /// Claims that every token must have, as JSON text in the language of `match`.
    #[serde(deserialize_with = "row::optional_json")]
    pub required_claims: Option<String>,
    /// Tolerance for `exp`, `nbf` and `iat`.
    pub clock_skew_us: i64,
    /// How long after `iat` a token is accepted, and how long it may live at all; null: no bound.
    pub max_token_age_us: Option<i64>,
    /// `token`, `none` or an interval.
    pub session_limit: String,
    /// What PostgreSQL reads it as, if it reads it as an interval. Not a column.
    #[serde(default)]
    pub session_limit_us: Option<i64>,
    /// Whether a person's own role is made when she first comes.
    pub auto_provision: bool,
    /// A role that every person's role is a member of.
    pub base_role: Option<String>,
    /// Tokens of a disabled provider are refused.
    pub enabled: bool,
}

/// A compiled provider. Only [`compile_provider`] makes one.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// Its name.
    pub name: String,
    /// Its issuer.
    pub issuer: String,
    /// Whether its tokens are looked at.
    pub enabled: bool,
    /// A fingerprint of all that determines its keys: issuer, jwks_uri, jwks, ca_certificate, algorithms.
    pub key_source: u64,
    /// A fingerprint of the whole row: another one means that the provider has changed.
    pub revision: u64,
    /// Where its keys are, if not asked by discovery.
    pub jwks_uri: Option<String>,
    /// Its static keys as JSON text.
    pub jwks: Option<String>,
    /// PEM certificates to check its TLS certificate with.
    pub ca_certificate: Option<String>,
    /// The algorithms that may sign, at least one.
    pub algorithms: Vec<Algorithm>,
    /// How old its fetched keys may be, in microseconds.
    pub max_stale: i64,
    /// Keys kept across a restart, if there are any of this key source. Not part of the row.
    pub kept: Option<KeptKeys>,
    /// Whether a person's own role is made when she first comes.
    pub auto_provision: bool,
    /// A role that every person's role is a member of.
    pub base_role: Option<String>,
    pub(crate) naming: Option<Naming>,
    pub(crate) session_limit: SessionLimit,
    pub(crate) checks: Checks,
}

/// The last good keys of a provider, as they were kept.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct KeptKeys {
    /// A JSON Web Key Set, as [`crate::keys::jwks_text`] writes it.
    pub jwks: String,
    /// When they were fetched, in microseconds since the Unix epoch.
    pub fetched_at: i64,
}

impl Provider {
    /// Takes keys that were kept, if they are of this provider's key source.
    pub fn keep(&mut self, kept: KeptKeys) {
        if crate::keys::source_of(&kept.jwks) == Some(self.key_source) {
            self.kept = Some(kept);
        }
    }
}

/// Compiles a row. `allow_http`: plain http is accepted for loopback hosts.
///
/// # Errors
/// The first column that is not acceptable.
pub fn compile_provider(row: &ProviderRow, allow_http: bool) -> Result<Provider, RowError> {
    check_name(&row.name)?;
    url::check("issuer", &row.issuer, limits::ISSUER_BYTES, Query::Refused, allow_http)?;
    if let Some(jwks_uri) = &row.jwks_uri {
        url::check("jwks_uri", jwks_uri, limits::URL_BYTES, Query::Allowed, allow_http)?;
    }
    let algorithms = algorithms(row)?;
    check_static_keys(row, &algorithms)?;
    check_certificate(row)?;
    check_base_role(row)?;
    if row.max_stale_us < limits::MAX_STALE_MIN {
        return Err(RowError::new("\"max_stale\" must be at least 60 seconds")
            .hint("Keys are not fetched more often than once a minute."));
    }
    Ok(Provider {
        name: row.name.clone(),
        issuer: row.issuer.clone(),
        enabled: row.enabled,
        key_source: key_source(row).finish(),
        revision: revision(row),
        jwks_uri: row.jwks_uri.clone(),
        jwks: row.jwks.clone(),
        ca_certificate: row.ca_certificate.clone(),
        algorithms,
        max_stale: row.max_stale_us,
        kept: None,
        auto_provision: row.auto_provision,
        base_role: row.base_role.clone(),
        naming: Naming::compile(row)?,
        session_limit: SessionLimit::compile(&row.session_limit, row.session_limit_us)?,
        checks: Checks::compile(row)?,
    })
}

fn check_base_role(row: &ProviderRow) -> Result<(), RowError> {
    match &row.base_role {
        Some(role) if role.is_empty() || role.len() > limits::NAME_DATA_BYTES => {
            Err(RowError::new("\"base_role\" must have 1 to 63 bytes"))
        }
        Some(role) if naming::reserved(role) => Err(RowError::new(format!(
            "role name {} is reserved",
            shown(role)
        ))
        .detail(
            "No person is made a member of \"public\", \"none\" or a role whose name starts with \"pg_\".",
        )),
        _ => Ok(()),
    }
}

fn check_name(name: &str) -> Result<(), RowError> {
    if name.is_empty() || name.len() > limits::NAME_DATA_BYTES {
        return Err(RowError::new("\"name\" must have 1 to 63 bytes"));
    }
    if name.chars().any(char::is_control) || name.trim() != name {
        return Err(RowError::new(
            "\"name\" must not hold control characters, nor start or end with a blank",
        ));
    }
    Ok(())
}

fn algorithms(row: &ProviderRow) -> Result<Vec<Algorithm>, RowError> {
    if row.algorithms.is_empty() || row.algorithms.len() > limits::ALGORITHMS {
        return Err(RowError::new("\"algorithms\" must name 1 to 9 algorithms").hint(known_algorithms()));
    }
    let mut algorithms = Vec::new();
    for name in &row.algorithms {
        let Some(name) = name else {
            return Err(RowError::new("\"algorithms\" must not contain nulls"));
        };
        let Some(algorithm) = Algorithm::parse(name) else {
            return Err(
                RowError::new(format!("algorithm {} is not supported", shown(name))).hint(known_algorithms())
            );
        };
        if algorithms.contains(&algorithm) {
            return Err(RowError::new(format!("\"algorithms\" contains {} twice", shown(name))));
        }
        algorithms.push(algorithm);
    }
    Ok(algorithms)
}

fn known_algorithms() -> String {
    format!("The algorithms are {}.", Algorithm::ALL.map(Algorithm::name).join(", "))
}

fn check_static_keys(row: &ProviderRow, algorithms: &[Algorithm]) -> Result<(), RowError> {
    let Some(jwks) = &row.jwks else {
        return Ok(());
    };
    if row.jwks_uri.is_some() {
        return Err(RowError::new("\"jwks\" and \"jwks_uri\" exclude each other")
            .detail("Keys are either static or fetched.")
            .hint("Set one of them to null."));
    }
    match parse_jwks(jwks.as_bytes(), algorithms) {
        Ok(_) => Ok(()),
        Err(JwksError::NoUsableKey(reports)) => {
            let first = reports.into_iter().find_map(|report| report.usable.err());
            let why = first.map_or("It has no key at all.", |problem| problem.sentence());
            Err(RowError::new("\"jwks\" has no usable key").detail(why))
        }
        Err(error) => Err(RowError::new("\"jwks\" is not an acceptable key set").detail(error.sentence())),
    }
}

/// Only the shape: the certificates themselves are read where TLS is.
fn check_certificate(row: &ProviderRow) -> Result<(), RowError> {
    let Some(pem) = &row.ca_certificate else {
        return Ok(());
    };
    if pem.len() > limits::CERTIFICATE_BYTES {
        return Err(RowError::new("\"ca_certificate\" is too long").detail(format!(
            "It has {} bytes; at most {} are allowed.",
            pem.len(),
            limits::CERTIFICATE_BYTES
        )));
    }
    if pem.contains("PRIVATE KEY-----") {
        return Err(RowError::new("\"ca_certificate\" holds a private key")
            .hint("Give the certificate alone, and treat that key as known to others."));
    }
    let framed = pem.trim_start().starts_with("-----BEGIN CERTIFICATE-----")
        && pem.trim_end().ends_with("-----END CERTIFICATE-----");
    if !framed {
        return Err(RowError::new("\"ca_certificate\" is not a PEM certificate")
            .hint("It starts with -----BEGIN CERTIFICATE----- and ends with -----END CERTIFICATE-----."));
    }
    Ok(())
}

fn key_source(row: &ProviderRow) -> Fingerprint {
    let names: Vec<&str> = row.algorithms.iter().map(|name| name.as_deref().unwrap_or_default()).collect();
    Fingerprint::new()
        .text(&row.issuer)
        .optional(row.jwks_uri.as_deref())
        .optional(row.jwks.as_deref())
        .optional(row.ca_certificate.as_deref())
        .list(names.into_iter())
}

fn revision(row: &ProviderRow) -> u64 {
    let typ = row.accepted_typ.as_deref().unwrap_or_default();
    key_source(row)
        .text(&row.name)
        .list(row.audiences.iter().map(|audience| audience.as_deref().unwrap_or_default()))
        .text(&row.audience_claim)
        .text(&row.identity_claim)
        .optional(row.groups_claim.as_deref())
        .number(row.max_stale_us)
        .number(i64::from(row.accepted_typ.is_some()))
        .list(typ.iter().map(|typ| typ.as_deref().unwrap_or_default()))
        .optional(row.required_claims.as_deref())
        .number(row.clock_skew_us)
        .number(row.max_token_age_us.unwrap_or_default())
        .text(&row.session_limit)
        .optional(row.identity_pattern.as_deref())
        .optional(row.identity_role.as_deref())
        .number(i64::from(row.auto_provision))
        .optional(row.base_role.as_deref())
        .number(i64::from(row.enabled))
        .finish()
}
