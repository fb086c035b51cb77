//! The context of an update: who runs it, what remains between its transactions, and which state of
//! the database it reads. Only this file distinguishes the contexts; an update asks for what it
//! needs.

use crate::catalog::model::{Flow, Source};
use crate::pg::clock::now_micros;
use crate::pg::invalidation;
use crate::pg::snapshot::PinnedSnapshot;
use crate::update::backlog::PendingKeys;
use crate::update::cursor_cache::CursorCache;
use crate::update::helper_pool::HelperPool;

/// An update that a worker runs for a session, in several transactions.
#[derive(Clone, Copy)]
pub struct ChunkedUpdate<'a> {
    pub pending: &'a PendingKeys,
}

/// A transaction of a worker that follows a live flow.
#[derive(Clone, Copy)]
pub struct LiveUpdate<'a> {
    pub cursors: &'a CursorCache,
    pub pending: &'a PendingKeys,
    pub helpers: &'a dyn HelperPool,
    /// Whether the worker updates the flow by a schedule. It then reads each source, and stores each
    /// cursor, at once: the next transaction may be far away.
    pub is_scheduled: bool,
}

impl LiveUpdate<'_> {
    /// Reports whether a flow is still followed in this way.
    pub fn fits(&self, flow: &Flow) -> bool {
        flow.live && !flow.paused && flow.has_schedule == self.is_scheduled
    }
}

/// The context of an update.
#[derive(Clone, Copy)]
pub enum UpdateContext<'a> {
    /// The transaction of a session does all of the update.
    Session,
    Chunked(ChunkedUpdate<'a>),
    Live(LiveUpdate<'a>),
}

/// What a context offers.
#[derive(Clone, Copy, Default)]
struct Offered<'a> {
    cursors: Option<&'a CursorCache>,
    pending: Option<&'a PendingKeys>,
    helpers: Option<&'a dyn HelperPool>,
}

impl<'a> UpdateContext<'a> {
    fn offered(self) -> Offered<'a> {
        match self {
            UpdateContext::Session => Offered::default(),
            UpdateContext::Chunked(ChunkedUpdate { pending }) => {
                Offered { pending: Some(pending), ..Offered::default() }
            }
            UpdateContext::Live(LiveUpdate { cursors, pending, helpers, is_scheduled }) => {
                let cursors = (!is_scheduled).then_some(cursors);
                Offered { cursors, pending: Some(pending), helpers: Some(helpers) }
            }
        }
    }

    /// Returns the cursors that the worker of a live flow keeps in memory; `None` if it keeps none.
    pub fn cursors(self) -> Option<&'a CursorCache> {
        self.offered().cursors
    }

    /// Returns the pending keys, if the update can leave keys to a later transaction.
    pub fn pending(self) -> Option<&'a PendingKeys> {
        self.offered().pending
    }

    /// Returns the helpers of a live flow's worker.
    pub fn helpers(self) -> Option<&'a dyn HelperPool> {
        self.offered().helpers
    }

    /// Reports whether a worker follows a live flow.
    pub fn is_live(self) -> bool {
        matches!(self, UpdateContext::Live(_))
    }

    /// Reports whether a source that is not captured is read only when its refresh interval has
    /// passed.
    pub fn scans_when_due(self) -> bool {
        matches!(self, UpdateContext::Live(LiveUpdate { is_scheduled: false, .. }))
    }

    /// Reports whether an earlier transaction of the update has finished a source.
    pub fn has_finished(self, source: &Source) -> bool {
        self.pending().is_some_and(|pending| pending.is_done(source))
    }

    /// Reports whether a source has pending keys.
    pub fn has_pending(self, source: &Source) -> bool {
        self.pending().is_some_and(|pending| pending.has(source))
    }

    /// Returns when the update began: microseconds since 1970.
    pub fn began(self) -> i64 {
        self.pending().map_or_else(now_micros, |pending| pending.began)
    }
}

/// The state of the database that an update reads.
#[derive(Clone, Copy)]
pub enum UpdateSnapshot {
    /// A snapshot that the update takes when it has its locks.
    Own,
    /// The active snapshot, which several updates of one transaction share.
    Shared {
        /// The invalidation count from before the snapshot was taken.
        since: u64,
    },
}

impl UpdateSnapshot {
    /// Pins the snapshot. It also sees what this transaction has written.
    pub fn pin(self) -> PinnedSnapshot {
        match self {
            UpdateSnapshot::Own => PinnedSnapshot::take(),
            UpdateSnapshot::Shared { .. } => PinnedSnapshot::again(),
        }
    }

    /// Returns the invalidation count from before the snapshot was taken. Call it before
    /// [`UpdateSnapshot::pin`].
    pub fn generation(self) -> u64 {
        match self {
            UpdateSnapshot::Own => invalidation::invalidation_count(),
            UpdateSnapshot::Shared { since } => since,
        }
    }

    /// Reports whether other updates of the transaction read the same snapshot.
    pub fn is_shared(self) -> bool {
        matches!(self, UpdateSnapshot::Shared { .. })
    }

    /// Reports whether the catalog may have changed since the snapshot was taken.
    pub fn may_be_outdated(self) -> bool {
        self.is_shared() && self.generation() != invalidation::invalidation_count()
    }
}
