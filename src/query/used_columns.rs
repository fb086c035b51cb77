//! The columns of sources and lookups that a flow's bound queries use now. Columns are identified
//! by number, so a renamed column stays the same column. Also finds which of their results can be
//! NULL by now.

use pgrx::pg_sys;
use std::collections::BTreeSet;

use crate::catalog::model::{BoundView, Flow, Source};
use crate::pg::columns::{self, Column};
use crate::pg::error::Result;
use crate::pg::spi;
use crate::query::analyze::{self, Analysis};
use crate::query::bound_query::Bound;
use crate::query::named_source::{Named, Shadow};
use crate::query::{never_null, same_query, view_tree};

/// Returns a source as its flow's queries refer to it.
pub fn shadow(source: &Source) -> Result<Shadow> {
    let mut key_expressions = Vec::new();
    if let Some(key) = &source.key_expressions {
        let tree = view_tree::read_bound_query(key.bound.view)?;
        for (k, _) in source.key.iter().zip(&key.texts).filter(|(_, text)| text.is_some()) {
            // SAFETY: the tree was just read, and lives as long as the current memory context.
            let expression = unsafe { same_query::column_of(tree, &k.name) };
            key_expressions.extend(expression.map(|of| (k.name.clone(), of.cast())));
        }
    }
    Ok(Shadow {
        named: named(source.id, &source.name, source.relation)?,
        columns: columns::numbers(source.relation)?,
        key: source.key.iter().map(|k| k.name.clone()).collect(),
        key_expressions,
    })
}

/// Returns the relation that a name in a text stands for.
pub fn named(id: i32, name: &str, relation: pg_sys::Oid) -> Result<Named> {
    let (schema, table) = spi::relation_parts(relation)?;
    Ok(Named { name: name.to_owned(), relation, id, schema, table })
}

/// Returns the sources of a flow as its queries refer to them.
pub fn shadows(flow: &Flow) -> Result<Vec<Shadow>> {
    flow.sources.iter().map(shadow).collect()
}

/// Analyzes the query that a view keeps.
pub fn analyze_view(view: &BoundView, shadows: &[Shadow]) -> Result<Analysis> {
    let bound =
        Bound { tree: view_tree::read_bound_query(view.view)?, places: view.places.clone() };
    analyze::analyze("query", &bound, shadows)
}

/// Analyzes all bound queries of a flow, except those of targets whose query reads a dropped
/// object.
pub fn analyze_queries(flow: &Flow, shadows: &[Shadow]) -> Result<Vec<Analysis>> {
    flow.targets.iter().filter_map(|t| t.bound.as_ref()).map(|b| analyze_view(b, shadows)).collect()
}

/// Returns the columns of each source that these queries use, in the relation's order; `None` if no
/// query reads the source.
pub fn columns_of_sources(flow: &Flow, analyses: &[&Analysis]) -> Result<Vec<Option<Vec<Column>>>> {
    let of = |(n, source): (usize, &Source)| {
        let used: Vec<&Vec<String>> = analyses.iter().filter_map(|a| a.used[n].as_ref()).collect();
        if used.is_empty() {
            return Ok(None);
        }
        let all = columns::of_relation(source.relation)?.into_iter().map(|a| a.column);
        Ok(Some(all.filter(|c| used.iter().any(|u| u.contains(&c.name))).collect()))
    };
    flow.sources.iter().enumerate().map(of).collect()
}

/// Returns the columns of each lookup that these queries read. An empty list stands for all
/// columns: no query names the lookup, or a query calls user-defined functions, which may read
/// other columns.
pub fn columns_of_lookups(flow: &Flow, analyses: &[&Analysis]) -> Result<Vec<Vec<String>>> {
    let of = |relation: pg_sys::Oid| {
        let number = relation.to_u32();
        let mut read = BTreeSet::new();
        for analysis in analyses {
            read.extend(analysis.read_columns.get(&number).into_iter().flatten().copied());
        }
        let is_named = analyses.iter().any(|a| a.relations.contains(&number));
        let unclear = analyses.iter().any(|a| a.calls_own) || read.iter().any(|n| *n <= 0);
        if !is_named || unclear {
            return Ok(vec![]);
        }
        let all = columns::numbers(relation)?.into_iter();
        Ok(all.filter(|(n, _)| read.contains(n)).map(|(_, name)| name).collect())
    };
    flow.lookups.iter().map(|l| of(l.relation.relation)).collect()
}

/// The columns of a source or lookup that the queries use, if the loaded flow had others.
pub struct RenamedColumns {
    pub source: i32,
    /// As `coco_internal.source` keeps them.
    pub used: Vec<String>,
}

/// Updates the used columns of a flow to those that its bound queries use now. Returns the sources
/// and lookups that had others.
pub fn refresh_used_columns(flow: &mut Flow) -> Result<Vec<RenamedColumns>> {
    let shadows = shadows(flow)?;
    let analyses = analyze_queries(flow, &shadows)?;
    let analyses: Vec<&Analysis> = analyses.iter().collect();
    let mut renamed = Vec::new();
    let used = columns_of_sources(flow, &analyses)?;
    for (source, used) in flow.sources.iter_mut().zip(used) {
        let Some(used) = used else { continue };
        let before = std::mem::replace(&mut source.used, used);
        let used = names(&source.used);
        if names(&before) != used {
            renamed.push(RenamedColumns { source: source.id, used });
        }
    }
    let used = columns_of_lookups(flow, &analyses)?;
    for (lookup, used) in flow.lookups.iter_mut().zip(used) {
        let source = &mut lookup.relation;
        let all = columns::of_relation(source.relation)?.into_iter().map(|a| a.column);
        let now = all.filter(|c| used.is_empty() || used.contains(&c.name)).collect();
        let before = std::mem::replace(&mut source.used, now);
        if names(&before) != names(&source.used) {
            renamed.push(RenamedColumns { source: source.id, used });
        }
    }
    Ok(renamed)
}

fn names(columns: &[Column]) -> Vec<String> {
    columns.iter().map(|c| c.name.clone()).collect()
}

/// Returns the names of those columns of a query's result for which the query can return NULL.
pub fn columns_with_null(tree: *mut pg_sys::Query, columns: &[Column]) -> Result<Vec<String>> {
    // SAFETY: the caller passes an analyzed tree, which nobody changes meanwhile.
    let never = unsafe { never_null::columns_never_null(tree)? };
    let can_be_null = columns.iter().zip(never).filter(|(_, never)| !never);
    Ok(can_be_null.map(|(column, _)| column.name.clone()).collect())
}

/// Finds the columns that coco declared NOT NULL in target tables, and for which the queries can
/// return NULL by now: a column that a query reads may no longer be NOT NULL.
pub fn refresh_not_null(flow: &mut Flow) -> Result<()> {
    for target in flow.targets.iter_mut().filter(|t| t.made && !t.not_null.is_empty()) {
        let Some(view) = target.query_view() else { continue };
        // SAFETY: the tree was just read, and no other code refers to it.
        let never = unsafe { never_null::columns_never_null(view_tree::read_bound_query(view)?)? };
        let never: BTreeSet<&String> = target
            .columns
            .iter()
            .zip(never)
            .filter_map(|(column, never)| never.then_some(&column.name))
            .collect();
        let can_be_null = target.not_null.iter().filter(|name| !never.contains(name));
        target.nullable_again = can_be_null.cloned().collect();
    }
    Ok(())
}
