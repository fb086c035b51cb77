//! The time: of this process, and in SQL conditions on a time of retry.

use std::time::{SystemTime, UNIX_EPOCH};

/// An expression: whether what failed so (a jsonb) is to be tried again at a time. Nothing is put off by more than an
/// hour: a time further off comes from a clock that was ahead.
pub fn is_due_sql(failure: &str, now: &str) -> String {
    let at = format!("({failure} operator(pg_catalog.->>) 'next_retry')::pg_catalog.timestamptz");
    format!(
        "({at} operator(pg_catalog.<=) {now}
          or {at} operator(pg_catalog.>) ({now} operator(pg_catalog.+) pg_catalog.make_interval(hours => 1)))"
    )
}

/// The clock, as process ordinals have it.
pub fn now_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_micros() as i64
}
