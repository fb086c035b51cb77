//! What a process of coco's waits for, as pg_stat_activity names it.

use pgrx::pg_sys;

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitEvent {
    /// A worker: for changes, or for the time of what it is to do next.
    Changes,
    /// A worker: for a target outside this database.
    Delivery,
    /// A worker or a session: for a provider.
    Provider,
    /// A worker: for the process that does a portion of its turn.
    Helper,
    /// A session: for the worker that does what it has asked for.
    Update,
    /// A session, in coco.wait: for a live flow to catch up.
    CatchUp,
    /// The launcher: for a database that wants a worker.
    Launcher,
}

/// Servers before 17 have one name for what all extensions wait for.
#[cfg(any(feature = "pg14", feature = "pg15", feature = "pg16"))]
pub fn event(_: WaitEvent) -> u32 {
    pg_sys::PG_WAIT_EXTENSION
}

#[cfg(not(any(feature = "pg14", feature = "pg15", feature = "pg16")))]
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
        // SAFETY: a name of the server's, which is made once and found again.
        known[place] = unsafe { pg_sys::WaitEventExtensionNew(name.as_ptr()) };
        KNOWN.set(known);
    }
    known[place]
}
