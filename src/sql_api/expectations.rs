//! Expectations in SQL: `coco.expect`, `coco.drop_expectation`, and the rows of
//! `coco.expectations`.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::declare::expect as declared;
use crate::declare::expect::DeclaredExpectation;
use crate::inspect::expectations as shown;
use crate::sql_api::arguments::required_argument;

#[pg_extern(sql = false)]
fn expect(
    flow: Option<&str>,
    condition: Option<&str>,
    action: Option<&str>,
    max_share: Option<f64>,
    name: Option<&str>,
    target: Option<&str>,
) -> Result<(), ErrorReport> {
    let flow = required_argument(flow, "flow")?;
    let expectation = DeclaredExpectation {
        condition: required_argument(condition, "condition")?,
        action: required_argument(action, "action")?,
        max_share,
        name,
        target,
    };
    Ok(declared::expect(flow, &expectation)?)
}

#[pg_extern(sql = false)]
fn drop_expectation(
    flow: Option<&str>,
    name: Option<&str>,
    target: Option<&str>,
) -> Result<(), ErrorReport> {
    let flow = required_argument(flow, "flow")?;
    let name = required_argument(name, "name")?;
    Ok(declared::drop_expectation(flow, name, target)?)
}

/// Returns the rows of the view `coco.expectations`.
#[pg_extern(sql = false)]
fn expectation_rows() -> Result<
    TableIterator<
        'static,
        (
            name!(flow, String),
            name!(target, String),
            name!(name, String),
            name!(condition, String),
            name!(action, String),
            name!(max_share, Option<f64>),
            name!(checked, i64),
            name!(failed, i64),
            name!(parked, Option<i64>),
        ),
    >,
    ErrorReport,
> {
    let rows = shown::expectations()?;
    Ok(TableIterator::new(rows.into_iter().map(|e| {
        (
            e.flow,
            e.target,
            e.name,
            e.condition,
            e.action,
            e.max_share,
            e.checked,
            e.failed,
            e.parked,
        )
    })))
}
