//! Live flows in SQL: `start`, `stop`, `wait`, and the functions behind the views of workers,
//! progress and pending changes.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::catalog::{locks, restored};
use crate::declare::live;
use crate::inspect::{pending, schedules, views};
use crate::pg::error::Error;
use crate::pg::{backend, clock};
use crate::sql_api::arguments::required_argument;
use crate::update::catch_up::ChainWait;
use crate::workers::process::{self, ServeOutcome};
use crate::workers::session_errors;
use crate::workers::shared_memory;
use crate::workers::wait_event::WaitEvent;

#[pg_extern(sql = false)]
fn start(flow: Option<&str>) -> Result<(), ErrorReport> {
    let flow = required_argument(flow, "flow")?;
    session_errors::forget_error(live::start_flow(flow)?);
    serve(flow);
    Ok(())
}

/// Ensures that a worker keeps a live flow up to date. Raises a NOTICE or a WARNING if the worker
/// will not survive a restart or cannot start.
pub fn serve(flow: &str) {
    let taken = |seat| locks::is_worker_slot_taken(seat).unwrap_or(false);
    match process::serve_database(taken) {
        ServeOutcome::Launcher => {}
        ServeOutcome::DynamicWorker => ereport!(
            PgLogLevel::NOTICE,
            PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
            format!("flow \"{flow}\" is live until the server restarts"),
            "coco is not in shared_preload_libraries. Its worker looks for changes every 100 ms, and after a restart of the server it does not run until coco.start is called again."
        ),
        ServeOutcome::Nobody => ereport!(
            PgLogLevel::WARNING,
            PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
            format!("could not start a worker for flow \"{flow}\""),
            "The flow is live, but all worker processes are in use. Increase max_worker_processes, and call coco.start again."
        ),
    }
}

#[pg_extern(sql = false)]
fn stop(flow: Option<&str>) -> Result<(), ErrorReport> {
    let flow = required_argument(flow, "flow")?;
    Ok(live::stop_flow(flow, shared_memory::announce_cancel)?)
}

/// Waits until the targets contain all changes committed before the call, also those that pass
/// through other flows. Returns `false` if the timeout expires first.
#[pg_extern(sql = false)]
fn wait(flow: Option<&str>, timeout: Option<Interval>) -> Result<bool, ErrorReport> {
    let flow = required_argument(flow, "flow")?;
    let timeout = required_argument(timeout, "timeout")?.as_micros();
    if timeout < 0 {
        return Err(Error::invalid("argument \"timeout\" is negative")
            .hint("Use '0' to look once without waiting.")
            .into());
    }
    let mut waiting = ChainWait::begin(flow)?;
    let began = std::time::Instant::now();
    let timeout = std::time::Duration::from_micros(timeout.min(i64::MAX.into()) as u64);
    let mut pause = std::time::Duration::from_millis(2);
    loop {
        let left = timeout.saturating_sub(began.elapsed());
        if waiting.has_ended(left)? {
            return Ok(true);
        }
        if left.is_zero() {
            return Ok(false);
        }
        process::pause(pause.min(left), WaitEvent::CatchUp);
        // Grows, because each check costs the worker time.
        pause = (pause * 3 / 2).min(std::time::Duration::from_millis(100));
    }
}

/// Returns the rows of `coco_internal.worker_rows`. They contain only numbers; the views add names for roles
/// that may see them.
#[pg_extern(sql = false)]
fn worker_rows() -> TableIterator<
    'static,
    (
        name!(pid, i32),
        name!(database, pg_sys::Oid),
        name!(worker_no, i32),
        name!(flow, Option<i32>),
        name!(source, Option<i32>),
        name!(items_done, i64),
        name!(items_total, i64),
        name!(since, TimestampWithTimeZone),
        name!(transactions, i64),
        name!(evaluated, i64),
        name!(upserted, i64),
        name!(deleted, i64),
        name!(failed, i64),
    ),
> {
    let (here, all) = (backend::database().to_u32(), backend::is_superuser());
    let workers = shared_memory::workers().into_iter().filter(|s| all || s.database == here);
    let rows = workers.map(|s| {
        let since = TimestampWithTimeZone::try_from(s.since)
            .unwrap_or_else(|_| TimestampWithTimeZone::negative_infinity());
        (
            s.pid,
            pg_sys::Oid::from(s.database),
            i32::from(s.seat),
            (s.flow != 0).then_some(s.flow),
            (s.source != 0).then_some(s.source),
            s.done,
            s.total,
            since,
            s.turns,
            s.evaluated,
            s.upserted,
            s.deleted,
            s.failed,
        )
    });
    TableIterator::new(rows.collect::<Vec<_>>())
}

