//! The databases of this server, for a process that is connected to none of them.

use pgrx::pg_sys;

/// Returns the databases that accept connections, without templates. Must be called in a
/// transaction.
pub fn all() -> Vec<pg_sys::Oid> {
    let mut found = Vec::new();
    // SAFETY: scans a shared catalog, opened and closed here, as the autovacuum launcher does.
    unsafe {
        let relation =
            pg_sys::table_open(pg_sys::DatabaseRelationId, pg_sys::AccessShareLock as i32);
        let scan = pg_sys::table_beginscan_catalog(relation, 0, std::ptr::null_mut());
        loop {
            let tuple = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
            if tuple.is_null() {
                break;
            }
            let database = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
            if database.datallowconn && !database.datistemplate {
                found.push(database.oid);
            }
        }
        pg_sys::table_endscan(scan);
        pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
    }
    found
}
