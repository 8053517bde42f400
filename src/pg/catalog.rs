//! Roles, as the shared catalogs have them. Usable in the hook, where no database is open yet.

use super::server::FormData_pg_auth_members;
use super::{database, startup};
use pg_oidc_core::refusal::Refusal;
use pgrx::pg_sys;
use std::ffi::{CStr, CString};

/// What a login needs to know of a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Role {
    pub(crate) oid: u32,
    pub(crate) superuser: bool,
    pub(crate) can_login: bool,
    /// It has the rights of every role that it is a member of. From 16 on each grant says so, and this is false.
    pub(crate) inherits: bool,
    /// `VALID UNTIL` in microseconds since 1970; core ignores it under `trust`.
    pub(crate) valid_until: Option<i64>,
    /// Why the role is privileged, or None: itself, or any role that it is a member of.
    pub(crate) privilege: Option<String>,
}

impl Role {
    /// What core would not refuse, or would refuse with more than the constant line.
    ///
    /// # Errors
    /// Why a token does not open a session in this role at `now` (microseconds since 1970).
    pub(crate) fn admits(&self, allow_privileged: bool, now: i64) -> Result<(), Refusal> {
        if !self.can_login {
            return Err(Refusal::RoleCannotLogin);
        }
        if self.valid_until.is_some_and(|until| until <= now) {
            return Err(Refusal::RoleExpired);
        }
        match &self.privilege {
            Some(why) if !allow_privileged => Err(Refusal::RolePrivileged { why: why.clone() }),
            _ => Ok(()),
        }
    }
}

/// The predefined roles that only read; every other `pg_*` role counts as privileged, new ones included.
const READING_ROLES: [&CStr; 5] = [
    c"pg_read_all_data",
    c"pg_read_all_settings",
    c"pg_read_all_stats",
    c"pg_stat_scan_tables",
    c"pg_monitor",
];

/// The role `name`, or None where there is none. `owner_of` is the database whose owner counts as privileged.
///
/// Memberships are walked by hand: `is_member_of_role` and its kin fill a cache that core trusts afterwards
/// although no invalidation is registered for it yet at this point (acl.c, tried on 15).
pub(crate) fn role(name: &str, owner_of: &str) -> Option<Role> {
    Roles::of(owner_of).find(name, |_, _| false)
}

/// Roles, looked at with one database whose owner counts as privileged.
pub(crate) struct Roles {
    owner: Option<pg_sys::Oid>,
}

impl Roles {
    pub(crate) fn of(owner_of: &str) -> Roles {
        Roles { owner: database::find(owner_of).map(|database| database.owner) }
    }

    /// As [`role`]. A membership for which `aside` holds, of the first in the second, carries no privilege.
    pub(crate) fn find(&self, name: &str, aside: impl Fn(u32, u32) -> bool) -> Option<Role> {
        let name = CString::new(name).ok()?;
        // SAFETY: a transaction is open in the hook, and AcceptInvalidationMessages makes what is committed visible.
        unsafe {
            pg_sys::AcceptInvalidationMessages();
            let oid = pg_sys::get_role_oid(name.as_ptr(), true);
            if oid == pg_sys::InvalidOid {
                return None;
            }
            let (superuser, can_login, valid_until) = login_facts(oid)?;
            let privilege = privilege(oid, self.owner, aside);
            #[cfg(feature = "pg15")]
            let inherits = role_inherits(oid);
            #[cfg(not(feature = "pg15"))]
            let inherits = false;
            Some(Role { oid: oid.to_u32(), superuser, can_login, inherits, valid_until, privilege })
        }
    }
}

/// The roles that `member` is a direct member of, in any way.
pub(crate) fn roles_of(member: u32) -> Vec<u32> {
    // SAFETY: as in `login_facts`; in a transaction.
    let memberships = unsafe { memberships(member.into()) };
    memberships.into_iter().map(|membership| membership.role.to_u32()).collect()
}

/// As [`roles_of`], of what is committed by now; for the hook.
pub(crate) fn roles_of_now(member: u32) -> Vec<u32> {
    // SAFETY: inval.c; in a transaction.
    unsafe { pg_sys::AcceptInvalidationMessages() };
    roles_of(member)
}

/// The roles whose rights `role` has without SET ROLE, itself included (acl.c, ROLERECURSE_PRIVS).
pub(crate) fn inherited(role: u32) -> Vec<pg_sys::Oid> {
    let mut seen = vec![pg_sys::Oid::from(role)];
    let mut next = 0;
    while let Some(&member) = seen.get(next) {
        next += 1;
        // SAFETY: as in `login_facts`; in a transaction.
        for membership in unsafe { memberships(member) } {
            if membership.inherits && !seen.contains(&membership.role) {
                seen.push(membership.role);
            }
        }
    }
    seen
}