/// Returns the rows of `coco_internal.progress_rows`. They, too, contain only numbers.
#[pg_extern(sql = false)]
fn progress_rows() -> TableIterator<
    'static,
    (
        name!(pid, i32),
        name!(database, pg_sys::Oid),
        name!(flow, i32),
        name!(source, i32),
        name!(items_done, i64),
        name!(items_total, i64),
        name!(since, TimestampWithTimeZone),
        name!(estimated_end, Option<TimestampWithTimeZone>),
    ),
> {
    let (here, all) = (backend::database().to_u32(), backend::is_superuser());
    let now = clock::timestamp_micros();
    let time = |at: i64| {
        TimestampWithTimeZone::try_from(at)
            .unwrap_or_else(|_| TimestampWithTimeZone::negative_infinity())
    };
    let slots = shared_memory::workers().into_iter().chain(shared_memory::sessions());
    let working = slots.filter(|s| (all || s.database == here) && s.flow != 0 && s.source != 0);
    let rows = working.map(|s| {
        // The estimate assumes that the remaining items take as long as the items so far.
        let left = (s.done > 0).then(|| {
            let each = (now - s.began).max(0) as f64 / s.done as f64;
            (each * (s.total - s.done).max(0) as f64) as i64
        });
        let estimated_end = left.map(|left| time(now.saturating_add(left)));
        let database = pg_sys::Oid::from(s.database);
        (s.pid, database, s.flow, s.source, s.done, s.total, time(s.since), estimated_end)
    });
    TableIterator::new(rows.collect::<Vec<_>>())
}

/// Returns the rows of `coco_internal.session_error_rows`: the errors of the caller's flows, because messages
/// can contain data.
#[pg_extern(sql = false)]
fn session_error_rows() -> Result<
    TableIterator<
        'static,
        (
            name!(flow, i32),
            name!(failed_at, TimestampWithTimeZone),
            name!(sqlstate, String),
            name!(message, String),
            name!(hint, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let errors = session_errors::session_errors();
    let visible = match errors.is_empty() {
        true => Vec::new(),
        false => views::visible_flows()?,
    };
    let rows = errors.into_iter().filter(|e| visible.contains(&e.flow)).map(|e| {
        let failed_at = TimestampWithTimeZone::try_from(e.failed_at)
            .unwrap_or_else(|_| TimestampWithTimeZone::negative_infinity());
        let hint = e.hint.map(|hint| hint.as_str().to_owned());
        (e.flow, failed_at, e.sqlstate.as_str().to_owned(), e.message.as_str().to_owned(), hint)
    });
    Ok(TableIterator::new(rows.collect::<Vec<_>>()))
}

/// Returns the rows of `coco_internal.schedule_rows`.
#[pg_extern(sql = false)]
fn schedule_rows() -> Result<
    TableIterator<'static, (name!(flow, i32), name!(next_update, Option<TimestampWithTimeZone>))>,
    ErrorReport,
> {
    let rows = schedules::next_updates()?.into_iter().map(|next| (next.flow, next.at));
    Ok(TableIterator::new(rows.collect::<Vec<_>>()))
}

/// Reports whether the restore of a dump is complete, for `coco.status`.
#[pg_extern(sql = false)]
fn restore_is_complete() -> Result<bool, ErrorReport> {
    Ok(restored::is_complete()?)
}

/// Returns the rows of `coco_internal.pending_rows`.
#[pg_extern(sql = false)]
fn pending_rows() -> Result<
    TableIterator<'static, (name!(source, i32), name!(pending, i64), name!(is_lower_bound, bool))>,
    ErrorReport,
> {
    let rows = pending::pending_counts()?.into_iter().map(|p| (p.source, p.count, p.at_least));
    Ok(TableIterator::new(rows.collect::<Vec<_>>()))
}

/// Returns the rows of `coco_internal.pending_flow_rows`.
#[pg_extern(sql = false)]
fn pending_flow_rows() -> Result<
    TableIterator<
        'static,
        (
            name!(flow, String),
            name!(sources, i64),
            name!(pending, i64),
            name!(behind_since, Option<TimestampWithTimeZone>),
        ),
    >,
    ErrorReport,
> {
    let rows = pending::flow_backlogs()?
        .into_iter()
        .map(|b| (b.flow, b.sources, b.pending, b.behind_since));
    Ok(TableIterator::new(rows.collect::<Vec<_>>()))
}
