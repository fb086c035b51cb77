//! A time limit for a live worker's transaction of one flow ("turn"), because code that a flow's
//! owner has written may run forever.
//!
//! When the time is over, the transaction is canceled. A query can catch the cancel and continue;
//! then it is canceled again, and after a few seconds the process ends itself.

use pgrx::guc::GucSetting;
use pgrx::pg_sys;
use pgrx::prelude::PgSqlErrorCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::pg::error::Error;
use crate::workers::timer::Timer;
use crate::workers::transaction::TransactionError;

/// Milliseconds that a transaction may take; 0 sets no limit.
pub static TURN_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(600_000);

/// How long a worker leaves a flow to the session that canceled its transaction: longer than that
/// session waits between two attempts to lock the flow.
pub const YIELD: Duration = Duration::from_millis(500);

/// Time between two attempts to cancel a transaction.
const CANCEL_AGAIN: Duration = Duration::from_secs(1);

/// Number of cancels before the process ends.
const CANCELS: u32 = 5;

/// How often the timer of this transaction has fired.
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

/// Reports whether the process is ending because it could not cancel a transaction.
pub fn is_beyond() -> bool {
    OVER.load(Ordering::Relaxed) > CANCELS
}

/// Runs `work` with the time limit. Returns an error if the limit ended it.
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
                    "canceling transaction due to coco.turn_timeout",
                )
                .detail(format!(
                    "A transaction of the flow took longer than {} s.",
                    limit.as_secs_f64()
                ))
                .hint("Look for the cause with coco.explain, or increase coco.turn_timeout."),
            ))
        }
        done => done,
    }
}

/// Reports whether a transaction ended because it was canceled.
pub fn is_canceled(failed: &TransactionError) -> bool {
    failed.sqlstate == "57014"
}

/// Discards a cancel that arrived after its transaction: it would end the process.
pub fn forget_cancel() {
    // SAFETY: reads and writes the process's own state.
    unsafe {
        if !pg_sys::IsTransactionState() {
            (&raw mut pg_sys::QueryCancelPending).write_volatile(0);
        }
    }
}
