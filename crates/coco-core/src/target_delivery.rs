//! Delivery to one external target, as a state machine.
//!
//! [`TargetDelivery::advance`] does everything that is possible without waiting. It keeps the order
//! that prevents lost and reordered rows: one batch in flight; a batch is acknowledged before the
//! next is sent; the record that coco manages a target is on disk before coco creates the target.
//! If anything fails, what is not acknowledged is sent again.

mod phase;
pub mod ports;
pub mod progress;
mod results;
#[cfg(test)]
mod tests;

use std::time::Duration;

use phase::{Creation, Phase, StreamCommit};
use ports::{
    BatchOf, DeliveryChannel, DeliveryStore, EndpointOf, ErrorOf, NextAction, RowSenderOf,
};
use progress::{Progress, Standing};
use results::Settled;

/// The delivery to one target: its lock, its connection, and what is in flight.
pub struct TargetDelivery<S: DeliveryStore> {
    pub store: S,
    /// Present from opening the target, or from the first batch, until nothing is left to deliver.
    lock: Option<S::Lock>,
    /// Absent until the first batch, and after an error.
    channel: Option<S::Channel>,
    /// The rows of an initial load. They are delivered instead of the outbox.
    buffer: Option<S::Buffer>,
    phase: Phase<S::Channel>,
    /// The batch after the one in flight, read meanwhile.
    next: Option<BatchOf<S>>,
}

impl<S: DeliveryStore> TargetDelivery<S> {
    pub fn new(store: S) -> TargetDelivery<S> {
        let phase = Phase::Idle;
        TargetDelivery { store, lock: None, channel: None, buffer: None, phase, next: None }
    }

    /// Records the result of the job in flight, if it has ended. Sends the next batch if nothing is
    /// in flight, and reads the batch after it. After an error, nothing is in flight, or the job is
    /// still running.
    pub fn advance(&mut self) -> Result<Progress, ErrorOf<S>> {
        let mut progress = Progress::default();
        let advanced = self.settle(&mut progress).and_then(|settled| match settled {
            Settled::Pending => {
                progress.standing = Standing::InFlight;
                Ok(())
            }
            Settled::Free => self.send(&mut progress),
            Settled::Failed => Ok(()),
        });
        if let Err(error) = advanced {
            // The batch was not acknowledged, so it is sent again, before everything after it.
            return self.give_up(error);
        }
        self.read_ahead(&mut progress)?;
        Ok(progress)
    }

    /// Opens the target if nothing was delivered to it, and creates it if necessary.
    pub fn open_if_new(&mut self) -> Result<(), ErrorOf<S>> {
        if self.channel.is_some() || !self.lock()? {
            return Ok(());
        }
        match self.store.endpoint_if_new()? {
            Some(to) => {
                self.connect(to);
                self.start(None).or_else(|error| self.give_up(error))
            }
            None => self.release(),
        }
    }

    /// Starts a stream of rows that are committed here later, if the target is open and supports
    /// this.
    pub fn start_stream(&mut self) -> Result<Option<RowSenderOf<S>>, ErrorOf<S>> {
        if self.is_in_flight() || !self.channel.as_ref().is_some_and(S::Channel::can_stream) {
            return Ok(None);
        }
        if !self.lock()? {
            return Ok(None);
        }
        let stream = self.channel.as_mut().map(S::Channel::start_stream).transpose();
        match stream.map(Option::flatten) {
            Ok(None) => Ok(None),
            Ok(Some(stream)) => {
                let commit = StreamCommit::Open(stream.signal);
                self.phase = Phase::Streaming { job: stream.job, commit };
                Ok(Some(stream.sink))
            }
            Err(error) => self.give_up(error),
        }
    }

    /// Causes the server to roll back the rows of a stream, unless their commit was signaled.
    pub fn withdraw_stream(&mut self) {
        if let Phase::Streaming { commit, .. } = &mut self.phase {
            commit.withdraw();
        }
    }

    /// Takes over the rows of an initial load that is committed, with the lock on the target. If
    /// some of the rows were streamed, signals their commit.
    pub fn take_over(&mut self, mut buffer: S::Buffer, lock: Option<S::Lock>) {
        self.store.crash_point("held");
        if let Some(batch) = self.store.streamed_batch(&buffer) {
            match &mut self.phase {
                Phase::Streaming { commit, .. } => {
                    commit.confirm(batch);
                    self.store.crash_point("sending");
                }
                // The stream has ended without its commit, so the target has none of the rows.
                _ => self.store.restart(&mut buffer),
            }
        }
        self.buffer = Some(buffer);
        // If this process had the lock already, one of the two is released.
        self.lock = self.lock.take().or(lock);
    }

    /// Reports whether rows of an initial load are lost with the process that had them; `false` if
    /// another process delivers to the target.
    pub fn is_interrupted(&mut self) -> Result<bool, ErrorOf<S>> {
        if !self.lock()? {
            return Ok(false);
        }
        let is_interrupted = self.store.is_interrupted()?;
        self.release()?;
        Ok(is_interrupted)
    }

    /// Allows other processes to deliver what is left, unless a job is in flight: then they wait
    /// until this process has ended.
    pub fn close(&mut self) -> Result<(), ErrorOf<S>> {
        match self.is_in_flight() {
            true => self.empty_buffer(),
            false => self.release(),
        }
    }

    /// Reports whether a job is in flight, or has ended and its result is not recorded yet.
    pub fn is_in_flight(&self) -> bool {
        !matches!(self.phase, Phase::Idle | Phase::Backoff)
    }

