//! Looks up relations by name, and their primary keys.

use pgrx::pg_sys;

use crate::pg::acting_role::{RoleGuard, SEARCH_PATH};
use crate::pg::error::{Error, Result};
use crate::pg::spi::{self, arg};

/// Returns the relation with this name, if it exists.
pub fn find_relation(schema: &str, name: &str) -> Result<Option<pg_sys::Oid>> {
    spi::scalar(
        "select c.oid from pg_catalog.pg_class c
           join pg_catalog.pg_namespace n on n.oid = c.relnamespace
          where n.nspname = $1::text and c.relname = $2::text",
        &[arg(schema), arg(name)],
    )
}

/// Returns the relation that a text names, as a literal of type regclass does under this search
/// path. Raises PostgreSQL's errors for a name that is not valid, and for a missing relation.
pub fn resolve_relation(text: &str, search_path: &str) -> Result<pg_sys::Oid> {
    let acting = RoleGuard::same();
    if !acting.try_set(SEARCH_PATH, search_path)? {
        let message = format!("invalid value for setting \"{SEARCH_PATH}\": \"{search_path}\"");
        return Err(Error::invalid(message).hint("Use a value that SET search_path accepts."));
    }
    let sql = format!("select {}::pg_catalog.regclass::pg_catalog.oid", spi::literal(text));
    spi::scalar(&sql, &[])?.ok_or_else(|| Error::internal("a name of a relation is NULL"))
}

/// Returns the numbers of the columns of a table's primary key, in the key's order; no column if
/// the table has none, or if the key does not cover the rows of child tables.
pub fn primary_key_numbers(relation: pg_sys::Oid) -> Result<Vec<i16>> {
    let found = spi::scalar::<Vec<i16>>(
        "select pg_catalog.array_agg(k.attnum order by k.n)
           from pg_catalog.pg_index i
           join pg_catalog.pg_class c on c.oid operator(pg_catalog.=) i.indrelid,
                pg_catalog.unnest(i.indkey::pg_catalog.int2[]) with ordinality as k(attnum, n)
          where i.indrelid operator(pg_catalog.=) $1 and i.indisprimary
            and k.n operator(pg_catalog.<=) i.indnkeyatts
            and not (c.relkind operator(pg_catalog.=) 'r'
                     and exists (select from pg_catalog.pg_inherits h
                                  where h.inhparent operator(pg_catalog.=) c.oid))",
        &[arg(relation)],
    )?;
    Ok(found.unwrap_or_default())
}
