//! The rows of a source together with its key, if expressions belong to the key.
//!
//! The view [`KeyExpressions::bound`] keeps the expressions as they were bound. In the statements
//! here, [`place_items`](crate::query::place_items) puts one row of the source into its tree, and
//! PostgreSQL then merges it with the statement, so that an index on the expression serves a
//! condition on it.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::catalog::model::{KeyExpressions, Source};
use crate::pg::columns::{Column, numbered};
use crate::query::place_items::{self, shadow_name};

/// Returns a FROM item with the rows of a source, without an alias: the relation, or if the key has
/// expressions, a subquery that computes them.
pub fn rows_relation(source: &Source) -> Cow<'_, str> {
    let Some(key) = &source.key_expressions else {
        return Cow::Borrowed(&source.relation_name);
    };
    // Not all columns: the owner may lack the right to read some.
    let columns = source.key.iter().enumerate().filter(|(n, _)| !source.is_expression(*n));
    let columns = columns.map(|(_, column)| column);
    let columns = columns.chain(&source.row_key).chain(&source.used).chain(&key.used);
    let of_expressions = source.expressions.iter().flat_map(|expressions| &expressions.used);
    let columns: BTreeSet<String> =
        columns.chain(of_expressions).map(|c| format!("r.{}", c.quoted())).collect();
    let computed = (0..source.key.len())
        .filter(|n| source.is_expression(*n))
        .map(|n| format!("e.{} as {}", source.key[n].quoted(), source.key_column(n)));
    let columns: Vec<String> = columns.into_iter().chain(computed).collect();
    Cow::Owned(format!(
        "(select {} from {} as r{} as e)",
        columns.join(", "),
        source.relation_name,
        key_of_row(source, key, "r")
    ))
}

/// Returns a join, without an alias, that evaluates the expressions of a key for each row `alias`.
fn key_of_row(source: &Source, key: &KeyExpressions, alias: &str) -> String {
    place_items::know_shadows(key.bound.view, vec![source.relation], key.bound.places.clone());
    let used: Vec<String> =
        key.used.iter().map(|c| format!("{alias}.{0} as {0}", c.quoted())).collect();
    format!(
        " cross join lateral (with {} as (select {}) select q.* from {} as q)",
        shadow_name(source.id),
        used.join(", "),
        key.bound.name,
    )
}

/// Composes the SELECT of the keys of the rows in the relation `coco_logged`, which has the columns
/// [`KeyExpressions::captured`] as `k1…`, and `forced`. The flow's owner runs the statement.
pub fn keys_of_logged_sql(source: &Source, key: &KeyExpressions) -> String {
    // A log stores the values of a domain as those of its base type.
    let typed = |(n, column): (usize, &Column)| {
        let own = key.used.iter().find(|used| used.name == column.name);
        match own {
            Some(own) if own.type_oid != column.type_oid => {
                format!("l.k{}::{} as {}", n + 1, own.type_name, column.quoted())
            }
            _ => format!("l.k{} as {}", n + 1, column.quoted()),
        }
    };
    let logged: Vec<String> = key.captured.iter().enumerate().map(typed).collect();
    let value = |(n, k): (usize, &Column)| match source.is_expression(n) {
        true => k.as_stored(&format!("e.{}", k.quoted())),
        false => k.as_stored(&format!("r.{}", k.quoted())),
    };
    let keys: Vec<String> = source.key.iter().enumerate().map(value).collect();
    let names = numbered("k", keys.len());
    let named: Vec<String> =
        keys.iter().zip(&names).map(|(key, name)| format!("{key} as {name}")).collect();
    format!(
        "select {names}, pg_catalog.bool_or(x.forced)
           from (select {named}, r.forced
                   from (select {logged}, l.forced from coco_logged as l) as r{join} as e) as x
          group by {names} order by {names}",
        named = named.join(", "),
        logged = logged.join(", "),
        join = key_of_row(source, key, "r"),
        names = names.join(", "),
    )
}
