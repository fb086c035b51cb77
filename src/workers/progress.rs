//! How far updates are: shown to others by shared memory, and to who waits for one by notices.

use pgrx::prelude::*;
use std::cell::RefCell;
use std::time::{Duration, Instant};

use crate::update::progress::{self, ProgressListener};
use crate::workers::shared_memory;

/// Between two notices, and before the first one.
const NOTICE: Duration = Duration::from_secs(5);

thread_local! {
    /// Whom this session tells how far its update is.
    static TOLD: RefCell<Option<Notices>> = const { RefCell::new(None) };
}

/// Lets others see how far the updates of this process are.
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

/// Times of Postgres are counted from 2000-01-01 on: so many microseconds after 1970-01-01.
const EPOCH: i64 = 946_684_800_000_000;

/// An update that a session makes or waits for. Others see it, and the client is told how far it is,
/// until this is dropped.
pub struct Watched;

impl Watched {
    /// `here`: the session makes it itself.
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

/// Tells the client how far the process is that it waits for, as far as that can be seen.
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

/// Whether nothing stands between the client's statement and this call: within a function, or a
/// statement of one, whoever called that may not want to hear. Nor is it so in the extended protocol,
/// which programs use.
fn is_top_level() -> bool {
    // SAFETY: reads the backend's own state.
    unsafe {
        pg_sys::error_context_stack.is_null()
            && pg_sys::whereToSendOutput == pg_sys::CommandDest::DestRemote
    }
}

/// What a client is told of one update.
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
