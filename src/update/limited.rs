//! Runs an update unless it would pass a limit of its flow: `max_rows` or `max_cost`. coco estimates
//! such an update first, and raises an error with the figures before it writes or spends anything.

use pgrx::PgSqlErrorCode;

use crate::catalog::model::Flow;
use crate::flows::cache::RunnableFlow;
use crate::pg::acting_role::RoleGuard;
use crate::pg::error::{Error, Result};
use crate::pg::invalidation;
use crate::pg::spi::{self, arg};
use crate::query::logic_fingerprint;
use crate::update::context::{UpdateContext, UpdateSnapshot};
use crate::update::estimate::figures::Figures;
use crate::update::estimate::{EstimateRequest, estimate_update};
use crate::update::limits::Limits;
use crate::update::run::{UpdateOutcome, run_update};
use crate::update::target_writer::WriteOptions;
use coco_core::decision::Mode;
use coco_core::sampling::Bounds;

/// The number of items of each source that coco evaluates in order to estimate an update.
pub const SAMPLE: u64 = 1000;

/// Updates a flow as [`run_update`] does, unless the update would pass a limit of the flow.
pub fn run_within_limits(
    ready: &RunnableFlow,
    mode: Mode,
    limits: Limits,
    context: UpdateContext,
    snapshot: UpdateSnapshot,
) -> Result<UpdateOutcome> {
    let flow = &ready.flow;
    if flow.max_rows.is_none() && flow.max_cost.is_none() {
        return run_update(ready, mode, limits, context, snapshot);
    }
    let is_allowed = {
        let _now = snapshot.pin();
        is_allowed(flow)?
    };
    let is_continued =
        flow.sources.iter().any(|s| context.has_pending(s) || context.has_finished(s));
    if !is_allowed && !is_continued && !flow.paused && !flow.targets.is_empty() {
        check_limits(ready, mode, limits, context, snapshot)?;
    }
    let outcome = run_update(ready, mode, limits, context, snapshot)?;
    if is_allowed && !outcome.more && outcome.counts().evaluated > 0 {
        end_permission(flow)?;
    }
    Ok(outcome)
}

/// Raises an error if an update would pass a limit of its flow.
fn check_limits(
    ready: &RunnableFlow,
    mode: Mode,
    limits: Limits,
    context: UpdateContext,
    snapshot: UpdateSnapshot,
) -> Result<()> {
    let flow = &ready.flow;
    // Computing the logic reads catalogs, and a worker's transaction has no snapshot yet.
    let now = snapshot.pin();
    let logic = match ready.logic {
        Some(logic) => logic,
        None => logic_fingerprint::known_logic(flow)?,
    };
    drop(now);
    let writing = WriteOptions { mode, logic };
    let changed = None;
    let request =
        EstimateRequest { flow, writing, limits, context, snapshot, sample: SAMPLE, changed };
    let Figures { upserted, deleted, cost, .. } = estimate_update(&request)?;
    if let Some(most) = flow.max_rows
        && upserted.estimate + deleted.estimate > most as f64
    {
        return Err(over_limit(flow, "max_rows").detail(format!(
            "The update would write {} and delete {}; max_rows is {most}.",
            counted_rows(upserted),
            counted_rows(deleted),
        )));
    }
    if let Some(most) = flow.max_cost
        && cost.estimate > most
    {
        return Err(over_limit(flow, "max_cost").detail(format!(
            "The update would cost about {:.6} (from {:.6} to {:.6}); max_cost is {most}.",
            cost.estimate, cost.low, cost.high,
        )));
    }
    Ok(())
}

fn over_limit(flow: &Flow, limit: &str) -> Error {
    Error::new(
        PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
        format!("an update of flow \"{}\" would pass its limit {limit}", flow.name),
    )
    .hint(format!(
        "Call coco.estimate to see all figures. Call coco.allow to let the next update pass the limits, or change {limit} with coco.alter_flow."
    ))
}

/// Returns a number of rows in words, with its bounds unless it is exact.
fn counted_rows(rows: Bounds) -> String {
    match rows.low == rows.high {
        true => format!("{} rows", rows.estimate),
        false => format!("about {} rows (from {} to {})", rows.estimate, rows.low, rows.high),
    }
}

/// Reports whether the next update of a flow may pass the limits.
fn is_allowed(flow: &Flow) -> Result<bool> {
    let _as = RoleGuard::extension_owner()?;
    let allowed = spi::scalar::<bool>(
        "select beyond_limits from coco_internal.flow where id = $1",
        &[arg(flow.id)],
    )?;
    Ok(allowed == Some(true))
}

/// Lets the limits of a flow apply again.
fn end_permission(flow: &Flow) -> Result<()> {
    let acting = RoleGuard::extension_owner()?;
    spi::execute(
        "update coco_internal.flow set beyond_limits = false where id = $1",
        &[arg(flow.id)],
    )?;
    drop(acting);
    invalidation::note_change()
}
