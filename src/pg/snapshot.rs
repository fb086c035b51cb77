//! A snapshot that several statements share.

use pgrx::pg_sys;

/// The snapshot for everything that [`SpiSession::select_into`] reads until it is dropped. An item
/// is evaluated in the state in which it was found changed, whatever commits in between.
///
/// [`SpiSession::select_into`]: crate::pg::tuplestore::statements::SpiSession::select_into
pub struct PinnedSnapshot(());

impl PinnedSnapshot {
    pub fn take() -> PinnedSnapshot {
        // SAFETY: `drop` pops the snapshot; an abort also pops it. The command counter makes this
        // transaction's writes visible.
        unsafe {
            pg_sys::CommandCounterIncrement();
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
            pg_sys::UpdateActiveSnapshotCommandId();
        }
        PinnedSnapshot(())
    }

    /// Pushes the active snapshot again, which then also sees what this transaction has written
    /// since.
    pub fn again() -> PinnedSnapshot {
        // SAFETY: as above. A copy is pushed, so that the previous snapshot still sees what it saw.
        unsafe {
            pg_sys::CommandCounterIncrement();
            pg_sys::PushCopiedSnapshot(pg_sys::GetActiveSnapshot());
            pg_sys::UpdateActiveSnapshotCommandId();
        }
        PinnedSnapshot(())
    }

    /// Pushes a snapshot of what is committed now, also in a transaction that reads an older state.
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
            // SAFETY: pops the snapshot that the constructor pushed; statements in between pop
            // their own.
            unsafe { pg_sys::PopActiveSnapshot() };
        }
    }
}
