//! The time of this process, and SQL conditions on the time of a retry.

use pgrx::datum::TimestampWithTimeZone;
use std::time::{SystemTime, UNIX_EPOCH};

/// Returns an SQL condition that the failure in a jsonb is due for a retry at a time. No retry is
/// more than an hour away: a later time comes from a clock that was ahead.
pub fn is_due_sql(failure: &str, now: &str) -> String {
    let at = format!("({failure} operator(pg_catalog.->>) 'next_retry')::pg_catalog.timestamptz");
    format!(
        "({at} operator(pg_catalog.<=) {now}
          or {at} operator(pg_catalog.>) ({now} operator(pg_catalog.+) pg_catalog.make_interval(hours => 1)))"
    )
}

/// Returns the time in microseconds since 1970, the unit of process ordinals.
pub fn now_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_micros() as i64
}

/// Returns the time in Postgres' own form: microseconds since 2000-01-01.
pub fn timestamp_micros() -> i64 {
    // SAFETY: reads the clock.
    unsafe { pgrx::pg_sys::GetCurrentTimestamp() }
}

/// Returns a time in microseconds since 1970 as a value of SQL; `None` if PostgreSQL has no such
/// time.
pub fn timestamp_of(micros: i64) -> Option<TimestampWithTimeZone> {
    /// The difference between 1970 and PostgreSQL's epoch, 2000.
    const EPOCH: i64 = 946_684_800 * 1_000_000;
    TimestampWithTimeZone::try_from(micros.checked_sub(EPOCH)?).ok()
}
