//! SQL expressions for keys and output columns, as all composed statements name them.

use pgrx::pg_sys;

use crate::catalog::model::{Source, Target};
use crate::pg::columns::{Column, StoredType, numbered};
use crate::pg::spi::literal;
use crate::pg::tuplestore::rows::{self, RowColumn};
use crate::query::compose;

/// Returns the columns of `coco_output`: the item's key as `i1…` and the query's columns as `c1…`.
pub fn output_columns(source: &Source, target: &Target) -> Vec<RowColumn> {
    [rows::typed("i", &source.key), rows::typed("c", &target.columns)].concat()
}

/// The key expressions that composed statements use.
pub struct KeyExprs {
    /// The item's key in the batch, in the output and in the tracking table.
    pub batch: Vec<String>,
    pub item: Vec<String>,
    pub tracking: Vec<String>,
    /// The target key in the output (`n.c2`), in the target (`x.id`) and among the old keys
    /// (`o.t1`).
    pub new_key: Vec<String>,
    pub target_key: Vec<String>,
    pub old_key: Vec<String>,
}

impl KeyExprs {
    pub fn new(source: &Source, target: &Target) -> KeyExprs {
        let output = |c: &Column| {
            let at = target.columns.iter().position(|t| t.name == c.name).unwrap_or(0);
            format!("n.c{}", at + 1)
        };
        KeyExprs {
            batch: numbered("b.k", source.key.len()),
            item: numbered("n.i", source.key.len()),
            tracking: compose::tracking_keys(source, "t"),
            new_key: target.key.iter().map(output).collect(),
            target_key: target.key.iter().map(|k| format!("x.{}", k.quoted())).collect(),
            old_key: numbered("o.t", target.key.len()),
        }
    }
}

/// Returns a key as a list of texts: the form of target keys in a tracking row.
pub fn key_text(names: &[String]) -> String {
    let texts: Vec<String> = names.iter().map(|n| format!("{n}::pg_catalog.text")).collect();
    format!("pg_catalog.jsonb_build_array({})", texts.join(", "))
}

/// Returns the columns of a target's key, read from such a text. A column is NULL if its type no
/// longer accepts the text: labels of enums, attributes of composites and names of objects may have
/// changed.
pub fn key_values(target: &Target, text: &str) -> Vec<String> {
    let value = |(n, k): (usize, &Column)| {
        let value = format!("(({text})::pg_catalog.jsonb operator(pg_catalog.->>) {n})");
        let (type_oid, type_name) = key_type(k);
        match is_lasting(type_oid) {
            true => format!("{value}::{type_name}"),
            false => format!(
                "case when pg_catalog.pg_input_is_valid({value}, {}) then {value}::{type_name} end",
                literal(type_name)
            ),
        }
    };
    target.key.iter().enumerate().map(value).collect()
}

/// Returns a condition on such a text: the key's types still accept all of its values.
pub fn keys_are_valid(target: &Target, text: &str) -> String {
    let each = target.key.iter().enumerate().filter_map(|(n, k)| {
        let (type_oid, type_name) = key_type(k);
        let value = format!("(({text})::pg_catalog.jsonb operator(pg_catalog.->>) {n})");
        let name = literal(type_name);
        let is_null = match k.nullable {
            Some(_) => format!("{value} is null or "),
            None => String::new(),
        };
        (!is_lasting(type_oid))
            .then(|| format!("({is_null}pg_catalog.pg_input_is_valid({value}, {name})) and "))
    });
    each.collect()
}

/// Returns the type that a key's text is read as. For a domain it is the base type, because an
/// existing value need not satisfy the domain's current constraints.
fn key_type(column: &Column) -> (pg_sys::Oid, &str) {
    match &column.kept {
        StoredType::Base { type_oid, type_name } => (*type_oid, type_name),
        StoredType::Same | StoredType::Json => (column.type_oid, &column.type_name),
    }
}

/// Reports whether the type will always accept a text that it once accepted, whatever changes in
/// the catalogs.
fn is_lasting(type_oid: pg_sys::Oid) -> bool {
    // PostgreSQL 15 has no pg_input_is_valid: such a text raises an error.
    if cfg!(feature = "pg15") {
        return true;
    }
    let names_objects = [
        pg_sys::REGCLASSOID,
        pg_sys::REGPROCOID,
        pg_sys::REGPROCEDUREOID,
        pg_sys::REGOPEROID,
        pg_sys::REGOPERATOROID,
        pg_sys::REGTYPEOID,
        pg_sys::REGROLEOID,
        pg_sys::REGNAMESPACEOID,
        pg_sys::REGCOLLATIONOID,
        pg_sys::REGCONFIGOID,
        pg_sys::REGDICTIONARYOID,
    ];
    // SAFETY: a lookup in the system catalogs, within a transaction.
    let element = unsafe { pg_sys::get_base_element_type(type_oid) };
    let parts = [type_oid, element];
    !parts.iter().any(|t| t.to_u32() >= pg_sys::FirstNormalObjectId || names_objects.contains(t))
}

/// Reports whether the key types may no longer accept texts of the target's keys.
pub fn loses_keys(target: &Target) -> bool {
    target.covered.is_none() && target.key.iter().any(|k| !is_lasting(key_type(k).0))
}

/// Returns the columns of `coco_old`: the item's key and the item's target keys.
pub fn old_columns(source: &Source, target: &Target) -> Vec<RowColumn> {
    [rows::typed("i", &source.key), rows::typed("t", &target.key)].concat()
}
