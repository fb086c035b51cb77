//! A limit in time for a turn: what a flow's owner has written may run for ever.
//!
//! When the time is over the turn is canceled. A query can catch that and go on: then it is canceled again, and after
//! some seconds the process ends itself.

use pgrx::guc::GucSetting;
use pgrx::pg_sys;
use pgrx::prelude::PgSqlErrorCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::pg::error::Error;
use crate::workers::timer::Timer;
use crate::workers::transaction::TransactionError;

/// Milliseconds that a turn may take; 0 for any number.
pub static TURN_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(600_000);

/// Between two attempts to cancel a turn.
const CANCEL_AGAIN: Duration = Duration::from_secs(1);

/// How often a turn is canceled before the process ends.
const CANCELS: u32 = 5;

/// How often the time of this turn was found to be over.
static OVER: AtomicU32 = AtomicU32::new(0);

thread_local! {
    static TIMER: Timer = const { Timer::new(over) };
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
    OVER.store(0, Ordering::Relaxed);
    let limit = Duration::from_millis(limit.unsigned_abs().into());
    let done = TIMER.with(|timer| timer.during(limit, CANCEL_AGAIN, work));
    forget_cancel();
    match done {
        Err(failed) if is_canceled(&failed) && OVER.load(Ordering::Relaxed) > 0 => {
            Err(TransactionError::from(
                Error::new(
                    PgSqlErrorCode::ERRCODE_QUERY_CANCELED,
                    "canceling a turn due to coco.turn_timeout",
                )
                .detail(format!("A turn of the flow took longer than {} s.", limit.as_secs_f64()))
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
