//! Updates a flow: in the caller's transaction, or step by step in transactions of a worker.

pub mod apply_batch;
pub mod backlog;
pub mod candidate_rows;
pub mod candidate_sql;
pub mod catch_up;
pub mod chain;
pub mod constraint_swaps;
pub mod context;
pub mod cursor_cache;
pub mod decide_items;
pub mod detect;
pub mod differences;
pub mod estimate;
pub mod expectations;
pub mod failure_rows;
pub mod full_scan;
pub mod group_rows;
pub mod handover;
pub mod helper_pool;
pub mod initial_load;
pub mod key_conflicts;
pub mod limited;
pub mod limits;
pub mod logged_keys;
pub mod lookups;
pub mod memo_salvage;
pub mod nullable_columns;
pub mod orphans;
pub mod parallel;
pub mod process_keys;
pub mod progress;
pub mod record_failure;
pub mod restore_targets;
pub mod retry_due;
pub mod retry_together;
pub mod run;
pub mod set_aside;
pub mod source_pass;
pub mod source_plan;
pub mod source_work;
pub mod stale_rows;
pub mod target_writer;
pub mod tracking_rows;
pub mod unreadable_items;
pub mod untracked_items;
pub mod upsert;
pub mod write_batch;

use std::time::Instant;

use crate::catalog::relation_locks::PATIENCE;
use crate::catalog::run_history;
use crate::flows::cache;
use crate::pg::clock::now_micros;
use crate::pg::error::Result;
use crate::update::backlog::PendingKeys;
use crate::update::context::{ChunkedUpdate, LiveUpdate, UpdateContext, UpdateSnapshot};
use crate::update::limited::run_within_limits;
use crate::update::limits::Limits;
use crate::update::run::{SourceCounts, UpdateOutcome};
use coco_core::decision::Mode;
use coco_core::run_history::{Initiator, RunEntry};

/// Brings all targets of a flow up to date. Returns the counts for each source.
pub fn update(name: &str, mode: Mode, limits: Limits) -> Result<Vec<SourceCounts>> {
    let (started, began) = (now_micros(), Instant::now());
    let ready = cache::lock_runnable_to_read(name)?;
    let turn =
        run_within_limits(&ready, mode, limits, UpdateContext::Session, UpdateSnapshot::Own)?;
    let entry = RunEntry {
        started,
        elapsed: began.elapsed(),
        reason: turn.reason.unwrap_or_default(),
        initiator: Initiator::Session,
        counts: turn.counts(),
        error: None,
    };
    run_history::note_run(ready.flow.id, &[entry])?;
    Ok(turn.sources)
}

/// Runs a part of an update, in a transaction of its own. The caller repeats it until the outcome
/// has no `more`. Returns `None` if another process has locked the flow and `wait` is `false`.
pub fn update_slice(
    name: &str,
    mode: Mode,
    limits: Limits,
    pending: &PendingKeys,
    wait: bool,
) -> Result<Option<UpdateOutcome>> {
    let ready = match wait {
        true => Some(cache::lock_runnable_to_read(name)?),
        false => cache::runnable_to_read_if_free(name, None)?,
    };
    let context = UpdateContext::Chunked(ChunkedUpdate { pending });
    ready
        .map(|ready| run_within_limits(&ready, mode, limits, context, UpdateSnapshot::Own))
        .transpose()
}

/// Runs one transaction of a live flow's worker. The flow may have been renamed since the worker read
/// its `name`. Returns `None` if another process has locked the flow, or if the flow is no longer
/// live, or has gained or lost a schedule.
pub fn update_live_flow(
    id: i32,
    name: &str,
    mode: Mode,
    limits: Limits,
    live: LiveUpdate,
) -> Result<Option<UpdateOutcome>> {
    match cache::identified_to_read_if_free(id, name, Some(PATIENCE))? {
        Some(ready) if live.fits(&ready.flow) => {
            run_within_limits(&ready, mode, limits, UpdateContext::Live(live), UpdateSnapshot::Own)
                .map(Some)
        }
        _ => Ok(None),
    }
}
