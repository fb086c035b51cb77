//! A target and a local database in memory. They record what the delivery does, in order.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use crate::change::{DeliveryError, RejectedChange};
use crate::target_delivery::TargetDelivery;
use crate::target_delivery::ports::{
    BatchRead, BufferState, DeliveryChannel, DeliveryOutcome, DeliveryStore, Existence, NextAction,
    NextDelivery, Preparation, StartedStream, StreamOutcome,
};
use crate::target_delivery::progress::{Progress, Standing};

/// How many changes a batch has.
const BATCH: usize = 2;

/// The result that a job returns.
#[derive(Clone, Debug)]
pub enum JobEnd {
    Check(Result<Existence, DeliveryError>),
    Delivery(Preparation, Result<Vec<RejectedChange>, DeliveryError>),
    Stream(Result<StreamOutcome, DeliveryError>),
}

/// The state that a delivery, its channel and the test share.
#[derive(Default)]
pub struct World {
    log: RefCell<Vec<String>>,
    /// The results of jobs; a job without a result is running.
    ends: RefCell<VecDeque<JobEnd>>,
    /// The positions in the outbox, and the last delivered one.
    pub outbox: RefCell<Vec<i64>>,
    pub sent: Cell<i64>,
    /// The last position of rows that a process delivers from its memory.
    pub filling: Cell<Option<i64>>,
    pub is_managed: Cell<bool>,
    /// Another process has the lock.
    pub is_locked_elsewhere: Cell<bool>,
    /// How often this process holds the lock.
    pub locks: Cell<u32>,
    pub pause: Cell<Duration>,
    /// The buffer must be emptied now.
    pub is_expired: Cell<bool>,
    /// The target cannot be reached as it is declared.
    pub is_unreachable: Cell<bool>,
    /// A row of the buffer cannot be encoded.
    pub is_unencodable: Cell<bool>,
    /// The next transaction fails.
    pub fails: Cell<bool>,
}

impl World {
    fn note(&self, what: impl Into<String>) {
        self.log.borrow_mut().push(what.into());
    }

    pub fn end_job(&self, end: Option<JobEnd>) {
        self.ends.borrow_mut().extend(end);
    }

    fn end(&self) -> Poll<JobEnd> {
        self.ends.borrow_mut().pop_front().map_or(Poll::Pending, Poll::Ready)
    }

    fn transaction(&self) -> Result<(), String> {
        match self.fails.take() {
            true => Err("the transaction failed".to_owned()),
            false => Ok(()),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch(pub Vec<i64>);

impl Batch {
    fn after(positions: &[i64], after: i64) -> Option<Batch> {
        let batch: Vec<i64> =
            positions.iter().copied().filter(|p| *p > after).take(BATCH).collect();
        (!batch.is_empty()).then_some(Batch(batch))
    }

    fn upto(&self) -> i64 {
        self.0.last().copied().unwrap_or(0)
    }
}

impl std::fmt::Display for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let positions: Vec<String> = self.0.iter().map(i64::to_string).collect();
        f.write_str(&positions.join(","))
    }
}

/// Rows of an initial load.
pub struct Buffer {
    pub rows: Vec<i64>,
    /// The last row that was read or streamed.
    pub read: i64,
}

/// Counts as one lock until it is dropped.
pub struct Lock(Rc<World>);

impl Lock {
    pub fn take(world: &Rc<World>) -> Lock {
        world.locks.set(world.locks.get() + 1);
        Lock(world.clone())
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.0.locks.set(self.0.locks.get() - 1);
        self.0.note("unlock");
    }
}

pub struct Channel {
    world: Rc<World>,
    is_open: bool,
}

/// Signals a commit, or a rollback when it is dropped.
pub struct Signal(Rc<World>, bool);

impl Drop for Signal {
    fn drop(&mut self) {
        self.0.note(if self.1 { "signal commit" } else { "signal rollback" });
    }
}

impl DeliveryChannel for Channel {
    type Endpoint = Rc<World>;
    type Batch = Batch;
    type Error = String;
    type CheckJob = ();
    type DeliveryJob = ();
    type StreamJob = ();
    type RowSender = ();
    type CommitSignal = Signal;

    fn new(world: Rc<World>) -> Channel {
        world.note("connect");
        Channel { world, is_open: false }
    }

