//! Detects changes of the system catalogs that a flow may depend on.

use pgrx::pg_sys;
use std::cell::Cell;

use crate::pg::error::Result;
use crate::pg::internal_objects;

thread_local! {
    static GENERATION: Cell<u64> = const { Cell::new(0) };
}

/// The caches of functions, operators, types, casts, aggregates, constraints, roles, schemas and
/// text search configurations.
const CACHES: [pg_sys::SysCacheIdentifier::Type; 13] = [
    pg_sys::SysCacheIdentifier::NAMESPACEOID,
    pg_sys::SysCacheIdentifier::PROCOID,
    pg_sys::SysCacheIdentifier::OPEROID,
    pg_sys::SysCacheIdentifier::TYPEOID,
    pg_sys::SysCacheIdentifier::ENUMOID,
    pg_sys::SysCacheIdentifier::CASTSOURCETARGET,
    pg_sys::SysCacheIdentifier::AGGFNOID,
    pg_sys::SysCacheIdentifier::CONSTROID,
    pg_sys::SysCacheIdentifier::AUTHOID,
    pg_sys::SysCacheIdentifier::AUTHMEMMEMROLE,
    pg_sys::SysCacheIdentifier::TSCONFIGOID,
    pg_sys::SysCacheIdentifier::TSCONFIGMAP,
    pg_sys::SysCacheIdentifier::TSDICTOID,
];

/// Returns the invalidation count, which grows with each relevant message that this backend
/// receives. Whatever was read while the count stayed the same is still current.
pub fn invalidation_count() -> u64 {
    if GENERATION.get() == 0 {
        GENERATION.set(1);
        // SAFETY: registered once per backend.
        unsafe {
            pg_sys::CacheRegisterRelcacheCallback(Some(relation), pg_sys::Datum::from(0usize));
            for cache in CACHES {
                pg_sys::CacheRegisterSyscacheCallback(
                    cache as i32,
                    Some(object),
                    pg_sys::Datum::from(0usize),
                );
            }
        }
    }
    GENERATION.get()
}

/// Informs every backend, when this transaction commits, that a flow has changed in a way that no
/// system catalog shows.
pub fn note_change() -> Result<()> {
    let flows = internal_objects::relation(c"flow")?;
    // SAFETY: a relation's OID. In this transaction, the message takes effect at the next command.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(flows) };
    Ok(())
}

unsafe extern "C-unwind" fn relation(_arg: pg_sys::Datum, _relation: pg_sys::Oid) {
    GENERATION.set(GENERATION.get() + 1);
}

unsafe extern "C-unwind" fn object(_arg: pg_sys::Datum, _cache: i32, _hash: u32) {
    GENERATION.set(GENERATION.get() + 1);
}
