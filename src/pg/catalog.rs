//! Roles, as the shared catalogs have them. Usable in the hook, where no database is open yet.

use super::server::FormData_pg_auth_members;
use super::startup;
use pg_oidc_core::refusal::Refusal;
use pgrx::pg_sys;
use std::ffi::{CStr, CString};

/// What a login needs to know of a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Role {
    pub(crate) oid: u32,
    pub(crate) can_login: bool,
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
    let name = CString::new(name).ok()?;
    // SAFETY: a transaction is open in the hook, and AcceptInvalidationMessages makes what is committed visible.
    unsafe {
        pg_sys::AcceptInvalidationMessages();
        let oid = pg_sys::get_role_oid(name.as_ptr(), true);
        if oid == pg_sys::InvalidOid {
            return None;
        }
        let owner = database_owner(owner_of);
        let (can_login, valid_until) = login_facts(oid)?;
        Some(Role { oid: oid.to_u32(), can_login, valid_until, privilege: privilege(oid, owner) })
    }
}

/// Whether there is a database `name`. Usable in the hook.
pub(crate) fn database_exists(name: &str) -> bool {
    // SAFETY: as in `role`.
    unsafe {
        pg_sys::AcceptInvalidationMessages();
        database_owner(name).is_some()
    }
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

/// Whether `member` has the ADMIN option on `role`, granted to itself or to a role that it is a member of, whatever the
/// other options of those grants: as core judges GRANT (acl.c, `is_admin_of_role`), but without two things. A superuser
/// does not have it for that alone, and a role is never its own admin, as 15 says of the session user.
pub(crate) fn is_admin(member: u32, role: u32) -> bool {
    let mut seen = vec![pg_sys::Oid::from(member)];
    let mut next = 0;
    while let Some(&member) = seen.get(next) {
        next += 1;
        // SAFETY: as in `login_facts`; in a transaction.
        for (parent, admin) in unsafe { memberships(member) } {
            if admin && parent.to_u32() == role {
                return true;
            }
            if !seen.contains(&parent) {
                seen.push(parent);
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

unsafe fn login_facts(oid: pg_sys::Oid) -> Option<(bool, Option<i64>)> {
    // SAFETY: syscache.c: the tuple is pinned until ReleaseSysCache.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::AUTHOID as i32, oid.into());
        if tuple.is_null() {
            return None;
        }
        let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_authid>();
        let can_login = (*form).rolcanlogin;
        let mut is_null = false;
        let until = pg_sys::SysCacheGetAttr(
            pg_sys::SysCacheIdentifier::AUTHOID as i32,
            tuple,
            pg_sys::Anum_pg_authid_rolvaliduntil as i16,
            &raw mut is_null,
        );
        let until = (!is_null).then(|| startup::from_core_epoch(until.value() as i64));
        pg_sys::ReleaseSysCache(tuple);
        Some((can_login, until))
    }
}

/// The first reason found why `oid`, or a role that it is a member of in any way, is privileged.
unsafe fn privilege(oid: pg_sys::Oid, owner: Option<pg_sys::Oid>) -> Option<String> {
    let mut seen = vec![oid];
    let mut next = 0;
    while let Some(&role) = seen.get(next) {
        next += 1;
        // SAFETY: as in `login_facts`, in the caller's guard and transaction.
        unsafe {
            if let Some(reason) = own_privilege(role, owner) {
                return Some(reason);
            }
            for (parent, _) in memberships(role) {
                if !seen.contains(&parent) {
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

/// The roles that `member` is a direct member of and may use in any way, and whether it has ADMIN. On 16 and later a
/// role may stand here several times, by several grantors.
unsafe fn memberships(member: pg_sys::Oid) -> Vec<(pg_sys::Oid, bool)> {
    // SAFETY: catcache.h: n_members entries follow the header; pinned until ReleaseCatCacheList.
    unsafe {
        let list = pg_sys::SearchSysCacheList(
            pg_sys::SysCacheIdentifier::AUTHMEMMEMROLE as i32,
            1,
            member.into(),
            pg_sys::Datum::from(0),
            pg_sys::Datum::from(0),
        );
        let members = (*list).members.as_slice((*list).n_members.max(0) as usize);
        let roles = members
            .iter()
            .map(|entry| {
                let tuple = &raw mut (**entry).tuple;
                &*pg_sys::GETSTRUCT(tuple).cast::<FormData_pg_auth_members>()
            })
            .filter(|form| is_of_use(form))
            .map(|form| (form.roleid, form.admin_option))
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

/// The owner of a database, or None where there is none of that name.
///
/// Not by `get_database_oid`: that one insists on the index, whose description is not to be had before a database is
/// open if the relation cache's file is missing, as after a crash; the attempt is FATAL (relcache.c, ScanPgRelation).
/// This is what core does itself at this point (postinit.c, GetDatabaseTuple).
unsafe fn database_owner(name: &str) -> Option<pg_sys::Oid> {
    let name = CString::new(name).ok()?;
    // SAFETY: genam.c; a transaction is open, and everything that is opened is closed.
    unsafe {
        let relation = pg_sys::table_open(pg_sys::DatabaseRelationId, pg_sys::AccessShareLock as i32);
        let mut key: pg_sys::ScanKeyData = std::mem::zeroed();
        pg_sys::ScanKeyInit(
            &raw mut key,
            pg_sys::Anum_pg_database_datname as i16,
            pg_sys::BTEqualStrategyNumber as u16,
            pg_sys::Oid::from(pg_sys::F_NAMEEQ),
            pg_sys::Datum::from(name.as_ptr()),
        );
        let scan = pg_sys::systable_beginscan(
            relation,
            pg_sys::Oid::from(pg_sys::DatabaseNameIndexId),
            pg_sys::criticalSharedRelcachesBuilt,
            std::ptr::null_mut(),
            1,
            &raw mut key,
        );
        let tuple = pg_sys::systable_getnext(scan);
        let owner = (!tuple.is_null())
            .then(|| (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>()).datdba);
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
        owner
    }
}