/// Whether core, which remembers memberships from before they were synced where an HBA line has a `+role`, takes `member`
/// for one that may become `role`. To be asked once, after a sync: it makes core remember.
pub(crate) fn core_sees(member: u32, role: u32) -> bool {
    // SAFETY: acl.c; in a transaction.
    #[cfg(feature = "pg15")]
    return unsafe { pg_sys::is_member_of_role(member.into(), role.into()) };
    #[cfg(not(feature = "pg15"))]
    // SAFETY: acl.c (16+); in a transaction.
    return unsafe { pg_sys::member_can_set_role(member.into(), role.into()) };
}

/// Whether there is a database `name`. Usable in the hook.
pub(crate) fn database_exists(name: &str) -> bool {
    database::find(name).is_some()
}

/// The name of the database that this session is connected to.
pub(crate) fn current_database() -> String {
    // SAFETY: dbcommands.c: a palloc'd name or null.
    unsafe {
        let name = pg_sys::get_database_name(pg_sys::MyDatabaseId);
        if name.is_null() { String::new() } else { CStr::from_ptr(name).to_string_lossy().into_owned() }
    }
}

/// Whether text in this session's database is UTF-8.
pub(crate) fn database_is_utf8() -> bool {
    // SAFETY: mbutils.c; set when the session connected.
    unsafe { pg_sys::GetDatabaseEncoding() == pg_sys::pg_enc::PG_UTF8 as i32 }
}

/// The oid of the role `name`, or None where there is none.
pub(crate) fn role_oid(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: acl.c; needs a transaction, which every caller has.
    let oid = unsafe { pg_sys::get_role_oid(name.as_ptr(), true) };
    (oid != pg_sys::InvalidOid).then(|| oid.to_u32())
}

/// As [`role_oid`], of what is committed by now; for the hook.
pub(crate) fn role_oid_now(name: &str) -> Option<u32> {
    // SAFETY: inval.c; in a transaction.
    unsafe { pg_sys::AcceptInvalidationMessages() };
    role_oid(name)
}

/// Whether `member` has the ADMIN option on `role`, granted to itself or to a role that it is a member of, whatever the
/// other options of those grants: as core judges GRANT (acl.c, `is_admin_of_role`), but without two things. A superuser
/// does not have it for that alone, and a role is never its own admin, as 15 says of the session user.
pub(crate) fn is_admin(member: u32, role: u32) -> bool {
    let mut seen = vec![pg_sys::Oid::from(member)];
    let mut next = 0;
    while let Some(&member) = seen.get(next) {
        next += 1;
        // SAFETY: as in `login_facts`; in a transaction.
        for membership in unsafe { memberships(member) } {
            if membership.admin && membership.role.to_u32() == role {
                return true;
            }
            if !seen.contains(&membership.role) {
                seen.push(membership.role);
            }
        }
    }
    false
}

/// Whether `role` may connect to the database. Not in the hook: it reads a catalog that is not shared-cached there.
pub(crate) fn may_connect(role: u32, database: &str) -> bool {
    let Ok(database) = CString::new(database) else { return false };
    // SAFETY: dbcommands.c and aclchk.c; in a transaction of a session with a database.
    unsafe {
        let database = pg_sys::get_database_oid(database.as_ptr(), true);
        database != pg_sys::InvalidOid
            && database_aclcheck(database, role.into()) == pg_sys::AclResult::ACLCHECK_OK
    }
}

#[cfg(feature = "pg15")]
unsafe fn database_aclcheck(database: pg_sys::Oid, role: pg_sys::Oid) -> pg_sys::AclResult::Type {
    // SAFETY: as in `may_connect`.
    unsafe { pg_sys::pg_database_aclcheck(database, role, pg_sys::ACL_CONNECT) }
}

#[cfg(not(feature = "pg15"))]
unsafe fn database_aclcheck(database: pg_sys::Oid, role: pg_sys::Oid) -> pg_sys::AclResult::Type {
    // SAFETY: as in `may_connect`.
    unsafe { pg_sys::object_aclcheck(pg_sys::DatabaseRelationId, database, role, pg_sys::ACL_CONNECT.into()) }
}

/// Whether the current user is a superuser.
pub(crate) fn superuser() -> bool {
    // SAFETY: superuser.c; needs a transaction, which every caller has.
    unsafe { pg_sys::superuser() }
}

unsafe fn login_facts(oid: pg_sys::Oid) -> Option<(bool, bool, Option<i64>)> {
    // SAFETY: syscache.c: the tuple is pinned until ReleaseSysCache.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::AUTHOID as i32, oid.into());
        if tuple.is_null() {
            return None;
        }
        let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_authid>();
        let (superuser, can_login) = ((*form).rolsuper, (*form).rolcanlogin);
        let mut is_null = false;
        let until = pg_sys::SysCacheGetAttr(
            pg_sys::SysCacheIdentifier::AUTHOID as i32,
            tuple,
            pg_sys::Anum_pg_authid_rolvaliduntil as i16,
            &raw mut is_null,
        );
        let until = (!is_null).then(|| startup::from_core_epoch(until.value() as i64));
        pg_sys::ReleaseSysCache(tuple);
        Some((superuser, can_login, until))
    }
}

