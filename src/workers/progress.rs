//! Progress of updates: shared memory shows it to other sessions, and notices show it to the
//! session that waits for an update.

use pgrx::prelude::*;
use std::cell::RefCell;
use std::time::{Duration, Instant};

use crate::update::progress::{self, ProgressListener};
use crate::workers::shared_memory;

/// Time between two notices, and before the first one.
const NOTICE: Duration = Duration::from_secs(5);

thread_local! {
    /// The notices about the update that this session runs or waits for.
    static TOLD: RefCell<Option<Notices>> = const { RefCell::new(None) };
}

/// Publishes the progress of this process's updates in shared memory.
pub fn tell() {
    progress::set_progress_listener(|p: ProgressListener| {
        shared_memory::report(|slot| {
            slot.source = p.source;
            slot.done = p.done;
            slot.total = p.total;
            slot.began = p.began - EPOCH;
        });
        TOLD.with_borrow_mut(|told| told.iter_mut().for_each(|t| t.tell(p.done, p.total)));
    });
}

/// Microseconds from 1970-01-01 to 2000-01-01, the epoch of Postgres' timestamps.
const EPOCH: i64 = 946_684_800_000_000;

/// An update that a session runs or waits for. Until it is dropped, other sessions see the update,
/// and the client receives notices about its progress.
pub struct Watched;

impl Watched {
    /// Begins to report an update. `here` is true if the session runs the update itself.
    pub fn begin(flow: i32, name: &str, here: bool) -> Watched {
        TOLD.set(is_top_level().then(|| Notices::new(name)));
        if here {
            tell();
            shared_memory::enter_session(flow);
        }
        Watched
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        TOLD.set(None);
        shared_memory::leave_session();
    }
}

/// Sends the client a notice about the progress of the worker that the session waits for, if shared
/// memory shows it.
pub fn tell_of(pid: i32) {
    let due = TOLD.with_borrow(|told| told.as_ref().is_some_and(Notices::is_due));
    if !due {
        return;
    }
    if let Some(slot) = shared_memory::workers().into_iter().find(|slot| slot.pid == pid)
        && slot.total > 0
    {
        TOLD.with_borrow_mut(|told| told.iter_mut().for_each(|t| t.tell(slot.done, slot.total)));
    }
}

/// Reports whether the client's own statement made this call. A function, or a statement inside
/// one, may have a caller that does not expect notices. The result is also `false` in the extended
/// protocol, which programs use.
fn is_top_level() -> bool {
    // SAFETY: reads the backend's own state.
    unsafe {
        pg_sys::error_context_stack.is_null()
            && pg_sys::whereToSendOutput == pg_sys::CommandDest::DestRemote
    }
}

/// The notices about one update.
struct Notices {
    flow: String,
    began: Instant,
    last: Instant,
}

impl Notices {
    fn new(flow: &str) -> Notices {
        let now = Instant::now();
        Notices { flow: flow.to_owned(), began: now, last: now }
    }

    fn is_due(&self) -> bool {
        self.last.elapsed() >= NOTICE
    }

    fn tell(&mut self, done: i64, total: i64) {
        if !self.is_due() || total == 0 {
            return;
        }
        self.last = Instant::now();
        let percent = done.saturating_mul(100) / total;
        let seconds = self.began.elapsed().as_secs();
        let message =
            format!("flow \"{}\": {done} of {total} items ({percent} %) in {seconds} s", self.flow);
        pgrx::ereport!(PgLogLevel::NOTICE, PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION, message);
    }
}
