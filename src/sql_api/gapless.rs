//! Changes without a gap in SQL: `coco.swap`, `coco.rollback`, `coco.discard` and `coco.diff`.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::declare::gapless::diff as version_diff;
use crate::declare::gapless::swap as versions;
use crate::pg::error::Error;
use crate::pg::json::Json;
use crate::sql_api::arguments::required_argument;
use crate::sql_api::update::update_version;
use crate::workers::shared_memory;

/// Calls `work` with what a swap needs from this session.
fn with_caller(
    work: impl FnOnce(&versions::SwapCaller) -> Result<(), Error>,
) -> Result<(), ErrorReport> {
    let update = |version: &str| update_version(version, false);
    let announce = shared_memory::announce_cancel;
    Ok(work(&versions::SwapCaller { update: &update, announce })?)
}

#[pg_extern(sql = false)]
fn swap(flow: Option<&str>) -> Result<(), ErrorReport> {
    let flow = required_argument(flow, "flow")?;
    with_caller(|caller| versions::swap(flow, caller))
}

#[pg_extern(sql = false)]
fn rollback(flow: Option<&str>) -> Result<(), ErrorReport> {
    let flow = required_argument(flow, "flow")?;
    with_caller(|caller| versions::roll_back(flow, caller))
}

#[pg_extern(sql = false)]
fn discard(flow: Option<&str>) -> Result<(), ErrorReport> {
    let flow = required_argument(flow, "flow")?;
    Ok(versions::discard(flow, shared_memory::announce_cancel)?)
}

#[pg_extern(sql = false)]
fn diff(
    flow: Option<&str>,
    max_rows: Option<i32>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(difference, String),
            name!(key, Json),
            name!(old, Option<Json>),
            name!(new, Option<Json>),
        ),
    >,
    ErrorReport,
> {
    let flow = required_argument(flow, "flow")?;
    let max_rows = required_argument(max_rows, "max_rows")?;
    if max_rows < 1 {
        return Err(Error::invalid(format!(
            "argument \"max_rows\" ({max_rows}) must be at least 1"
        ))
        .into());
    }
    let found = version_diff::differences(flow, max_rows.into())?;
    Ok(TableIterator::new(found.into_iter().map(|d| (d.difference, d.key, d.old, d.new))))
}
