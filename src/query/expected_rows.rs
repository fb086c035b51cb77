//! Composes the expectations of a target into the statements that evaluate its rows, so that coco
//! checks a row in the statement that computes it.
//!
//! ```sql
//! select n.i1, n.c1, …, <the ids of the expectations that the row does not satisfy> as unmet
//!   from (select n.* from (<the evaluation>) as n offset 0) as n
//!  cross join lateral (
//!     with coco_source_7 as (select n.c1 as id, n.c2 as price)
//!     select q.* from coco.expect_7_docs as q) as e7
//! ```
//!
//! A view keeps each condition as it was bound at declaration, over one row of the view of the
//! target's query. [`place_items`](crate::query::place_items) puts the evaluated row in this place.
//! With `offset 0`, PostgreSQL computes each column once, however many conditions name it.

use crate::catalog::model::{Expectation, Flow, Source, Target};
use crate::pg::columns::numbered;
use crate::pg::error::{Error, Result};
use crate::query::compose::{self, ITEM_NUMBER, Items};
use crate::query::place_items::{self, shadow_name};
use coco_core::expectation::UnmetAction;

/// The column of the ids of the expectations that a row does not satisfy; NULL if there are none.
pub const UNMET: &str = "unmet";

/// The column of a view that keeps a condition.
pub const CONDITION: &str = "condition";

/// Composes [`compose::evaluate`] with the column [`UNMET`] after the columns `c1…`, if the target
/// has expectations.
pub fn evaluate_checked(
    flow: &Flow,
    source: &Source,
    target: &Target,
    items: Items,
) -> Result<String> {
    let evaluated = compose::evaluate(flow, source, target, items)?;
    if target.expectations.is_empty() {
        return Ok(evaluated);
    }
    Ok(format!(
        "{mark}select {columns}, {unmet} as {UNMET}{number}\n  from {rows}",
        mark = mark(target),
        columns = columns(source, target).join(", "),
        unmet = unmet_sql(&target.expectations.iter().collect::<Vec<_>>()),
        number = number(flow),
        rows = rows_with_conditions(target, &evaluated, |_| true)?,
    ))
}

/// Composes [`compose::evaluate`] without the rows that coco parks: the rows that the target should
/// contain.
pub fn evaluate_unparked(
    flow: &Flow,
    source: &Source,
    target: &Target,
    items: Items,
) -> Result<String> {
    let evaluated = compose::evaluate(flow, source, target, items)?;
    let parks = |e: &Expectation| e.action == UnmetAction::Park;
    if !target.expectations.iter().any(parks) {
        return Ok(evaluated);
    }
    let met: Vec<String> = target.expectations.iter().filter(|e| parks(e)).map(is_met).collect();
    Ok(format!(
        "{mark}select {columns}{number}\n  from {rows}\n where {met}",
        mark = mark(target),
        columns = columns(source, target).join(", "),
        number = number(flow),
        rows = rows_with_conditions(target, &evaluated, parks)?,
        met = met.join(" and "),
    ))
}

/// Composes the rows of `evaluated` for the initial load: with the column [`UNMET`] after the other
/// columns, if the target has expectations that park rows or warn. The SELECT raises an error
/// (division by zero) if an expectation makes an item fail. The initial load then leaves the items
/// to an update by batches.
pub fn evaluate_at_once(target: &Target, evaluated: String) -> Result<String> {
    if target.expectations.is_empty() {
        return Ok(evaluated);
    }
    let fails = |e: &&Expectation| e.action == UnmetAction::Fail;
    let (failing, others): (Vec<&Expectation>, Vec<&Expectation>) =
        target.expectations.iter().partition(fails);
    let met: Vec<String> = failing.into_iter().map(is_met).collect();
    let filter = match met.is_empty() {
        true => String::new(),
        false => format!(
            "\n where (1 operator(pg_catalog./) ({})::pg_catalog.int4) operator(pg_catalog.=) 1",
            met.join(" and ")
        ),
    };
    // With `offset 0`, PostgreSQL computes the list once, however many expressions name it.
    let (unmet, once) = match others.is_empty() {
        true => (String::new(), ""),
        false => (format!(", {} as {UNMET}", unmet_sql(&others)), " offset 0"),
    };
    Ok(format!(
        "{mark}select n.*{unmet}\n  from {rows}{filter}{once}",
        mark = mark(target),
        rows = rows_with_conditions(target, &evaluated, |_| true)?,
    ))
}

