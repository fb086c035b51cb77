//! The SQL functions `coco.update`, `coco.update_all` and `coco.retry`.

use pgrx::datum::Interval;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::collections::BTreeMap;

use crate::catalog::flow_rows;
use crate::declare::gapless::swap::{self, SwapCaller};
use crate::flows::{cache, live_rows, paused};
use crate::pg::checked_version::CheckedVersion;
use crate::pg::error::Error;
use crate::pg::json::Json;
use crate::sql_api::arguments::{array_elements, required_argument};
use crate::update::chain::FlowCounts;
use crate::update::run::SourceCounts;
use crate::update::{self, limits};
use crate::workers::progress::Watched;
use crate::workers::{commit_wakeup, ordered_update, session_errors, shared_memory, update_client};
use coco_core::counts::Counts;
use coco_core::decision::Mode;
use coco_core::memo_batch::Stats;
use coco_core::worker_request::WorkerCommand;

#[pg_extern(sql = false)]
fn update(
    _version: CheckedVersion,
    flow: Option<&str>,
    mode: Option<&str>,
    upstream: Option<bool>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(source, String),
            name!(seen, i64),
            name!(skipped, i64),
            name!(unchanged, i64),
            name!(evaluated, i64),
            name!(upserted, i64),
            name!(deleted, i64),
            name!(failed, i64),
            name!(elapsed, Interval),
            name!(memo, Option<Json>),
            name!(flow_name, String),
        ),
    >,
    ErrorReport,
> {
    let flow = required_argument(flow, "flow")?;
    let mode = parse_mode(flow, required_argument(mode, "mode")?)?;
    let updated = match required_argument(upstream, "upstream")? {
        true => {
            let limits = limits::configured_limits();
            let all = ordered_update::update_with_upstream(flow, mode, limits)?;
            for updated in &all {
                let mode = if updated.flow == flow { mode } else { Mode::Normal };
                follow_versions(updated.id, mode)?;
            }
            all
        }
        false => vec![run(flow, mode)?],
    };
    Ok(TableIterator::new(rows(updated).map(|(flow, r)| {
        let c = r.counts;
        (
            r.source,
            c.seen,
            c.skipped,
            c.unchanged,
            c.evaluated,
            c.upserted,
            c.deleted,
            c.failed,
            r.elapsed,
            r.memo,
            flow,
        )
    })))
}

#[pg_extern(sql = false)]
fn retry(
    flow: Option<&str>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(source, String),
            name!(seen, i64),
            name!(skipped, i64),
            name!(unchanged, i64),
            name!(evaluated, i64),
            name!(upserted, i64),
            name!(deleted, i64),
            name!(failed, i64),
            name!(elapsed, Interval),
            name!(memo, Option<Json>),
        ),
    >,
    ErrorReport,
> {
    let flow = required_argument(flow, "flow")?;
    Ok(TableIterator::new(rows(vec![run(flow, Mode::Retry)?]).map(|(_, r)| {
        let c = r.counts;
        (
            r.source,
            c.seen,
            c.skipped,
            c.unchanged,
            c.evaluated,
            c.upserted,
            c.deleted,
            c.failed,
            r.elapsed,
            r.memo,
        )
    })))
}

#[pg_extern(sql = false)]
fn update_all(
    flows: Option<Vec<Option<String>>>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(flow, String),
            name!(source, String),
            name!(seen, i64),
            name!(skipped, i64),
            name!(unchanged, i64),
            name!(evaluated, i64),
            name!(upserted, i64),
            name!(deleted, i64),
            name!(failed, i64),
            name!(elapsed, Interval),
            name!(memo, Option<Json>),
        ),
    >,
    ErrorReport,
> {
    let flows = array_elements(flows, "flows")?;
    let updated = ordered_update::update_all(flows, limits::configured_limits())?;
    updated.iter().try_for_each(|updated| follow_versions(updated.id, Mode::Normal))?;
    Ok(TableIterator::new(rows(updated).map(|(flow, r)| {
        let c = r.counts;
        (
            flow,
            r.source,
            c.seen,
            c.skipped,
            c.unchanged,
            c.evaluated,
            c.upserted,
            c.deleted,
            c.failed,
            r.elapsed,
            r.memo,
        )
    })))
}

/// The part of a result row that all functions share: the counts of one source.
struct CountsRow {
    source: String,
    counts: Counts,
    elapsed: Interval,
    memo: Option<Json>,
}

