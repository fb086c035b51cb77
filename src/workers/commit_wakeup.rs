//! Wakes workers when a writer commits.

use pgrx::pg_sys;
use std::cell::Cell;

use crate::pg::backend;
use crate::workers::shared_memory;

thread_local! {
    static WROTE: Cell<bool> = const { Cell::new(false) };
    static LISTENING: Cell<bool> = const { Cell::new(false) };
}

/// Records that this transaction has written to a change log, so that its commit wakes the workers.
pub fn at_commit() {
    if WROTE.replace(true) || !shared_memory::available() {
        return;
    }
    if !LISTENING.replace(true) {
        // SAFETY: registered once per backend.
        unsafe { pg_sys::RegisterXactCallback(Some(ended), std::ptr::null_mut()) };
    }
}

/// Wakes the workers once other sessions see the commit. If another session commits a prepared
/// transaction, it does not know about the changes; workers find them by polling.
unsafe extern "C-unwind" fn ended(event: pg_sys::XactEvent::Type, _arg: *mut std::ffi::c_void) {
    match event {
        pg_sys::XactEvent::XACT_EVENT_COMMIT if WROTE.replace(false) => {
            shared_memory::wake(backend::database());
        }
        pg_sys::XactEvent::XACT_EVENT_ABORT | pg_sys::XactEvent::XACT_EVENT_PREPARE => {
            WROTE.set(false);
        }
        _ => {}
    }
}
