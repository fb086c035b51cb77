//! Composes a flow's query over many items at once.
//!
//! PostgreSQL evaluates the query once per item, and plans the whole statement as one join:
//!
//! ```sql
//! select item.i1, t.*
//!   from (<the items>) as item
//!  cross join lateral (
//!     with coco_source_7 as (select item.u1 as id, item.u2 as body)
//!     select q.* from coco.query_3_docs as q) as t (c1, c2)
//! ```
//!
//! The view keeps the query as it was bound at declaration
//! ([`bound_query`](crate::query::bound_query)). When the statement is analyzed, the view's tree
//! replaces the view, and the CTE's contents replace the source
//! ([`place_items`](crate::query::place_items)). No text here comes from a user; all names are
//! schema-qualified.

use pgrx::pg_sys;

use crate::catalog::group_state::RowValue;
use crate::catalog::model::{BoundView, Flow, GroupState, Source, Target};
use crate::pg::columns::{self, Column, all_equal, all_known, equal_by_nulls, numbered};
use crate::pg::error::{Error, Result};
use crate::pg::spi::ident;
use crate::pg::tuplestore::rows::{self, RowColumn};
use crate::query::group_parts::{AGGREGATE, KEY};
use crate::query::place_items::{self, shadow_name, states_name};
use crate::query::{key_rows, row_local};

/// The item column that contains the item's number in the batch, for calls of memoized functions.
pub const ITEM: &str = "coco_item";

/// The name of that column in the output.
pub const ITEM_NUMBER: &str = "no";

/// The condition that coco evaluates an item `b` of a batch.
pub const TO_EVALUATE: &str = "b.action operator(pg_catalog.=) 'e'::pg_catalog.\"char\"";

/// The set of items that a composed statement covers.
#[derive(Clone, Copy)]
pub enum Items {
    /// All items of the source.
    All,
    /// All items except those whose last evaluation failed.
    Healthy,
    /// The items in the relation `coco_batch` whose action is to evaluate.
    Batch,
    /// As `Batch`, if the batch contains all columns that the query uses: [`carried`].
    Carried,
}

/// Reports whether coco reads the used columns of a source's items together with their
/// fingerprints, because the fingerprints cover exactly these columns. (With a declared ordinal or
/// fingerprint expression, coco reads the used columns only of changed items.)
pub fn carries(source: &Source) -> bool {
    source.ordinal.is_none() && source.fingerprint.is_none()
}

/// Returns the columns that a batch then carries for its items, so that coco does not read the
/// source again: the used columns, or the rows of a group. Each comes with the expression over the
/// source that reads it.
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

/// Composes the SELECT of the items of `source` in `items`: their keys as `i1…`, each with the rows
/// that the query returns for the item as `c1…`. If the flow's queries call memoized functions, the
/// item's number in the batch follows.
pub fn evaluate(flow: &Flow, source: &Source, target: &Target, items: Items) -> Result<String> {
    composed(flow, source, target, items, !flow.memoized.is_empty())
}

/// Composes [`evaluate`] for all items, with the tracked values of each: `ordinal`, and `content`,
/// its fingerprint.
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
        relation = key_rows::rows_relation(source),
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

/// Composes the query over the items that the SELECT `item` returns. `more` adds columns of the
/// items after the query's columns.
fn lateral_sql(
    flow: &Flow,
    source: &Source,
    target: &Target,
    item: &str,
    more: &str,
) -> Result<String> {
    let mut shadows = Vec::new();
    for s in &flow.sources {
        let states = source.groups.as_ref().filter(|_| source.reads_states);
        shadows.push(match (s.id == source.id, states) {
            (true, Some(groups)) => format!("{} as ({})", states_name(s.id), states_sql(groups)),
            (true, None) => format!("{} as ({})", shadow_name(s.id), shadow(source)?),
            (false, _) => format!("{} as ({EMPTY})", shadow_name(s.id)),
        });
    }
    if !flow.memoized.is_empty() {
        // Each memoized call belongs to the item beside it: PostgreSQL must not merge the query
        // with others.
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

/// Returns a comment that distinguishes statements with different bindings: a plan whose calls use
/// the memo differs from one whose calls do not.
fn mark(flow: &Flow, target: &Target) -> String {
    let view = target.query_view().map_or(0, |view| view.to_u32());
    let memoized: Vec<String> = flow.memoized.iter().map(|f| f.oid.to_u32().to_string()).collect();
    format!("/* coco flow {} {view} {} */\n", flow.id, memoized.join(" "))
}

/// Returns the view that keeps a target's query, after allowing composed statements to use it.
fn view_of<'a>(flow: &Flow, target: &'a Target) -> Result<&'a BoundView> {
    let bound = target.bound.as_ref().ok_or_else(|| {
        Error::internal(format!("the query of target {} is not bound", target.shown()))
    })?;
    let relations = flow.sources.iter().map(|s| s.relation).collect();
    place_items::know_shadows(bound.view, relations, bound.places.clone());
    Ok(bound)
}

