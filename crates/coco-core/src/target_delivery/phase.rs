//! The phases of delivery to one target.

use crate::target_delivery::ports::DeliveryChannel;

/// What is in flight to a target.
pub(super) enum Phase<C: DeliveryChannel> {
    /// Nothing.
    Idle,
    /// Nothing, because of a delivery error. The local database knows when to try again, and a
    /// session can end the pause, so `TargetDelivery::advance` asks the database each time.
    Backoff,
    /// A check whether the target exists. The batch follows the check.
    Checking {
        job: C::CheckJob,
        batch: Option<C::Batch>,
    },
    /// The target is opened, and created if it does not exist.
    Opening {
        job: C::DeliveryJob,
        creation: Creation,
    },
    /// Rows that are sent before they are committed here.
    Streaming {
        job: C::StreamJob,
        commit: StreamCommit<C>,
    },
    InFlight {
        job: C::DeliveryJob,
        creation: Creation,
        batch: C::Batch,
    },
}

/// Whether coco recorded, just before a job, that it creates the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Creation {
    Recorded,
    NotRecorded,
}

/// What became of the local transaction whose rows are streamed.
pub(super) enum StreamCommit<C: DeliveryChannel> {
    Open(C::CommitSignal),
    /// It was committed. The batch ends with the last row that was streamed.
    Committed(C::Batch),
    /// It was rolled back, or its rows are in the outbox.
    Withdrawn,
}

impl<C: DeliveryChannel> StreamCommit<C> {
    /// Signals the commit of the rows up to the end of `batch`, unless the stream was withdrawn:
    /// the target then has none of the rows.
    pub(super) fn confirm(&mut self, batch: C::Batch) {
        if !self.is_open() {
            return;
        }
        if let StreamCommit::Open(signal) = std::mem::replace(self, StreamCommit::Committed(batch))
        {
            C::signal_commit(signal);
        }
    }

    /// Causes the server to roll back the rows, unless their commit was signaled.
    pub(super) fn withdraw(&mut self) {
        if self.is_open() {
            *self = StreamCommit::Withdrawn;
        }
    }

    fn is_open(&self) -> bool {
        matches!(self, StreamCommit::Open(_))
    }
}
