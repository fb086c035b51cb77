//! The results of jobs: what coco records when a job ends.

use std::task::Poll;

use crate::change::{DeliveryError, RejectedChange};
use crate::target_delivery::TargetDelivery;
use crate::target_delivery::phase::{Creation, Phase, StreamCommit};
use crate::target_delivery::ports::{
    BatchOf, BufferState, DeliveryChannel, DeliveryOutcome, DeliveryStore, ErrorOf, Existence,
    Preparation, StreamOutcome,
};
use crate::target_delivery::progress::{Progress, Standing};

/// What follows after the result of a job was recorded.
pub(super) enum Settled {
    /// A job is running.
    Pending,
    /// The next batch can be sent.
    Free,
    /// A delivery error was recorded, and the progress says so.
    Failed,
}

impl<S: DeliveryStore> TargetDelivery<S> {
    /// Takes the result of the job in flight, if it has ended, and records it.
    pub(super) fn settle(&mut self, progress: &mut Progress) -> Result<Settled, ErrorOf<S>> {
        let phase = std::mem::replace(&mut self.phase, Phase::Idle);
        let Some(channel) = &mut self.channel else { return Ok(Settled::Free) };
        let pending = match phase {
            Phase::Idle | Phase::Backoff => return Ok(Settled::Free),
            Phase::Checking { mut job, batch } => match channel.poll_check(&mut job) {
                Poll::Pending => Phase::Checking { job, batch },
                Poll::Ready(Ok(existence)) => return self.after_check(existence, batch),
                Poll::Ready(Err(error)) => {
                    return self.after_error(batch.is_some(), &error, progress);
                }
            },
            Phase::Opening { mut job, creation } => match channel.poll_delivery(&mut job) {
                Poll::Pending => Phase::Opening { job, creation },
                Poll::Ready(outcome) => {
                    self.store.crash_point("opened");
                    return self.after_delivery(creation, None, outcome, progress);
                }
            },
            Phase::InFlight { mut job, creation, batch } => match channel.poll_delivery(&mut job) {
                Poll::Pending => Phase::InFlight { job, creation, batch },
                Poll::Ready(outcome) => {
                    return self.after_delivery(creation, Some(batch), outcome, progress);
                }
            },
            Phase::Streaming { mut job, commit } => match channel.poll_stream(&mut job) {
                Poll::Pending => Phase::Streaming { job, commit },
                Poll::Ready(outcome) => return self.after_stream(commit, outcome, progress),
            },
        };
        self.phase = pending;
        Ok(Settled::Pending)
    }

    /// Starts the batch after the check. If the target does not exist, coco first records that it
    /// creates the target, and this record stays whatever happens.
    fn after_check(
        &mut self,
        existence: Existence,
        batch: Option<BatchOf<S>>,
    ) -> Result<Settled, ErrorOf<S>> {
        let creation = match existence {
            Existence::Exists => Creation::NotRecorded,
            Existence::Missing => {
                self.store.record_creation()?;
                self.store.crash_point("making");
                Creation::Recorded
            }
        };
        self.start_delivery(batch, creation)?;
        Ok(Settled::Pending)
    }

    /// Records the result of a delivery; without a batch, the target was only opened.
    fn after_delivery(
        &mut self,
        creation: Creation,
        batch: Option<BatchOf<S>>,
        outcome: DeliveryOutcome,
        progress: &mut Progress,
    ) -> Result<Settled, ErrorOf<S>> {
        if let Some(is_managed) = correct_managed(creation, outcome.preparation) {
            self.store.record_managed(is_managed)?;
        }
        match (outcome.result, batch) {
            (Err(error), batch) => self.after_error(batch.is_some(), &error, progress),
            (Ok(_), None) => Ok(Settled::Free),
            (Ok(rejected), Some(batch)) => self.acknowledge(&batch, &rejected, progress),
        }
    }

    /// Drops the connection, with the batches. Records the error if there are rows to deliver: the
    /// next attempt uses another connection, and reads the batch again. Otherwise the rows that
    /// come later show whether the error persists.
    fn after_error(
        &mut self,
        has_batch: bool,
        error: &DeliveryError,
        progress: &mut Progress,
    ) -> Result<Settled, ErrorOf<S>> {
        if has_batch || self.buffer.is_some() {
            self.fail(error, progress)?;
            return Ok(Settled::Failed);
        }
        self.disconnect();
        Ok(Settled::Free)
    }

    /// Records that the target has the rows of a stream. If it has none of them, all rows of the
    /// buffer are sent again, from the first one on.
    fn after_stream(
        &mut self,
        commit: StreamCommit<S::Channel>,
        outcome: Result<StreamOutcome, DeliveryError>,
        progress: &mut Progress,
    ) -> Result<Settled, ErrorOf<S>> {
        if let (Ok(StreamOutcome::Accepted), StreamCommit::Committed(batch)) = (&outcome, &commit) {
            return self.acknowledge(batch, &[], progress);
        }
        self.next = None;
        if let Some(buffer) = &mut self.buffer {
            self.store.restart(buffer);
        }
        if let Err(why) = outcome {
            self.store.log_resend(&why)?;
        }
        Ok(Settled::Free)
    }

    /// Records that a batch was delivered, except for its rejected changes.
    fn acknowledge(
        &mut self,
        batch: &BatchOf<S>,
        rejected: &[RejectedChange],
        progress: &mut Progress,
    ) -> Result<Settled, ErrorOf<S>> {
        self.store.crash_point("sent");
        match &self.buffer {
            None => {
                progress.rejected += rejected.len() as i64;
                self.store.acknowledge(batch, rejected)?;
            }
            // The outbox records which rows are rejected, and when to retry them.
            Some(_) if !rejected.is_empty() => self.empty_buffer()?,
            Some(buffer) => match self.store.acknowledge_buffered(buffer, batch)? {
                BufferState::Delivered => self.buffer = None,
                BufferState::Remaining => {}
                BufferState::Expired => self.empty_buffer()?,
            },
        }
        self.store.crash_point("settled");
        Ok(Settled::Free)
    }

    /// Records a delivery error, and allows other processes to deliver.
    pub(super) fn fail(
        &mut self,
        error: &DeliveryError,
        progress: &mut Progress,
    ) -> Result<(), ErrorOf<S>> {
        self.disconnect();
        self.phase = Phase::Backoff;
        progress.standing = Standing::Failed;
        self.store.record_error(error)?;
        self.release()
    }
}

/// Returns whether coco manages a target, if a job has shown that the record is wrong.
fn correct_managed(creation: Creation, preparation: Preparation) -> Option<bool> {
    match (creation, preparation) {
        (Creation::NotRecorded, Preparation::Created) => Some(true),
        // Another program has created the target in the meantime.
        (Creation::Recorded, Preparation::Found) => Some(false),
        (Creation::Recorded, Preparation::Absent) => Some(false),
        _ => None,
    }
}
