//! Memoized functions in SQL: `memoize`, `unmemoize`, `clear_memo`, and the functions behind the
//! view `coco.functions`.

use pgrx::datum::Interval;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::declare::clear_memo;
use crate::inspect::views;
use crate::memo::{call_site, registration};
use crate::pg::checked_version::CheckedVersion;
use crate::sql_api::arguments::{null_argument, required_argument};

#[pg_extern(sql = false)]
fn memoize(
    _version: CheckedVersion,
    function: Option<pg_sys::Oid>,
    version: Option<&str>,
    batch: Option<pg_sys::Oid>,
    batch_size: Option<i32>,
    ttl: Option<Interval>,
) -> Result<(), ErrorReport> {
    let function = required_argument(function, "function")?;
    let batch = match batch {
        None => None,
        Some(function) => Some(registration::BatchFunction {
            function,
            size: required_argument(batch_size, "batch_size")?,
        }),
    };
    Ok(registration::memoize(function, version, batch, ttl)?)
}

#[pg_extern(sql = false)]
fn unmemoize(function: Option<pg_sys::Oid>) -> Result<(), ErrorReport> {
    let function = required_argument(function, "function")?;
    Ok(registration::unmemoize(function)?)
}

#[pg_extern(sql = false)]
fn clear_memo(flow: Option<&str>, function: Option<pg_sys::Oid>) -> Result<i64, ErrorReport> {
    Ok(match (flow, function) {
        (Some(flow), function) => clear_memo::clear_flow(flow, function)?,
        (None, Some(function)) => clear_memo::clear_function(function)?,
        (None, None) => Err(null_argument("flow").hint("Name a flow, a function, or both."))?,
    })
}

#[pg_extern(sql = false)]
fn function_rows() -> Result<
    TableIterator<
        'static,
        (
            name!(flow, String),
            name!(function, String),
            name!(fingerprint, pgrx::Uuid),
            name!(current, bool),
            name!(calls, i64),
            name!(hits, i64),
            name!(reused, i64),
            name!(misses, i64),
            name!(errors, i64),
            name!(requests, i64),
            name!(tokens_in, i64),
            name!(tokens_out, i64),
            name!(cost, f64),
            name!(computed_bytes, i64),
            name!(elapsed, Option<Interval>),
            name!(entries, i64),
            name!(entry_bytes, i64),
            name!(ttl, Option<Interval>),
            name!(expired, i64),
        ),
    >,
    ErrorReport,
> {
    let rows = views::functions()?.into_iter().map(|f| {
        let s = f.stats;
        (
            f.flow,
            f.function,
            f.fingerprint,
            f.current,
            s.calls,
            (s.calls - s.misses).max(0),
            s.reused,
            s.misses,
            s.errors,
            s.requests,
            s.tokens_in,
            s.tokens_out,
            s.cost,
            s.bytes,
            Some(Interval::from_micros(s.micros)),
            f.entries,
            f.entry_bytes,
            f.ttl,
            f.expired,
        )
    });
    Ok(TableIterator::new(rows.collect::<Vec<_>>()))
}

/// Implements `coco_internal.memo_call(item, function, call, …)`, which receives the arguments of the
/// memoized function unchanged.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn coco_recall(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the function manager calls this function with a valid call in progress.
    match unsafe { call_site::recall(fcinfo) } {
        Ok(Some(value)) => value,
        Ok(None) => {
            // SAFETY: as above.
            unsafe { (*fcinfo).isnull = true };
            pg_sys::Datum::from(0usize)
        }
        Err(error) => {
            ErrorReport::from(error).report(PgLogLevel::ERROR);
            pg_sys::Datum::from(0usize)
        }
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_coco_recall() -> &'static pg_sys::Pg_finfo_record {
    const V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &V1
}
