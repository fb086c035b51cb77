//! What the delivery to a target needs from outside: a channel to the target, and the local
//! database. The extension implements both; the tests implement them in memory.

use std::task::Poll;
use std::time::Duration;

use crate::change::{DeliveryError, RejectedChange};

/// The connection to one target, and the jobs that use it. A job runs on other threads, and only
/// one runs at a time. Each `poll_…` function returns the result of its job once.
pub trait DeliveryChannel: Sized {
    /// The schema of the target, and the options to reach it.
    type Endpoint;
    type Batch;
    type Error;
    type CheckJob;
    type DeliveryJob;
    type StreamJob;
    /// Takes the rows of a stream.
    type RowSender;
    /// Commits a stream on the server. If it is dropped, the server rolls the stream back.
    type CommitSignal;

    fn new(to: Self::Endpoint) -> Self;

    /// Closes the connection if the target has another schema now, or other options.
    fn update(&mut self, to: Self::Endpoint);

    /// Reports whether coco must check whether the target exists before it creates it. This is the
    /// case if coco is not connected, and has not recorded that it manages the target.
    fn must_check(&self) -> bool;

    /// Starts to check whether the target exists.
    fn start_check(&mut self) -> Result<Self::CheckJob, Self::Error>;

    fn poll_check(&mut self, job: &mut Self::CheckJob) -> Poll<Result<Existence, DeliveryError>>;

    /// Starts to deliver a batch, and takes its changes. On a new connection, the job first creates
    /// the target if it does not exist. Without a batch, the job does only this.
    fn start_delivery(
        &mut self,
        batch: Option<&mut Self::Batch>,
    ) -> Result<Self::DeliveryJob, Self::Error>;

    fn poll_delivery(&mut self, job: &mut Self::DeliveryJob) -> Poll<DeliveryOutcome>;

    /// Reports whether the connector supports streams.
    fn supports_streams(&self) -> bool;

    /// Reports whether a stream can start now: the connector supports it, and the target is open.
    fn can_stream(&self) -> bool;

    /// Starts a stream of rows that the target shows only after their commit here.
    fn start_stream(&mut self) -> Result<Option<StartedStream<Self>>, Self::Error>;

    /// Returns whether the target has accepted the rows.
    fn poll_stream(
        &mut self,
        job: &mut Self::StreamJob,
    ) -> Poll<Result<StreamOutcome, DeliveryError>>;

    /// Signals that the rows of a stream are committed here.
    fn signal_commit(signal: Self::CommitSignal);

    /// Returns how long the connection has not been used.
    fn idle_for(&self) -> Duration;
}

/// A stream that has started.
pub struct StartedStream<C: DeliveryChannel> {
    pub job: C::StreamJob,
    pub sink: C::RowSender,
    pub signal: C::CommitSignal,
}

/// Whether a target exists on its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existence {
    Exists,
    Missing,
}

/// What became of the rows of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamOutcome {
    Accepted,
    /// The target has none of the rows.
    NotAccepted,
}

/// What a delivery job found on the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preparation {
    /// The job used a connection that was prepared before, or does not know.
    None,
    Created,
    Found,
    /// The job could not create the target, and it does not exist.
    Absent,
}

/// The result of a delivery job.
#[derive(Debug)]
pub struct DeliveryOutcome {
    pub preparation: Preparation,
    /// The rejected changes. After an error nobody knows which changes the target has.
    pub result: Result<Vec<RejectedChange>, DeliveryError>,
}

/// The next thing to do for a target.
pub enum NextAction<B, E> {
    /// There is nothing to deliver.
    Nothing,
    /// A delivery error pauses delivery for this time.
    Wait(Duration),
    /// The target cannot be reached as it is declared.
    Fail(DeliveryError),
    Deliver {
        batch: B,
        to: E,
    },
}

/// The result of looking for something to deliver.
pub struct NextDelivery<B, E> {
    pub action: NextAction<B, E>,
    /// Rows of an initial load are lost with the process that had them, so all rows must be sent.
    pub is_interrupted: bool,
    /// How many rows were marked as rejected because they cannot be encoded.
    pub rejected: i64,
}

/// The result of reading the batch after the one in flight.
pub struct BatchRead<B> {
    pub batch: Option<B>,
    /// How many rows were marked as rejected because they cannot be encoded.
    pub rejected: i64,
}

