//! A snapshot that several statements share.

use pgrx::pg_sys;

/// One snapshot for all that is read with [`SpiSession::select_into`] until it is dropped: an item
/// is evaluated as it was when it was found changed, whatever commits in between.
pub struct PinnedSnapshot(());

impl PinnedSnapshot {
    pub fn take() -> PinnedSnapshot {
        // SAFETY: popped in drop; an abort pops it by itself. The counter makes what this
        // transaction has written visible.
        unsafe {
            pg_sys::CommandCounterIncrement();
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
            pg_sys::UpdateActiveSnapshotCommandId();
        }
        PinnedSnapshot(())
    }

    /// The one that is active, which also sees what this transaction has written since it was taken.
    pub fn again() -> PinnedSnapshot {
        // SAFETY: as above; a copy, so that who has taken it sees what it saw.
        unsafe {
            pg_sys::CommandCounterIncrement();
            pg_sys::PushCopiedSnapshot(pg_sys::GetActiveSnapshot());
            pg_sys::UpdateActiveSnapshotCommandId();
        }
        PinnedSnapshot(())
    }

    /// Of what is committed at this moment, also in a transaction that reads as of earlier.
    pub fn latest() -> PinnedSnapshot {
        // SAFETY: as above.
        unsafe {
            pg_sys::CommandCounterIncrement();
            pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
        }
        PinnedSnapshot(())
    }
}

impl Drop for PinnedSnapshot {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: the snapshot pushed in `take`; statements in between pop their own.
            unsafe { pg_sys::PopActiveSnapshot() };
        }
    }
}
