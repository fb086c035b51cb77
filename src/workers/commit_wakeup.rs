//! Wakes workers when a writer commits, and counts its changes.

use pgrx::pg_sys;
use std::cell::{Cell, RefCell};

use crate::pg::backend;
use crate::workers::{change_counts, shared_memory};

/// Number of change logs that a transaction counts one by one. A transaction that writes to more
/// counts as a change for all flows of its database.
const LOGS: usize = 16;

thread_local! {
    static WROTE: RefCell<heapless::Vec<i32, LOGS>> = const { RefCell::new(heapless::Vec::new()) };
    /// The commit may concern any flow.
    static CONCERNS_ALL: Cell<bool> = const { Cell::new(false) };
    static LISTENING: Cell<bool> = const { Cell::new(false) };
}

/// Records that this transaction has written to the change log of a capture, so that its commit
/// wakes the workers.
pub fn wrote_log(capture: i32) {
    if !listens() {
        return;
    }
    WROTE.with_borrow_mut(|wrote| {
        if !wrote.contains(&capture) && wrote.push(capture).is_err() {
            CONCERNS_ALL.set(true);
        }
    });
}

/// Records that the commit of this transaction may concern any flow of the database, so that it
/// wakes the workers.
pub fn at_commit() {
    if listens() {
        CONCERNS_ALL.set(true);
    }
}

/// Ensures that this process notices the end of its transactions. Returns whether there is a shared
/// memory, in which workers can be found.
fn listens() -> bool {
    if !shared_memory::available() {
        return false;
    }
    if !LISTENING.replace(true) {
        // SAFETY: registered once per backend.
        unsafe { pg_sys::RegisterXactCallback(Some(ended), std::ptr::null_mut()) };
    }
    true
}

/// Wakes the workers once other sessions see the commit. If another session commits a prepared
/// transaction, it does not know about the changes; workers find them by polling.
unsafe extern "C-unwind" fn ended(event: pg_sys::XactEvent::Type, _arg: *mut std::ffi::c_void) {
    let has_ended = [
        pg_sys::XactEvent::XACT_EVENT_COMMIT,
        pg_sys::XactEvent::XACT_EVENT_ABORT,
        pg_sys::XactEvent::XACT_EVENT_PREPARE,
    ]
    .contains(&event);
    if !has_ended {
        return;
    }
    let wrote = WROTE.with_borrow_mut(std::mem::take);
    let concerns_all = CONCERNS_ALL.replace(false);
    if wrote.is_empty() && !concerns_all {
        return;
    }
    match event {
        pg_sys::XactEvent::XACT_EVENT_COMMIT => {
            let database = backend::database();
            match concerns_all {
                true => change_counts::count_for_all(database),
                false => change_counts::count(database, &wrote),
            }
            shared_memory::wake(database);
        }
        pg_sys::XactEvent::XACT_EVENT_PREPARE => change_counts::note_prepared(),
        _ => {}
    }
}