/// How much an initial-load buffer still has to deliver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BufferState {
    /// Everything is delivered.
    Delivered,
    Remaining,
    /// The process has kept the rest for too long.
    Expired,
}

pub type ChannelOf<S> = <S as DeliveryStore>::Channel;
pub type BatchOf<S> = <ChannelOf<S> as DeliveryChannel>::Batch;
pub type EndpointOf<S> = <ChannelOf<S> as DeliveryChannel>::Endpoint;
pub type ErrorOf<S> = <ChannelOf<S> as DeliveryChannel>::Error;
pub type RowSenderOf<S> = <ChannelOf<S> as DeliveryChannel>::RowSender;

/// The local database, for one target. Each function that can fail is one transaction.
pub trait DeliveryStore {
    type Channel: DeliveryChannel;
    /// Rows of an initial load that this process delivers from its memory.
    type Buffer;
    /// A lock against other processes that want to deliver to the target; released when dropped.
    type Lock;

    /// Locks the target; `None` if another process holds the lock.
    fn lock(&mut self) -> Result<Option<Self::Lock>, ErrorOf<Self>>;

    /// Reports whether rows of an initial load are lost with the process that had them.
    fn is_interrupted(&mut self) -> Result<bool, ErrorOf<Self>>;

    /// Returns how to reach a target that nothing was delivered to, if it can be reached now.
    fn endpoint_if_new(&mut self) -> Result<Option<EndpointOf<Self>>, ErrorOf<Self>>;

    /// Reads the next batch, unless `next` still fits the target. The batch comes from the buffer,
    /// if there is one, or else from the outbox.
    fn read_next(
        &mut self,
        channel: Option<&Self::Channel>,
        buffer: Option<&mut Self::Buffer>,
        next: Option<BatchOf<Self>>,
    ) -> Result<NextDelivery<BatchOf<Self>, EndpointOf<Self>>, ErrorOf<Self>>;

    /// Reads the batch after one in flight from the outbox.
    fn read_after(
        &mut self,
        channel: &Self::Channel,
        batch: &BatchOf<Self>,
    ) -> Result<BatchRead<BatchOf<Self>>, ErrorOf<Self>>;

    /// Reads more rows from the buffer into `next`. Returns `false` if `next` is full or the buffer
    /// has no more rows.
    fn read_more(
        &mut self,
        channel: &Self::Channel,
        buffer: &mut Self::Buffer,
        next: &mut Option<BatchOf<Self>>,
    ) -> Result<bool, ErrorOf<Self>>;

    /// Records, before coco creates the target, that coco manages it. The record must be on disk
    /// when this function returns.
    fn record_creation(&mut self) -> Result<(), ErrorOf<Self>>;

    /// Records whether coco manages the target.
    fn record_managed(&mut self, is_managed: bool) -> Result<(), ErrorOf<Self>>;

    /// Records that a batch of the outbox was delivered, except for its rejected changes.
    fn acknowledge(
        &mut self,
        batch: &BatchOf<Self>,
        rejected: &[RejectedChange],
    ) -> Result<(), ErrorOf<Self>>;

    /// Records that a batch of the buffer was delivered.
    fn acknowledge_buffered(
        &mut self,
        buffer: &Self::Buffer,
        batch: &BatchOf<Self>,
    ) -> Result<BufferState, ErrorOf<Self>>;

    /// Returns an empty batch that ends with the last row that was streamed from the buffer; `None`
    /// if no row was.
    fn streamed_batch(&self, buffer: &Self::Buffer) -> Option<BatchOf<Self>>;

    /// Starts over at the first row of the buffer.
    fn restart(&self, buffer: &mut Self::Buffer);

    /// Moves the undelivered rows of the buffer to the outbox.
    fn move_to_outbox(&mut self, buffer: Self::Buffer) -> Result<(), ErrorOf<Self>>;

    /// Records and logs a delivery error.
    fn record_error(&mut self, error: &DeliveryError) -> Result<(), ErrorOf<Self>>;

    /// Logs why rows are sent again.
    fn log_resend(&mut self, why: &DeliveryError) -> Result<(), ErrorOf<Self>>;

    /// A point at which the tests can make the process crash.
    fn crash_point(&self, name: &str);
}
