//! Running flows in SQL.

use pgrx::datum::Interval;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::catalog::error::Error;
use crate::catalog::{ready, update};
use crate::engine::decide::Mode;
use crate::worker::session::{self, Order};

#[pg_extern(sql = false)]
fn update(
    flow: &str,
    mode: &str,
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
        ),
    >,
    ErrorReport,
> {
    let (mode, limits) = (parse_mode(mode)?, update::configured());
    // What is sent elsewhere is sent once it is committed: a worker does that.
    let rows = match ready::ready(flow)?.flow.is_external() {
        true => session::run(flow, Order::Update(mode), limits)?,
        false => update::update(flow, mode, limits)?,
    };
    let rows = rows.into_iter().map(|r| {
        let elapsed = Interval::from_micros(r.elapsed.as_micros() as i64);
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
            elapsed,
        )
    });
    Ok(TableIterator::new(rows.collect::<Vec<_>>()))
}

pub fn parse_mode(mode: &str) -> Result<Mode, Error> {
    match mode {
        "normal" => Ok(Mode::Normal),
        "retry" => Ok(Mode::Retry),
        "full_reprocess" => Ok(Mode::FullReprocess),
        "reexport" => Ok(Mode::Reexport),
        _ => Err(Error::invalid(format!("argument \"mode\": \"{mode}\" is not a mode"))
            .hint("The modes are normal, retry, full_reprocess and reexport.")),
    }
}
