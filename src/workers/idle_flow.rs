//! Whether a worker can leave a flow alone, because a transaction of the flow would find nothing.
//!
//! A flow is idle after a transaction that left nothing over, until a commit is counted for a log
//! that the flow follows: see [`change_counts`]. Without shared memory no commit is counted, so no
//! flow is idle.

use std::time::{Duration, Instant};

use crate::pg::{backend, invalidation};
use crate::update::run::UpdateOutcome;
use crate::workers::{change_counts, shared_memory};

/// Longest time for which a worker leaves a flow alone. Every change ends this time, so it is only a
/// precaution.
const LOOK_EVERY: Duration = Duration::from_secs(300);

/// What the last transaction of a flow has found.
#[derive(Default)]
pub struct IdleFlow {
    watched: Option<WatchedLogs>,
    /// The last transaction left nothing over, and followed these logs alone.
    has_nothing_left: bool,
}

/// The logs that a flow follows, as they were before the snapshot of its last transaction.
struct WatchedLogs {
    captures: Vec<i32>,
    changes: u64,
    invalidations: u64,
    looked_at: Instant,
}

impl WatchedLogs {
    fn now(captures: Vec<i32>) -> WatchedLogs {
        WatchedLogs {
            changes: change_counts::sum(backend::database(), &captures),
            captures,
            invalidations: invalidation::invalidation_count(),
            looked_at: Instant::now(),
        }
    }
}

impl IdleFlow {
    /// Prepares for a transaction. Called before its snapshot is taken.
    pub fn begin_turn(&mut self) {
        self.has_nothing_left = false;
        self.watched = self.watched.take().map(|watched| WatchedLogs::now(watched.captures));
    }

    /// Takes over the result of a transaction that has committed. `next` is the time of the next one
    /// that is necessary without changes.
    pub fn end_turn(&mut self, outcome: &UpdateOutcome, next: Option<Duration>) {
        let Some(logs) = outcome.logs.as_ref().filter(|_| shared_memory::available()) else {
            self.watched = None;
            return;
        };
        match &self.watched {
            Some(watched) if watched.captures == *logs => {
                self.has_nothing_left = next.is_none()
                    && !outcome.more
                    && !outcome.uncaptured
                    && outcome.waiting == 0
                    && outcome.counts().failed == 0;
            }
            // The counts from before this transaction are unknown.
            _ => self.watched = Some(WatchedLogs::now(logs.clone())),
        }
    }

    /// Returns the sum of the counts for the flow's logs, if commits were counted since the last
    /// transaction.
    pub fn counted(&self) -> Option<u64> {
        let watched = self.watched.as_ref()?;
        let now = change_counts::sum(backend::database(), &watched.captures);
        (now != watched.changes).then_some(now)
    }

    /// Reports whether nothing has happened since the last transaction that could concern the flow.
    pub fn is_idle(&self) -> bool {
        self.has_no_changes()
            && self.watched.as_ref().is_some_and(|watched| {
                watched.looked_at.elapsed() < LOOK_EVERY
                    && watched.invalidations == invalidation::invalidation_count()
            })
    }

    /// Reports whether the last transaction left nothing over, and no commit was counted since.
    pub fn has_no_changes(&self) -> bool {
        self.has_nothing_left && self.watched.is_some() && self.counted().is_none()
    }
}
