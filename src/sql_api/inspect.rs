//! The SQL functions `coco.verify`, `coco.preview` and `coco.evaluate`, and the functions behind the
//! views of tracking rows, errors and deliveries.

use pgrx::Uuid;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::inspect::evaluate::EvaluateRequest;
use crate::inspect::verify::ComparedTargets;
use crate::inspect::{evaluate, failures, preview, verify, views};
use crate::pg::checked_version::CheckedVersion;
use crate::pg::error::Error;
use crate::pg::json::Json;
use crate::sql_api::arguments::required_argument;
use crate::sql_api::update::parse_mode;
use crate::update::limits;
use crate::workers::update_client;

#[pg_extern(sql = false)]
fn verify(
    _version: CheckedVersion,
    flow: Option<&str>,
    repair: Option<bool>,
    outside: Option<bool>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(target, Option<String>),
            name!(difference, String),
            name!(key, Json),
            name!(source, Option<String>),
            name!(since, Option<TimestampWithTimeZone>),
        ),
    >,
    ErrorReport,
> {
    let flow = required_argument(flow, "flow")?;
    let repair = required_argument(repair, "repair")?;
    let limits = limits::configured_limits();
    let found = match required_argument(outside, "outside")? {
        true => {
            let mut found = update_client::verify_in_worker(flow, repair, limits)?;
            found.extend(verify::verify(flow, repair, ComparedTargets::Tables, limits)?);
            found
        }
        false => verify::verify(flow, repair, ComparedTargets::All, limits)?,
    };
    Ok(TableIterator::new(
        found.into_iter().map(|d| (d.target, d.difference, d.key, d.source, d.since)),
    ))
}

#[pg_extern(sql = false)]
fn preview(
    flow: Option<&str>,
    mode: Option<&str>,
    max_rows: Option<i32>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(target, Option<String>),
            name!(change, String),
            name!(key, Option<Json>),
            name!(old, Option<Json>),
            name!(new, Option<Json>),
        ),
    >,
    ErrorReport,
> {
    let flow = required_argument(flow, "flow")?;
    let mode = parse_mode(flow, required_argument(mode, "mode")?)?;
    let max_rows = required_argument(max_rows, "max_rows")?;
    if max_rows < 1 {
        return Err(Error::invalid(format!(
            "argument \"max_rows\" ({max_rows}) must be at least 1"
        ))
        .into());
    }
    let changes = preview::preview(flow, mode, limits::configured_limits(), max_rows as usize)?;
    Ok(TableIterator::new(changes.into_iter().map(|c| (c.target, c.change, c.key, c.old, c.new))))
}

#[pg_extern(sql = false)]
fn evaluate(
    flow: Option<&str>,
    source_key: Option<Json>,
    of_source: Option<&str>,
    item: Option<Json>,
    memo: Option<bool>,
    explain: Option<bool>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(source, String),
            name!(target, String),
            name!(key, Option<Json>),
            name!(output, Option<Json>),
            name!(plan, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let flow = required_argument(flow, "flow")?;
    let request = EvaluateRequest {
        source_key: required_argument(source_key, "source_key")?,
        source: of_source,
        item,
        uses_memo: memo.unwrap_or(true),
        explains: explain.unwrap_or(false),
    };
    let rows = evaluate::evaluate_item(flow, &request)?;
    Ok(TableIterator::new(rows.into_iter().map(|r| (r.source, r.target, r.key, r.output, r.plan))))
}

#[pg_extern(sql = false)]
fn tracking_rows() -> Result<
    TableIterator<
        'static,
        (
            name!(flow, String),
            name!(source, String),
            name!(source_key, Json),
            name!(source_ordinal, Option<i64>),
            name!(content_fingerprint, Option<Uuid>),
            name!(logic_fingerprint, Option<Uuid>),
            name!(process_ordinal, Option<i64>),
            name!(process_time, Option<TimestampWithTimeZone>),
            name!(target_keys, Option<Json>),
        ),
    >,
    ErrorReport,
> {
    let rows = views::tracking()?;
    Ok(TableIterator::new(rows.into_iter().map(|t| {
        (
            t.flow,
            t.source,
            t.source_key,
            t.source_ordinal,
            t.content_fingerprint,
            t.logic_fingerprint,
            t.process_ordinal,
            t.process_time,
            t.target_keys,
        )
    })))
}

#[pg_extern(sql = false)]
fn error_rows() -> Result<
    TableIterator<
        'static,
        (
            name!(flow, String),
            name!(source, Option<String>),
            name!(source_key, Option<Json>),
            name!(sqlstate, String),
            name!(message, String),
            name!(detail, Option<String>),
            name!(hint, Option<String>),
            name!(attempts, i32),
            name!(failed_at, Option<TimestampWithTimeZone>),
            name!(next_retry, Option<TimestampWithTimeZone>),
            name!(target, Option<String>),
            name!(target_key, Option<Json>),
        ),
    >,
    ErrorReport,
> {
    let rows = failures::errors()?;
    Ok(TableIterator::new(rows.into_iter().map(|f| {
        (
            f.flow,
            f.source,
            f.source_key,
            f.sqlstate,
            f.message,
            f.detail,
            f.hint,
            f.attempts,
            f.failed_at,
            f.next_retry,
            f.target,
            f.target_key,
        )
    })))
}

/// Returns the rows of `coco_internal.failure_rows`, for the view `coco.status_detail`.
#[pg_extern(sql = false)]
fn failure_rows() -> Result<
    TableIterator<
        'static,
        (
            name!(flow, String),
            name!(failed_items, i64),
            name!(next_retry, Option<TimestampWithTimeZone>),
            name!(last_error, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let rows = failures::failure_counts()?;
    Ok(TableIterator::new(
        rows.into_iter().map(|f| (f.flow, f.failed_items, f.next_retry, f.last_error)),
    ))
}

#[pg_extern(sql = false)]
fn delivery_rows() -> Result<
    TableIterator<
        'static,
        (
            name!(flow, String),
            name!(target, String),
            name!(server, String),
            name!(queued, i64),
            name!(rejected, i64),
            name!(sent_at, Option<TimestampWithTimeZone>),
            name!(attempts, i32),
            name!(next_retry, Option<TimestampWithTimeZone>),
            name!(sqlstate, Option<String>),
            name!(last_error, Option<String>),
            name!(detail, Option<String>),
            name!(hint, Option<String>),
            name!(verified_at, Option<TimestampWithTimeZone>),
        ),
    >,
    ErrorReport,
> {
    let rows = views::deliveries()?;
    Ok(TableIterator::new(rows.into_iter().map(|d| {
        let s = d.state;
        (
            d.flow,
            d.target,
            d.server,
            d.unsent,
            d.refused,
            s.sent_at,
            s.attempts,
            s.next_retry,
            s.sqlstate,
            s.message,
            s.detail,
            s.hint,
            s.verified_at,
        )
    })))
}
