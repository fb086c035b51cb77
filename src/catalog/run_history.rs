//! The runs of flows that coco keeps for `coco.history`.

use pgrx::datum::{Interval, TimestampWithTimeZone};
use pgrx::guc::GucSetting;

use crate::catalog::{flow_rows, locks, run_label};
use crate::pg::acting_role::RoleGuard;
use crate::pg::backend;
use crate::pg::error::Result;
use crate::pg::spi::{self, arg};
use coco_core::counts::Counts;
use coco_core::run_history::RunEntry;

/// `coco.history_limit`: the number of runs kept of each flow; 0 keeps none.
pub static SIZE: GucSetting<i32> = GucSetting::<i32>::new(1000);

/// `coco.log_min_duration`, in milliseconds: runs that took at least this long are logged; -1 logs
/// none.
pub static LOG_MIN_DURATION: GucSetting<i32> = GucSetting::<i32>::new(-1);

/// Logs the result of a run, if the run took as long as the setting says.
pub fn log(flow: i32, entry: &RunEntry) -> Result<()> {
    let least = LOG_MIN_DURATION.get();
    if least < 0 || entry.elapsed.as_millis() < least as u128 {
        return Ok(());
    }
    let _as = RoleGuard::extension_owner()?;
    let flow =
        spi::scalar::<String>("select flow from coco_internal.flow where id = $1", &[arg(flow)])?;
    let c = &entry.counts;
    tracing::info!(
        flow = flow.as_deref(),
        reason = entry.reason.name(),
        initiator = entry.initiator.name(),
        seen = c.seen,
        skipped = c.skipped,
        unchanged = c.unchanged,
        evaluated = c.evaluated,
        upserted = c.upserted,
        deleted = c.deleted,
        failed = c.failed,
        elapsed_ms = entry.elapsed.as_secs_f64() * 1000.0,
        error = entry.error.as_deref(),
        "run"
    );
    Ok(())
}

/// Logs and records runs of a flow, if the flow still exists, and deletes the oldest runs beyond
/// the limit. A total keeps the counts of deleted runs. The caller holds the flow's lock.
pub fn note_run(flow: i32, entries: &[RunEntry]) -> Result<()> {
    entries.iter().try_for_each(|entry| log(flow, entry))?;
    let size = SIZE.get();
    let _as = RoleGuard::extension_owner()?;
    for entry in entries {
        if size == 0 {
            insert(flow, entry, &into_total(NOT_KEPT))?;
        } else {
            insert(flow, entry, INSERT)?;
        }
    }
    // With a fixed snapshot, deleting a run that another transaction has deleted since would be an
    // error.
    if size == 0 || entries.is_empty() || backend::keeps_its_snapshot() {
        return Ok(());
    }
    spi::execute(
        &into_total(
            "delete from coco_internal.run_history
              where flow = $1
                and run_id <= (select run_id from coco_internal.run_history
                             where flow = $1 order by run_id desc offset $2 limit 1)
             returning *",
        ),
        &[arg(flow), arg(i64::from(size))],
    )?;
    Ok(())
}

/// Inserts a given run as a row.
const INSERT: &str = "
insert into coco_internal.run_history
       (flow, started, elapsed, reason, initiator, seen, skipped, unchanged, evaluated, upserted, deleted,
        failed, error, label)
select id, to_timestamp($2 / 1000000.0), $3 * interval '1 microsecond', $4, $5, $6, $7, $8, $9, $10,
       $11, $12, $13, coalesce($14, label)
  from coco_internal.flow where id = $1";

/// Selects a given run, if no runs are kept.
const NOT_KEPT: &str = "
select id as flow, to_timestamp($2 / 1000000.0) as started, $3 * interval '1 microsecond' as elapsed,
       $6 as seen, $7 as skipped, $8 as unchanged, $9 as evaluated, $10 as upserted, $11 as deleted,
       $12 as failed, $13 as error
  from coco_internal.flow where id = $1";