/// Composes the query over the whole source at once, as `c1…`, if this returns the same rows as an
/// evaluation item by item. PostgreSQL can then plan it as a whole, with parallel processes too.
pub fn single_pass_sql(flow: &Flow, source: &Source, target: &Target) -> Result<Option<String>> {
    if source.grouped || !flow.memoized.is_empty() {
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

/// Returns the FROM item and the WHERE clause for the source's rows. The join with the batch
/// compares keys.
fn rows_of(source: &Source, items: Items) -> (String, String) {
    let keys = source.key_of("s");
    let relation = key_rows::rows_relation(source);
    match items {
        Items::All => (format!("{relation} as s"), String::new()),
        Items::Healthy => {
            let tracked: Vec<String> =
                numbered("k", source.key.len()).iter().map(|k| format!("f.{k}")).collect();
            let same = all_equal(&source.key, &tracked, &keys);
            // A row without a key always fails.
            let known = all_known(&source.key, &keys).map(|known| known + " and ");
            let failing = format!(
                " where {}not exists (select from {} as f where {same} and f.failure is not null)",
                known.unwrap_or_default(),
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

/// Selects items from the batch, which carries all used columns.
fn carried_items(source: &Source, number: Option<&str>) -> String {
    let keys = numbered("b.k", source.key.len()).into_iter().zip(numbered("i", source.key.len()));
    let mut columns: Vec<String> = keys.map(|(k, i)| format!("{k} as {i}")).collect();
    let used = match source.grouped {
        true => vec!["b.u1 as rows".to_owned()],
        false => numbered("u", source.used.len()).iter().map(|u| format!("b.{u}")).collect(),
    };
    columns.extend(used);
    columns.extend(number.map(|number| format!("{number} as {ITEM}")));
    // `offset 0` selects the items first, as in `row_items`.
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
    // With `offset 0`, PostgreSQL selects the items first. It then evaluates no part of the query
    // for other items, which could raise errors. It also computes the columns of a view, which may
    // be expensive (reading a file), only once, however often the query names them.
    let first = if matches!(items, Items::All) { "" } else { " offset 0" };
    format!("select {}\n          from {from}{filter}{first}", columns.join(", "))
}

/// Selects groups, whose rows form an array of records: no index on the key is needed.
fn grouped_items(source: &Source, items: Items, number: Option<&str>) -> String {
    if matches!(items, Items::Batch | Items::Carried) && source.has_nullable_key() {
        return groups_with_null(source, number);
    }
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

/// Selects the groups of a batch, if columns of the key are nullable. Each combination of columns
/// that are NULL has a join of its own, which a hash or an index can serve.
fn groups_with_null(source: &Source, number: Option<&str>) -> String {
    let keys = source.key_of("s");
    let values = group_values(source, "s");
    let (i, u) = (numbered("i", keys.len()), numbered("u", values.len()));
    let named = keys.iter().zip(&i).chain(values.iter().zip(&u));
    let mut columns: Vec<String> =
        named.map(|(value, name)| format!("{value} as {name}")).collect();
    columns.extend(number.map(|number| format!("{number} as {ITEM}")));
    let columns = columns.join(", ");
    let each: Vec<String> = equal_by_nulls(&source.key, &keys, &numbered("b.k", keys.len()))
        .into_iter()
        .map(|alike| {
            format!(
                "select {columns} from coco_batch as b join {relation} as s on {same} and {TO_EVALUATE}",
                relation = key_rows::rows_relation(source),
                same = alike.condition,
            )
        })
        .collect();
    let of = |names: &[String]| -> String {
        names.iter().map(|name| format!("s.{name}")).collect::<Vec<_>>().join(", ")
    };
    let number = number.map_or(String::new(), |_| format!(", pg_catalog.min(s.{ITEM}) as {ITEM}"));
    format!(
        "select {keys}, pg_catalog.array_agg(row({values})) as rows{number}
          from ({rows}) as s
         group by {keys}",
        keys = of(&i),
        values = of(&u),
        rows = each.join("\n union all "),
    )
}

/// Returns the columns in the records of a group: the used columns, or the key if no column is
/// used, so that the rows can still be counted.
fn group_columns(source: &Source) -> &[Column] {
    if source.used.is_empty() { &source.key } else { &source.used }
}

/// Returns expressions for these columns, over a row of the relation with this alias.
fn group_values(source: &Source, alias: &str) -> Vec<String> {
    match source.used.is_empty() {
        true => source.key_of(alias),
        false => source.used.iter().map(|c| format!("{alias}.{}", c.quoted())).collect(),
    }
}

/// The contents of the CTE of a source that is not the item's: no rows. `place_items` adds the
/// columns.
const EMPTY: &str = "select where false";

/// Selects the item, as the rows of the source that the item stands for.
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

/// Selects the state of a group: the columns that the query groups by, and the results of its
/// aggregates.
fn states_sql(groups: &GroupState) -> String {
    let keys = groups.key_places.len();
    let mut columns: Vec<String> = groups
        .key_places
        .iter()
        .zip(numbered("item.u", keys))
        .map(|(place, u)| format!("{u} as {KEY}{}", place + 1))
        .collect();
    let rows = format!("item.u{}", keys + 1);
    // The number of failing rows is between the number of rows and the parts.
    let part = |place: usize| format!("item.u{}", keys + 3 + place);
    for (n, aggregate) in groups.shape.aggregates.iter().enumerate() {
        let result = groups.shape.result_sql(*aggregate, &rows, part);
        columns.push(format!("{result} as {AGGREGATE}{}", n + 1));
    }
    format!("select {}", columns.join(", "))
}

/// The rows of a source that a statement reads for the row part of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowsOf {
    All,
    /// The rows whose keys the relation `coco_rows` contains, as `k1…`.
    Keys,
}

/// Composes the SELECT of what rows contribute to their groups: the row's key, the group, the values,
/// and NULL for the failure. `rows` is the source by its rows. The flow's owner runs the statement.
pub fn contributions_sql(rows: &Source, groups: &GroupState, of: RowsOf) -> String {
    let GroupState { shape, rows: view, used, key, .. } = groups;
    place_items::know_shadows(view.view, vec![rows.relation], view.places.clone());
    let relation = &rows.relation_name;
    let used: Vec<String> = used.iter().map(|c| format!("s.{}", c.quoted())).collect();
    // `offset 0` selects the rows first, as in `row_items`.
    let from = match of {
        RowsOf::All => format!("{relation} as s"),
        RowsOf::Keys => format!(
            "coco_rows as b join {relation} as s on {} offset 0",
            all_equal(&rows.key, &numbered("b.k", rows.key.len()), &rows.key_of("s"))
        ),
    };
    let keys = rows.key.iter().chain(key);
    let mut columns: Vec<String> =
        keys.enumerate().map(|(n, column)| column.as_stored(&format!("q.c{}", n + 1))).collect();
    let first = columns.len() + 1;
    let value = |of: &RowValue| of.conversion.of(&format!("q.c{}", first + of.expression));
    columns.extend(shape.values.iter().map(value));
    columns.push("null::pg_catalog.text".to_owned());
    format!(
        "/* coco rows {} */ with {} as (select {} from {from})\nselect {} from {} as q ({})",
        view.view.to_u32(),
        shadow_name(rows.id),
        used.join(", "),
        columns.join(", "),
        view.name,
        numbered("c", first - 1 + shape.expressions.len()).join(", "),
    )
}

/// The alias of a source's declared expressions in a statement that reads the source.
pub const EXPRESSIONS: &str = "coco_of";

/// Returns a join that evaluates these expressions for each row. The caller appends it to a FROM
/// clause that contains the source under its name.
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

/// Returns the ordinal of a source row, if an ordinal is declared, in a statement with
/// [`expressions`].
pub fn ordinal_of_row(source: &Source) -> Option<&'static str> {
    source.ordinal.as_ref().map(|_| "coco_of.ordinal")
}

/// The largest number of arguments that a function takes.
const MOST: usize = 100;

/// Returns the content fingerprint of a source row, in a statement with [`expressions`].
pub fn fingerprint_of_row(source: &Source) -> String {
    if source.fingerprint.is_some() {
        return format!("coco.fingerprint({EXPRESSIONS}.fingerprint)");
    }
    let columns = group_values(source, &ident(&source.name));
    if columns.len() <= MOST {
        return format!("coco.fingerprint({})", columns.join(", "));
    }
    let parts: Vec<String> =
        columns.chunks(MOST).map(|part| format!("coco.fingerprint({})", part.join(", "))).collect();
    format!("coco.fingerprint({})", parts.join(", "))
}

/// Returns an SQL condition: an outer join has found the tracking row `t` of an item.
pub fn is_tracked_sql(source: &Source) -> String {
    match source.key.iter().position(|k| k.nullable.is_none()) {
        Some(place) => format!("t.k{} is not null", place + 1),
        // A tracking row has a version, a failure or both.
        None => "(t.process_ordinal is not null or t.failure is not null)".to_owned(),
    }
}

/// Returns the tracking columns that contain a source key.
pub fn tracking_keys(source: &Source, alias: &str) -> Vec<String> {
    numbered("k", source.key.len()).iter().map(|k| format!("{alias}.{k}")).collect()
}