    fn update(&mut self, _: Rc<World>) {}

    fn must_check(&self) -> bool {
        !self.is_open && !self.world.is_managed.get()
    }

    fn start_check(&mut self) -> Result<(), String> {
        self.world.note("check");
        Ok(())
    }

    fn poll_check(&mut self, (): &mut ()) -> Poll<Result<Existence, DeliveryError>> {
        self.world.end().map(|end| match end {
            JobEnd::Check(result) => result,
            other => panic!("a check returns {other:?}"),
        })
    }

    fn start_delivery(&mut self, batch: Option<&mut Batch>) -> Result<(), String> {
        self.world.note(batch.map_or("open".to_owned(), |batch| format!("send {batch}")));
        Ok(())
    }

    fn poll_delivery(&mut self, (): &mut ()) -> Poll<DeliveryOutcome> {
        self.world.end().map(|end| match end {
            JobEnd::Delivery(preparation, result) => {
                self.is_open = result.is_ok();
                DeliveryOutcome { preparation, result }
            }
            other => panic!("a delivery returns {other:?}"),
        })
    }

    fn supports_streams(&self) -> bool {
        true
    }

    fn can_stream(&self) -> bool {
        self.is_open
    }

    fn start_stream(&mut self) -> Result<Option<StartedStream<Channel>>, String> {
        self.world.note("stream");
        let signal = Signal(self.world.clone(), false);
        Ok(Some(StartedStream { job: (), sink: (), signal }))
    }

    fn poll_stream(&mut self, (): &mut ()) -> Poll<Result<StreamOutcome, DeliveryError>> {
        self.world.end().map(|end| match end {
            JobEnd::Stream(result) => result,
            other => panic!("a stream returns {other:?}"),
        })
    }

    fn signal_commit(mut signal: Signal) {
        signal.1 = true;
    }

    fn idle_for(&self) -> Duration {
        Duration::ZERO
    }
}

pub struct Store(pub Rc<World>);

impl DeliveryStore for Store {
    type Channel = Channel;
    type Buffer = Buffer;
    type Lock = Lock;

    fn lock(&mut self) -> Result<Option<Lock>, String> {
        self.0.transaction()?;
        if self.0.is_locked_elsewhere.get() {
            return Ok(None);
        }
        self.0.note("lock");
        Ok(Some(Lock::take(&self.0)))
    }

    fn is_interrupted(&mut self) -> Result<bool, String> {
        Ok(self.0.filling.get().is_some())
    }

    fn endpoint_if_new(&mut self) -> Result<Option<Rc<World>>, String> {
        Ok((self.0.sent.get() == 0).then(|| self.0.clone()))
    }

    fn read_next(
        &mut self,
        _: Option<&Channel>,
        buffer: Option<&mut Buffer>,
        next: Option<Batch>,
    ) -> Result<NextDelivery<Batch, Rc<World>>, String> {
        self.0.transaction()?;
        let is_interrupted = self.0.filling.get().is_some() && buffer.is_none();
        let found = |action| Ok(NextDelivery { action, is_interrupted, rejected: 0 });
        if !self.0.pause.get().is_zero() {
            return found(NextAction::Wait(self.0.pause.get()));
        }
        if self.0.is_unreachable.get() {
            return found(NextAction::Fail(DeliveryError::target("42501", "no rights")));
        }
        let batch = next.or_else(|| match buffer {
            Some(_) if self.0.is_unencodable.get() => None,
            Some(buffer) => {
                let batch = Batch::after(&buffer.rows, buffer.read)?;
                buffer.read = batch.upto();
                Some(batch)
            }
            None => Batch::after(&self.0.outbox.borrow(), self.0.sent.get()),
        });
        found(
            batch.map_or(NextAction::Nothing, |batch| NextAction::Deliver {
                batch,
                to: self.0.clone(),
            }),
        )
    }

    fn read_after(&mut self, _: &Channel, batch: &Batch) -> Result<BatchRead<Batch>, String> {
        let batch = Batch::after(&self.0.outbox.borrow(), batch.upto());
        if let Some(batch) = &batch {
            self.0.note(format!("read {batch}"));
        }
        Ok(BatchRead { batch, rejected: 0 })
    }