/// Adds runs to the total of their flow.
fn into_total(runs: &str) -> String {
    format!(
        "with gone as ({runs})
         insert into coco_internal.run_total as t
                (flow, runs, errors, seen, skipped, unchanged, evaluated, upserted, deleted, failed,
                 elapsed, ended)
         select flow, count(*), count(error), sum(seen), sum(skipped), sum(unchanged), sum(evaluated),
                sum(upserted), sum(deleted), sum(failed), sum(elapsed), max(started + elapsed)
           from gone group by flow
         on conflict (flow) do update
            set runs = t.runs + excluded.runs, errors = t.errors + excluded.errors,
                seen = t.seen + excluded.seen, skipped = t.skipped + excluded.skipped,
                unchanged = t.unchanged + excluded.unchanged,
                evaluated = t.evaluated + excluded.evaluated,
                upserted = t.upserted + excluded.upserted, deleted = t.deleted + excluded.deleted,
                failed = t.failed + excluded.failed, elapsed = t.elapsed + excluded.elapsed,
                ended = greatest(t.ended, excluded.ended)"
    )
}

fn insert(flow: i32, entry: &RunEntry, statement: &str) -> Result<()> {
    let c = &entry.counts;
    spi::execute(
        statement,
        &[
            arg(flow),
            arg(entry.started),
            arg(entry.elapsed.as_micros() as f64),
            arg(entry.reason.name()),
            arg(entry.initiator.name()),
            arg(c.seen),
            arg(c.skipped),
            arg(c.unchanged),
            arg(c.evaluated),
            arg(c.upserted),
            arg(c.deleted),
            arg(c.failed),
            arg(entry.error.clone()),
            arg(run_label::current_label()),
        ],
    )?;
    Ok(())
}

/// Records runs as [`note_run`] does, for a caller without the flow's lock. Returns `false`, and
/// records nothing, if another session holds the lock.
pub fn note_run_if_free(flow: i32, entries: &[RunEntry]) -> Result<bool> {
    if !locks::lock_flow_if_free(flow)? {
        return Ok(false);
    }
    note_run(flow, entries)?;
    Ok(true)
}

/// A run as `coco.history` shows it.
pub struct Run {
    pub run: i64,
    pub started: TimestampWithTimeZone,
    pub elapsed: Interval,
    pub reason: String,
    pub by: String,
    pub counts: Counts,
    pub error: Option<String>,
    pub label: Option<String>,
}

/// Returns the runs of one of the caller's flows, newest first.
pub fn runs(name: &str) -> Result<Vec<Run>> {
    let flow = flow_rows::identify_flow(name)?.id;
    let _as = RoleGuard::extension_owner()?;
    spi::select(
        "select run_id, started, elapsed, reason, initiator, seen, skipped, unchanged, evaluated, upserted,
                deleted, failed, error, label
           from coco_internal.run_history where flow = $1 order by run_id desc",
        &[arg(flow)],
        |r| {
            Ok(Run {
                run: spi::required(r, 1)?,
                started: spi::required(r, 2)?,
                elapsed: spi::required(r, 3)?,
                reason: spi::required(r, 4)?,
                by: spi::required(r, 5)?,
                counts: Counts {
                    seen: spi::required(r, 6)?,
                    skipped: spi::required(r, 7)?,
                    unchanged: spi::required(r, 8)?,
                    evaluated: spi::required(r, 9)?,
                    upserted: spi::required(r, 10)?,
                    deleted: spi::required(r, 11)?,
                    failed: spi::required(r, 12)?,
                },
                error: r.get(13)?,
                label: r.get(14)?,
            })
        },
    )
}

/// The time that the last runs of a flow took for each evaluated item, in seconds.
pub struct RunSpeed {
    pub average: f64,
    pub fastest: f64,
    pub slowest: f64,
    /// The number of runs.
    pub runs: i64,
    /// The largest number of items that a run evaluated.
    pub largest: f64,
}

/// Returns the speed of the last runs of a flow that succeeded. Leaves out runs that are much smaller
/// than the others, because most of their time does not depend on the number of items.
pub fn run_speed(flow: i32) -> Result<Option<RunSpeed>> {
    let _as = RoleGuard::extension_owner()?;
    let found = spi::select(
        "with r as (
           select extract(epoch from elapsed)::float8 as seconds, evaluated::float8 as items
             from coco_internal.run_history
            where flow = $1 and evaluated > 0 and error is null
            order by run_id desc limit 20)
         select sum(seconds) / sum(items), min(seconds / items), max(seconds / items), count(*),
                max(items)
           from r where items >= (select max(items) / 10 from r) having count(*) > 0",
        &[arg(flow)],
        |r| {
            Ok(RunSpeed {
                average: spi::required(r, 1)?,
                fastest: spi::required(r, 2)?,
                slowest: spi::required(r, 3)?,
                runs: spi::required(r, 4)?,
                largest: spi::required(r, 5)?,
            })
        },
    )?;
    Ok(found.into_iter().next())
}
