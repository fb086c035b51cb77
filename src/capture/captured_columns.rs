//! The columns of a table that its change log keeps for one source.
//!
//! Callers: `capture`, `declare`.

use pgrx::pg_sys;

use crate::pg::columns::{self, Column, StoredType};
use crate::pg::error::Result;
use crate::pg::relations;

/// Returns the columns of a key, and if all of them are nullable, a column that is never NULL. An
/// entry without any value says that any row may have changed. With the other column, the entry of
/// a row differs from it, whatever the row's key is.
pub fn captured_columns(relation: pg_sys::Oid, key: &[Column]) -> Result<Vec<Column>> {
    let mut captured = key.to_vec();
    if key.iter().all(|k| k.nullable.is_some()) {
        captured.extend(column_never_null(relation)?);
    }
    Ok(captured)
}

/// Returns the columns that a key with expressions depends on, as a change log keeps them: its
/// columns, and those that its expressions use. `texts` contains the expressions by their places in
/// the key.
pub fn of_key(
    relation: pg_sys::Oid,
    key: &[Column],
    texts: &[Option<String>],
    used: &[Column],
) -> Result<Vec<Column>> {
    let own = key.iter().zip(texts).filter(|(_, text)| text.is_none());
    let mut captured: Vec<Column> = own.map(|(column, _)| column.clone()).collect();
    for attribute in columns::of_relation(relation)? {
        let column = attribute.column.stored();
        let is_used = used.iter().any(|used| used.name == column.name);
        if is_used && !captured.iter().any(|k| k.name == column.name) {
            let mut column = column;
            if !attribute.not_null {
                column.allow_null()?;
            }
            captured.push(column);
        }
    }
    Ok(captured)
}

/// Returns a column of a relation that is never NULL, if there is one: the first one of the primary
/// key, or else the first of all.
pub fn column_never_null(relation: pg_sys::Oid) -> Result<Option<Column>> {
    let primary = relations::primary_key_numbers(relation)?;
    let numbers = columns::numbers(relation)?;
    let is_primary = |column: &Column| {
        numbers.iter().any(|(number, name)| *name == column.name && primary.contains(number))
    };
    let attributes = columns::of_relation(relation)?.into_iter();
    let mut usable: Vec<Column> = attributes
        .filter(|a| a.not_null && a.column.kept != StoredType::Json)
        .map(|a| a.column.stored())
        .collect();
    usable.sort_by_key(|column| !is_primary(column));
    Ok(usable.into_iter().next())
}
