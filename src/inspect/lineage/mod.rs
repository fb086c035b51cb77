//! Where a target row comes from, and what comes of a source item.
//!
//! Where the target key covers the source key, the item's key is taken from the row's, and both are
//! found by primary keys. Where keys are listed, the item is found by an index on the lists, if
//! `coco.alter_flow` was asked for one; without, all tracking rows are read.

pub mod origins;
pub mod outputs;

use pgrx::{PgSqlErrorCode, pg_sys};

use crate::pg::acting_role::RoleGuard;
use crate::pg::columns::Column;
use crate::pg::error::{Error, Result};
use crate::pg::json::Json;
use crate::pg::spi::{self, literal};

/// The columns of a key that somebody gives as an object: each of `columns`, and no other.
pub fn check_key(argument: &str, given: &Json, whose: &str, columns: &[Column]) -> Result<()> {
    let named: Vec<&str> = columns.iter().map(|c| c.name.as_str()).collect();
    let hint = format!("The key of {whose} is {}.", named.join(", "));
    let Some(given) = given.members() else {
        let what = format!("argument \"{argument}\" is no JSON object");
        return Err(Error::invalid(what).hint(hint));
    };
    if let Some(unknown) = given.keys().find(|name| !named.contains(&name.as_str())) {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
            format!("argument \"{argument}\": the key of {whose} has no column \"{unknown}\""),
        )
        .hint(hint));
    }
    match named.iter().find(|name| given.get(**name) != Some(&true)) {
        Some(missing) => Err(Error::invalid(format!(
            "argument \"{argument}\": there is no value for key column \"{missing}\" of {whose}"
        ))
        .hint(hint)),
        None => Ok(()),
    }
}

/// A relation `q` with one row, whose column `r` is `$1` as a row of a relation.
pub fn typed(relation: pg_sys::Oid) -> Result<String> {
    let name = spi::relation_name(relation)?
        .ok_or_else(|| Error::internal(format!("relation {relation} is gone")))?;
    // Once, and not for each use.
    Ok(format!("(select pg_catalog.jsonb_populate_record(null::{name}, $1) as r offset 0) as q"))
}

/// A column of that row.
pub fn of_typed(column: &Column) -> String {
    format!("(q.r).{}", column.quoted())
}

/// `jsonb_build_object` of columns and their values.
pub fn object(columns: &[Column], values: &[String]) -> String {
    let pairs: Vec<String> =
        columns.iter().zip(values).map(|(c, v)| format!("{}, {v}", literal(&c.name))).collect();
    format!("pg_catalog.jsonb_build_object({})", pairs.join(", "))
}

/// Has statements go by indexes, also on tables that were not analysed yet.
pub fn by_indexes(acting: &RoleGuard) -> Result<()> {
    acting.set("enable_seqscan", "off")
}
