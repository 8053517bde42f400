//! The password fallback: where a token is asked for, the role's stored password does as well, for the time of a
//! migration (`pg_oidc.password_fallback`). Only what cannot be a token comes here.
//!
//! | the secret | what becomes of it |
//! |---|---|
//! | there is no policy, so that nobody knows whose the role is | refuse |
//! | not the stored password of the role, or past its VALID UNTIL | refuse |
//! | the password of a role that is bound to an identity | refuse |
//! | the password of any other role | admit, without claims and without a slot: no token session |
//!
//! Whether the role may log in, and to this database, is left to core.

use super::{await_policy, password, trail};
use crate::board;
use crate::pg::hooks::Verdict;
use crate::pg::port::Connection;
use crate::pg::wire::Secret;
use crate::pg::{catalog, report, stored_password};
use crate::settings::Login;
use pg_oidc_core::refusal::Refusal;
use std::time::Instant;

/// Judges a password. The client learns no more than of a token.
pub(super) fn authenticate(secret: &Secret, connection: &Connection, settings: &Login) -> Verdict {
    match judge(secret, connection, settings) {
        Ok(()) => {
            report::log(&format!(
                "password login accepted: role={:?} database={:?} client={:?}",
                connection.user, connection.database, connection.host,
            ));
            trail::password_accepted(connection);
            Verdict::Admit
        }
        Err(refusal) => {
            report::log(&format!(
                "password login refused: reason={} user={:?} database={:?} client={:?} detail={:?}",
                refusal.code(),
                connection.user,
                connection.database,
                connection.host,
                refusal.detail(),
            ));
            trail::password_refused(connection, &refusal);
            Verdict::Refuse(password::outward(&refusal))
        }
    }
}

fn judge(secret: &Secret, connection: &Connection, settings: &Login) -> Result<(), Refusal> {
    let asked = board::asked();
    await_policy(asked, Instant::now() + settings.wait, settings)?;
    board::read(|_, _| ()).ok_or(Refusal::PolicyAbsent)?;
    stored_password::check(&connection.user, secret).map_err(|why| Refusal::PasswordWrong { why })?;
    match catalog::role(&connection.user, &settings.database) {
        Some(role) if !is_personal(role.oid) => Ok(()),
        Some(_) => Err(Refusal::PasswordWrong { why: "The role is bound to an identity.".to_owned() }),
        None => Err(Refusal::PasswordWrong { why: String::new() }),
    }
}

/// Whether the role is bound to an identity in `oidc.identity_role`.
fn is_personal(role_oid: u32) -> bool {
    board::read(|policy, _| policy.is_personal(role_oid)).unwrap_or(true)
}
