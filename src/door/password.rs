//! The password door: a guarded `trust` line asks for a token in the password field.
//!
//! | the HBA line that core matched | what the door does |
//! |---|---|
//! | any other method | nothing |
//! | `trust` in the guarded file, core's status failed (client certificate) | nothing: core refuses, nothing is asked |
//! | `trust` from an included file (16+) | refuse, nothing is asked |
//! | `trust`, plain TCP while `pg_oidc.require_tls` is on | refuse before asking |
//! | `trust`, the client goes away while asked | the backend ends in silence, as core's does |
//! | `trust`, answer empty or not a password message | refuse |
//! | `trust`, no token, while `pg_oidc.password_fallback` is on | see [`fallback`] |
//! | `trust`, a token that the decision refuses | refuse, one constant line |
//! | `trust`, a token that the decision accepts | admit; claims into the sealed settings |

use super::{begin, decide, fallback, welcome};
use crate::fail_point::fail_point;
use crate::pg::hooks::Verdict;
use crate::pg::port::{Connection, Line};
use crate::pg::report::Outward;
use crate::pg::wire::Answer;
use crate::pg::{authenticated, startup};
use crate::settings::{self, Login};
use pg_oidc_core::account::Account;
use pg_oidc_core::refusal::Refusal;
use pg_oidc_core::token;

/// Judges a client on a guarded line. Every secret is wiped when this returns.
pub(crate) fn authenticate(connection: &Connection, line: Line, ask: &dyn Fn() -> Answer) -> Verdict {
    let settings = settings::login();
    let mut account = Account::salted(startup::system_identifier());
    let outcome = match before_asking(connection, line, &settings) {
        Err(refusal) => Err(refusal),
        Ok(()) => match ask() {
            Answer::Gone => return Verdict::Leave,
            Answer::Malformed => Err(Refusal::PasswordMalformed),
            Answer::Empty => Err(Refusal::PasswordEmpty),
            Answer::Secret(secret) if settings.password_fallback && !token::may_be_token(secret.bytes()) => {
                return fallback::authenticate(&secret, connection, &settings);
            }
            Answer::Secret(secret) => {
                fail_point("login_asked");
                decide(secret.bytes(), None, connection, &settings, &mut account)
            }
        },
    };
    match outcome.and_then(begin) {
        Ok(grant) => {
            authenticated::set(&grant.decision.identity);
            super::accepted(connection, &account, &grant);
            Verdict::Admit
        }
        Err(refusal) => {
            super::refused(connection, &account, &refusal);
            Verdict::Refuse(outward(&refusal))
        }
    }
}

fn before_asking(connection: &Connection, line: Line, settings: &Login) -> Result<(), Refusal> {
    if line == Line::IncludedToken {
        return Err(Refusal::TrustFromIncludedFile);
    }
    welcome(connection, settings)
}

/// What the client may know of a refusal.
pub(super) fn outward(refusal: &Refusal) -> Outward {
    match refusal {
        Refusal::TlsRequired => Outward::TlsRequired,
        other if other.retry() => Outward::Retry,
        _ => Outward::Refused,
    }
}
