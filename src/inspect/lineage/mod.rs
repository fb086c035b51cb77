//! Lineage: the items that a target row comes from, and the target rows of an item.
//!
//! If the target key contains the source key, coco takes the item's key from the row's key, and
//! finds both rows by primary keys. If an item's target keys are listed, an index on the lists
//! finds the item, provided that `coco.alter_flow` has created one. Otherwise coco reads all
//! tracking rows.

pub mod lookup_rows;
pub mod origins;
pub mod outputs;

use pgrx::{PgSqlErrorCode, pg_sys};

use crate::catalog::model::{Flow, Source};
use crate::pg::acting_role::RoleGuard;
use crate::pg::columns::{self, Column};
use crate::pg::error::{Error, Result};
use crate::pg::json::{Json, object_sql};
use crate::pg::spi;

/// Checks that a key given as a JSON object has a value for each of `columns`, and nothing else.
pub fn check_key(argument: &str, given: &Json, whose: &str, columns: &[Column]) -> Result<()> {
    let named: Vec<&str> = columns.iter().map(|c| c.name.as_str()).collect();
    let hint = format!("The key of {whose} is {}.", named.join(", "));
    let Some(given) = given.members() else {
        let what = format!("argument \"{argument}\" is not a JSON object");
        return Err(Error::invalid(what).hint(hint));
    };
    if let Some(unknown) = given.keys().find(|name| !named.contains(&name.as_str())) {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
            format!("argument \"{argument}\": the key of {whose} has no column \"{unknown}\""),
        )
        .hint(hint));
    }
    let lacks = |column: &&Column| match given.get(&column.name) {
        Some(has_value) => !has_value && column.nullable.is_none(),
        None => true,
    };
    match columns.iter().find(lacks) {
        Some(missing) => Err(Error::invalid(format!(
            "argument \"{argument}\" has no value for key column \"{}\" of {whose}",
            missing.name
        ))
        .hint(hint)),
        None => Ok(()),
    }
}

/// Returns the sources whose key columns match the given key.
pub fn fitting_sources<'a>(
    flow: &'a Flow,
    key: &Json,
    named: Option<&str>,
) -> Result<Vec<&'a Source>> {
    let asked: Vec<&Source> =
        flow.sources.iter().filter(|s| named.is_none_or(|n| n == s.name)).collect();
    if asked.is_empty() {
        let named = named.unwrap_or_default();
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("flow \"{}\" has no source \"{named}\"", flow.name),
        )
        .hint("See the view coco.sources for the flow's sources."));
    }
    let mut fitting = Vec::new();
    let mut wrong = None;
    for source in asked {
        let whose = format!("source \"{}\"", source.name);
        match check_key("source_key", key, &whose, &source.key) {
            Ok(()) => fitting.push(source),
            Err(error) => wrong = wrong.or(Some(error)),
        }
    }
    match wrong {
        Some(error) if fitting.is_empty() => Err(error),
        _ => Ok(fitting),
    }
}

/// Returns a FROM item `q` with one row, whose column `r` is `$1` as a row of a relation.
pub fn typed(relation: pg_sys::Oid) -> Result<String> {
    let name = spi::relation_name(relation)?
        .ok_or_else(|| Error::internal(format!("relation {relation} is gone")))?;
    // OFFSET 0 prevents the planner from inlining the call, so that it runs once, not once per use.
    // A plan does not depend on the row type of its expressions. The number makes the text another
    // one if the relation has been created again, so that no cached plan uses the old type.
    let oid = relation.to_u32();
    Ok(format!(
        "(select pg_catalog.jsonb_populate_record(null::{name} /* {oid} */, $1) as r offset 0) as q"
    ))
}

/// Returns a SELECT of the key of a source's item, from the object `$1`.
pub fn typed_key_sql(source: &Source) -> Result<String> {
    let columns: Vec<&Column> = source.key.iter().collect();
    Ok(format!(
        "select {} from pg_catalog.jsonb_to_record($1) as {}",
        source.named_key_of("s").join(", "),
        typed_alias("s", &columns)?,
    ))
}

/// Returns an alias with the types of these columns, for a function that returns records.
pub fn typed_alias(alias: &str, of: &[&Column]) -> Result<String> {
    let mut defined = Vec::with_capacity(of.len());
    for column in of {
        let collate = columns::collate(column.collation)?;
        defined.push(format!("{} {}{collate}", column.quoted(), column.type_name));
    }
    Ok(format!("{alias}({})", defined.join(", ")))
}

/// Returns SQL for a column of the row that `typed` yields.
pub fn of_typed(column: &Column) -> String {
    format!("(q.r).{}", column.quoted())
}

/// Returns an SQL expression for columns and their values as a jsonb object.
pub fn object(columns: &[Column], values: &[String]) -> String {
    object_sql(columns.iter().map(|c| c.name.as_str()).zip(values.iter().cloned()))
}

/// Makes the planner prefer indexes, even on tables that were never analyzed.
pub fn by_indexes(acting: &RoleGuard) -> Result<()> {
    acting.set("enable_seqscan", "off")
}
