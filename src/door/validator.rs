//! The OAUTHBEARER door (18): core's `oauth` method has the token, and asks this library whether it admits.
//!
//! | what happens | what the door does |
//! |---|---|
//! | the library is not in shared_preload_libraries | refuse (`pg/oauth.rs`): there is no policy |
//! | a client asks which provider it is to go to (discovery) | nothing: core answers, and nothing is validated |
//! | plain TCP while `pg_oidc.require_tls` is on | refuse |
//! | the token is of another issuer than the line names | refuse, no key is looked for |
//! | the token lacks a scope that the line names | refuse, once it is verified |
//! | the decision refuses | refuse |
//! | the decision accepts | authorise the identity, and leave the grant in this process |
//! | core, its user map or a client certificate, then refuses | it is noted at the end of the process, as after any login |
//! | core accepts: the ClientAuthentication hook | take the grant, begin the session as the password door does |
//! | core accepts, and no grant was left | refuse |
//!
//! The client sees core's one line for every refusal, retryable or not.

use super::{decide, trail};
use crate::fail_point::fail_point;
use crate::pg::hooks::Verdict;
use crate::pg::port::Connection;
use crate::pg::report::Outward;
use crate::pg::startup;
use crate::session::Grant;
use crate::settings;
use pg_oidc_core::account::Account;
use pg_oidc_core::oauth_line::OauthLine;
use pg_oidc_core::refusal::Refusal;
use std::cell::RefCell;

thread_local! {
    /// What the validator granted to the client of this process, until the hook takes it.
    static GRANTED: RefCell<Option<(Account, Grant)>> = const { RefCell::new(None) };
}

/// Judges a token that came on an `oauth` line: the identity of whom it admits.
pub(crate) fn validate(connection: &Connection, line: &OauthLine, token: &[u8]) -> Option<String> {
    let settings = settings::login();
    let mut account = Account::salted(startup::system_identifier());
    let outcome = super::welcome(connection, &settings).and_then(|()| {
        fail_point("login_asked");
        decide(token, Some(line), connection, &settings, &mut account)
    });
    match outcome {
        Ok(grant) => {
            let identity = grant.decision.identity.clone();
            trail::granted(connection, &account, &grant);
            GRANTED.set(Some((account, grant)));
            Some(identity)
        }
        Err(refusal) => {
            super::refused(connection, &account, &refusal);
            None
        }
    }
}

/// Begins the session of whom [`validate`] admitted in this process.
pub(crate) fn finish(connection: &Connection) -> Verdict {
    let Some((account, grant)) = GRANTED.take() else {
        super::refused(connection, &Account::default(), &Refusal::DoorBypassed);
        return Verdict::Refuse(Outward::Refused);
    };
    match super::begin(grant) {
        Ok(grant) => {
            super::accepted(connection, &account, &grant);
            Verdict::Admit
        }
        Err(refusal) => {
            super::refused(connection, &account, &refusal);
            Verdict::Refuse(Outward::Refused)
        }
    }
}
