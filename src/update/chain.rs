//! Updates several flows in one transaction, each after the flows that feed it.
//!
//! All of the updates read the sources under one snapshot, which also sees what the earlier updates
//! have written. A reader of the targets therefore sees all of them as of the same moment.

use std::time::Instant;

use crate::catalog::relation_locks::PATIENCE;
use crate::catalog::{locks, run_history};
use crate::flows::cache;
use crate::pg::clock::now_micros;
use crate::pg::error::{Error, Result};
use crate::pg::error_context;
use crate::pg::invalidation;
use crate::pg::snapshot::PinnedSnapshot;
use crate::update::context::{LiveUpdate, UpdateContext, UpdateSnapshot};
use crate::update::limited::run_within_limits;
use crate::update::limits::Limits;
use crate::update::run::{SourceCounts, UpdateOutcome, logic_changed_error};
use coco_core::decision::Mode;
use coco_core::run_history::{Initiator, RunEntry};

/// A flow to update, and how.
#[derive(Clone, Copy)]
pub struct FlowToUpdate<'a> {
    pub name: &'a str,
    pub id: i32,
    pub mode: Mode,
}

/// The counts of one flow of several.
pub struct FlowCounts {
    pub flow: String,
    pub id: i32,
    pub sources: Vec<SourceCounts>,
}

/// Brings flows up to date in the caller's transaction, in the given order. Returns the counts of
/// each. `begin` is called before each flow; coco drops what it returns when the flow is done.
pub fn update_together<T>(
    flows: &[FlowToUpdate],
    limits: Limits,
    begin: impl Fn(&FlowToUpdate) -> T,
) -> Result<Vec<FlowCounts>> {
    lock_all(flows)?;
    let since = invalidation::invalidation_count();
    let _snapshot = PinnedSnapshot::take();
    let snapshot = UpdateSnapshot::Shared { since };
    let mut all = Vec::with_capacity(flows.len());
    for flow in flows {
        let _watched = begin(flow);
        let (started, began) = (now_micros(), Instant::now());
        let update = || {
            let ready = cache::runnable_to_read(flow.name, None)?;
            // Another flow may have this name since the caller found it.
            if ready.flow.id != flow.id {
                return Err(logic_changed_error(&ready.flow));
            }
            run_within_limits(&ready, flow.mode, limits, UpdateContext::Session, snapshot)
        };
        let line = format!("Flow \"{}\" was being updated.", flow.name);
        let outcome = error_context::with_detail_line(&line, update)
            .map_err(|error| of_flow(flow.name, error))?;
        let entry = RunEntry {
            started,
            elapsed: began.elapsed(),
            reason: outcome.reason.unwrap_or_default(),
            initiator: Initiator::Session,
            counts: outcome.counts(),
            error: None,
        };
        run_history::note_run(flow.id, &[entry])?;
        all.push(FlowCounts { flow: flow.name.to_owned(), id: flow.id, sources: outcome.sources });
    }
    Ok(all)
}

/// Locks flows against other updates and changes, and the relations that they read against
/// rewrites. Every session locks flows in the order of their numbers, so that two sessions do not
/// wait for each other.
fn lock_all(flows: &[FlowToUpdate]) -> Result<()> {
    let mut ids: Vec<i32> = flows.iter().map(|flow| flow.id).collect();
    ids.sort_unstable();
    ids.into_iter().try_for_each(locks::lock_flow)?;
    flows.iter().try_for_each(|flow| {
        cache::runnable_to_read(flow.name, None).map(drop).map_err(|e| of_flow(flow.name, e))
    })
}

/// Names the flow in an error, unless the error does so.
pub fn of_flow(flow: &str, error: Error) -> Error {
    let named = format!("flow \"{flow}\"");
    match error.message.contains(&named) {
        true => error,
        false => Error { message: format!("{named}: {}", error.message), ..error },
    }
}

/// A live flow of a chain, in the memory of a worker.
pub struct LiveChainFlow<'a> {
    pub name: &'a str,
    pub id: i32,
    pub live: LiveUpdate<'a>,
}

/// The result of a transaction for a chain.
pub enum ChainOutcome {
    /// The outcome of each flow.
    Done(Vec<UpdateOutcome>),
    /// Another process has locked one of the flows, or one of them is no longer live, or has gained or
    /// lost a schedule.
    Busy,
    /// The flow at this position cannot share a transaction: it has external targets or calls
    /// providers.
    RunsAlone(usize),
}

/// Runs one transaction of a worker for live flows that feed each other, in the given order. `begin`
/// is called with the position of each flow before its update.
pub fn update_live_chain(
    flows: &[LiveChainFlow],
    limits: Limits,
    begin: impl Fn(usize),
) -> Result<ChainOutcome> {
    for flow in flows {
        if !locks::lock_flow_if_free(flow.id)? {
            return Ok(ChainOutcome::Busy);
        }
    }
    for (at, flow) in flows.iter().enumerate() {
        let ready = cache::runnable_to_read(flow.name, Some(PATIENCE))?;
        if ready.flow.id != flow.id || !flow.live.fits(&ready.flow) {
            return Ok(ChainOutcome::Busy);
        }
        if ready.flow.is_external() || ready.flow.asks_providers() {
            return Ok(ChainOutcome::RunsAlone(at));
        }
    }
    let since = invalidation::invalidation_count();
    let _snapshot = PinnedSnapshot::take();
    let snapshot = UpdateSnapshot::Shared { since };
    let mut outcomes = Vec::with_capacity(flows.len());
    for (at, flow) in flows.iter().enumerate() {
        begin(at);
        let ready = cache::runnable_to_read(flow.name, Some(PATIENCE))?;
        let context = UpdateContext::Live(flow.live);
        outcomes.push(run_within_limits(&ready, Mode::Normal, limits, context, snapshot)?);
    }
    Ok(ChainOutcome::Done(outcomes))
}
