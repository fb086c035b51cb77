//! The SQL functions `coco.estimate` and `coco.allow`.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::declare::allow;
use crate::inspect::estimate::{self, NewQuery};
use crate::pg::error::Error;
use crate::sql_api::arguments::required_argument;
use crate::sql_api::update::parse_mode;
use crate::update::limits;
use crate::workers::commit_wakeup;

/// The smallest sample: with fewer items, the bounds would say nothing.
const SMALLEST: i32 = 100;

#[pg_extern(sql = false)]
fn estimate(
    flow: Option<&str>,
    query: Option<&str>,
    target: Option<&str>,
    item: Option<&str>,
    mode: Option<&str>,
    sample: Option<i32>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(measure, String),
            name!(estimate, f64),
            name!(low, f64),
            name!(high, f64),
            name!(unit, String),
            name!(basis, String),
        ),
    >,
    ErrorReport,
> {
    let flow = required_argument(flow, "flow")?;
    let mode = parse_mode(flow, required_argument(mode, "mode")?)?;
    let sample = required_argument(sample, "sample")?;
    if sample < SMALLEST {
        return Err(Error::invalid(format!(
            "argument \"sample\" ({sample}) must be at least {SMALLEST}"
        ))
        .into());
    }
    let new = match (query, target.or(item)) {
        (Some(query), _) => Some(NewQuery { target, query, item }),
        (None, None) => None,
        (None, Some(_)) => {
            return Err(Error::invalid(
                "arguments \"target\" and \"item\" require argument \"query\"",
            )
            .hint("Leave them out to estimate the next update of the flow as it is.")
            .into());
        }
    };
    let limits = limits::configured_limits();
    let figures = estimate::estimate(flow, new, mode, sample as u64, limits)?;
    Ok(TableIterator::new(figures.into_iter().map(|figure| {
        let value = figure.value;
        (
            figure.measure.to_owned(),
            value.estimate,
            value.low,
            value.high,
            figure.unit.to_owned(),
            figure.basis,
        )
    })))
}

#[pg_extern(sql = false)]
fn allow(flow: Option<&str>) -> Result<(), ErrorReport> {
    let flow = required_argument(flow, "flow")?;
    if allow::allow(flow)? {
        commit_wakeup::at_commit();
    }
    Ok(())
}
