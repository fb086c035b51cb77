//! The error of a session's last update, for each flow, in shared memory.
//!
//! An update that raises an error in a session is rolled back with the session's transaction, so
//! that no table can hold the error. Shared memory holds it until an update of the flow succeeds.
//! It exists only if the library is in shared_preload_libraries, and does not survive a restart.
//! Its size is fixed: if it is full, the oldest error gives way.

use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;
use pgrx::{PGRXSharedMemory, PgLwLock, pg_shmem_init};
use std::panic::AssertUnwindSafe;

use crate::pg::error::{Error, Result};
use crate::pg::subtransaction::sqlstate;
use crate::pg::{backend, clock};
use crate::workers::shared_memory;

/// Number of flows, of all databases, whose errors are kept.
const FLOWS: usize = 128;

/// Largest size of a message or hint in bytes. Longer ones are cut.
const LENGTH: usize = 480;

/// The error that ended a session's last update of a flow.
#[derive(Clone, Default)]
pub struct SessionError {
    database: u32,
    pub flow: i32,
    /// Microseconds since 2000-01-01.
    pub failed_at: i64,
    pub sqlstate: heapless::String<5>,
    pub message: heapless::String<LENGTH>,
    pub hint: Option<heapless::String<LENGTH>>,
}

#[derive(Default)]
struct SessionErrors {
    all: heapless::Vec<SessionError, FLOWS>,
}

// SAFETY: plain values of fixed size, behind a lock.
unsafe impl PGRXSharedMemory for SessionErrors {}

// SAFETY: the name is coco's.
static ERRORS: PgLwLock<SessionErrors> = unsafe { PgLwLock::new(c"coco_session_errors") };

/// Reserves the memory. Called only in the postmaster.
pub fn define() {
    // The macro tests for features of older servers.
    #[allow(unexpected_cfgs)]
    {
        pg_shmem_init!(ERRORS);
    }
}

/// Runs a session's update of a flow, which the caller may update. Keeps the error that ends the
/// update; a success removes the flow's earlier error.
pub fn watch_update<T>(flow: i32, update: impl FnOnce() -> Result<T>) -> Result<T> {
    if !shared_memory::available() {
        return update();
    }
    let done = PgTryBuilder::new(AssertUnwindSafe(update))
        .catch_others(move |error: CaughtError| {
            let report = match &error {
                CaughtError::PostgresError(report)
                | CaughtError::ErrorReport(report)
                | CaughtError::RustPanic { ereport: report, .. } => report,
            };
            let code = report.sql_error_code() as i32;
            keep(flow, code, report.message(), report.hint());
            error.rethrow()
        })
        .execute();
    match &done {
        Ok(_) => forget_error(flow),
        Err(error) => keep_error(flow, error),
    }
    done
}

/// Keeps an error of coco's own that ends a session's update of a flow, which the caller may
/// update.
pub fn keep_error(flow: i32, error: &Error) {
    if shared_memory::available() {
        keep(flow, error.code as i32, &error.message, error.hint.as_deref());
    }
}

/// Removes the error of a flow of this database.
pub fn forget_error(flow: i32) {
    if !shared_memory::available() {
        return;
    }
    let database = backend::database().to_u32();
    let is_of_flow = |error: &SessionError| error.database == database && error.flow == flow;
    // Nearly always there is no error, and readers do not block each other.
    let is_kept = ERRORS.share().all.iter().any(is_of_flow);
    if is_kept {
        ERRORS.exclusive().all.retain(|error| !is_of_flow(error));
    }
}

/// Returns the errors of this database's flows.
pub fn session_errors() -> Vec<SessionError> {
    if !shared_memory::available() {
        return Vec::new();
    }
    let database = backend::database().to_u32();
    let errors = ERRORS.share();
    errors.all.iter().filter(|error| error.database == database).cloned().collect()
}

fn keep(flow: i32, code: i32, message: &str, hint: Option<&str>) {
    let error = SessionError {
        database: backend::database().to_u32(),
        flow,
        failed_at: clock::timestamp_micros(),
        sqlstate: cut(&sqlstate(code)),
        message: cut(message),
        hint: hint.map(cut),
    };
    let mut errors = ERRORS.exclusive();
    let all = &mut errors.all;
    all.retain(|known| known.database != error.database || known.flow != flow);
    if all.is_full() {
        let oldest = all.iter().map(|known| known.failed_at).min();
        all.retain(|known| Some(known.failed_at) != oldest);
    }
    all.push(error).ok();
}

/// Returns the beginning of a text, as much as there is room for.
fn cut<const N: usize>(text: &str) -> heapless::String<N> {
    let mut kept = heapless::String::new();
    for letter in text.chars() {
        if kept.push(letter).is_err() {
            break;
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut::<5>("22012").as_str(), "22012");
        assert_eq!(cut::<5>("äöü").as_str(), "äö");
        assert_eq!(cut::<5>("").as_str(), "");
    }
}
