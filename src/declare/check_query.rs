//! Checks of a query: what the target and the sources require, and warnings about what coco does
//! not follow.

use pgrx::prelude::*;
use std::collections::BTreeSet;

use crate::catalog::model::{Flow, Source, Target};
use crate::memo::called_functions;
use crate::pg::acting_role::RoleGuard;
use crate::pg::columns::Column;
use crate::pg::error::{Error, Result};
use crate::pg::notice::{notice, warning};
use crate::pg::spi::{self, ident};
use crate::query::analyze::{self, Analysis};
use crate::query::bound_query::{self, Bound};
use crate::query::named_source::Named;
use crate::query::{never_null, syntax, used_columns};

/// Checks and binds a query. Stores in the target and the sources what they need from it: columns,
/// key, and the columns that all queries of the flow use. `item` is the alias under which the query
/// reads the item. Warns about constructs that coco accepts but does not follow.
pub fn analyze_into(
    flow: &mut Flow,
    target: &mut Target,
    query: &str,
    key: &[String],
    item: Option<&str>,
) -> Result<Bound> {
    target.query = syntax::one_select(query)?;
    let shadows = used_columns::shadows(flow)?;
    let named: Vec<Named> = shadows.iter().map(|s| s.named.clone()).collect();
    let acting = RoleGuard::flow_owner(flow.owner, &flow.settings)?;
    let bound = bound_query::bind_query("query", &target.query, &named, item)?;
    let analysis = analyze::analyze("query", &bound, &shadows)?;
    drop(acting);
    let mut others = Vec::new();
    for other in flow.targets.iter().filter(|t| t.id != target.id) {
        if let Some(bound) = &other.bound {
            others.push(used_columns::analyze_view(bound, &shadows)?);
        }
    }
    let all: Vec<&Analysis> = others.iter().chain([&analysis]).collect();
    let used = used_columns::columns_of_sources(flow, &all)?;
    let read: Vec<bool> = used.iter().map(Option::is_some).collect();
    check_columns(&analysis)?;
    check_sources_read(flow, &analysis, &read)?;
    target.columns = analysis.columns.clone();
    target.key = target_key(&target.columns, key)?;
    target.covered = covered(flow, &analysis, &target.key);
    target.not_null = not_null(target, &bound)?;
    allow_null_keys(flow, target, &bound)?;
    for (source, used) in flow.sources.iter_mut().zip(used) {
        source.used = used.unwrap_or_default();
    }
    // Lookups are derived when the query is stored.
    if !flow.derives_lookups {
        warn_of(unfollowed(flow, &analysis)?);
    }
    warn_of(concerns(flow, &analysis)?);
    Ok(bound)
}

fn check_columns(analysis: &Analysis) -> Result<()> {
    let mut names = BTreeSet::new();
    for column in &analysis.columns {
        if column.name == "?column?" {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_INVALID_COLUMN_DEFINITION,
                "argument \"query\" has a column without a name",
            )
            .hint("Name the column: expression AS name."));
        }
        if !names.insert(&column.name) {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_DUPLICATE_COLUMN,
                format!("argument \"query\" has two columns named \"{}\"", column.name),
            )
            .hint("Rename one of them: expression AS name."));
        }
        // SAFETY: a syscache lookup in a transaction.
        let pseudo = unsafe { pg_sys::get_typtype(column.type_oid) } == b'p' as std::ffi::c_char;
        if pseudo {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_INVALID_COLUMN_DEFINITION,
                format!(
                    "column \"{}\" of the query has pseudo-type {}",
                    column.name, column.type_name
                ),
            )
            .hint("Cast it to a type that a column of a table can have."));
        }
    }
    match analysis.columns.is_empty() {
        true => Err(Error::invalid("argument \"query\" returns no columns")),
        false => Ok(()),
    }
}

