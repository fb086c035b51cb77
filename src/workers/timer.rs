//! A timer of Postgres' that signals this process again and again while it does one thing.

use crate::pg::clock;
use std::cell::Cell;
use std::ffi::c_int;
use std::time::Duration;

use pgrx::pg_sys;

/// Of utils/timeout.h: an id from this one on asks for one of those that extensions can have.
const USER_TIMEOUT: c_int = 13;

unsafe extern "C-unwind" {
    fn RegisterTimeout(id: c_int, handler: extern "C" fn()) -> c_int;
    fn enable_timeout_every(id: c_int, at: pg_sys::TimestampTz, delay_ms: c_int);
    fn disable_timeout(id: c_int, keep_indicator: bool);
}

/// One timer of the process, for each thread-local that holds one.
pub struct Timer {
    handler: extern "C" fn(),
    id: Cell<Option<c_int>>,
}

impl Timer {
    /// `handler` runs in a signal handler: it may do only what is safe there.
    pub const fn new(handler: extern "C" fn()) -> Timer {
        Timer { handler, id: Cell::new(None) }
    }

    /// Does `work`; calls the handler after `first`, and then each `again`, until it is done.
    pub fn during<T>(&self, first: Duration, again: Duration, work: impl FnOnce() -> T) -> T {
        let id = self.id.get().unwrap_or_else(|| {
            // SAFETY: once a process, on the thread that Postgres runs on; the handler lives as long as the process.
            let id = unsafe { RegisterTimeout(USER_TIMEOUT, self.handler) };
            self.id.set(Some(id));
            id
        });
        let first = i64::try_from(first.as_micros()).unwrap_or(i64::MAX);
        let again = c_int::try_from(again.as_millis()).unwrap_or(c_int::MAX);
        let at = clock::timestamp_micros().saturating_add(first);
        // SAFETY: the id was registered.
        unsafe { enable_timeout_every(id, at, again) };
        let done = work();
        // SAFETY: as above.
        unsafe { disable_timeout(id, false) };
        done
    }
}
