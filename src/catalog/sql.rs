//! Running coco's own statements and quoting the names in them.

use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::spi::{SpiHeapTupleData, SpiTupleTable};
use pgrx::{FromDatum, IntoDatum, pg_sys};

use super::error::{Error, Result};

/// An argument of a statement, `$1` and so on.
pub type Arg<'a> = DatumWithOid<'a>;

pub fn arg<'a, T: IntoDatum>(value: T) -> Arg<'a> {
    value.into()
}

/// Quotes an identifier, as the server does.
pub fn ident(name: &str) -> String {
    pgrx::spi::quote_identifier(name)
}

pub fn qualified(schema: &str, name: &str) -> String {
    pgrx::spi::quote_qualified_identifier(schema, name)
}

/// Quotes a literal, as the server does.
pub fn literal(text: &str) -> String {
    pgrx::spi::quote_literal(text)
}

/// Reads rows, without taking a transaction id.
pub fn select<T>(
    query: &str,
    args: &[Arg],
    row: impl Fn(&SpiHeapTupleData) -> Result<T>,
) -> Result<Vec<T>> {
    Spi::connect(|client| collect(client.select(query, None, args)?, row))
}

/// Writes, and reads the rows the statement returns.
pub fn returning<T>(
    query: &str,
    args: &[Arg],
    row: impl Fn(&SpiHeapTupleData) -> Result<T>,
) -> Result<Vec<T>> {
    Spi::connect_mut(|client| collect(client.update(query, None, args)?, row))
}

fn collect<T>(
    table: SpiTupleTable,
    row: impl Fn(&SpiHeapTupleData) -> Result<T>,
) -> Result<Vec<T>> {
    let mut rows = Vec::with_capacity(table.len());
    for tuple in table {
        rows.push(row(&tuple)?);
    }
    Ok(rows)
}

/// Reads the first column of the first row. `None` where there is no row, or NULL in it.
pub fn one<T: FromDatum + IntoDatum>(query: &str, args: &[Arg]) -> Result<Option<T>> {
    Ok(select(query, args, |r| Ok(r.get::<T>(1)?))?.pop().flatten())
}

/// Writes; returns the number of rows.
pub fn execute(query: &str, args: &[Arg]) -> Result<i64> {
    Spi::connect_mut(|client| Ok(client.update(query, None, args)?.len() as i64))
}

/// A column that the catalog declares not null.
pub fn required<T: FromDatum + IntoDatum>(row: &SpiHeapTupleData, column: usize) -> Result<T> {
    row.get::<T>(column)?
        .ok_or_else(|| Error::internal(format!("NULL in column {column} of coco's catalog")))
}

/// The schema-qualified, quoted name of a relation; `None` where it is gone.
pub fn relation_name(relation: pg_sys::Oid) -> Result<Option<String>> {
    one(
        "select pg_catalog.format('%I.%I', n.nspname, c.relname)
           from pg_catalog.pg_class c
           join pg_catalog.pg_namespace n on n.oid = c.relnamespace
          where c.oid = $1",
        &[arg(relation)],
    )
}

/// A type's name as SQL, for casts and column definitions.
pub fn type_name(type_oid: pg_sys::Oid, typmod: i32) -> Result<String> {
    one("select pg_catalog.format_type($1, $2)", &[arg(type_oid), arg(typmod)])?
        .ok_or_else(|| Error::internal(format!("type {type_oid} does not exist")))
}
