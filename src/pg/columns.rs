//! The columns of relations and of results, typed.

use pgrx::pg_sys;

use crate::catalog::internal_tables;
use crate::catalog::model::Column;
use crate::pg::acting_role::ActingAs;
use crate::pg::error::Result;
use crate::pg::spi::{self, arg};

/// A column of a relation.
pub struct Attribute {
    pub column: Column,
    pub not_null: bool,
    pub has_default: bool,
    pub generated: bool,
}

const ATTRIBUTES: &str = "
select a.attname::text, a.atttypid, a.atttypmod, a.attcollation,
       pg_catalog.format_type(a.atttypid, a.atttypmod),
       -- what was there before may be NULL, if it was never looked at
       a.attnotnull and not exists (
         select from pg_catalog.pg_constraint c
          where c.conrelid = a.attrelid and c.contype = 'n' and not c.convalidated
            and c.conkey operator(pg_catalog.@>) array[a.attnum]),
       a.atthasdef or a.attidentity <> '', a.attgenerated <> ''
  from pg_catalog.pg_attribute a
 where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped
 order by a.attnum";

/// The columns of a relation, in their order.
pub fn of_relation(relation: pg_sys::Oid) -> Result<Vec<Attribute>> {
    let _names = ActingAs::qualifying_names()?;
    spi::select(ATTRIBUTES, &[arg(relation)], |r| {
        let type_oid = spi::required(r, 2)?;
        Ok(Attribute {
            column: Column {
                name: spi::required(r, 1)?,
                type_oid,
                typmod: spi::required(r, 3)?,
                collation: spi::required(r, 4)?,
                type_name: spi::required(r, 5)?,
                equals: equality_operator(type_oid)?,
                kept: internal_tables::keep(type_oid)?,
            },
            not_null: spi::required(r, 6)?,
            has_default: spi::required(r, 7)?,
            generated: spi::required(r, 8)?,
        })
    })
}

/// The numbers and names of a relation's columns, in their order.
pub fn numbers(relation: pg_sys::Oid) -> Result<Vec<(i16, String)>> {
    spi::select(
        "select attnum, attname::text from pg_catalog.pg_attribute
          where attrelid operator(pg_catalog.=) $1 and attnum operator(pg_catalog.>) 0 and not attisdropped order by attnum",
        &[arg(relation)],
        |r| Ok((spi::required(r, 1)?, spi::required(r, 2)?)),
    )
}

/// A column of a query's result.
pub fn result_column(
    name: String,
    type_oid: pg_sys::Oid,
    typmod: i32,
    collation: pg_sys::Oid,
) -> Result<Column> {
    let _names = ActingAs::qualifying_names()?;
    let type_name = spi::type_name(type_oid, typmod)?;
    Ok(Column {
        name,
        type_oid,
        typmod,
        collation,
        type_name,
        equals: equality_operator(type_oid)?,
        kept: internal_tables::keep(type_oid)?,
    })
}

/// The equality operator of a type's default btree operator class, schema-qualified.
fn equality_operator(type_oid: pg_sys::Oid) -> Result<Option<String>> {
    // SAFETY: type cache look-ups in a transaction; the entry lives as long as the backend.
    let operator = unsafe {
        *pg_sys::lookup_type_cache(
            type_oid,
            (pg_sys::TYPECACHE_EQ_OPR | pg_sys::TYPECACHE_LT_OPR) as i32,
        )
    };
    if operator.lt_opr == pg_sys::InvalidOid || operator.eq_opr == pg_sys::InvalidOid {
        return Ok(None);
    }
    spi::one(
        "select pg_catalog.format('operator(%I.%s)', n.nspname, o.oprname)
           from pg_catalog.pg_operator o
           join pg_catalog.pg_namespace n on n.oid = o.oprnamespace
          where o.oid = $1",
        &[arg(operator.eq_opr)],
    )
}

/// ` collate …` for a column definition; nothing where the type has no collation.
pub fn collate(collation: pg_sys::Oid) -> Result<String> {
    let clause: Option<String> = spi::one(
        "select pg_catalog.format(' collate %I.%I', n.nspname, c.collname)
           from pg_catalog.pg_collation c
           join pg_catalog.pg_namespace n on n.oid = c.collnamespace
          where c.oid = $1",
        &[arg(collation)],
    )?;
    Ok(clause.unwrap_or_default())
}
