//! The key of a source or lookup: the columns that identify an item, of which some can be
//! expressions.

use pgrx::prelude::*;
use std::collections::BTreeSet;

use crate::capture::captured_columns;
use crate::catalog::{internal_tables, target_table};
use crate::declare::key_expressions::{self, BoundKey, KeySource};
use crate::pg::columns::{self, Attribute, Column};
use crate::pg::error::{Error, Result};
use crate::pg::spi::{self, arg, ident};

/// What rows with a NULL in the key are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NullKeys {
    /// NULL is a value like any other: the rows form groups.
    Groups,
    /// The declaration rejects a table in which such rows are possible.
    Refused,
}

/// Returns the names of the columns of a relation's primary key, in the key's order.
pub fn primary_key(relation: pg_sys::Oid) -> Result<Option<Vec<String>>> {
    spi::scalar::<Vec<String>>(
        "select pg_catalog.array_agg(a.attname::text order by k.n)
           from pg_catalog.pg_index i,
                pg_catalog.unnest(i.indkey) with ordinality as k(attnum, n)
           join pg_catalog.pg_attribute a on a.attnum = k.attnum
          where i.indrelid = $1 and i.indisprimary and a.attrelid = i.indrelid
            and k.n <= i.indnkeyatts",
        &[arg(relation)],
    )
}

/// The key of a source.
pub struct SourceKey {
    pub columns: Vec<Column>,
    /// The columns of the relation that the key depends on, as a change log keeps them.
    pub captured: Vec<Column>,
    /// Set if some columns are expressions.
    pub expressions: Option<BoundKey>,
}

/// Returns the given key of a source, or the primary key. Checks that its columns exist and have an
/// order, and whether they can be NULL. Binds the expressions in it.
pub fn source_key(source: &KeySource, given: Option<Vec<String>>) -> Result<SourceKey> {
    let KeySource { relation, shown, kind, .. } = *source;
    let attributes = columns::of_relation(relation)?;
    let names = given_or_primary(relation, shown, given)?;
    let is_column = |name: &String| attributes.iter().any(|a| a.column.name == *name);
    let texts: Vec<Option<String>> = names
        .iter()
        .map(|name| (!is_column(name) && is_expression(name)).then(|| name.clone()))
        .collect();
    let bound = match texts.iter().any(Option::is_some) {
        true => Some(key_expressions::bind_key(source, &texts)?),
        false => None,
    };
    let computed = bound.iter().flat_map(|bound| bound.columns.iter().zip(&bound.never_null));
    let mut computed = computed.map(|(column, never)| {
        check_order(shown, column)?;
        // As with columns, updates check the keys of views and foreign tables.
        let is_nullable = matches!(kind, "r" | "p") && !never;
        nullable_if(is_nullable, shown, column)
    });
    let mut key = Vec::with_capacity(names.len());
    for (name, text) in names.iter().zip(&texts) {
        key.push(match text {
            None => key_column(shown, kind, &attributes, name, NullKeys::Groups)?,
            Some(_) => {
                let next = computed.next();
                next.ok_or_else(|| Error::internal("a key has lost an expression"))??
            }
        });
    }
    let columns = stored_key(shown, key)?;
    for column in bound.iter().flat_map(|bound| &bound.used) {
        check_order(shown, column)?;
    }
    let captured = match &bound {
        None => columns.clone(),
        Some(bound) => {
            internal_tables::check_source_key(shown, &bound.used)?;
            captured_columns::of_key(relation, &columns, &texts, &bound.used)?
        }
    };
    Ok(SourceKey { columns, captured, expressions: bound })
}

/// Returns the given key of a lookup, or the primary key, with the same checks. Its columns are NOT
/// NULL.
pub fn lookup_key(
    relation: pg_sys::Oid,
    shown: &str,
    kind: &str,
    given: Option<Vec<String>>,
) -> Result<Vec<Column>> {
    let attributes = columns::of_relation(relation)?;
    let names = given_or_primary(relation, shown, given)?;
    let column = |name: &String| key_column(shown, kind, &attributes, name, NullKeys::Refused);
    stored_key(shown, names.iter().map(column).collect::<Result<_>>()?)
}

fn given_or_primary(
    relation: pg_sys::Oid,
    shown: &str,
    given: Option<Vec<String>>,
) -> Result<Vec<String>> {
    let names = match given {
        Some(names) if !names.is_empty() => names,
        _ => primary_key(relation)?.ok_or_else(|| {
            Error::new(
                PgSqlErrorCode::ERRCODE_INVALID_TABLE_DEFINITION,
                format!("source {shown} has no primary key, and no key was specified"),
            )
            .hint("Specify the columns that identify an item, for example source_key => '{id}' (in coco.add_source: key => '{id}'). Rows with the same key form one item.")
        })?,
    };
    let distinct: BTreeSet<&String> = names.iter().collect();
    match distinct.len() == names.len() {
        true => Ok(names),
        false => Err(Error::invalid(format!("the source key of {shown} names a column twice"))),
    }
}

