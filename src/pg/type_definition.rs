//! Fingerprints of a type's definition, and of the types that it consists of. coco stores a value
//! together with the fingerprint of its type.
//!
//! The fingerprint uses the names of types, so that it is the same after the restore of a dump. For
//! types that PostgreSQL ships, it uses the OID, which never changes.

use pgrx::pg_sys;
use std::cell::RefCell;
use std::collections::HashMap;

use crate::pg::acting_role::RoleGuard;
use crate::pg::error::{Error, Result};
use crate::pg::invalidation;
use crate::pg::spi::{self, arg};
use coco_core::fingerprint::Hasher;

/// A fingerprint of a type's definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TypeFingerprint(pub [u8; 16]);

/// The properties of a type.
#[derive(Clone, Copy, Debug)]
pub struct KnownType {
    pub kind: TypeFingerprint,
    /// Whether the type, and each type that it consists of, has a send and a receive function.
    /// tsquery counts as without: its receive function rejects what its send function writes for an
    /// empty query.
    pub is_sent: bool,
}

/// The largest number of types in the cache.
const KEPT: usize = 1000;

thread_local! {
    /// The cached types, as of an invalidation count.
    static KNOWN: RefCell<(u64, HashMap<pg_sys::Oid, KnownType>)> = RefCell::default();
}

/// Selects a type and all types that it consists of: a domain's base type, elements of arrays and
/// ranges, attributes.
const DEFINITION: &str = "
with recursive reached(oid) as (
  select $1::oid
  union
  select part.oid
    from reached r
    join pg_catalog.pg_type t on t.oid = r.oid
   cross join lateral (
     select t.typbasetype as oid
      union all
     select t.typelem
      union all
     select a.atttypid from pg_catalog.pg_attribute a
      where t.typrelid <> 0 and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
      union all
     select g.rngsubtype from pg_catalog.pg_range g where t.oid in (g.rngtypid, g.rngmultitypid)
   ) as part
   where part.oid <> 0
)
select coalesce(bool_and(t.typsend <> 0 and t.typreceive <> 0 and t.oid <> 'pg_catalog.tsquery'::regtype), false),
       coalesce(string_agg(
         concat_ws(E'\\x01', t.oid::regtype, t.typtype, t.typlen, t.typbyval, t.typalign,
           case when t.typbasetype <> 0 then format_type(t.typbasetype, t.typtypmod) end, t.typnotnull,
           case when t.typelem <> 0 then t.typelem::regtype end,
           (select string_agg(concat_ws(' ', quote_ident(a.attname), format_type(a.atttypid, a.atttypmod)),
                              ',' order by a.attnum)
              from pg_catalog.pg_attribute a
             where t.typrelid <> 0 and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped),
           (select string_agg(quote_literal(e.enumlabel::text), ',' order by e.enumsortorder)
              from pg_catalog.pg_enum e where e.enumtypid = t.oid),
           (select string_agg(pg_get_constraintdef(c.oid), ' ' order by c.conname)
              from pg_catalog.pg_constraint c where c.contypid = t.oid),
           (select concat_ws(' ', g.rngsubtype::regtype, g.rngcollation::regcollation)
              from pg_catalog.pg_range g where t.oid in (g.rngtypid, g.rngmultitypid))),
         E'\\x02' order by t.oid::regtype::text), '')
  from reached r join pg_catalog.pg_type t on t.oid = r.oid";

/// Returns the current properties of a type.
pub fn type_fingerprint(type_oid: pg_sys::Oid) -> Result<KnownType> {
    let generation = invalidation::invalidation_count();
    let known = KNOWN.with(|known| {
        let known = known.borrow();
        known.1.get(&type_oid).filter(|_| known.0 == generation).copied()
    });
    if let Some(known) = known {
        return Ok(known);
    }
    let found = match shipped(type_oid) {
        Some(known) => known,
        None => defined(type_oid)?,
    };
    KNOWN.with(|known| {
        let mut known = known.borrow_mut();
        if known.0 != generation || known.1.len() >= KEPT {
            *known = (generation, HashMap::new());
        }
        known.1.insert(type_oid, found);
    });
    Ok(found)
}

/// Returns the properties of a base type that PostgreSQL ships, or of an array of one.
fn shipped(type_oid: pg_sys::Oid) -> Option<KnownType> {
    let is_shipped = |oid: pg_sys::Oid| {
        // SAFETY: a lookup in the system catalogs, within a transaction.
        let kind = unsafe { pg_sys::get_typtype(oid) } as u8;
        oid.to_u32() < pg_sys::FirstNormalObjectId && kind == b'b'
    };
    // SAFETY: as above.
    let element = unsafe { pg_sys::get_element_type(type_oid) };
    if !is_shipped(type_oid) || element != pg_sys::InvalidOid && !is_shipped(element) {
        return None;
    }
    let is_sent = is_sent(type_oid) && (element == pg_sys::InvalidOid || is_sent(element));
    let mut hasher = Hasher::new();
    hasher.part(b"shipped").part(&type_oid.to_u32().to_le_bytes());
    Some(KnownType { kind: TypeFingerprint(hasher.finish().0), is_sent })
}

fn is_sent(type_oid: pg_sys::Oid) -> bool {
    if type_oid == pg_sys::TSQUERYOID {
        return false;
    }
    // SAFETY: reads a row of pg_type, and releases it afterwards.
    unsafe {
        let row = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::TYPEOID as i32,
            pg_sys::Datum::from(type_oid),
        );
        if row.is_null() {
            return false;
        }
        let form = pg_sys::GETSTRUCT(row).cast::<pg_sys::FormData_pg_type>();
        let none = pg_sys::InvalidOid;
        let both = (*form).typsend != none && (*form).typreceive != none;
        pg_sys::ReleaseSysCache(row);
        both
    }
}

fn defined(type_oid: pg_sys::Oid) -> Result<KnownType> {
    let _as = RoleGuard::qualifying_names()?;
    let found = spi::select(DEFINITION, &[arg(type_oid)], |r| {
        Ok((spi::required::<bool>(r, 1)?, spi::required::<String>(r, 2)?))
    })?;
    let (is_sent, definition) = found
        .into_iter()
        .next()
        .ok_or_else(|| Error::internal(format!("type {} does not exist", type_oid.to_u32())))?;
    let mut hasher = Hasher::new();
    hasher.part(b"defined").part(definition.as_bytes());
    Ok(KnownType { kind: TypeFingerprint(hasher.finish().0), is_sent })
}
