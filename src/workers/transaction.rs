//! Runs one transaction of a background process: it commits, or rolls back and returns the error.

use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;
use std::panic::AssertUnwindSafe;

use crate::catalog::locks;
use crate::pg::error::Error;
use crate::pg::subtransaction::sqlstate;

/// The error that rolled a transaction back.
pub struct TransactionError {
    pub sqlstate: String,
    pub error: Error,
}

impl From<Error> for TransactionError {
    fn from(error: Error) -> TransactionError {
        TransactionError { sqlstate: sqlstate(error.code as i32), error }
    }
}

/// Runs `work` in a transaction. No transaction is open afterwards, whatever the outcome.
pub fn transaction<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, TransactionError> {
    let done = committed_or_not(work);
    if !locks::regain_held() {
        // Another process may start the same work again.
        ereport!(
            PgLogLevel::FATAL,
            PgSqlErrorCode::ERRCODE_OBJECT_IN_USE,
            "terminating coco process because a query released its locks, and another process now holds them"
        );
    }
    done
}

fn committed_or_not<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, TransactionError> {
    // SAFETY: follows PostgresMain, which does the same around a statement. An error is caught, the
    // error state flushed, and the transaction rolled back.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        PgTryBuilder::new(AssertUnwindSafe(|| {
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
            locks::guard_held();
            let result = work();
            match &result {
                Ok(_) => {
                    locks::regain_held();
                    pg_sys::PopActiveSnapshot();
                    pg_sys::CommitTransactionCommand();
                }
                Err(_) => pg_sys::AbortCurrentTransaction(),
            }
            result.map_err(TransactionError::from)
        }))
        .catch_others(|caught| {
            pg_sys::AbortCurrentTransaction();
            Err(TransactionError::from(match &caught {
                CaughtError::PostgresError(r)
                | CaughtError::ErrorReport(r)
                | CaughtError::RustPanic { ereport: r, .. } => Error {
                    code: r.sql_error_code(),
                    message: r.message().to_owned(),
                    detail: r.detail().map(str::to_owned),
                    hint: r.hint().map(str::to_owned),
                },
            }))
        })
        .execute()
    }
}

/// Logs an operation that failed, with its error.
pub fn log_failure(what: &str, failed: &TransactionError) {
    let error = &failed.error;
    tracing::warn!(
        sqlstate = failed.sqlstate,
        detail = error.detail.as_deref(),
        hint = error.hint.as_deref(),
        "{what}: {}",
        error.message
    );
}