    fn read_more(
        &mut self,
        _: &Channel,
        buffer: &mut Buffer,
        next: &mut Option<Batch>,
    ) -> Result<bool, String> {
        if next.is_some() {
            return Ok(false);
        }
        *next = Batch::after(&buffer.rows, buffer.read);
        if let Some(batch) = next {
            buffer.read = batch.upto();
            self.0.note(format!("read {batch}"));
        }
        Ok(next.is_some())
    }

    fn record_creation(&mut self) -> Result<(), String> {
        self.0.transaction()?;
        self.0.note("record creation");
        self.0.is_managed.set(true);
        Ok(())
    }

    fn record_managed(&mut self, is_managed: bool) -> Result<(), String> {
        self.0.note(if is_managed { "record managed" } else { "record not managed" });
        self.0.is_managed.set(is_managed);
        Ok(())
    }

    fn acknowledge(&mut self, batch: &Batch, rejected: &[RejectedChange]) -> Result<(), String> {
        self.0.transaction()?;
        for refused in rejected {
            self.0.note(format!("reject {}", batch.0[refused.change]));
        }
        self.0.note(format!("acknowledge {batch}"));
        self.0.sent.set(batch.upto());
        Ok(())
    }

    fn acknowledge_buffered(
        &mut self,
        buffer: &Buffer,
        batch: &Batch,
    ) -> Result<BufferState, String> {
        self.acknowledge(batch, &[])?;
        Ok(match batch.upto() == Batch(buffer.rows.clone()).upto() {
            true => {
                self.0.filling.set(None);
                BufferState::Delivered
            }
            false if self.0.is_expired.get() => BufferState::Expired,
            false => BufferState::Remaining,
        })
    }

    fn streamed_batch(&self, buffer: &Buffer) -> Option<Batch> {
        let streamed: Vec<i64> =
            buffer.rows.iter().copied().filter(|row| *row <= buffer.read).collect();
        (!streamed.is_empty()).then_some(Batch(streamed))
    }

    fn restart(&self, buffer: &mut Buffer) {
        self.0.note("restart");
        buffer.read = 0;
    }

    fn move_to_outbox(&mut self, buffer: Buffer) -> Result<(), String> {
        self.0.transaction()?;
        let left = buffer.rows.into_iter().filter(|row| *row > self.0.sent.get());
        let left = Batch(left.collect());
        self.0.note(format!("queue {left}"));
        self.0.filling.set(None);
        self.0.outbox.borrow_mut().splice(0..0, left.0);
        Ok(())
    }

    fn record_error(&mut self, error: &DeliveryError) -> Result<(), String> {
        self.0.note(format!("record error: {}", error.message));
        self.0.pause.set(Duration::from_secs(1));
        Ok(())
    }

    fn log_resend(&mut self, why: &DeliveryError) -> Result<(), String> {
        self.0.note(format!("resend: {}", why.message));
        Ok(())
    }

    fn crash_point(&self, name: &str) {
        self.0.note(format!("({name})"));
    }
}

/// A delivery in such a world.
pub struct Fixture {
    pub world: Rc<World>,
    pub delivery: TargetDelivery<Store>,
}

impl Fixture {
    /// A managed target, with these positions in its outbox.
    pub fn new(outbox: impl IntoIterator<Item = i64>) -> Fixture {
        let world = Rc::new(World::default());
        world.outbox.borrow_mut().extend(outbox);
        world.is_managed.set(true);
        Fixture { delivery: TargetDelivery::new(Store(world.clone())), world }
    }

    /// Returns what happened since the last call.
    pub fn log(&self) -> String {
        self.world.log.take().join(" ")
    }

    /// Ends the job in flight, if there is a result for it, and advances.
    pub fn advance(&mut self, end: Option<JobEnd>) -> Result<Progress, String> {
        self.world.end_job(end);
        self.delivery.advance()
    }

    /// Advances through these steps, and compares what happens in each of them.
    pub fn check_steps(&mut self, steps: &[(Option<JobEnd>, &str, Standing)]) {
        for (n, (end, expected, standing)) in steps.iter().enumerate() {
            let progress = self.advance(end.clone()).expect("no transaction fails");
            assert_eq!((self.log().as_str(), progress.standing), (*expected, *standing), "{n}");
        }
    }
}
