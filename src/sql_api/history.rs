//! The SQL function `coco.history`, which lists the runs of a flow.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::catalog::run_history;
use crate::sql_api::arguments::required_argument;

#[pg_extern(sql = false)]
fn history(
    flow: Option<&str>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(run_id, i64),
            name!(started, TimestampWithTimeZone),
            name!(elapsed, Interval),
            name!(reason, String),
            name!(initiator, String),
            name!(seen, i64),
            name!(skipped, i64),
            name!(unchanged, i64),
            name!(evaluated, i64),
            name!(upserted, i64),
            name!(deleted, i64),
            name!(failed, i64),
            name!(error, Option<String>),
            name!(label, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let flow = required_argument(flow, "flow")?;
    let rows = run_history::runs(flow)?.into_iter().map(|r| {
        let c = r.counts;
        (
            r.run,
            r.started,
            r.elapsed,
            r.reason,
            r.by,
            c.seen,
            c.skipped,
            c.unchanged,
            c.evaluated,
            c.upserted,
            c.deleted,
            c.failed,
            r.error,
            r.label,
        )
    });
    Ok(TableIterator::new(rows.collect::<Vec<_>>()))
}
