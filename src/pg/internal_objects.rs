//! OIDs of objects in the schema `coco_internal`, which only the extension's owner may use by name.
//! Looking these objects up needs no privilege.

use std::ffi::CStr;

use pgrx::pg_sys;

use crate::pg::error::{Error, Result};

const SCHEMA: &CStr = c"coco_internal";

/// Returns the OID of a table of the catalog.
pub fn relation(name: &CStr) -> Result<pg_sys::Oid> {
    // SAFETY: lookups in the system catalogs, within a transaction.
    let found = unsafe {
        let schema = pg_sys::get_namespace_oid(SCHEMA.as_ptr(), true);
        pg_sys::get_relname_relid(name.as_ptr(), schema)
    };
    checked(found, "table", name)
}

/// Returns the OID of a function. No other function of the schema has its name.
pub fn function(name: &CStr) -> Result<pg_sys::Oid> {
    // SAFETY: lookups in the system catalogs, within a transaction. The list and its members are
    // used only until the list is released.
    let found = unsafe {
        let schema = pg_sys::get_namespace_oid(SCHEMA.as_ptr(), true);
        let all = pg_sys::SearchSysCacheList(
            pg_sys::SysCacheIdentifier::PROCNAMEARGSNSP as i32,
            1,
            pg_sys::Datum::from(name.as_ptr()),
            pg_sys::Datum::from(0usize),
            pg_sys::Datum::from(0usize),
        );
        let mut found = pg_sys::InvalidOid;
        for member in (*all).members.as_slice((*all).n_members as usize) {
            let tuple = std::ptr::addr_of_mut!((**member).tuple);
            let row = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_proc>();
            if (*row).pronamespace == schema {
                found = (*row).oid;
            }
        }
        pg_sys::ReleaseCatCacheList(all);
        found
    };
    checked(found, "function", name)
}

fn checked(found: pg_sys::Oid, kind: &str, name: &CStr) -> Result<pg_sys::Oid> {
    if found == pg_sys::InvalidOid {
        let name = name.to_string_lossy();
        return Err(Error::internal(format!("{kind} coco_internal.{name} does not exist")));
    }
    Ok(found)
}
