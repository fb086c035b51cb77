//! A limit in time for a turn: what a flow's owner has written may run for ever.
//!
//! When the time is over the turn is canceled. A query can catch that and go on: then it is canceled again, and after
//! some seconds the process ends itself.

use pgrx::guc::GucSetting;
use pgrx::pg_sys;
use pgrx::prelude::PgSqlErrorCode;
use std::ffi::c_int;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::pg::error::Error;
use crate::workers::transaction::TransactionError;

/// Milliseconds that a turn may take; 0 for any number.
pub static TURN_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(600_000);

/// Between two attempts to cancel a turn.
const AGAIN_MILLIS: c_int = 1000;

/// How often a turn is canceled before the process ends.
const CANCELS: u32 = 5;

/// How often the time of this turn was found to be over.
static OVER: AtomicU32 = AtomicU32::new(0);

/// Of utils/timeout.h: an id from this one on asks for one of those that extensions can have.
const USER_TIMEOUT: c_int = 13;

unsafe extern "C-unwind" {
    fn RegisterTimeout(id: c_int, handler: extern "C" fn()) -> c_int;
    fn enable_timeout_every(id: c_int, at: pg_sys::TimestampTz, delay_ms: c_int);
    fn disable_timeout(id: c_int, keep_indicator: bool);
}

thread_local! {
    static TIMEOUT: std::cell::Cell<Option<c_int>> = const { std::cell::Cell::new(None) };
}

/// Runs in a signal handler.
extern "C" fn over() {
    let before = OVER.fetch_add(1, Ordering::Relaxed);
    let signal = if before < CANCELS { libc::SIGINT } else { libc::SIGTERM };
    // SAFETY: both calls may be made in a signal handler.
    unsafe { libc::kill(libc::getpid(), signal) };
}

/// Whether the process was told to end because a turn could not be canceled.
pub fn is_beyond() -> bool {
    OVER.load(Ordering::Relaxed) > CANCELS
}

/// Does the work of a turn, which ends with an error when its time is over.
pub fn turn<T>(work: impl FnOnce() -> Result<T, TransactionError>) -> Result<T, TransactionError> {
    let limit = TURN_TIMEOUT.get();
    if limit <= 0 {
        return work();
    }
    let id = TIMEOUT.get().unwrap_or_else(|| {
        // SAFETY: once a process, on the thread that Postgres runs on; the handler lives as long as the process.
        let id = unsafe { RegisterTimeout(USER_TIMEOUT, over) };
        TIMEOUT.set(Some(id));
        id
    });
    OVER.store(0, Ordering::Relaxed);
    // SAFETY: reads the clock; the id is one that was registered.
    unsafe {
        let at = pg_sys::GetCurrentTimestamp() + i64::from(limit) * 1000;
        enable_timeout_every(id, at, AGAIN_MILLIS);
    }
    let done = work();
    // SAFETY: as above.
    unsafe { disable_timeout(id, false) };
    forget_cancel();
    match done {
        Err(failed) if is_canceled(&failed) && OVER.load(Ordering::Relaxed) > 0 => {
            let shown = Duration::from_millis(limit as u64);
            Err(TransactionError::from(
                Error::new(
                    PgSqlErrorCode::ERRCODE_QUERY_CANCELED,
                    "canceling a turn due to coco.turn_timeout",
                )
                .detail(format!("A turn of the flow took longer than {} s.", shown.as_secs_f64()))
                .hint("Look for what takes so long with coco.explain, or raise coco.turn_timeout."),
            ))
        }
        done => done,
    }
}

/// Whether what a transaction ended with is that it was canceled.
pub fn is_canceled(failed: &TransactionError) -> bool {
    failed.sqlstate == "57014"
}

/// Forgets a cancel that came too late for the transaction that it was for: it would end the process.
pub fn forget_cancel() {
    // SAFETY: reads and writes the process's own state.
    unsafe {
        if !pg_sys::IsTransactionState() {
            (&raw mut pg_sys::QueryCancelPending).write_volatile(0);
        }
    }
}
