//! The local side of the delivery to one target: the lock, what to deliver next, and the records of
//! what was delivered.

use crate::catalog::locks::DeliveryLock;
use crate::catalog::model::{External, Flow, Target};
use crate::flows::cache;
use crate::outbox::change_batch::{BatchSize, ChangeBatch};
use crate::outbox::initial_load_buffer::InitialLoadBuffer;
use crate::outbox::queue::{self, ReadRequest};
use crate::outbox::{delivery_state, foreign_server};
use crate::pg::error::Error;
use crate::pg::{spi, subtransaction};
use crate::update::run;
use crate::workers::crash_point;
use crate::workers::delivery::resolved_target::{ResolvedTarget, find_external, resolve_target};
use crate::workers::delivery::target_channel::TargetChannel;
use crate::workers::transaction::{TransactionError, transaction};
use coco_connectors::targets::Connector;
use coco_core::change::{DeliveryError, RejectedChange};
use coco_core::target_delivery::ports::{
    BatchRead, BufferState, DeliveryStore, NextAction, NextDelivery,
};

/// The largest number of changes in the first batch: the connection is idle while coco reads it.
const FIRST: usize = 5000;

/// How many changes coco reads from a buffer at a time while a batch is in flight.
const PIECE: usize = 5000;

/// When to empty an outbox whose entries are all delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmptyOutbox {
    AtOnce,
    /// A session waits, and removing files can take a while.
    Later,
}

/// One external target of a flow in the local database.
pub struct TargetStore {
    pub flow: String,
    pub target: i32,
    pub empty_outbox: EmptyOutbox,
}

type Next = NextDelivery<ChangeBatch, ResolvedTarget>;

impl TargetStore {
    /// Runs a transaction for the target, as the flow declares it now; returns the default value if
    /// the flow no longer has it.
    fn with_target<T: Default>(
        &self,
        work: impl FnOnce(&Flow, &Target, &External) -> Result<T, Error>,
    ) -> Result<T, TransactionError> {
        transaction(|| {
            let ready = cache::runnable_flow(&self.flow)?;
            match find_external(&ready.flow, self.target) {
                Some((declared, external)) => work(&ready.flow, declared, external),
                None => Ok(T::default()),
            }
        })
    }

    /// Returns the name of the target for messages.
    fn shown(&self) -> Result<String, Error> {
        delivery_state::delivery_error(self.target)
    }
}

impl DeliveryStore for TargetStore {
    type Channel = TargetChannel;
    type Buffer = InitialLoadBuffer;
    type Lock = DeliveryLock;

    fn lock(&mut self) -> Result<Option<DeliveryLock>, TransactionError> {
        transaction(|| DeliveryLock::acquire_if_free(self.target))
    }

    fn is_interrupted(&mut self) -> Result<bool, TransactionError> {
        let status = transaction(|| delivery_state::delivery_status(self.target))?;
        Ok(status.is_some_and(|status| status.filling.is_some()))
    }

    fn endpoint_if_new(&mut self) -> Result<Option<ResolvedTarget>, TransactionError> {
        self.with_target(|flow, declared, external| {
            let is_new = |status: delivery_state::DeliveryStatus| {
                status.sent == 0 && status.wait.is_zero() && !flow.paused
            };
            match delivery_state::delivery_status(self.target)?.is_some_and(is_new) {
                // The first batch shows any error.
                true => Ok(resolve_target(flow, declared, external).ok()),
                false => Ok(None),
            }
        })
    }

    fn read_next(
        &mut self,
        channel: Option<&TargetChannel>,
        buffer: Option<&mut InitialLoadBuffer>,
        next: Option<ChangeBatch>,
    ) -> Result<Next, TransactionError> {
        let found = self.with_target(|flow, declared, external| {
            next_delivery(flow, declared, external, channel, buffer, next).map(Some)
        })?;
        Ok(found.unwrap_or_else(nothing))
    }

    fn read_after(
        &mut self,
        channel: &TargetChannel,
        batch: &ChangeBatch,
    ) -> Result<BatchRead<ChangeBatch>, TransactionError> {
        let BatchSize { changes, bytes } = batch_size(channel.connector);
        let changes = changes.min(2 * batch.positions.len().max(FIRST));
        let wanted = ReadRequest {
            after: batch.upto,
            refused: false,
            encoding: channel.connector.encoding,
            size: BatchSize { changes, bytes },
        };
        let read = self.with_target(|flow, declared, external| {
            queue::read_next(flow, declared, external, wanted)
        })?;
        Ok(BatchRead { batch: read.batch, rejected: read.refused })
    }

    fn read_more(
        &mut self,
        channel: &TargetChannel,
        buffer: &mut InitialLoadBuffer,
        next: &mut Option<ChangeBatch>,
    ) -> Result<bool, TransactionError> {
        let most = batch_size(channel.connector);
        let left = next.as_ref().map_or(Some(most), |next| most.less(next));
        let Some(BatchSize { changes, bytes }) = left else { return Ok(false) };
        let more = self.with_target(|flow, declared, _| {
            // `read_next` raises the error.
            if !buffer.fits(&foreign_server::target_schema(&flow.name, declared)?) {
                return Ok(None);
            }
            let piece = BatchSize { changes: changes.min(PIECE), bytes };
            buffer.read(flow, declared, channel.connector.encoding, piece)
        })?;
        let Some(more) = more else { return Ok(false) };
        match next {
            Some(next) => next.append(more),
            None => *next = Some(more),
        }
        Ok(true)
    }

