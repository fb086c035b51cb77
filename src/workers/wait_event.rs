//! The wait events that pg_stat_activity shows for coco's processes.

use pgrx::pg_sys;

/// The event that a process waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitEvent {
    /// A worker waits for changes, or until its next work is due.
    Changes,
    /// A worker waits for an external target.
    Delivery,
    /// A worker or a session waits for a provider.
    Provider,
    /// A worker waits for a helper, which processes a part of the worker's transaction.
    Helper,
    /// A session waits for the worker that it started.
    Update,
    /// A session waits in coco.wait for a live flow to catch up.
    CatchUp,
    /// The launcher waits for a database that needs a worker.
    Launcher,
}

/// Returns the number of a wait event. Servers before 17 have a single wait event for all
/// extensions.
#[cfg(any(feature = "pg15", feature = "pg16"))]
pub fn event(_: WaitEvent) -> u32 {
    pg_sys::PG_WAIT_EXTENSION
}

/// Returns the number of a wait event, which the server assigns at the first use.
#[cfg(not(any(feature = "pg15", feature = "pg16")))]
pub fn event(waiting: WaitEvent) -> u32 {
    use std::cell::Cell;

    thread_local! {
        static KNOWN: Cell<[u32; 7]> = const { Cell::new([0; 7]) };
    }
    let mut known = KNOWN.get();
    let place = waiting as usize;
    if known[place] == 0 {
        let name = match waiting {
            WaitEvent::Changes => c"CocoChanges",
            WaitEvent::Delivery => c"CocoDelivery",
            WaitEvent::Provider => c"CocoProvider",
            WaitEvent::Helper => c"CocoHelper",
            WaitEvent::Update => c"CocoUpdate",
            WaitEvent::CatchUp => c"CocoCatchUp",
            WaitEvent::Launcher => c"CocoLauncher",
        };
        // SAFETY: the server creates an event of this name once, and returns the same number later.
        known[place] = unsafe { pg_sys::WaitEventExtensionNew(name.as_ptr()) };
        KNOWN.set(known);
    }
    known[place]
}