/// The first reason found why `oid`, or a role that it is a member of in any way, is privileged.
unsafe fn privilege(
    oid: pg_sys::Oid,
    owner: Option<pg_sys::Oid>,
    aside: impl Fn(u32, u32) -> bool,
) -> Option<String> {
    let mut seen = vec![oid];
    let mut next = 0;
    while let Some(&role) = seen.get(next) {
        next += 1;
        // SAFETY: as in `login_facts`, in the caller's guard and transaction.
        unsafe {
            if let Some(reason) = own_privilege(role, owner) {
                return Some(reason);
            }
            for membership in memberships(role) {
                let parent = membership.role;
                if !seen.contains(&parent) && !aside(role.to_u32(), parent.to_u32()) {
                    seen.push(parent);
                }
            }
        }
    }
    None
}

unsafe fn own_privilege(oid: pg_sys::Oid, owner: Option<pg_sys::Oid>) -> Option<String> {
    // SAFETY: as in `login_facts`.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::AUTHOID as i32, oid.into());
        if tuple.is_null() {
            return None;
        }
        let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_authid>();
        let name = CStr::from_ptr((*form).rolname.data.as_ptr());
        let predefined = name.to_bytes().starts_with(b"pg_") && !READING_ROLES.contains(&name);
        let power = [
            ((*form).rolsuper, "is a superuser"),
            ((*form).rolcreaterole, "has CREATEROLE"),
            ((*form).rolreplication, "has REPLICATION"),
            ((*form).rolbypassrls, "has BYPASSRLS"),
            (predefined, "is a predefined role with powers"),
            (owner == Some(oid), "owns the policy database"),
        ]
        .into_iter()
        .find_map(|(has, what)| has.then(|| format!("role {:?} {what}", name.to_string_lossy())));
        pg_sys::ReleaseSysCache(tuple);
        power
    }
}

/// One grant of a role to a member.
struct Membership {
    role: pg_sys::Oid,
    admin: bool,
    /// The member has the role's rights without SET ROLE.
    inherits: bool,
}

/// The roles that `member` is a direct member of and may use in any way. On 16 and later a role may stand here several
/// times, by several grantors.
unsafe fn memberships(member: pg_sys::Oid) -> Vec<Membership> {
    // SAFETY: catcache.h: n_members entries follow the header; pinned until ReleaseCatCacheList.
    unsafe {
        let list = pg_sys::SearchSysCacheList(
            pg_sys::SysCacheIdentifier::AUTHMEMMEMROLE as i32,
            1,
            member.into(),
            pg_sys::Datum::from(0),
            pg_sys::Datum::from(0),
        );
        #[cfg(feature = "pg15")]
        let inherits = role_inherits(member);
        let members = (*list).members.as_slice((*list).n_members.max(0) as usize);
        let roles = members
            .iter()
            .map(|entry| {
                let tuple = &raw mut (**entry).tuple;
                &*pg_sys::GETSTRUCT(tuple).cast::<FormData_pg_auth_members>()
            })
            .filter(|form| is_of_use(form))
            .map(|form| Membership {
                role: form.roleid,
                admin: form.admin_option,
                #[cfg(feature = "pg15")]
                inherits,
                #[cfg(not(feature = "pg15"))]
                inherits: form.inherit_option,
            })
            .collect();
        pg_sys::ReleaseCatCacheList(list);
        roles
    }
}

#[cfg(feature = "pg15")]
fn is_of_use(_: &FormData_pg_auth_members) -> bool {
    true // a member may SET ROLE, whatever else
}

/// One grant of a membership; without SET, INHERIT and ADMIN it gives nothing, not even a way to grant oneself more
/// (user.c, check_role_membership_authorization and select_best_grantor; tried on 16 and 18).
#[cfg(not(feature = "pg15"))]
fn is_of_use(grant: &FormData_pg_auth_members) -> bool {
    grant.set_option || grant.inherit_option || grant.admin_option
}

/// Whether a role has the rights of those that it is a member of; in 15 an attribute of the member.
#[cfg(feature = "pg15")]
unsafe fn role_inherits(oid: pg_sys::Oid) -> bool {
    // SAFETY: as in `login_facts`.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::AUTHOID as i32, oid.into());
        if tuple.is_null() {
            return false;
        }
        let inherits = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_authid>()).rolinherit;
        pg_sys::ReleaseSysCache(tuple);
        inherits
    }
}
