//! Says in the DETAIL of an error that PostgreSQL raises during a piece of work what the work was.
//! The error's CONTEXT would be the place for it, but pgrx drops the context of an error that passes
//! through Rust.

use pgrx::pg_sys::panic::{CaughtError, ErrorReport};
use pgrx::prelude::*;
use std::panic::AssertUnwindSafe;

/// Runs `work`. If PostgreSQL raises an error meanwhile, the error's DETAIL ends with this line.
pub fn with_detail_line<T>(line: &str, work: impl FnOnce() -> T) -> T {
    PgTryBuilder::new(AssertUnwindSafe(work))
        .catch_others(|error: CaughtError| {
            let report = match &error {
                CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => report,
                CaughtError::RustPanic { .. } => error.rethrow(),
            };
            let detail = match report.detail() {
                Some(detail) => format!("{detail}\n{line}"),
                None => line.to_owned(),
            };
            let mut named =
                ErrorReport::new(report.sql_error_code(), report.message().to_owned(), "coco")
                    .set_detail(detail);
            if let Some(hint) = report.hint() {
                named = named.set_hint(hint.to_owned());
            }
            named.report(PgLogLevel::ERROR);
            error.rethrow()
        })
        .execute()
}