fn check_sources_read(flow: &Flow, analysis: &Analysis, read: &[bool]) -> Result<()> {
    let none_read = analysis.used.iter().all(Option::is_none);
    let unread = flow.sources.iter().zip(read).find(|(_, read)| !**read);
    if none_read || (flow.sources.len() == 1 && unread.is_some()) {
        let name = &flow.sources[0].name;
        return Err(Error::invalid(format!("argument \"query\" does not read source \"{name}\""))
            .detail("Inside the query, a source's name is a relation that contains only the item.")
            .hint(format!("Read it as {}.", ident(name))));
    }
    if let Some((source, _)) = unread {
        notice(format!("source \"{}\" is not read by any query of the flow yet", source.name));
    }
    if analysis.joins_sources {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            "argument \"query\" joins two sources",
        )
        .detail("For an item of one source, the other sources are empty, so a join of two sources never returns a row.")
        .hint("Declare only one of them as a source, and read the other table in full by its schema-qualified name. To collect rows from several sources, use UNION ALL."));
    }
    Ok(())
}

fn target_key(columns: &[Column], key: &[String]) -> Result<Vec<Column>> {
    if key.is_empty() {
        return Err(Error::invalid("argument \"key\" is empty")
            .hint("Specify the columns of the query that identify one row of the target, for example key => '{id}'."));
    }
    let distinct: BTreeSet<&String> = key.iter().collect();
    if distinct.len() != key.len() {
        return Err(Error::invalid("argument \"key\" names a column twice"));
    }
    key.iter()
        .map(|k| {
            let Some(column) = columns.iter().find(|c| c.name == *k) else {
                let has: Vec<&str> = columns.iter().map(|c| c.name.as_str()).collect();
                return Err(Error::new(
                    PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
                    format!("key column \"{k}\" is not in the query's output"),
                )
                .detail(format!("The query returns: {}.", has.join(", ")))
                .hint("Add the column to the query, or choose another key."));
            };
            if column.equals.is_none() {
                return Err(Error::new(
                    PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                    format!("key column \"{k}\" has type {}, which has no order", column.type_name),
                )
                .detail("A key's type needs a default btree operator class."));
            }
            Ok(column.clone())
        })
        .collect()
}

/// Returns the columns of a target table, other than those of its key, for which the query never
/// returns NULL.
fn not_null(target: &Target, bound: &Bound) -> Result<Vec<String>> {
    if target.external.is_some() {
        return Ok(vec![]);
    }
    // SAFETY: the tree was just created, and no other code refers to it.
    let never = unsafe { never_null::columns_never_null(bound.tree)? };
    let is_key = |column: &Column| target.key.iter().any(|k| k.name == column.name);
    let columns = target.columns.iter().zip(never);
    let not_null = columns.filter(|(column, never)| *never && !is_key(column));
    Ok(not_null.map(|(column, _)| column.name.clone()).collect())
}

/// Makes NULL a value like any other in the columns of the target key that can be NULL, if a source
/// has a nullable key. (Otherwise an item whose target key is NULL fails.)
fn allow_null_keys(flow: &Flow, target: &mut Target, bound: &Bound) -> Result<()> {
    if !flow.sources.iter().any(Source::has_nullable_key) {
        return Ok(());
    }
    let nullable = used_columns::columns_with_null(bound.tree, &target.columns)?;
    let shown = target.external.as_ref().map(|_| target.shown());
    for column in target.key.iter_mut().filter(|k| nullable.contains(&k.name)) {
        let name = &column.name;
        if let Some(shown) = &shown {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!("key column \"{name}\" of target {shown} can be NULL"),
            )
            .detail("Rows of other systems cannot have a NULL in their key, and a column of the source key is nullable.")
            .hint(format!("Replace NULL by a value in the query, for example coalesce({}, '') AS {}.", ident(name), ident(name))));
        }
        if column.compares_null() {
            column.allow_null()?;
        }
    }
    Ok(())
}

/// Returns the target key columns that always equal the source key, or `None` if the target key
/// does not contain the whole source key.
fn covered(flow: &Flow, analysis: &Analysis, key: &[Column]) -> Option<Vec<String>> {
    let [source] = flow.sources.as_slice() else {
        return None;
    };
    source
        .key
        .iter()
        .map(|k| {
            let equal = analysis.columns.iter().zip(&analysis.origins).find(|(c, origin)| {
                let is_key = key.iter().any(|t| t.name == c.name);
                is_key
                    && c.stored().type_oid == k.type_oid
                    && origin.as_ref().is_some_and(|(_, column)| *column == k.name)
            });
            equal.map(|(c, _)| c.name.clone())
        })
        .collect()
}

