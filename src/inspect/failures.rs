//! Failed items, parked rows and rejected rows of the caller's flows: the view `coco.errors`, and the
//! counts in `coco.status`.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys;

use crate::catalog::item_failure;
use crate::catalog::model::Flow;
use crate::inspect::expectations;
use crate::inspect::views::{is_readable, key_object, of_each};
use crate::outbox::queue;
use crate::pg::acting_role::RoleGuard;
use crate::pg::error::Result;
use crate::pg::json::Json;
use crate::pg::spi;
use crate::update::untracked_items;

/// A failed item, a parked row of an item, or a row that an external target has rejected.
pub struct FailedItem {
    pub flow: String,
    /// `None` for a row that an external target has rejected.
    pub source: Option<String>,
    pub source_key: Option<Json>,
    pub sqlstate: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    pub attempts: i32,
    pub failed_at: Option<TimestampWithTimeZone>,
    pub next_retry: Option<TimestampWithTimeZone>,
    pub target: Option<String>,
    pub target_key: Option<Json>,
}

/// The failures of one flow.
struct FlowFailures {
    rows: Vec<FailedItem>,
    /// Whether every table that can hold a failure was read.
    is_complete: bool,
}

/// What `coco.status` tells about the failures of one flow.
pub struct FailureCounts {
    pub flow: String,
    pub failed_items: i64,
    /// The earliest of their next retries.
    pub next_retry: Option<TimestampWithTimeZone>,
    /// The message of the newest failure.
    pub last_error: Option<String>,
}

/// Returns a row for each of the caller's flows whose failures are known. The failures of a flow
/// that has lost a part, or whose tables are locked, are not known.
pub fn failure_counts() -> Result<Vec<FailureCounts>> {
    of_each(|flow| {
        let found = failures_of(flow)?;
        Ok(Vec::from_iter(found.is_complete.then(|| count(flow, found.rows))))
    })
}

fn count(flow: &Flow, failures: Vec<FailedItem>) -> FailureCounts {
    let micros = |time: &Option<TimestampWithTimeZone>| time.map(pg_sys::TimestampTz::from);
    let next_retry = failures
        .iter()
        .filter(|f| f.next_retry.is_some())
        .min_by_key(|f| micros(&f.next_retry))
        .and_then(|f| f.next_retry);
    let failed_items = failures.len() as i64;
    let newest = failures.into_iter().max_by_key(|f| micros(&f.failed_at));
    let last_error = newest.map(|f| f.message);
    FailureCounts { flow: flow.name.clone(), failed_items, next_retry, last_error }
}

/// Hints for errors that have none: for a failed item, a rejected row, and an untracked item.
const ITEM_HINT: &str = "Correct the item in its source, or the query with coco.set_query; coco then evaluates the item again. To retry it unchanged, call coco.retry.";

const ROW_HINT: &str = "Correct the row in its source, or the query with coco.set_query; coco then sends the row again. To send it again unchanged, call coco.retry.";

const UNTRACKED_HINT: &str = "Shorten the key in the source, or identify the items by a digest of the key in a generated column or a view.";

/// Returns every failed item of the caller's flows, every parked row, and every rejected row.
pub fn errors() -> Result<Vec<FailedItem>> {
    of_each(|flow| Ok(failures_of(flow)?.rows))
}

/// Returns the failures of a flow. The caller has the rights of the flow's owner.
fn failures_of(flow: &Flow) -> Result<FlowFailures> {
    let mut found = FlowFailures { rows: Vec::new(), is_complete: true };
    let rows = &mut found.rows;
    {
        let _as = RoleGuard::extension_owner()?;
        for source in &flow.sources {
            if !is_readable(&source.tracking)? {
                found.is_complete = false;
                continue;
            }
            let sql = format!(
                "select {}, t.failure->>'sqlstate', t.failure->>'message', t.failure->>'detail',
                        t.failure->>'hint', (t.failure->>'attempts')::int,
                        (t.failure->>'failed_at')::timestamptz,
                        (t.failure->>'next_retry')::timestamptz
                   from {} as t where t.failure is not null order by {}",
                key_object(source),
                source.tracking,
                crate::query::compose::tracking_keys(source, "t").join(", ")
            );
            rows.extend(spi::select(&sql, &[], |r| {
                Ok(FailedItem {
                    flow: flow.name.clone(),
                    source: Some(source.name.clone()),
                    source_key: r.get(1)?,
                    sqlstate: r.get::<String>(2)?.unwrap_or_default(),
                    message: r.get::<String>(3)?.unwrap_or_default(),
                    detail: r.get(4)?,
                    hint: Some(r.get(5)?.unwrap_or_else(|| ITEM_HINT.to_owned())),
                    attempts: r.get::<i32>(6)?.unwrap_or(0),
                    failed_at: r.get(7)?,
                    next_retry: r.get(8)?,
                    target: None,
                    target_key: None,
                })
            })?);
            rows.extend(expectations::parked_rows(flow, source)?.into_iter().map(|row| {
                FailedItem {
                    flow: flow.name.clone(),
                    source: Some(source.name.clone()),
                    source_key: Some(row.source_key),
                    sqlstate: item_failure::UNMET.to_owned(),
                    message: row.message,
                    detail: row.detail,
                    hint: Some(row.hint.to_owned()),
                    attempts: 1,
                    failed_at: row.parked_at,
                    next_retry: None,
                    target: row.target,
                    target_key: row.target_key,
                }
            }));
        }
        for source in &flow.sources {
            rows.extend(untracked_items::of(source)?.into_iter().map(|item| FailedItem {
                flow: flow.name.clone(),
                source: Some(source.name.clone()),
                source_key: Some(item.source_key),
                sqlstate: item.failure.sqlstate,
                message: item.failure.message,
                detail: item.failure.detail,
                hint: Some(item.failure.hint.unwrap_or_else(|| UNTRACKED_HINT.to_owned())),
                attempts: item.attempts,
                failed_at: Some(item.failed_at),
                next_retry: None,
                target: None,
                target_key: None,
            }));
        }
        for target in flow.targets.iter().filter(|t| t.relation.is_some()) {
            let Some(external) = &target.external else { continue };
            if !is_readable(&external.outbox)? {
                found.is_complete = false;
                continue;
            }
            rows.extend(queue::rejected_entries(target, external)?.into_iter().map(|r| {
                FailedItem {
                    flow: flow.name.clone(),
                    source: None,
                    source_key: None,
                    sqlstate: r.sqlstate,
                    message: r.message,
                    detail: None,
                    hint: Some(ROW_HINT.to_owned()),
                    attempts: r.attempts,
                    failed_at: r.failed_at,
                    next_retry: r.next_retry,
                    target: Some(external.name.clone()),
                    target_key: Some(r.key),
                }
            }));
        }
    }
    Ok(found)
}
