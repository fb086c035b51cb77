//! The views that keep the conditions of expectations as coco evaluates them: each over one row of
//! the view of the target's query.

use crate::catalog::expectation_rows::{self, NewExpectation};
use crate::catalog::model::{Expectation, Flow, Target};
use crate::catalog::{object_comments, object_names, objects};
use crate::pg::acting_role::RoleGuard;
use crate::pg::columns;
use crate::pg::error::{Error, Result};
use crate::pg::spi::{self, ident};
use crate::query::bound_query::{self, Bound};
use crate::query::expected_rows::CONDITION;
use crate::query::{condition, declared_text, syntax, used_columns};
use pgrx::pg_sys;

/// The beginning of the views' names.
const VIEW: &str = "expect";

/// Stands for the id of the expectation until the catalog assigns one.
const NEW: i32 = -1;

/// The longest name of a relation.
const LONGEST: usize = 63;

/// Checks a condition, and binds it over one row of a target.
pub fn bind_condition(flow: &Flow, target: &Target, text: &str) -> Result<Bound> {
    bind_over(flow, target, row_name(target), text)
}

/// Binds a condition that calls the row of the target by this name.
fn bind_over(flow: &Flow, target: &Target, row: &str, text: &str) -> Result<Bound> {
    let _as = RoleGuard::flow_owner(flow.owner, &flow.settings)?;
    syntax::one_expression(CONDITION, text).map_err(|error| Error {
        message: "argument \"condition\" must be one expression over the target's columns"
            .to_owned(),
        hint: Some("Write, for example, price > 0.".to_owned()),
        ..error
    })?;
    let named = used_columns::named(NEW, row, query_view(target)?)?;
    let sql = format!("select (\n{text}\n) as {CONDITION} from {}", ident(&named.name));
    let bound = bound_query::bind_query(CONDITION, &sql, &[named], None)?;
    condition::check_condition(&bound)?;
    Ok(bound)
}

/// Returns the name by which a condition may refer to the row.
fn row_name(target: &Target) -> &str {
    match &target.external {
        Some(external) if external.name.len() > LONGEST => "target",
        Some(external) => &external.name,
        None => &target.name,
    }
}

fn query_view(target: &Target) -> Result<pg_sys::Oid> {
    target.query_view().ok_or_else(|| {
        Error::new(
            pgrx::PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("the query of target {} reads an object that was dropped", target.shown()),
        )
        .hint("Give the target a matching query with coco.set_query.")
    })
}

/// Creates the view of an expectation's bound condition, and stores it in the catalog.
pub fn create_condition_view(flow: &Flow, id: i32, name: &str, bound: &Bound) -> Result<()> {
    let column =
        columns::result_column(CONDITION.to_owned(), pg_sys::BOOLOID, -1, pg_sys::InvalidOid)?;
    let view = objects::create_bound_view(
        &object_names::object_name(VIEW, id, &flow.name),
        flow.owner,
        &[column],
        bound.tree,
        &object_comments::condition_comment(&flow.name, name),
    )?;
    expectation_rows::store_condition_view(id, view)
}

/// Drops the view of an expectation's condition, if it exists.
pub fn drop_condition_view(expectation: &Expectation) -> Result<()> {
    let Some(bound) = &expectation.bound else { return Ok(()) };
    let _as = RoleGuard::extension_owner()?;
    spi::execute(&format!("drop view {}", bound.name), &[])?;
    Ok(())
}

/// Returns a text that declares the condition of an expectation over the columns of its target, as
/// it is bound. Its names are qualified.
pub fn condition_text(flow: &Flow, target: &Target, expectation: &Expectation) -> Result<String> {
    let (Some(bound), Some(row)) = (&expectation.bound, target.query_view()) else {
        return Ok(expectation.condition.clone());
    };
    // Constants are written by the output functions of their types.
    let _as = RoleGuard::flow_owner(flow.owner, &flow.settings)?;
    let text = declared_text::column_text(bound, CONDITION, row_name(target), row, false)?;
    Ok(text.unwrap_or_else(|| expectation.condition.clone()))
}

/// An expectation whose view was dropped, and the text of its condition.
pub struct UnboundExpectation {
    id: i32,
    name: String,
    text: String,
}

/// Drops the views of a target's expectations, so that the view of its query can be replaced.
pub fn unbind_expectations(flow: &Flow, target: &Target) -> Result<Vec<UnboundExpectation>> {
    let mut unbound = Vec::new();
    for expectation in &target.expectations {
        let text = condition_text(flow, target, expectation)?;
        drop_condition_view(expectation)?;
        unbound.push(UnboundExpectation {
            id: expectation.id,
            name: expectation.name.clone(),
            text,
        });
    }
    Ok(unbound)
}

/// Binds the conditions of a target's expectations to the new view of its query.
pub fn bind_again(flow: &Flow, target: &Target, unbound: &[UnboundExpectation]) -> Result<()> {
    for expectation in unbound {
        let bound = bind_condition(flow, target, &expectation.text)
            .map_err(|error| does_not_fit(target, &expectation.name, error))?;
        create_condition_view(flow, expectation.id, &expectation.name, &bound)?;
    }
    Ok(())
}

/// Gives a target of another flow the expectations of a target.
pub fn copy_expectations(from: &Target, flow: &Flow, to: &Target) -> Result<()> {
    for expectation in &from.expectations {
        let text = condition_text(flow, from, expectation)?;
        let bound = bind_over(flow, to, row_name(from), &text)
            .map_err(|error| does_not_fit(from, &expectation.name, error))?;
        let id = expectation_rows::store_expectation(&NewExpectation {
            target: to.id,
            name: &expectation.name,
            condition: &expectation.condition,
            action: expectation.action,
            max_share: expectation.max_share,
        })?;
        create_condition_view(flow, id, &expectation.name, &bound)?;
    }
    Ok(())
}

fn does_not_fit(target: &Target, name: &str, error: Error) -> Error {
    Error::new(
        error.code,
        format!("expectation \"{name}\" of target {} does not fit the query", target.shown()),
    )
    .detail(format!("PostgreSQL reports: {}.", error.message))
    .hint("Return the columns that the condition uses, or drop the expectation with coco.drop_expectation.")
}