    /// Reports whether a job is still running. Discards the result of a job that has ended; its
    /// batch is sent again.
    pub fn is_running(&mut self) -> bool {
        let Some(channel) = &mut self.channel else { return false };
        let is_running = match &mut self.phase {
            Phase::Idle | Phase::Backoff => false,
            Phase::Checking { job, .. } => channel.poll_check(job).is_pending(),
            Phase::Opening { job, .. } | Phase::InFlight { job, .. } => {
                channel.poll_delivery(job).is_pending()
            }
            Phase::Streaming { job, .. } => channel.poll_stream(job).is_pending(),
        };
        if !is_running {
            self.phase = Phase::Idle;
        }
        is_running
    }

    /// Reports whether to wait before the first rows exist: until coco knows whether the target
    /// exists, or until a stream can start.
    pub fn is_opening(&self) -> bool {
        match self.phase {
            Phase::Checking { .. } => true,
            Phase::Opening { .. } => {
                self.channel.as_ref().is_some_and(S::Channel::supports_streams)
            }
            _ => false,
        }
    }

    /// Returns how long the connection has not been used; `None` if there is none.
    pub fn idle_for(&self) -> Option<Duration> {
        self.channel.as_ref().map(S::Channel::idle_for)
    }

    /// Sends the next batch, if there is one and no delivery error pauses delivery.
    fn send(&mut self, progress: &mut Progress) -> Result<(), ErrorOf<S>> {
        let mut next = self.next.take();
        loop {
            // The lock is kept from one batch to the next.
            if !self.lock()? {
                progress.standing = Standing::OtherProcess;
                return Ok(());
            }
            let (channel, buffer) = (self.channel.as_ref(), self.buffer.as_mut());
            let found = self.store.read_next(channel, buffer, next.take())?;
            progress.is_interrupted |= found.is_interrupted;
            progress.rejected += found.rejected;
            match found.action {
                // A row of the buffer cannot be encoded. The outbox records which one it is.
                NextAction::Nothing if self.buffer.is_some() => self.empty_buffer()?,
                NextAction::Nothing => return self.release(),
                NextAction::Wait(pause) => {
                    self.phase = Phase::Backoff;
                    progress.standing = Standing::Waiting(pause);
                    return self.release();
                }
                NextAction::Fail(error) => return self.fail(&error, progress),
                NextAction::Deliver { batch, to } => {
                    self.store.crash_point("read");
                    self.connect(to);
                    self.start(Some(batch))?;
                    progress.standing = Standing::InFlight;
                    self.store.crash_point("sending");
                    return Ok(());
                }
            }
        }
    }

    /// Reads the batch after the one in flight, or more rows of it.
    fn read_ahead(&mut self, progress: &mut Progress) -> Result<(), ErrorOf<S>> {
        if !self.is_in_flight() {
            return Ok(());
        }
        let Some(channel) = &self.channel else { return Ok(()) };
        if let Some(buffer) = &mut self.buffer {
            // No two rows of the buffer share a key, so the batch grows until it can be sent.
            if self.store.read_more(channel, buffer, &mut self.next)? {
                progress.standing = Standing::Reading;
            }
            return Ok(());
        }
        let batch = match &self.phase {
            Phase::Checking { batch: Some(batch), .. } | Phase::InFlight { batch, .. } => batch,
            _ => return Ok(()),
        };
        if self.next.is_none() {
            let read = self.store.read_after(channel, batch)?;
            progress.rejected += read.rejected;
            self.next = read.batch;
        }
        Ok(())
    }

    fn connect(&mut self, to: EndpointOf<S>) {
        match &mut self.channel {
            Some(channel) => channel.update(to),
            None => self.channel = Some(S::Channel::new(to)),
        }
    }

    /// Starts the job for a batch; without one, the job that opens the target.
    fn start(&mut self, batch: Option<BatchOf<S>>) -> Result<(), ErrorOf<S>> {
        let Some(channel) = &mut self.channel else { return Ok(()) };
        if !channel.must_check() {
            return self.start_delivery(batch, Creation::NotRecorded);
        }
        let job = channel.start_check()?;
        self.phase = Phase::Checking { job, batch };
        Ok(())
    }

    fn start_delivery(
        &mut self,
        mut batch: Option<BatchOf<S>>,
        creation: Creation,
    ) -> Result<(), ErrorOf<S>> {
        let Some(channel) = &mut self.channel else { return Ok(()) };
        let job = channel.start_delivery(batch.as_mut())?;
        self.phase = match batch {
            Some(batch) => Phase::InFlight { job, creation, batch },
            None => Phase::Opening { job, creation },
        };
        Ok(())
    }

    /// Locks the target; `false` if another process holds the lock.
    fn lock(&mut self) -> Result<bool, ErrorOf<S>> {
        if self.lock.is_none() {
            self.lock = self.store.lock()?;
        }
        Ok(self.lock.is_some())
    }

    /// Allows other processes to deliver; what is left is in the outbox then.
    fn release(&mut self) -> Result<(), ErrorOf<S>> {
        let moved = self.empty_buffer();
        self.lock = None;
        moved
    }

    /// Moves the undelivered rows of the buffer to the outbox.
    fn empty_buffer(&mut self) -> Result<(), ErrorOf<S>> {
        let Some(buffer) = self.buffer.take() else { return Ok(()) };
        self.next = None;
        self.store.move_to_outbox(buffer)
    }

    fn disconnect(&mut self) {
        self.channel = None;
        self.next = None;
        self.phase = Phase::Idle;
    }

    fn give_up<T>(&mut self, error: ErrorOf<S>) -> Result<T, ErrorOf<S>> {
        self.disconnect();
        self.release()?;
        Err(error)
    }
}

impl<S: DeliveryStore> Drop for TargetDelivery<S> {
    /// Keeps the lock until the process ends if a job is in flight: its thread can still write to
    /// the target.
    fn drop(&mut self) {
        if self.is_in_flight() {
            std::mem::forget(self.lock.take());
        }
    }
}
