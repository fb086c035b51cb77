//! Composing a flow's query over many items at once.
//!
//! The query is evaluated once per item, and Postgres plans it as one join:
//!
//! ```sql
//! select item.i1, t.*
//!   from (<the items>) as item
//!  cross join lateral (
//!     with coco_source_7 as (select item.u1 as id, item.u2 as body)
//!     select q.* from coco.query_3_docs as q) as t (c1, c2)
//! ```
//!
//! The view keeps the query as it was bound when it was declared ([`bound`](crate::query::bound_query)). When the statement is
//! analysed, its tree comes in the place of the view, and what the CTE has in the place of the source
//! ([`placing`](crate::query::place_items)). Nothing here is a user's text; all of it is schema-qualified.

use pgrx::pg_sys;

use crate::catalog::model::{BoundView, Flow, Source, Target};
use crate::pg::columns::{self, Column, all_equal, numbered};
use crate::pg::error::{Error, Result};
use crate::pg::spi::ident;
use crate::pg::tuplestore::rows::{self, RowColumn};
use crate::query::place_items::{self, shadow_name};
use crate::query::row_local;

/// The column of the items that tells their number in the batch, for calls of memoised functions.
pub const ITEM: &str = "coco_item";

/// What it is called in the output.
pub const ITEM_NUMBER: &str = "no";

/// Whether an item `b` of a batch is to be evaluated.
pub const TO_EVALUATE: &str = "b.action operator(pg_catalog.=) 'e'::pg_catalog.\"char\"";

/// Which items a composition covers.
#[derive(Clone, Copy)]
pub enum Items {
    /// All of the source.
    All,
    /// All but those whose last evaluation failed.
    Healthy,
    /// Those in the relation `coco_batch` whose action is to evaluate.
    Batch,
    /// The same, where the batch has all that the query uses of them: [`carried`].
    Carried,
}

/// Whether what the query uses of a source's items is read with their fingerprints: these are of the very
/// same columns. (What an ordinal or another expression stands for is read only of items that changed.)
pub fn carries(source: &Source) -> bool {
    source.ordinal.is_none() && source.fingerprint.is_none()
}

/// What a batch then has with its items, so that the source is not read again for them: the used columns, or
/// the rows of a group; each with the expression over the source that it is read by.
pub fn carried(source: &Source) -> Vec<(RowColumn, String)> {
    let name = ident(&source.name);
    let value = |c: &Column| format!("{name}.{}", c.quoted());
    if source.grouped {
        let values = group_values(source, &name);
        let rows = format!("pg_catalog.array_agg(row({}))", values.join(", "));
        return vec![(RowColumn::new("u1", pg_sys::RECORDARRAYOID), rows)];
    }
    let columns = rows::typed("u", &source.used);
    columns.into_iter().zip(source.used.iter().map(value)).collect()
}

/// The SELECT of all items of `source` in `items`, with their keys as `i1…`, each with the rows
/// `query` makes of it as `c1…`. Where the flow's queries call memoised functions, then the item's
/// number in the batch follows.
pub fn evaluate(flow: &Flow, source: &Source, target: &Target, items: Items) -> Result<String> {
    composed(flow, source, target, items, !flow.memoised.is_empty())
}

/// As [`evaluate`], of all items; with what is tracked of each: `ordinal`, and `content`, its fingerprint.
pub fn evaluate_tracked(flow: &Flow, source: &Source, target: &Target) -> Result<String> {
    let name = ident(&source.name);
    let of_row =
        |(column, called): (&Column, String)| format!("{name}.{} as {called}", column.quoted());
    let keys = source.key_of(&name).into_iter().zip(numbered("i", source.key.len()));
    let keys = keys.map(|(key, called)| format!("{key} as {called}"));
    let used = source.used.iter().zip(numbered("u", source.used.len()));
    let columns: Vec<String> = keys.chain(used.map(of_row)).collect();
    let item = format!(
        "select {columns}, {ordinal} as ordinal, {content} as content from {relation} as {name}{expressions}",
        columns = columns.join(", "),
        ordinal = ordinal_of_row(source).unwrap_or("null::pg_catalog.int8"),
        content = fingerprint_of_row(source),
        relation = source.relation_name,
        expressions = expressions(source),
    );
    lateral_sql(flow, source, target, &item, ", item.ordinal, item.content")
}

