//! What a provider asks of a verified token, in compiled form.

use rkyv::{Archive, Deserialize, Serialize};

use crate::header::normal_typ;
use crate::limits;
use crate::matching::{self, Member};
use crate::path::ClaimPath;
use crate::provider::ProviderRow;
use crate::row::{RowError, plain_list, shown};

/// The settings of a provider that a login copies out of the policy.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checks {
    pub(crate) audiences: Vec<String>,
    pub(crate) audience_claim: ClaimPath,
    pub(crate) identity_claim: ClaimPath,
    pub(crate) groups_claim: Option<ClaimPath>,
    /// In the form of [`normal_typ`]; the empty string stands for a header without `typ`.
    pub(crate) accepted_typ: Vec<String>,
    pub(crate) required: Vec<Member>,
    /// Microseconds.
    pub(crate) clock_skew: i64,
    /// Microseconds.
    pub(crate) max_token_age: Option<i64>,
}

/// What `accepted_typ` means where it is null: most issuers send `JWT` or nothing, RFC 9068 asks for `at+jwt`.
const USUAL_TYP: [&str; 3] = ["", "jwt", "at+jwt"];

impl Checks {
    pub(crate) fn compile(row: &ProviderRow) -> Result<Checks, RowError> {
        Ok(Checks {
            audiences: audiences(row)?,
            audience_claim: claim("audience_claim", &row.audience_claim)?,
            identity_claim: claim("identity_claim", &row.identity_claim)?,
            groups_claim: row.groups_claim.as_deref().map(|name| claim("groups_claim", name)).transpose()?,
            accepted_typ: accepted_typ(row)?,
            required: match &row.required_claims {
                Some(text) => matching::compile("required_claims", text)?,
                None => Vec::new(),
            },
            clock_skew: clock_skew(row)?,
            max_token_age: max_token_age(row)?,
        })
    }

    /// Whether `required_claims` decides about `email_verified`.
    pub(crate) fn decides_email(&self) -> bool {
        self.required.iter().any(|member| member.path.is("email_verified"))
    }
}

fn audiences(row: &ProviderRow) -> Result<Vec<String>, RowError> {
    let audiences = plain_list("audiences", &row.audiences, limits::AUDIENCES)?;
    if audiences.is_empty() || audiences.iter().any(String::is_empty) {
        return Err(RowError::new("\"audiences\" must name at least one audience, and none that is empty")
            .hint("It is what the issuer writes into tokens for this server, often a client ID or a URL."));
    }
    Ok(audiences)
}

fn claim(column: &str, name: &str) -> Result<ClaimPath, RowError> {
    ClaimPath::parse(name).map_err(|problem| {
        RowError::new(format!("\"{column}\" names no claim"))
            .detail(format!("The name {} {problem}.", shown(name)))
            .hint("Write the name of a top-level claim, or a JSON Pointer that starts with \"/\".")
    })
}

fn accepted_typ(row: &ProviderRow) -> Result<Vec<String>, RowError> {
    let Some(list) = &row.accepted_typ else {
        return Ok(USUAL_TYP.map(str::to_owned).to_vec());
    };
    let list = plain_list("accepted_typ", list, limits::AUDIENCES)?;
    if list.is_empty() {
        return Err(RowError::new("\"accepted_typ\" must not be empty")
            .detail("An empty array accepts no token at all.")
            .hint("Write null for the default, or '' in the array for a token without \"typ\"."));
    }
    Ok(list.iter().map(|typ| normal_typ(typ)).collect())
}

fn clock_skew(row: &ProviderRow) -> Result<i64, RowError> {
    if (0..=limits::CLOCK_SKEW_MAX).contains(&row.clock_skew_us) {
        return Ok(row.clock_skew_us);
    }
    Err(RowError::new("\"clock_skew\" must be between 0 and 300 seconds")
        .hint("Set the clocks of the server and the issuer by NTP."))
}

fn max_token_age(row: &ProviderRow) -> Result<Option<i64>, RowError> {
    match row.max_token_age_us {
        Some(age) if age <= 0 => {
            Err(RowError::new("\"max_token_age\" must be positive").hint("Write null for no bound."))
        }
        age => Ok(age),
    }
}