/// Returns a comment that distinguishes statements with different conditions.
fn mark(target: &Target) -> String {
    let views = target.expectations.iter().filter_map(|e| e.bound.as_ref());
    let views: Vec<String> = views.map(|bound| bound.view.to_u32().to_string()).collect();
    format!("/* coco expectations {} */\n", views.join(" "))
}

/// Returns the columns of the evaluation's output.
fn columns(source: &Source, target: &Target) -> Vec<String> {
    [numbered("n.i", source.key.len()), numbered("n.c", target.columns.len())].concat()
}

/// Returns the item's number as a further column, if the evaluation has it.
fn number(flow: &Flow) -> String {
    match flow.memoized.is_empty() {
        true => String::new(),
        false => format!(", n.{ITEM_NUMBER}"),
    }
}

/// Returns the FROM items of a statement: the evaluated rows `n`, each with the values of these
/// conditions.
fn rows_with_conditions(
    target: &Target,
    evaluated: &str,
    takes: impl Fn(&Expectation) -> bool,
) -> Result<String> {
    let mut from = format!("(select n.* from ({evaluated}) as n offset 0) as n");
    let lost =
        || Error::internal(format!("an expectation of target {} is not bound", target.shown()));
    let row = target.query_view().ok_or_else(lost)?;
    let columns: Vec<String> = numbered("n.c", target.columns.len())
        .into_iter()
        .zip(&target.columns)
        .map(|(value, column)| format!("{value} as {}", column.quoted()))
        .collect();
    for expectation in target.expectations.iter().filter(|e| takes(e)) {
        let bound = expectation.bound.as_ref().ok_or_else(lost)?;
        place_items::know_shadows(bound.view, vec![row], bound.places.clone());
        from.push_str(&format!(
            "\n cross join lateral (with {} as (select {}) select q.* from {} as q) as {}",
            shadow_name(expectation.id),
            columns.join(", "),
            bound.name,
            alias(expectation),
        ));
    }
    Ok(from)
}

fn alias(expectation: &Expectation) -> String {
    format!("e{}", expectation.id)
}

/// Returns an SQL condition: the row satisfies the expectation. NULL satisfies it, as it satisfies
/// a CHECK constraint.
fn is_met(expectation: &Expectation) -> String {
    format!("{}.{CONDITION} is not false", alias(expectation))
}

/// Returns an expression for the ids of the expectations that a row does not satisfy.
fn unmet_sql(expectations: &[&Expectation]) -> String {
    let is_unmet = |e: &Expectation| format!("{}.{CONDITION} is false", alias(e));
    if let [only] = expectations {
        let unmet = is_unmet(only);
        return format!("case when {unmet} then array[{}]::pg_catalog.int4[] end", only.id);
    }
    let any: Vec<String> = expectations.iter().map(|e| is_unmet(e)).collect();
    let each: Vec<String> = expectations
        .iter()
        .map(|e| format!("case when {} then {} end", is_unmet(e), e.id))
        .collect();
    format!(
        "case when {} then pg_catalog.array_remove(array[{}]::pg_catalog.int4[], null::pg_catalog.int4) end",
        any.join(" or "),
        each.join(", "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expectation(id: i32) -> Expectation {
        Expectation {
            id,
            name: format!("rule {id}"),
            condition: "price > 0".to_owned(),
            action: UnmetAction::Park,
            max_share: None,
            bound: None,
        }
    }

    #[test]
    fn one_condition_needs_no_list() {
        assert_eq!(
            unmet_sql(&[&expectation(7)]),
            "case when e7.condition is false then array[7]::pg_catalog.int4[] end"
        );
    }

    #[test]
    fn several_conditions_are_evaluated_before_the_list_is_built() {
        let sql = unmet_sql(&[&expectation(7), &expectation(8)]);
        let both = "case when e7.condition is false or e8.condition is false then ";
        assert!(sql.starts_with(both), "{sql}");
        assert!(sql.contains("case when e8.condition is false then 8 end"), "{sql}");
    }
}