/// Returns a column of a relation as a column of a key.
fn key_column(
    shown: &str,
    kind: &str,
    attributes: &[Attribute],
    name: &str,
    nulls: NullKeys,
) -> Result<Column> {
    let found = attributes.iter().find(|a| a.column.name == name);
    let Some(a) = found else {
        if is_expression(name) {
            return Err(cannot_be_key(shown, name));
        }
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
            format!("key column \"{name}\" does not exist in source {shown}"),
        ));
    };
    check_order(shown, &a.column)?;
    // Views, materialized views and foreign tables cannot declare NOT NULL; updates check their
    // keys.
    let is_nullable = matches!(kind, "r" | "p") && !a.not_null;
    if is_nullable && nulls == NullKeys::Refused {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_INVALID_TABLE_DEFINITION,
            format!("key column \"{name}\" of source {shown} is nullable"),
        )
        .hint(format!("Run ALTER TABLE {shown} ALTER COLUMN {} SET NOT NULL; or use a view that excludes such rows as the source.", ident(name))));
    }
    nullable_if(is_nullable, shown, &a.column)
}

/// Makes NULL a value of a column like any other, if the column can be NULL.
fn nullable_if(is_nullable: bool, shown: &str, column: &Column) -> Result<Column> {
    let mut column = column.clone();
    if is_nullable {
        check_nullable(shown, &column)?;
        column.allow_null()?;
    }
    Ok(column)
}

/// Checks that a column of a key has an order.
fn check_order(shown: &str, column: &Column) -> Result<()> {
    if column.equals.is_some() {
        return Ok(());
    }
    Err(Error::new(
        PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
        format!(
            "key column \"{}\" of source {shown} has type {}, which has no order",
            column.name, column.type_name
        ),
    )
    .detail("A key's type needs a default btree operator class."))
}

/// Returns the columns of a key as coco stores them.
fn stored_key(shown: &str, key: Vec<Column>) -> Result<Vec<Column>> {
    internal_tables::check_source_key(shown, &key)?;
    let key = columns::stored(&key);
    let nullable = key.iter().filter(|k| k.nullable.is_some()).count();
    if nullable > columns::MOST_NULLABLE {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            format!("the source key of {shown} has {nullable} nullable columns"),
        )
        .detail(format!("At most {} columns of a key can be nullable.", columns::MOST_NULLABLE))
        .hint("Declare some of the columns NOT NULL, or use generated columns that replace NULL by a value as the key."));
    }
    Ok(key)
}

/// Reports whether the name of a missing key column is an expression rather than a name.
fn is_expression(name: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$');
    !name.chars().all(is_name)
}

fn cannot_be_key(shown: &str, expression: &str) -> Error {
    Error::new(
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        format!("the key of lookup {shown} cannot contain the expression {expression}"),
    )
    .detail("The key of a lookup consists of columns.")
    .hint("Use the columns in the expression as the key, and the expression in \"affects\".")
}

/// Checks that coco can compare values of a column of a key with NULL among them.
fn check_nullable(shown: &str, column: &Column) -> Result<()> {
    if column.compares_null() {
        return Ok(());
    }
    Err(Error::new(
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        format!(
            "nullable key column \"{}\" of source {shown} has unsupported type {}",
            column.name, column.type_name
        ),
    )
    .detail("coco compares nullable keys as elements of arrays, by hash. It cannot do so for arrays, for types without a hash function, and for domains over types of users.")
    .hint(format!(
        "Run ALTER TABLE {shown} ALTER COLUMN {} SET NOT NULL, or use a generated column of another type as the key.",
        ident(&column.name)
    )))
}

/// Reports whether the items of a source are groups of rows.
pub fn has_groups(
    relation: pg_sys::Oid,
    kind: &str,
    key: &SourceKey,
    has_ordinal: bool,
) -> Result<bool> {
    // No constraint says that the value of an expression is unique.
    if key.expressions.is_some() {
        return Ok(true);
    }
    let key = &key.columns;
    // Views and foreign tables cannot have a unique index, materialized views rarely have one, and
    // no unique index spans a table and its inheritance children. For these relations, an ordinal
    // declares that each key identifies one row; updates check it.
    let promised =
        has_ordinal && (matches!(kind, "v" | "m" | "f") || target_table::has_children(relation)?);
    // A unique index may hold several rows with NULL.
    let has_null = key.iter().any(|k| k.nullable.is_some());
    Ok(has_null || !promised && !target_table::has_unique_index(relation, key)?)
}