fn composed(
    flow: &Flow,
    source: &Source,
    target: &Target,
    items: Items,
    numbered_items: bool,
) -> Result<String> {
    let number = match (numbered_items, items) {
        (false, _) => None,
        (true, Items::Batch | Items::Carried) => Some("b.no"),
        (true, _) => Some("null::pg_catalog.int4"),
    };
    let item = match (items, source.grouped) {
        (Items::Carried, _) => carried_items(source, number),
        (_, true) => grouped_items(source, items, number),
        (_, false) => row_items(source, items, number),
    };
    let more = number.map_or(String::new(), |_| format!(", item.{ITEM} as {ITEM_NUMBER}"));
    lateral_sql(flow, source, target, &item, &more)
}

/// The query over items that a SELECT has, with columns of the items that are called for beside their keys.
fn lateral_sql(
    flow: &Flow,
    source: &Source,
    target: &Target,
    item: &str,
    more: &str,
) -> Result<String> {
    let mut shadows = Vec::new();
    for s in &flow.sources {
        let items = if s.id == source.id { shadow(s)? } else { EMPTY.to_owned() };
        shadows.push(format!("{} as ({items})", shadow_name(s.id)));
    }
    if !flow.memoised.is_empty() {
        // Where calls recall, each is for the item that it stands beside: nothing is merged with it.
        shadows.push(format!("{} as (select)", place_items::APART));
    }
    let item_keys: Vec<String> =
        numbered("i", source.key.len()).iter().map(|i| format!("item.{i}")).collect();
    Ok(format!(
        "{mark}select {keys}, t.*{more}\n  from ({item}) as {items}\n cross join lateral (with {shadows}\n\
         select q.* from {query} as q) as t ({columns})",
        mark = mark(flow, target),
        keys = item_keys.join(", "),
        items = place_items::ITEMS,
        shadows = shadows.join(", "),
        query = view_of(flow, target)?.name,
        columns = numbered("c", target.columns.len()).join(", "),
    ))
}

/// Tells statements apart that differ in what they are bound to: a plan in which calls go by way of the memo is
/// another.
fn mark(flow: &Flow, target: &Target) -> String {
    let view = target.query_view().map_or(0, |view| view.to_u32());
    let memoised: Vec<String> = flow.memoised.iter().map(|f| f.oid.to_u32().to_string()).collect();
    format!("/* coco flow {} {view} {} */\n", flow.id, memoised.join(" "))
}

/// The view that keeps a target's query, of which statements may be composed from now on.
fn view_of<'a>(flow: &Flow, target: &'a Target) -> Result<&'a BoundView> {
    let bound = target.bound.as_ref().ok_or_else(|| {
        Error::internal(format!("the query of target {} is not bound", target.shown()))
    })?;
    let relations = flow.sources.iter().map(|s| s.relation).collect();
    place_items::know_shadows(bound.view, relations, bound.places.clone());
    Ok(bound)
}

/// The query over all of a source at once, as `c1…`, where that has the same rows as over one item after the
/// other: Postgres then plans it as a whole, for several processes, too.
pub fn single_pass_sql(flow: &Flow, source: &Source, target: &Target) -> Result<Option<String>> {
    if source.grouped || !flow.memoised.is_empty() {
        return Ok(None);
    }
    let query = view_of(flow, target)?;
    if !row_local::is_row_by_row(query, flow, source)? {
        return Ok(None);
    }
    let shadows: Vec<String> = flow
        .sources
        .iter()
        .map(|s| {
            let columns: Vec<String> = s.used.iter().map(|c| format!("s.{}", c.quoted())).collect();
            let items = match s.id == source.id {
                true => format!("select {} from {} as s", columns.join(", "), s.relation_name),
                false => EMPTY.to_owned(),
            };
            format!("{} as ({items})", shadow_name(s.id))
        })
        .collect();
    Ok(Some(format!(
        "{}with {}\nselect q.* from {} as q ({})",
        mark(flow, target),
        shadows.join(", "),
        query.name,
        numbered("c", target.columns.len()).join(", "),
    )))
}

