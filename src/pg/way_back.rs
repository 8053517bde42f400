//! No way back in without a token: what a token session must not leave behind.
//!
//! | in a session that a token opened | |
//! |---|---|
//! | the session user is a superuser | all as ever |
//! | a password for any role: CREATE ROLE, ALTER ROLE, `\password` | refused |
//! | `PASSWORD NULL` | as ever: it only takes a password away, and core does not ask the hook |
//! | ALTER ROLE … SET or RESET, of any role, in one database or in all | refused |
//!
//! The hooks are put up in the session's own process, once it is admitted: over those of every preloaded library, so
//! that one which calls no previous hook cannot take them away; and a session without a token never meets them.
//!
//! They are no `#[pg_guard]`, unlike others. What comes out of a guard has only code, message, detail and hint: every error
//! of a utility statement, of a DO or a CALL too, would lose its position, context and constraint. So an ERROR of what
//! is called from here jumps over these functions, which hold nothing that would have to be dropped.

use super::report;
use once_cell::sync::OnceCell;
use pgrx::{PgSqlErrorCode, pg_guard, pg_sys};
use std::os::raw::c_char;

static PREVIOUS_PASSWORD: OnceCell<pg_sys::check_password_hook_type> = OnceCell::new();
static PREVIOUS_UTILITY: OnceCell<pg_sys::ProcessUtility_hook_type> = OnceCell::new();

unsafe extern "C-unwind" {
    /// Core's own. The binding of `pg_sys` has a guard around it, which is not wanted here (see above).
    fn standard_ProcessUtility(
        statement: *mut pg_sys::PlannedStmt,
        query: *const c_char,
        read_only: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        parameters: pg_sys::ParamListInfo,
        environment: *mut pg_sys::QueryEnvironment,
        receiver: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    );
}

/// What is above is what utility.h says, in each version: it has the type of the hook, by the compiler's word.
const STANDARD: pg_sys::ProcessUtility_hook_type = Some(standard_ProcessUtility);

/// Closes the ways back in for the rest of this process. Does nothing the second time.
pub(crate) fn close() {
    // SAFETY: user.h, utility.h: hooks of this process alone, which has one thread; the previous ones are kept.
    unsafe {
        if PREVIOUS_PASSWORD.set(pg_sys::check_password_hook).is_ok() {
            pg_sys::check_password_hook = Some(check_password);
        }
        if PREVIOUS_UTILITY.set(pg_sys::ProcessUtility_hook).is_ok() {
            pg_sys::ProcessUtility_hook = Some(process_utility);
        }
    }
}

/// user.c calls it for each password that is not null, hashed or not.
unsafe extern "C-unwind" fn check_password(
    user: *const c_char,
    password: *const c_char,
    kind: pg_sys::PasswordType::Type,
    valid_until: pg_sys::Datum,
    no_valid_until: bool,
) {
    // SAFETY: another library's hook with core's own arguments; nothing here is to be dropped.
    unsafe {
        if let Some(Some(previous)) = PREVIOUS_PASSWORD.get() {
            previous(user, password, kind, valid_until, no_valid_until);
        }
        refuse_password();
    }
}

unsafe extern "C-unwind" fn process_utility(
    statement: *mut pg_sys::PlannedStmt,
    query: *const c_char,
    read_only: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    receiver: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: utility.c: the statement is never null (ProcessUtility asserts it) and is a node. What is called has
    // core's own arguments, by raw pointers and a raw binding; nothing here is to be dropped.
    unsafe {
        if (*(*statement).utilityStmt).type_ == pg_sys::NodeTag::T_AlterRoleSetStmt {
            refuse_settings();
        }
        if let Some(next) = PREVIOUS_UTILITY.get().copied().flatten().or(STANDARD) {
            next(statement, query, read_only, context, parameters, environment, receiver, completion);
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn refuse_password() {
    refuse(
        "cannot set a password in a session that an OIDC token opened",
        "Who has a password can come in without a token.",
        "An administrator can set it, in a session without a token.",
    );
}

#[pg_guard]
unsafe extern "C-unwind" fn refuse_settings() {
    refuse(
        "cannot change the settings of roles in a session that an OIDC token opened",
        "They would count in later sessions, which this token does not open.",
        "Use SET for this session. An administrator can use ALTER ROLE, in a session without a token.",
    );
}

/// Raises the ERROR, unless the session user is a superuser.
fn refuse(message: &str, detail: &str, hint: &str) {
    // SAFETY: miscinit.c, superuser.c: in a transaction, as every utility statement that changes roles.
    if !unsafe { pg_sys::superuser_arg(pg_sys::GetSessionUserId()) } {
        let code = PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE;
        report::raise(code, message, Some(detail), Some(hint));
    }
}