/// Returns the rows of the result, each with the name of its flow.
/// Returns the result rows of an update. Workers of live flows retry the items that have failed.
fn rows(all: Vec<FlowCounts>) -> impl Iterator<Item = (String, CountsRow)> {
    if all.iter().flat_map(|flow| &flow.sources).any(|source| source.counts.failed > 0) {
        commit_wakeup::at_commit();
    }
    let row = |r: SourceCounts| CountsRow {
        source: r.source,
        counts: r.counts,
        elapsed: Interval::from_micros(r.elapsed.as_micros() as i64),
        memo: memo(r.memo),
    };
    all.into_iter().flat_map(move |FlowCounts { flow, sources, .. }| {
        sources.into_iter().map(move |source| (flow.clone(), row(source)))
    })
}

/// Updates a flow, and then its versions. If a new version is ready, it replaces the flow.
fn run(flow: &str, mode: Mode) -> Result<FlowCounts, Error> {
    let updated = update_flow(flow, mode)?;
    follow_versions(updated.id, mode)?;
    Ok(updated)
}

/// Updates the versions of a flow that this session has just updated. If a new version is ready, it
/// replaces the flow.
fn follow_versions(flow: i32, mode: Mode) -> Result<(), Error> {
    let retries = mode == Mode::Retry;
    let update = |version: &str| update_version(version, retries);
    let caller = SwapCaller { update: &update, announce: shared_memory::announce_cancel };
    swap::follow_versions(flow, &caller, !retries)
}

/// Brings a version of a flow up to date, and returns the number of failed items.
pub fn update_version(flow: &str, retries: bool) -> Result<i64, Error> {
    let mode = if retries { Mode::Retry } else { Mode::Normal };
    let updated = update_flow(flow, mode)?;
    Ok(updated.sources.iter().map(|source| source.counts.failed).sum())
}

fn update_flow(flow: &str, mode: Mode) -> Result<FlowCounts, Error> {
    let limits = limits::configured_limits();
    // A worker runs the update if the flow has external targets, because coco delivers rows only
    // after commit. A worker also runs it if the flow calls providers, because coco must keep
    // answers that were paid for even if the caller's transaction is rolled back.
    let (id, reaches_out) = {
        let ready = cache::runnable_flow(flow).inspect_err(|error| {
            // Fails for callers without rights on the flow, whose errors are nobody's.
            if let Ok(known) = flow_rows::identify_flow(flow) {
                session_errors::keep_error(known.id, error);
            }
        })?;
        paused::check_not_paused(&ready.flow)?;
        (ready.flow.id, ready.flow.is_external() || ready.flow.asks_providers())
    };
    let _watched = Watched::begin(id, flow, !reaches_out);
    let sources = session_errors::watch_update(id, || match reaches_out {
        true => update_client::run_in_worker(flow, WorkerCommand::Update(mode), limits),
        false => update::update(flow, mode, limits),
    })?;
    if mode == Mode::Retry {
        live_rows::lift_suspension(id)?;
    }
    Ok(FlowCounts { flow: flow.to_owned(), id, sources })
}

/// Returns the statistics of memoized functions as an object, or `None` if no memoized function was
/// called.
fn memo(stats: BTreeMap<String, Stats>) -> Option<Json> {
    let of = |s: &Stats| {
        serde_json::json!({
            "calls": s.calls, "hits": (s.calls - s.misses).max(0), "reused": s.reused,
            "misses": s.misses, "errors": s.errors, "requests": s.requests,
            "tokens_in": s.tokens_in, "tokens_out": s.tokens_out, "cost": s.cost,
            "bytes": s.bytes, "milliseconds": s.micros / 1000,
        })
    };
    let all: serde_json::Map<_, _> = stats.iter().map(|(name, s)| (name.clone(), of(s))).collect();
    (!all.is_empty()).then(|| Json::from(serde_json::Value::Object(all)))
}

/// Converts the argument `mode` of `coco.update` and `coco.preview`. The argument `flow`, which
/// comes first, serves the hint.
pub fn parse_mode(flow: &str, mode: &str) -> Result<Mode, Error> {
    Mode::from_name(mode).ok_or_else(|| {
        let values = "Valid values are normal, retry, full_reprocess, refresh and reexport.";
        let error = Error::invalid(format!("unrecognized value for argument \"mode\": \"{mode}\""));
        match Mode::from_name(flow) {
            None => error.hint(values),
            Some(_) => error
                .hint(format!("Swap the arguments: the flow comes first, then the mode. {values}")),
        }
    })
}
