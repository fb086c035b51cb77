//! Waking workers as a writer commits.

use pgrx::pg_sys;
use std::cell::Cell;

use crate::workers::shared_memory;

thread_local! {
    static WROTE: Cell<bool> = const { Cell::new(false) };
    static LISTENING: Cell<bool> = const { Cell::new(false) };
}

/// This transaction has written to a change log: workers are woken when it commits.
pub fn at_commit() {
    if WROTE.replace(true) || !shared_memory::available() {
        return;
    }
    if !LISTENING.replace(true) {
        // SAFETY: registered once a backend.
        unsafe { pg_sys::RegisterXactCallback(Some(ended), std::ptr::null_mut()) };
    }
}

/// After the commit is visible to others. A prepared transaction is committed by another session,
/// which knows nothing of it: workers find it as they look by themselves.
unsafe extern "C-unwind" fn ended(event: pg_sys::XactEvent::Type, _arg: *mut std::ffi::c_void) {
    match event {
        pg_sys::XactEvent::XACT_EVENT_COMMIT if WROTE.replace(false) => {
            // SAFETY: reads the backend's own state.
            shared_memory::wake(unsafe { pg_sys::MyDatabaseId });
        }
        pg_sys::XactEvent::XACT_EVENT_ABORT | pg_sys::XactEvent::XACT_EVENT_PREPARE => {
            WROTE.set(false);
        }
        _ => {}
    }
}
