//! Decides which lookups a flow's queries need, and writes their queries `affects`.
//!
//! Caller: `derive_lookups`. docs/internals/lookups.md explains why no affected item is missed.

use pgrx::pg_sys;
use std::collections::{BTreeMap, BTreeSet};

use crate::catalog::model::{CHANGED, Flow, Source};
use crate::pg::columns::{self, Column};
use crate::pg::error::{Error, Result};
use crate::pg::relations;
use crate::pg::spi::{self, ident};
use crate::query::bound_query::Bound;
use crate::query::declared_text;
use crate::query::join_paths::{self, PrimaryKeys, Step};
use crate::query::joins::{self, Joins};
use crate::query::view_tree;

/// What a change of a relation has to evaluate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Affected {
    /// The items that the rows of some columns lead to: for each list of columns, the ways from a
    /// changed row to the items.
    Items(Vec<WayByColumns>),
    /// Every item: a place reads the relation without an equality that leads to the item.
    Every,
}

/// The ways to the items from changed rows of a relation, over the same columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WayByColumns {
    pub columns: Vec<String>,
    pub ways: Vec<Way>,
}

/// The parts of a query `affects` after its first word FROM. The name of the lookup is not known
/// yet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    /// The joins from the source to the relation next to the lookup.
    joins: String,
    /// The condition between that relation and the changed keys.
    condition: String,
}

impl WayByColumns {
    /// Returns the query `affects` of a lookup with this name.
    /// `key` comes from [`key_of_source`].
    pub fn to_sql(&self, source: &Source, key: &[String], lookup: &str) -> String {
        let one = |way: &Way| {
            format!(
                "SELECT {key} FROM {from} AS {SOURCE}{joins} JOIN {lookup} AS {CHANGED} ON {on}",
                key = key.join(", "),
                from = source.relation_name,
                joins = way.joins,
                lookup = ident(lookup),
                on = way.condition,
            )
        };
        self.ways.iter().map(one).collect::<Vec<_>>().join(" UNION ALL ")
    }
}

/// Returns the columns of a source's key as texts in a derived query.
pub fn key_of_source(source: &Source) -> Result<Vec<String>> {
    let place = |(n, k): (usize, &Column)| match &source.key_expressions {
        Some(key) if source.is_expression(n) => {
            let (of, relation) = (&k.name, source.relation);
            let text = declared_text::column_text(&key.bound, of, SOURCE, relation, true)?;
            text.ok_or_else(|| Error::internal("a key has lost an expression"))
        }
        _ => Ok(format!("{SOURCE}.{}", k.quoted())),
    };
    source.key.iter().enumerate().map(place).collect()
}

/// The alias of the source in a derived query.
const SOURCE: &str = "s";

/// Returns the relations that the queries of a flow read in addition to the item, in the order of
/// their OIDs, each with what a change of it has to evaluate. The flow has one source.
pub fn find_affected(flow: &Flow, source: &Source) -> Result<BTreeMap<u32, Affected>> {
    let mut found: BTreeMap<u32, BTreeMap<Vec<String>, BTreeSet<Way>>> = BTreeMap::new();
    let mut every = BTreeSet::new();
    let views: Vec<pg_sys::Oid> = flow.targets.iter().filter_map(|t| t.query_view()).collect();
    for bound in flow.targets.iter().filter_map(|t| t.bound.as_ref()) {
        let tree = view_tree::read_bound_query(bound.view)?;
        let bound = Bound { tree, places: bound.places.clone() };
        let joins = joins::find_joins(&bound, source.relation, &views)?;
        let mut keys = PrimaryKeys::new();
        for reading in &joins.readings {
            let key = relations::primary_key_numbers(reading.relation)?;
            keys.insert(reading.relation.to_u32(), key);
        }
        let steps = join_paths::find_steps(&joins, &keys);
        for (n, reading) in joins.readings.iter().enumerate().filter(|(_, r)| !r.is_item) {
            let relation = reading.relation.to_u32();
            let Some(step) = &steps[n] else {
                every.insert(relation);
                continue;
            };
            let columns = names(reading.relation, &step.columns)?;
            let ways = found.entry(relation).or_default().entry(columns).or_default();
            ways.insert(way(&joins, &steps, n)?);
        }
    }
    let mut all = BTreeMap::new();
    for (relation, by_columns) in found {
        let ways = by_columns
            .into_iter()
            .map(|(columns, ways)| WayByColumns { columns, ways: ways.into_iter().collect() });
        all.insert(relation, Affected::Items(ways.collect()));
    }
    all.extend(every.into_iter().map(|relation| (relation, Affected::Every)));
    Ok(all)
}

/// Returns the names of columns of a relation.
fn names(relation: pg_sys::Oid, wanted: &[i16]) -> Result<Vec<String>> {
    let all = columns::numbers(relation)?;
    let name = |number: &i16| {
        let found = all.iter().find(|(n, _)| n == number).map(|(_, name)| name.clone());
        found.ok_or_else(|| Error::internal("a query reads a column that does not exist"))
    };
    wanted.iter().map(name).collect()
}

/// Writes the way from a reading to the item.
fn way(joins: &Joins, steps: &[Option<Step>], reading: usize) -> Result<Way> {
    // From the reading towards the item.
    let mut path = vec![reading];
    while let Some(step) = steps[path[path.len() - 1]].as_ref() {
        path.push(step.with);
    }
    path.reverse();
    let last = path.len() - 1;
    let alias = |at: usize| match at {
        0 => SOURCE.to_owned(),
        at if at == last => CHANGED.to_owned(),
        at => format!("j{at}"),
    };
    let mut text = String::new();
    for at in 1..last {
        let relation = joins.readings[path[at]].relation;
        let name = spi::relation_name(relation)?
            .ok_or_else(|| Error::internal("a query reads a relation that does not exist"))?;
        let on = condition(joins, steps, &path, at, &alias)?;
        text.push_str(&format!(" JOIN {name} AS {} ON {on}", alias(at)));
    }
    Ok(Way { joins: text, condition: condition(joins, steps, &path, last, &alias)? })
}

/// Writes the condition between two readings of a path: the one at a position, and the one before.
fn condition(
    joins: &Joins,
    steps: &[Option<Step>],
    path: &[usize],
    at: usize,
    alias: &impl Fn(usize) -> String,
) -> Result<String> {
    let Some(step) = &steps[path[at]] else {
        return Err(Error::internal("a way from a lookup to the items has a gap"));
    };
    let mut all = Vec::new();
    for number in &step.equalities {
        let equality = &joins.equalities[*number];
        let column = |reading: usize, at: usize, column: i16| -> Result<String> {
            let names = names(joins.readings[reading].relation, &[column])?;
            Ok(format!("{}.{}", alias(at), ident(&names.concat())))
        };
        let of = column(equality.of, at, equality.column)?;
        let with = column(equality.with, at - 1, equality.with_column)?;
        all.push(equality.comparison.to_sql(&of, &with));
    }
    Ok(all.join(" AND "))
}