/// The source's rows with key and used columns; the join with the batch is on the key.
fn rows_of(source: &Source, items: Items) -> (String, String) {
    let keys = source.key_of("s");
    let relation = &source.relation_name;
    match items {
        Items::All => (format!("{relation} as s"), String::new()),
        Items::Healthy => {
            let tracked: Vec<String> =
                numbered("k", source.key.len()).iter().map(|k| format!("f.{k}")).collect();
            let same = all_equal(&source.key, &tracked, &keys);
            // A row without a key always fails.
            let known: Vec<String> = keys.iter().map(|k| format!("{k} is not null")).collect();
            let failing = format!(
                " where {} and not exists (select from {} as f where {same} and f.failure is not null)",
                known.join(" and "),
                source.tracking_view
            );
            (format!("{relation} as s"), failing)
        }
        Items::Batch | Items::Carried => {
            let batch: Vec<String> =
                numbered("k", source.key.len()).iter().map(|k| format!("b.{k}")).collect();
            let same = all_equal(&source.key, &keys, &batch);
            (
                format!(
                    "coco_batch as b\n          join {relation} as s on {same} and {TO_EVALUATE}"
                ),
                String::new(),
            )
        }
    }
}

/// Items that the batch has with all that is used of them.
fn carried_items(source: &Source, number: Option<&str>) -> String {
    let keys = numbered("b.k", source.key.len()).into_iter().zip(numbered("i", source.key.len()));
    let mut columns: Vec<String> = keys.map(|(k, i)| format!("{k} as {i}")).collect();
    let used = match source.grouped {
        true => vec!["b.u1 as rows".to_owned()],
        false => numbered("u", source.used.len()).iter().map(|u| format!("b.{u}")).collect(),
    };
    columns.extend(used);
    columns.extend(number.map(|number| format!("{number} as {ITEM}")));
    // Chosen first, as below.
    format!(
        "select {}\n          from coco_batch as b where {TO_EVALUATE} offset 0",
        columns.join(", ")
    )
}

fn row_items(source: &Source, items: Items, number: Option<&str>) -> String {
    let (from, filter) = rows_of(source, items);
    let keys = source.key_of("s").into_iter().zip(numbered("i", source.key.len()));
    let mut columns: Vec<String> = keys.map(|(k, i)| format!("{k} as {i}")).collect();
    let used = source.used.iter().zip(numbered("u", source.used.len()));
    columns.extend(used.map(|(c, u)| format!("s.{} as {u}", c.quoted())));
    columns.extend(number.map(|number| format!("{number} as {ITEM}")));
    // With an offset items are chosen first: nothing of the query is evaluated of others, of which it may fail. And
    // the columns of a view, which may be dear (files are read), are computed once, however often it names them.
    let first = if matches!(items, Items::All) { "" } else { " offset 0" };
    format!("select {}\n          from {from}{filter}{first}", columns.join(", "))
}

/// Groups carry their rows as an array of records: no index on the key is needed.
fn grouped_items(source: &Source, items: Items, number: Option<&str>) -> String {
    let (from, filter) = rows_of(source, items);
    let keys = source.key_of("s");
    let named: Vec<String> =
        keys.iter().zip(numbered("i", keys.len())).map(|(k, i)| format!("{k} as {i}")).collect();
    let columns = group_values(source, "s");
    let number =
        number.map_or(String::new(), |number| format!(", pg_catalog.min({number}) as {ITEM}"));
    format!(
        "select {}, pg_catalog.array_agg(row({})) as rows{number}\n          from {from}{filter}\n         group by {}",
        named.join(", "),
        columns.join(", "),
        keys.join(", "),
    )
}

