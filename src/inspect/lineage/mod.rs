//! Where a target row comes from, and what comes of a source item.
//!
//! Where the target key covers the source key, the item's key is taken from the row's, and both are
//! found by primary keys. Where keys are listed, the item is found by an index on the lists, if
//! `coco.alter_flow` was asked for one; without, all tracking rows are read.

pub mod origins;
pub mod outputs;

use pgrx::{PgSqlErrorCode, pg_sys};

use crate::catalog::internal_tables::SCHEMA;
use crate::catalog::model::{Column, Source};
use crate::pg::acting_role::ActingAs;
use crate::pg::error::{Error, Result};
use crate::pg::json::Json;
use crate::pg::spi::{self, arg, literal};

/// Makes the indexes of a flow that is to have them, and lacks one.
pub fn index_as_declared(flow: &str) -> Result<()> {
    let _as = ActingAs::extension_owner()?;
    let wanted =
        spi::one::<bool>("select lineage_index from coco.flow where flow = $1", &[arg(flow)])?;
    match wanted {
        Some(true) => index(flow, true),
        _ => Ok(()),
    }
}

/// Makes or drops the indexes by which items are found from target keys that are listed. The caller
/// acts as the extension's owner.
pub fn index(flow: &str, wanted: bool) -> Result<()> {
    let tracked = spi::select(
        "select s.id, c.oid::regclass::text from coco.source s join pg_class c on c.oid = s.tracking
          where s.flow = $1 and s.lookup_of is null",
        &[arg(flow)],
        |r| Ok((spi::required::<i32>(r, 1)?, spi::required::<String>(r, 2)?)),
    )?;
    for (id, table) in tracked {
        index_one(id, &table, wanted)?;
    }
    Ok(())
}

/// The name of the index of a source's tracking table, in the table's schema.
fn index_name(source: i32) -> String {
    format!("lineage_{source}")
}

fn index_one(source: i32, table: &str, wanted: bool) -> Result<()> {
    let name = index_name(source);
    let statement = match wanted {
        // What waits to be merged into the index is read by each look-up: little, then.
        true => format!(
            "create index if not exists {name} on {table} using gin (target_keys jsonb_path_ops)
               with (gin_pending_list_limit = 256) where target_keys is not null"
        ),
        false => format!("drop index if exists {SCHEMA}.{name}"),
    };
    spi::execute(&statement, &[])?;
    Ok(())
}

/// Whether the items of a source are found from listed keys by an index.
pub fn is_indexed(source: &Source) -> Result<bool> {
    let _as = ActingAs::extension_owner()?;
    let found = spi::one::<bool>(
        "select true from pg_class c join pg_namespace n on n.oid = c.relnamespace
          where n.nspname = $1::text and c.relname = $2::text and c.relkind = 'i'",
        &[arg(SCHEMA), arg(index_name(source.id))],
    )?;
    Ok(found == Some(true))
}

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
pub fn by_indexes(acting: &ActingAs) -> Result<()> {
    acting.set("enable_seqscan", "off")
}