    fn record_creation(&mut self) -> Result<(), TransactionError> {
        transaction(|| {
            spi::commit_durably();
            delivery_state::note_made(self.target, true)
        })
    }

    fn record_managed(&mut self, is_managed: bool) -> Result<(), TransactionError> {
        transaction(|| delivery_state::note_made(self.target, is_managed))
    }

    fn acknowledge(
        &mut self,
        batch: &ChangeBatch,
        rejected: &[RejectedChange],
    ) -> Result<(), TransactionError> {
        self.with_target(|flow, declared, external| {
            queue::acknowledge(declared, external, batch, rejected)?;
            match self.empty_outbox {
                EmptyOutbox::AtOnce => queue::empty_outbox(flow, declared),
                EmptyOutbox::Later => Ok(()),
            }
        })
    }

    fn acknowledge_buffered(
        &mut self,
        buffer: &InitialLoadBuffer,
        batch: &ChangeBatch,
    ) -> Result<BufferState, TransactionError> {
        let is_all = buffer.is_all(batch.upto);
        transaction(|| {
            delivery_state::note_sent(self.target, batch.upto)?;
            match is_all {
                true => delivery_state::note_initial_load_sent(self.target),
                false => Ok(()),
            }
        })?;
        Ok(match is_all {
            true => BufferState::Delivered,
            false if buffer.is_over() => BufferState::Expired,
            false => BufferState::Remaining,
        })
    }

    fn streamed_batch(&self, buffer: &InitialLoadBuffer) -> Option<ChangeBatch> {
        buffer.upto().map(ChangeBatch::sent)
    }

    fn restart(&self, buffer: &mut InitialLoadBuffer) {
        buffer.restart();
    }

    fn move_to_outbox(&mut self, buffer: InitialLoadBuffer) -> Result<(), TransactionError> {
        self.with_target(|flow, declared, external| {
            match delivery_state::delivery_status(self.target)? {
                Some(status) => buffer.queue(flow, declared, external, Some(status.sent)),
                None => Ok(()),
            }
        })
    }

    fn record_error(&mut self, error: &DeliveryError) -> Result<(), TransactionError> {
        let shown = transaction(|| {
            delivery_state::record_error(self.target, error)?;
            self.shown()
        })?;
        tracing::warn!(
            sqlstate = error.sqlstate,
            detail = error.detail.as_deref(),
            hint = error.hint.as_deref(),
            "flow \"{}\": {shown} cannot be sent to: {}",
            self.flow,
            error.message
        );
        Ok(())
    }

    fn log_resend(&mut self, why: &DeliveryError) -> Result<(), TransactionError> {
        let shown = transaction(|| self.shown())?;
        tracing::info!("flow \"{}\": {shown} is sent rows once more: {}", self.flow, why.message);
        Ok(())
    }

    fn crash_point(&self, name: &str) {
        crash_point::point(name);
    }
}

/// Reads what to deliver next, unless `next` was read for the target's current schema.
fn next_delivery(
    flow: &Flow,
    declared: &Target,
    external: &External,
    channel: Option<&TargetChannel>,
    buffer: Option<&mut InitialLoadBuffer>,
    next: Option<ChangeBatch>,
) -> Result<Next, Error> {
    let Some(status) = delivery_state::delivery_status(declared.id)? else { return Ok(nothing()) };
    let is_interrupted = status.filling.is_some() && buffer.is_none();
    let found = |action, rejected| Ok(NextDelivery { action, is_interrupted, rejected });
    if !status.wait.is_zero() {
        return found(NextAction::Wait(status.wait), 0);
    }
    let to = match resolve_target(flow, declared, external) {
        Ok(to) => to,
        Err(error) => return found(NextAction::Fail(delivery_error(error)), 0),
    };
    // Batches of another schema do not fit the outbox, which was created again.
    let next =
        next.filter(|_| channel.is_some_and(|channel| channel.schema.has_same_rows(&to.schema)));
    let (encoding, size) = (to.connector.encoding, first_batch_size(to.connector));
    let (batch, rejected) = match (next, buffer) {
        (Some(batch), _) => (Some(batch), 0),
        (None, Some(buffer)) if !buffer.fits(&to.schema) => {
            return Err(run::logic_changed_error(flow));
        }
        (None, Some(buffer)) => (buffer.read(flow, declared, encoding, size)?, 0),
        (None, None) => {
            let wanted = ReadRequest { after: status.sent, refused: true, encoding, size };
            let read = queue::read_next(flow, declared, external, wanted)?;
            (read.batch, read.refused)
        }
    };
    let action = batch.map_or(NextAction::Nothing, |batch| NextAction::Deliver { batch, to });
    found(action, rejected)
}

fn nothing() -> Next {
    NextDelivery { action: NextAction::Nothing, is_interrupted: false, rejected: 0 }
}

fn delivery_error(error: Error) -> DeliveryError {
    let sqlstate = subtransaction::sqlstate(error.code as i32);
    let mut trouble = DeliveryError::target(&sqlstate, error.message);
    trouble.detail = error.detail;
    trouble.hint = error.hint;
    trouble
}

fn batch_size(connector: &Connector) -> BatchSize {
    BatchSize { changes: connector.batch.changes, bytes: connector.batch.bytes }
}

/// Returns the size of a batch that is read while nothing is in flight.
fn first_batch_size(connector: &Connector) -> BatchSize {
    let BatchSize { changes, bytes } = batch_size(connector);
    BatchSize { changes: changes.min(FIRST), bytes }
}
