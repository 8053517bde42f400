//! Every reason to refuse a login, in one list.
//!
//! The client sees one constant line whatever the reason is. The server log and the audit get the code, which never
//! changes, and the detail, which holds nothing of the token.

use crate::algorithm::Algorithm;
use crate::json::JsonProblem;
use crate::matching::problem_sentence;
use crate::row::shown;

/// Whether waiting may mend it.
const RETRY: bool = true;
const FINAL: bool = false;

macro_rules! refusals {
    ($( $name:ident $({ $($field:ident: $type:ty),* })? = $code:literal, $row:literal, $retry:ident, $meaning:literal; )*) => {
        /// Why a login is refused.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Refusal {
            $(
                #[doc = $meaning]
                $name $({ $(
                    #[doc = concat!("The ", stringify!($field), " concerned; configured or known to this crate, never token content.")]
                    $field: $type,
                )* })?,
            )*
        }

        impl Refusal {
            /// Every code with its row in the list of negative inputs (0: none) and its meaning, in the order of a login.
            pub const ALL: &'static [(&'static str, u16, &'static str)] = &[$(($code, $row, $meaning)),*];

            /// The stable code: snake_case, at most 63 bytes.
            pub fn code(&self) -> &'static str {
                match self { $(Refusal::$name { .. } => $code),* }
            }

            /// The first row that it answers in the list of negative inputs, 0 if there is none.
            pub fn row(&self) -> u16 {
                match self { $(Refusal::$name { .. } => $row),* }
            }

            /// Whether waiting may mend it: then the client is told to retry (SQLSTATE 57P03), else 28000.
            pub fn retry(&self) -> bool {
                match self { $(Refusal::$name { .. } => $retry),* }
            }

            fn meaning(&self) -> &'static str {
                match self { $(Refusal::$name { .. } => $meaning),* }
            }
        }
    };
}

