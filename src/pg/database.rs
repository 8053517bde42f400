//! Databases, as pg_database has them. Usable in the hook, where no database is open yet.

use super::catalog;
use pgrx::array::RawArray;
use pgrx::pg_sys;
use std::ffi::CString;
use std::ptr::NonNull;

/// What a login needs to know of a database.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    pub(crate) owner: pg_sys::Oid,
    allows_connections: bool,
    /// Who was granted CONNECT, 0 for PUBLIC; None: that cannot be read here.
    connect: Option<Vec<pg_sys::Oid>>,
}

impl Database {
    /// Whether core would let `role` connect (postinit.c, CheckMyDatabase), as far as can be seen. Rights that it has
    /// through others are found by walking the memberships, see [`catalog`].
    pub(crate) fn admits(&self, role: u32, superuser: bool) -> bool {
        let granted = |connect: &Vec<pg_sys::Oid>| {
            connect.contains(&pg_sys::InvalidOid)
                || catalog::inherited(role).iter().any(|role| connect.contains(role))
        };
        superuser || (self.allows_connections && self.connect.as_ref().is_none_or(granted))
    }
}

/// The database of that name, or None where there is none.
///
/// Not by `get_database_oid`: that one insists on the index, whose description is not to be had before a database is
/// open if the relation cache's file is missing, as after a crash; the attempt is FATAL (relcache.c, ScanPgRelation).
/// This is what core does itself at this point (postinit.c, GetDatabaseTuple).
pub(crate) fn find(name: &str) -> Option<Database> {
    let name = CString::new(name).ok()?;
    // SAFETY: genam.c; a transaction is open, and everything that is opened is closed.
    unsafe {
        pg_sys::AcceptInvalidationMessages();
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
        let found = (!tuple.is_null()).then(|| read(tuple, (*relation).rd_att));
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
        found
    }
}

unsafe fn read(tuple: pg_sys::HeapTuple, columns: pg_sys::TupleDesc) -> Database {
    // SAFETY: a row of pg_database and its descriptor, which is nailed (relcache.c), while its buffer is pinned.
    unsafe {
        let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
        let mut is_null = false;
        let acl = pg_sys::heap_getattr(tuple, pg_sys::Anum_pg_database_datacl as i32, columns, &mut is_null);
        Database {
            owner: (*form).datdba,
            allows_connections: (*form).datallowconn,
            // No ACL stands for the default one, which gives CONNECT to PUBLIC (acl.c, acldefault).
            connect: if is_null { Some(vec![pg_sys::InvalidOid]) } else { connect(acl) },
        }
    }
}

/// Who has CONNECT by an ACL.
unsafe fn connect(acl: pg_sys::Datum) -> Option<Vec<pg_sys::Oid>> {
    // SAFETY: acl.h: an array of AclItem in one dimension. What is stored out of line cannot be fetched before a database
    // is open; what is only compressed is copied by pg_detoast_datum.
    unsafe {
        let stored = acl.cast_mut_ptr::<pg_sys::varlena>();
        if pgrx::varatt_is_1b_e(stored) {
            return None;
        }
        let array = NonNull::new(pg_sys::pg_detoast_datum(stored).cast::<pg_sys::ArrayType>())?;
        let mut array = RawArray::from_ptr(array);
        let items = array.data::<pg_sys::AclItem>();
        let wanted = pg_sys::AclMode::from(pg_sys::ACL_CONNECT);
        Some(
            (*items.as_ptr())
                .iter()
                .filter(|item| item.ai_privs & wanted != 0)
                .map(|item| item.ai_grantee)
                .collect(),
        )
    }
}
