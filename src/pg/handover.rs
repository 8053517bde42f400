//! Statements that make a role the owner of something, or let it act for another: as good as SET ROLE, with a function
//! that runs with its owner's rights, and so bounded as SET ROLE is.
//!
//! | in a session that a token opened | |
//! |---|---|
//! | the session user is a superuser | all as ever |
//! | a new owner that the session may take on: ALTER … OWNER TO, CREATE SCHEMA AUTHORIZATION, CREATE DATABASE OWNER, REASSIGN OWNED | as ever: core decides |
//! | any other new owner | refused |
//! | ALTER DEFAULT PRIVILEGES FOR a role that it may not take on | refused |
//! | GRANT of the session user's own role, which 15 allows to everybody (acl.c, `is_admin_of_role`) | refused |
//!
//! Core asks only for membership there, and a person's role may be a member of what another login was given.

use super::report;
use super::role_setting;
use pgrx::{PgList, PgSqlErrorCode, is_a, pg_guard, pg_sys};
use std::ffi::CStr;

/// Raises an ERROR where the statement goes beyond what the session was given.
///
/// # Safety
/// `statement` is the utility statement that core is about to run, in a transaction.
#[pg_guard]
pub(super) unsafe extern "C-unwind" fn refuse_beyond(statement: *mut pg_sys::Node) {
    use pg_sys::NodeTag::*;
    // SAFETY: parsenodes.h: the tag says what the node is.
    unsafe {
        match (*statement).type_ {
            T_AlterOwnerStmt => role((*statement.cast::<pg_sys::AlterOwnerStmt>()).newowner),
            T_CreateSchemaStmt => role((*statement.cast::<pg_sys::CreateSchemaStmt>()).authrole),
            T_ReassignOwnedStmt => role((*statement.cast::<pg_sys::ReassignOwnedStmt>()).newrole),
            T_AlterTableStmt => {
                let commands = (*statement.cast::<pg_sys::AlterTableStmt>()).cmds;
                for command in PgList::<pg_sys::AlterTableCmd>::from_pg(commands).iter_ptr() {
                    if (*command).subtype == pg_sys::AlterTableType::AT_ChangeOwner {
                        role((*command).newowner);
                    }
                }
            }
            T_AlterDefaultPrivilegesStmt => {
                options((*statement.cast::<pg_sys::AlterDefaultPrivilegesStmt>()).options, c"roles");
            }
            T_CreatedbStmt => options((*statement.cast::<pg_sys::CreatedbStmt>()).options, c"owner"),
            T_GrantRoleStmt => grant(&*statement.cast::<pg_sys::GrantRoleStmt>()),
            _ => {}
        }
    }
}

/// A role as it is written in a statement; null where none is.
unsafe fn role(spec: *mut pg_sys::RoleSpec) {
    // SAFETY: by the caller: a node of the statement, or null. CURRENT_USER and the like are the session's own.
    unsafe {
        if !spec.is_null() && (*spec).roletype == pg_sys::RoleSpecType::ROLESPEC_CSTRING {
            named(CStr::from_ptr((*spec).rolename));
        }
    }
}

/// The roles of an option, which holds a name or a list of roles.
unsafe fn options(list: *mut pg_sys::List, wanted: &CStr) {
    // SAFETY: by the caller: a list of options of a statement (parsenodes.h, DefElem).
    unsafe {
        for option in PgList::<pg_sys::DefElem>::from_pg(list).iter_ptr() {
            let value = (*option).arg;
            if CStr::from_ptr((*option).defname) != wanted || value.is_null() {
                continue;
            }
            if is_a(value, pg_sys::NodeTag::T_List) {
                for spec in PgList::<pg_sys::RoleSpec>::from_pg(value.cast()).iter_ptr() {
                    role(spec);
                }
            } else if is_a(value, pg_sys::NodeTag::T_String) {
                named(CStr::from_ptr((*value.cast::<pg_sys::String>()).sval));
            }
        }
    }
}

unsafe fn named(name: &CStr) {
    if role_setting::is_beyond(name) {
        refuse(
            &format!("permission denied for role \"{}\"", name.to_string_lossy()),
            "The OIDC token of this session does not give the role.",
            None,
        );
    }
}

/// Whoever has the session user's role has all that it is given, with no token of its own.
unsafe fn grant(statement: &pg_sys::GrantRoleStmt) {
    // SAFETY: parsenodes.h: a list of AccessPriv, each with the name of a role. In a transaction.
    unsafe {
        let own = pg_sys::GetSessionUserId();
        for granted in PgList::<pg_sys::AccessPriv>::from_pg(statement.granted_roles).iter_ptr() {
            let name = (*granted).priv_name;
            let is_own = !name.is_null() && pg_sys::get_role_oid(name, true) == own;
            if statement.is_grant && is_own && role_setting::is_bounded() {
                refuse(
                    "cannot grant the session user's own role in a session that an OIDC token opened",
                    "Its members could come in without a token.",
                    Some("An administrator can grant it, in a session without a token."),
                );
            }
        }
    }
}

fn refuse(message: &str, detail: &str, hint: Option<&str>) {
    report::raise(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, message, Some(detail), hint);
}
