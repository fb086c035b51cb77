//! A Postgres timer that calls a signal handler repeatedly while the process runs one piece of work.

use crate::pg::clock;
use std::cell::Cell;
use std::ffi::c_int;
use std::time::Duration;

use pgrx::pg_sys;

/// From utils/timeout.h: with this id, RegisterTimeout assigns an id that is reserved for extensions.
const USER_TIMEOUT: c_int = 13;

unsafe extern "C-unwind" {
    fn RegisterTimeout(id: c_int, handler: extern "C" fn()) -> c_int;
    fn enable_timeout_every(id: c_int, at: pg_sys::TimestampTz, delay_ms: c_int);
    fn disable_timeout(id: c_int, keep_indicator: bool);
}

/// A timer of the process. Each thread-local of this type registers one; Postgres has ten.
pub struct Timer {
    handler: extern "C" fn(),
    id: Cell<Option<c_int>>,
}

impl Timer {
    /// `handler` runs in a signal handler, and may only make calls that are safe there.
    pub const fn new(handler: extern "C" fn()) -> Timer {
        Timer { handler, id: Cell::new(None) }
    }

    /// Runs `work`. Until it ends, calls the handler after `first`, and then at intervals of `again`.
    pub fn during<T>(&self, first: Duration, again: Duration, work: impl FnOnce() -> T) -> T {
        let id = self.id.get().unwrap_or_else(|| {
            // SAFETY: called once per process, on Postgres' thread; the handler lives as long as the
            // process.
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