refusals! {
    // Raised at the door.
    TlsRequired = "tls_required", 115, FINAL, "The connection is plain TCP, and tokens are accepted only over TLS.";
    ReplicationRefused = "replication_refused", 123, FINAL, "It is a replication connection that no rule allows.";
    TrustFromIncludedFile = "trust_from_included_file", 141, FINAL, "The \"trust\" line comes from an included file; token lines live in the guarded HBA file only.";
    NameInvalid = "name_invalid", 105, FINAL, "The requested user or database name is not UTF-8.";
    PasswordEmpty = "password_empty", 1, FINAL, "The password is empty.";
    PasswordMalformed = "password_malformed", 117, FINAL, "The password message does not follow the protocol.";
    PasswordWrong { why: String } = "password_wrong", 0, FINAL, "It is neither a token nor a password that the role may log in with.";
    PolicyAbsent = "policy_absent", 0, FINAL, "There is no policy: the extension or its database does not exist.";
    PolicyOverflow = "policy_overflow", 0, FINAL, "The policy is too large to be published; the server log says which setting to raise.";
    WorkerMissing = "worker_missing", 0, FINAL, "A background worker has no slot to run in; see max_worker_processes.";
    NotReady = "not_ready", 0, RETRY, "The policy has not been published since the server started.";
    PolicyBehind = "policy_behind", 0, RETRY, "The published policy is older than the last committed change.";
    PolicyChanged = "policy_changed", 0, RETRY, "The provider was changed during the login.";
    KeysPending = "keys_pending", 0, RETRY, "The keys of the provider have not been fetched for the first time yet.";
    RoleMissing = "role_missing", 108, FINAL, "The role does not exist.";
    RoleReplaced = "role_replaced", 108, FINAL, "The role was dropped and made anew since the rule was written; write the rule again.";
    RoleCannotLogin = "role_cannot_login", 108, FINAL, "The role is not permitted to log in.";
    RoleExpired = "role_expired", 107, FINAL, "The role is past its VALID UNTIL.";
    RolePrivileged { why: String } = "role_privileged", 101, FINAL, "The role is privileged, and the rule does not say allow_privileged.";
    IdentityMismatch = "identity_mismatch", 114, FINAL, "The role of that name is bound to another identity.";
    RoleNotBound = "role_not_bound", 110, FINAL, "The role is not bound to the identity of the token; an existing role is never taken for a person's own.";
    RoleInherits = "role_inherits", 131, FINAL, "The person's own role has INHERIT, and in PostgreSQL 15 each of her sessions would have the rights of all her roles at once.";
    TooManyRoles { limit: usize } = "too_many_roles", 16, FINAL, "The rules give the identity more roles than one session can have.";
    NamedByRule = "named_by_rule", 110, FINAL, "A rule gives a role of that name, so no person's own role gets it.";
    ProvisioningOnStandby = "provisioning_on_standby", 0, FINAL, "The person's role would have to be made, or made a member of another, and the server is a standby.";
    ProvisioningBehind = "provisioning_behind", 0, RETRY, "The person's role was not made, or not made a member of its roles, in time; the server log may say why.";
    MembershipUnseen = "membership_unseen", 139, RETRY, "A \"+role\" in the HBA file made the server remember the memberships of before; the next login sees the new ones.";
    ConnectDenied = "connect_denied", 108, FINAL, "The role has no CONNECT privilege on the database, or there is no such database.";
    DoorBypassed = "door_bypassed", 133, FINAL, "A guarded line was passed without a decision, because another library did not call the ClientAuthentication hook.";
    SettingsFailed = "settings_failed", 0, FINAL, "The session could not be set up after the decision.";
    InternalError = "internal_error", 0, FINAL, "A step of the decision failed unexpectedly.";

    // The token as text.
    TokenTooLarge { limit: usize } = "token_too_large", 15, FINAL, "The token is larger than allowed.";
    TokenMalformed = "token_malformed", 2, FINAL, "The password is not a signed JWT in compact form: three parts of base64url without padding, between two dots, and nothing else.";
    TokenEncrypted = "token_encrypted", 3, FINAL, "The token is encrypted (JWE), not signed (JWS).";
    TokenJsonSerialization = "token_json_serialization", 4, FINAL, "The token is in JSON serialization; only the compact form is accepted.";
    TokenNotCanonical = "token_not_canonical", 6, FINAL, "A part of the token ends in a base64url character whose unused bits are not zero.";
    HeaderTooLarge { limit: usize } = "header_too_large", 15, FINAL, "The header of the token is larger than allowed.";
    HeaderInvalid { problem: JsonProblem } = "header_invalid", 7, FINAL, "The header of the token is not acceptable.";
    DuplicateMember { part: &'static str } = "duplicate_member", 13, FINAL, "One member name appears twice in one JSON object of the token.";
    NulCharacter { part: &'static str } = "nul_character", 17, FINAL, "A string in the token holds the character U+0000.";
    TooManyClaims { limit: usize } = "too_many_claims", 16, FINAL, "The token has more object members than allowed.";
    TooManyGroups { limit: usize } = "too_many_groups", 16, FINAL, "An array, or a scope, in the token has more elements than allowed.";
    AlgorithmUnsupported { algorithm: Option<&'static str> } = "algorithm_unsupported", 19, FINAL, "The \"alg\" in the header is missing or not the name of a supported algorithm.";
    KidInvalid = "kid_invalid", 40, FINAL, "The \"kid\" in the header is not a string, is too long, or holds a control character or a quotation mark.";
    TypInvalid = "typ_invalid", 48, FINAL, "The \"typ\" in the header is not a string.";
    HeaderRefused { parameter: &'static str } = "header_refused", 45, FINAL, "The header has a parameter that is never accepted.";
    PayloadInvalid { problem: JsonProblem } = "payload_invalid", 8, FINAL, "The payload of the token is not acceptable.";

    // The provider and its keys.
    IssuerInvalid = "issuer_invalid", 66, FINAL, "The claim \"iss\" is missing, is not a string, or is too long.";
    IssuerUnknown = "issuer_unknown", 68, FINAL, "The claim \"iss\" is not the issuer of any configured provider.";
    IssuerNotOfLine = "issuer_not_of_line", 68, FINAL, "The claim \"iss\" is not the issuer that the \"oauth\" line of the HBA file names.";
    ProviderDisabled { provider: String } = "provider_disabled", 68, FINAL, "The provider is disabled.";
    AlgorithmNotAllowed { provider: String, algorithm: Algorithm } = "algorithm_not_allowed", 22, FINAL, "The algorithm of the token is not in the provider's list.";
    KeysUnavailable { provider: String } = "keys_unavailable", 59, FINAL, "The provider has no usable key.";
    KeysStale { provider: String } = "keys_stale", 59, FINAL, "The keys of the provider are older than its max_stale.";
    KeyUnknown { provider: String } = "key_unknown", 37, FINAL, "The provider has no key for the \"kid\" and \"alg\" in the header.";
    KeyAmbiguous { provider: String } = "key_ambiguous", 42, FINAL, "More than one key of the provider fits the header.";
    SignatureInvalid = "signature_invalid", 31, FINAL, "The signature does not verify with the provider's key.";

    // The claims.
    AudienceMissing { claim: String } = "audience_missing", 71, FINAL, "The audience claim is missing.";
    AudienceInvalid { claim: String } = "audience_invalid", 72, FINAL, "The audience claim is neither a string nor an array of one or more strings.";
    AudienceMismatch { claim: String } = "audience_mismatch", 73, FINAL, "The audience claim names none of the provider's audiences.";
    ExpiryMissing = "expiry_missing", 77, FINAL, "The claim \"exp\" is missing.";
    ExpiryInvalid = "expiry_invalid", 78, FINAL, "The claim \"exp\" is not a number of seconds after 1970 and before the year 10000.";
    TokenExpired = "token_expired", 79, FINAL, "The token has expired.";
    NotBeforeInvalid = "not_before_invalid", 78, FINAL, "The claim \"nbf\" is not a number of seconds after 1970 and before the year 10000.";
    NotYetValid = "not_yet_valid", 84, FINAL, "The token is not valid yet (\"nbf\").";
    IssuedAtInvalid = "issued_at_invalid", 78, FINAL, "The claim \"iat\" is not a number of seconds after 1970 and before the year 10000.";
    IssuedInFuture = "issued_in_future", 85, FINAL, "The token was issued in the future (\"iat\").";
    IssuedAtMissing = "issued_at_missing", 86, FINAL, "The claim \"iat\" is missing, and the provider has a max_token_age.";
    TokenTooOld = "token_too_old", 86, FINAL, "The token was issued longer ago than the provider's max_token_age.";
    LifetimeTooLong = "lifetime_too_long", 83, FINAL, "The token lives longer, from \"iat\" to \"exp\", than the provider's max_token_age.";
    TypRefused = "typ_refused", 48, FINAL, "The \"typ\" in the header is not in the provider's accepted_typ.";
    RequiredClaimFailed { claim: String } = "required_claim_failed", 74, FINAL, "A claim does not have the value that the provider's required_claims asks for.";
    ScopeMissing { scope: String } = "scope_missing", 95, FINAL, "A scope that the \"oauth\" line of the HBA file asks for is not in \"scope\" or \"scp\".";
    TokenBound = "token_bound", 93, FINAL, "The token is bound to a key of its holder (\"cnf\"), which a password cannot prove.";
    SubjectInvalid = "subject_invalid", 88, FINAL, "The claim \"sub\" is missing, empty, not a string, too long, or holds a control character.";
    IdentityInvalid { claim: String } = "identity_invalid", 89, FINAL, "The identity claim is missing, empty, not a string, too long, or holds a control character.";
    EmailUnverified = "email_unverified", 90, FINAL, "The identity is an e-mail address, and \"email_verified\" is not true.";
    GroupsOverage { claim: String } = "groups_overage", 92, FINAL, "The issuer left the groups out because there are too many for a token.";
    GroupsMissing { claim: String } = "groups_missing", 92, FINAL, "The groups claim is missing.";
    GroupsInvalid { claim: String } = "groups_invalid", 91, FINAL, "The groups claim is neither a string nor an array of strings.";

    // The rules.
    IdentityRevoked = "identity_revoked", 112, FINAL, "The identity is revoked.";
    SessionsEnded = "sessions_ended", 112, FINAL, "The sessions of the identity were ended, and the token was issued before that, or does not say when.";
    BrokenDenyRule { rule: i64 } = "broken_deny_rule", 97, FINAL, "A rule that denies does not compile; logins of its provider are refused until it is mended.";
    PatternsTooCostly = "patterns_too_costly", 97, FINAL, "Matching the regular expressions and globs of the rules takes too long on the claims of this token.";
    DeniedByRule { rule: i64 } = "denied_by_rule", 97, FINAL, "A rule denies the login.";
    NoRule = "no_rule", 98, FINAL, "No rule matches the token in this database.";
    UserNotMapped = "user_not_mapped", 100, FINAL, "Rules match the token, but none gives the requested role.";
}

impl Refusal {
    /// What happened, as a sentence for the server log and the audit. Configured names in it are escaped and cut to
    /// [`limits::SHOWN_BYTES`](crate::limits::SHOWN_BYTES).
    pub fn detail(&self) -> String {
        let meaning = self.meaning();
        match self {
            Refusal::TokenTooLarge { limit } => format!("The token is larger than {limit} bytes."),
            Refusal::HeaderTooLarge { limit } => {
                format!("The header of the token is larger than {limit} bytes.")
            }
            Refusal::HeaderInvalid { problem } | Refusal::PayloadInvalid { problem } => {
                format!("{meaning} {}", problem_sentence(*problem))
            }
            Refusal::DuplicateMember { part } | Refusal::NulCharacter { part } => {
                format!("{meaning} It is in the {part}.")
            }
            Refusal::TooManyClaims { limit }
            | Refusal::TooManyGroups { limit }
            | Refusal::TooManyRoles { limit } => {
                format!("{meaning} At most {limit} are.")
            }
            Refusal::AlgorithmUnsupported { algorithm: Some(algorithm) } => {
                format!("The \"alg\" in the header is \"{algorithm}\", which is never accepted.")
            }
            Refusal::HeaderRefused { parameter } => {
                format!("The header has the parameter \"{parameter}\" with a value that is never accepted.")
            }
            Refusal::AlgorithmNotAllowed { provider, algorithm } => format!(
                "The algorithm {} is not in the list of provider {}.",
                algorithm.name(),
                shown(provider)
            ),
            Refusal::BrokenDenyRule { rule } | Refusal::DeniedByRule { rule } => {
                format!("{meaning} It is rule {rule}.")
            }
            Refusal::RolePrivileged { why } => format!("{meaning} The {why}."),
            Refusal::ScopeMissing { scope } => format!("{meaning} It is {}.", shown(scope)),
            Refusal::PasswordWrong { why } if !why.is_empty() => format!("{meaning} {why}"),
            Refusal::ProviderDisabled { provider }
            | Refusal::KeysUnavailable { provider }
            | Refusal::KeysStale { provider }
            | Refusal::KeyUnknown { provider }
            | Refusal::KeyAmbiguous { provider } => format!("{meaning} The provider is {}.", shown(provider)),
            Refusal::AudienceMissing { claim }
            | Refusal::AudienceInvalid { claim }
            | Refusal::AudienceMismatch { claim }
            | Refusal::RequiredClaimFailed { claim }
            | Refusal::IdentityInvalid { claim }
            | Refusal::GroupsOverage { claim }
            | Refusal::GroupsMissing { claim }
            | Refusal::GroupsInvalid { claim } => format!("{meaning} The claim is {}.", shown(claim)),
            _ => meaning.to_owned(),
        }
    }

    /// The provider that it speaks of, if it does.
    pub fn provider(&self) -> Option<&str> {
        match self {
            Refusal::ProviderDisabled { provider }
            | Refusal::AlgorithmNotAllowed { provider, .. }
            | Refusal::KeysUnavailable { provider }
            | Refusal::KeysStale { provider }
            | Refusal::KeyUnknown { provider }
            | Refusal::KeyAmbiguous { provider } => Some(provider),
            _ => None,
        }
    }

    /// The rule that refuses, if one does.
    pub fn rule(&self) -> Option<i64> {
        match self {
            Refusal::BrokenDenyRule { rule } | Refusal::DeniedByRule { rule } => Some(*rule),
            _ => None,
        }
    }

    /// The provider whose keys a fetch might mend, where a fetch may: the caller asks for one, within the provider's
    /// cool-down, and decides once more.
    pub fn wants_keys(&self) -> Option<&str> {
        match self {
            Refusal::KeyUnknown { provider }
            | Refusal::KeysStale { provider }
            | Refusal::KeysUnavailable { provider } => Some(provider),
            _ => None,
        }
    }
}
