//! Analyzes a query with PostgreSQL's parse analysis.
//!
//! The analysis finds the query's columns, the columns that the query uses of each source, and the
//! other relations and functions that the query reads. It also finds constructs whose result for
//! one item can differ from the result for all items.
//!
//! Callers: `used_columns`, `declare`.

use pgrx::PgList;
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;

use crate::pg::columns::{self, Column};
use crate::pg::error::{Error, Result};
use crate::query::bound_query::{self, Bound};
use crate::query::dependency_walk::DependencyWalk;
use crate::query::named_source::Shadow;

pub struct Analysis {
    pub columns: Vec<Column>,
    /// For each output column: the source, and the source column or the expression of its key that
    /// the output column always equals, if known.
    pub origins: Vec<Option<(usize, String)>>,
    /// For each source: the used columns, in the relation's order; `None` if the query does not
    /// read the source.
    pub used: Vec<Option<Vec<String>>>,
    /// OIDs of the relations that the query reads in addition to the sources.
    pub relations: BTreeSet<u32>,
    /// The columns used of each of these relations, by number; 0 stands for the whole row.
    pub read_columns: BTreeMap<u32, BTreeSet<i16>>,
    /// Whether the query calls user-defined functions, which may read any relation.
    pub calls_own: bool,
    /// OIDs of the volatile functions that the query calls.
    pub volatile: BTreeSet<u32>,
    /// Constructs whose result for one item can differ from the result for all items.
    pub not_item_local: BTreeSet<&'static str>,
    /// Whether one query level joins two sources.
    pub joins_sources: bool,
    /// The sources whose item one query level reads in several places.
    pub joined_with_itself: BTreeSet<usize>,
}

/// Analyzes a bound query whose items come from the sources in `shadows`.
pub fn analyze(argument: &str, bound: &Bound, shadows: &[Shadow]) -> Result<Analysis> {
    let tree = bound.tree;
    let relations: Vec<pg_sys::Oid> = shadows.iter().map(|s| s.named.relation).collect();
    // SAFETY: the tree was just created or copied, and no other code refers to it.
    let places = unsafe { bound_query::occurrences(tree, &relations) };
    if places.len() != bound.places.len() {
        return Err(Error::internal("query tree does not match its recorded places"));
    }
    let source_of = |id: i32| shadows.iter().position(|s| s.named.id == id);
    let items = places.iter().zip(bound.places.iter());
    let items = items.filter_map(|(o, id)| Some((o.entry as usize, source_of(*id)?))).collect();
    let mut walk = DependencyWalk::new(shadows, items);
    // SAFETY: as above.
    unsafe {
        walk.query(tree);
        if let Some((source, column)) = walk.system {
            return Err(system_column(argument, &shadows[source].named.name, column));
        }
        let mut result = Vec::new();
        let mut origins = Vec::new();
        for entry in PgList::<pg_sys::TargetEntry>::from_pg((*tree).targetList).iter_ptr() {
            if (*entry).resjunk {
                continue;
            }
            let expr = (*entry).expr.cast::<pg_sys::Node>();
            let name = match (*entry).resname.is_null() {
                true => "?column?".to_owned(),
                false => CStr::from_ptr((*entry).resname).to_string_lossy().into_owned(),
            };
            result.push(columns::result_column(
                name,
                pg_sys::exprType(expr),
                pg_sys::exprTypmod(expr),
                pg_sys::exprCollation(expr),
            )?);
            origins.push(walk.origin_of(expr, tree));
        }
        let used = walk.used.iter().enumerate().map(|(i, used)| {
            let whole = used.contains(&0);
            let names = shadows[i].columns.iter().filter(|(n, _)| whole || used.contains(n));
            walk.read.contains(&i).then(|| names.map(|(_, name)| name.clone()).collect())
        });
        Ok(Analysis {
            columns: result,
            origins,
            used: used.collect(),
            relations: walk.relations,
            read_columns: walk.read_columns,
            calls_own: walk.calls_own,
            volatile: walk.volatile,
            not_item_local: walk.not_item_local,
            joins_sources: walk.joins_sources,
            joined_with_itself: walk.joined_with_itself,
        })
    }
}

fn system_column(argument: &str, source: &str, number: i16) -> Error {
    // SAFETY: `number` is a system column's number; PostgreSQL describes it in static memory.
    let name = unsafe {
        let attribute = pg_sys::SystemAttributeDefinition(number);
        CStr::from_ptr((*attribute).attname.data.as_ptr()).to_string_lossy()
    };
    Error::new(
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        format!("argument \"{argument}\" reads the system column {name} of source \"{source}\""),
    )
    .detail("An item has only the columns of the table, because coco may evaluate it long after reading the row.")
    .hint(format!("Declare the flow over a view that returns {name} as a column."))
}