/// A construct that coco accepts but does not follow, or that may surprise, and its consequence.
pub struct QueryWarning {
    pub what: String,
    pub therefore: String,
}

fn warn_of(concerns: Vec<QueryWarning>) {
    for concern in concerns {
        warning(concern.what, &concern.therefore);
    }
}

/// Warns about the relations that the queries of a flow read, and that are neither sources nor
/// lookups.
pub fn warn_unfollowed(flow: &Flow) -> Result<()> {
    let shadows = used_columns::shadows(flow)?;
    for view in flow.targets.iter().filter_map(|t| t.bound.as_ref()) {
        warn_of(unfollowed(flow, &used_columns::analyze_view(view, &shadows)?)?);
    }
    Ok(())
}

/// Returns the warnings about the current query of a flow's target.
pub fn concerns_of(flow: &Flow, target: &Target) -> Result<Vec<QueryWarning>> {
    let Some(bound) = &target.bound else { return Ok(vec![]) };
    let analysis = used_columns::analyze_view(bound, &used_columns::shadows(flow)?)?;
    let mut all = unfollowed(flow, &analysis)?;
    all.extend(concerns(flow, &analysis)?);
    Ok(all)
}

/// Returns the warnings about relations whose changes coco does not follow.
fn unfollowed(flow: &Flow, analysis: &Analysis) -> Result<Vec<QueryWarning>> {
    let mut found = Vec::new();
    let mut concern = |what: String, therefore: &str| {
        found.push(QueryWarning { what, therefore: therefore.to_owned() })
    };
    for relation in &analysis.relations {
        let relation = pg_sys::Oid::from(*relation);
        // Before PostgreSQL 16, a view's tree contains entries for the view itself.
        if flow.targets.iter().any(|t| t.query_view() == Some(relation)) {
            continue;
        }
        // A source that is also a lookup is followed in full.
        if flow.lookups.iter().any(|l| l.relation.relation == relation) {
            continue;
        }
        let name = spi::relation_name(relation)?.unwrap_or_default();
        if flow.sources.iter().any(|s| s.relation == relation) {
            concern(
                format!("the query reads {name} in full in addition to the item"),
                "Changes of other rows do not cause a new evaluation of an item.",
            );
        } else if !name.starts_with("pg_catalog.") {
            concern(
                format!("the query reads {name}, which is not a source of flow \"{}\"", flow.name),
                "coco does not follow its changes: they take effect when an item is evaluated for another reason, or with coco.update(flow, 'full_reprocess'). Declare it with coco.add_lookup to follow them.",
            );
        }
    }
    Ok(found)
}

/// Returns the other warnings about a query.
fn concerns(flow: &Flow, analysis: &Analysis) -> Result<Vec<QueryWarning>> {
    let mut found = Vec::new();
    let mut concern = |what: String, therefore: &str| {
        found.push(QueryWarning { what, therefore: therefore.to_owned() })
    };
    // The rows of a group may well be joined with each other.
    for source in analysis.joined_with_itself.iter().filter_map(|s| flow.sources.get(*s)) {
        if !source.grouped {
            concern(
                format!("the query reads the item of source \"{}\" in several places", source.name),
                "Each of these places contains only the item. If one of them should be the whole table, write its schema there, or pass the alias of the item as the argument \"item\".",
            );
        }
    }
    let volatile = analysis.volatile.iter().map(|f| pg_sys::Oid::from(*f)).collect();
    for function in called_functions::not_memoized(volatile)? {
        concern(
            format!("the query calls the volatile function {function}"),
            "An item gets a new result only when the item or the logic changes, so coco.verify may report differences.",
        );
    }
    if !analysis.not_item_local.is_empty() {
        let what: Vec<&str> = analysis.not_item_local.iter().copied().collect();
        let hint = match flow.sources.iter().any(|s| s.grouped) {
            true => "Group by, or partition by, the whole source key.",
            false => {
                "To aggregate over several rows, make the group the item: source_key => '{column}' (in coco.add_source: key) with the columns that the query groups by."
            }
        };
        concern(
            format!(
                "the query's result for one item may differ from its result over all items: {}",
                what.join(", ")
            ),
            &format!("coco evaluates the query once per source item. {hint}"),
        );
    }
    Ok(found)
}