/// What a group's rows carry: the used columns, or the key where none is used, so that the rows
/// can still be counted.
fn group_columns(source: &Source) -> &[Column] {
    if source.used.is_empty() { &source.key } else { &source.used }
}

/// The same, of a row of the relation of this alias.
fn group_values(source: &Source, alias: &str) -> Vec<String> {
    match source.used.is_empty() {
        true => source.key_of(alias),
        false => source.used.iter().map(|c| format!("{alias}.{}", c.quoted())).collect(),
    }
}

/// Of a source that is not the item's: no item. The columns are added where it is put.
const EMPTY: &str = "select where false";

/// The item, as the rows of the source that it is.
fn shadow(source: &Source) -> Result<String> {
    if source.grouped {
        let mut shape = Vec::new();
        let mut used = Vec::new();
        for (n, column) in group_columns(source).iter().enumerate() {
            let collate = columns::collate(column.collation)?;
            shape.push(format!("c{} {}{collate}", n + 1, column.type_name));
            if n < source.used.len() {
                used.push(format!("r.c{} as {}", n + 1, column.quoted()));
            }
        }
        return Ok(format!(
            "select {} from pg_catalog.unnest(item.rows) as r ({})",
            used.join(", "),
            shape.join(", ")
        ));
    }
    let columns: Vec<String> = source
        .used
        .iter()
        .zip(numbered("u", source.used.len()))
        .map(|(c, u)| format!("item.{u} as {}", c.quoted()))
        .collect();
    Ok(format!("select {}", columns.join(", ")))
}

/// What the expressions that were declared with a source are called in a statement that reads it.
pub const EXPRESSIONS: &str = "coco_of";

/// The same, evaluated for each row: to be put at the end of a FROM clause that has the source under its name.
pub fn expressions(source: &Source) -> String {
    let Some(expressions) = &source.expressions else { return String::new() };
    let bound = &expressions.bound;
    place_items::know_shadows(bound.view, vec![source.relation], bound.places.clone());
    let name = ident(&source.name);
    let columns: Vec<String> = expressions
        .used
        .iter()
        .map(|c| format!("{name}.{} as {}", c.quoted(), c.quoted()))
        .collect();
    format!(
        "\n cross join lateral (with {} as (select {}) select q.* from {} as q) as {EXPRESSIONS}",
        shadow_name(source.id),
        columns.join(", "),
        bound.name,
    )
}

/// The ordinal of a row of the source, where one was declared, in a statement with [`expressions`].
pub fn ordinal_of_row(source: &Source) -> Option<&'static str> {
    source.ordinal.as_ref().map(|_| "coco_of.ordinal")
}

/// Arguments that a function takes, at most.
const MOST: usize = 100;

/// The content fingerprint of a row of the source, in a statement with [`expressions`].
pub fn fingerprint_of_row(source: &Source) -> String {
    if source.fingerprint.is_some() {
        return format!("coco.fingerprint({EXPRESSIONS}.fingerprint)");
    }
    let columns: Vec<String> = group_columns(source)
        .iter()
        .map(|c| format!("{}.{}", ident(&source.name), c.quoted()))
        .collect();
    if columns.len() <= MOST {
        return format!("coco.fingerprint({})", columns.join(", "));
    }
    let parts: Vec<String> =
        columns.chunks(MOST).map(|part| format!("coco.fingerprint({})", part.join(", "))).collect();
    format!("coco.fingerprint({})", parts.join(", "))
}

/// The tracking columns that hold a source key.
pub fn tracking_keys(source: &Source, alias: &str) -> Vec<String> {
    numbered("k", source.key.len()).iter().map(|k| format!("{alias}.{k}")).collect()
}
