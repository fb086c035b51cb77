//! Sending what is in the outboxes of targets outside this database, and what first fills keep for them.
//!
//! A step at a time, between the turns of the worker: what has arrived is noted, and the next batch
//! is read and handed to the threads that send. A target has one batch on its way at a time, and one
//! sender among all processes: so nothing older comes after something newer. Nothing is forgotten
//! before it has arrived: whatever happens, what is not noted is sent again.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::io;
use std::time::Duration;

use crate::catalog::locks;
use crate::flows::cache;
use crate::outbox::change_batch::ChangeBatch;
use crate::outbox::initial_load_buffer::InitialLoadBuffer;
use crate::outbox::{delivery_state, queue};
use crate::pg::error::Error;
use crate::pg::spi;
use crate::update::initial_load::RowSinks;
use crate::workers::crash_point;
use crate::workers::delivery::next_batch::{self, NextAction, externals, find_external};
use crate::workers::delivery::target_channel::{
    ChannelEvent, DeliveredBatch, ResolvedTarget, TargetChannel,
};
use crate::workers::transaction::{TransactionError, transaction};
use coco_core::change::{DeliveryError, RejectedChange};

/// A connection that nothing was sent over for so long is closed.
const IDLE: Duration = Duration::from_secs(60);

/// The targets that this process sends to.
pub struct DeliveryDispatcher {
    targets: HashMap<i32, TargetChannel>,
    /// Those that no other process sends to.
    ours: HashSet<i32>,
    /// What first fills have to send, and the outboxes do not have.
    held: HashMap<i32, InitialLoadBuffer>,
    /// Outboxes are emptied as soon as they can be.
    empties: bool,
}

/// How far the targets of a flow are.
#[derive(Clone, Copy, Debug, Default)]
pub struct StepOutcome {
    /// Batches are on their way.
    pub busy: bool,
    /// Something waits that could not be sent now: when to look again.
    pub again: Option<Duration>,
    /// A target is sent to by another process.
    pub elsewhere: bool,
    /// Beside what is on its way there may be something to read.
    pub reads: bool,
    /// Rows that were refused in this step.
    pub refused: i64,
    /// A target could not be sent to.
    pub troubled: bool,
    /// Who was to send what the outbox of a target does not have is gone.
    pub interrupted: bool,
}

impl DeliveryDispatcher {
    pub fn new() -> DeliveryDispatcher {
        DeliveryDispatcher {
            targets: HashMap::new(),
            ours: HashSet::new(),
            held: HashMap::new(),
            empties: true,
        }
    }

    /// For a session that waits: it is not to wait for outboxes to be emptied.
    pub fn of_session() -> DeliveryDispatcher {
        DeliveryDispatcher { empties: false, ..DeliveryDispatcher::new() }
    }

    /// Whether who was to send to a target of a flow what its outbox does not have is gone.
    pub fn is_interrupted(&mut self, flow: &str) -> Result<bool, TransactionError> {
        for target in externals(flow)? {
            if !self.reserve(target)? {
                continue;
            }
            let state = transaction(|| delivery_state::delivery_status(target))?;
            self.leave(target)?;
            if state.is_some_and(|state| state.filling.is_some()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Sees to it that nobody else sends to a target; `false` where somebody does.
    fn reserve(&mut self, target: i32) -> Result<bool, TransactionError> {
        if !self.ours.contains(&target) && transaction(|| locks::lock_target(target))? {
            self.ours.insert(target);
        }
        Ok(self.ours.contains(&target))
    }

    /// Opens the targets of a flow to which nothing was sent yet, and has them made there. What is made is noted by
    /// [`DeliveryDispatcher::step`].
    pub fn open_ahead(&mut self, flow: &str) -> Result<(), TransactionError> {
        for target in externals(flow)? {
            if self.targets.contains_key(&target) || !self.reserve(target)? {
                continue;
            }
            match transaction(|| next_batch::never_sent(flow, target))? {
                Some(reached) => self.begin(flow, target, reached, None)?,
                None => self.leave(target)?,
            }
        }
        Ok(())
    }

    /// Has the targets of a flow that are open take rows before they are committed here, where they can.
    pub fn send_ahead(&mut self, flow: &str) -> Result<RowSinks, TransactionError> {
        let mut outlets = RowSinks::default();
        for target in externals(flow)? {
            let takes = self.targets.get(&target).is_some_and(TargetChannel::takes_ahead);
            if !takes || !self.reserve(target)? {
                continue;
            }
            let begun = self.targets.get_mut(&target).map(TargetChannel::begin_ahead).transpose();
            match begun.map(Option::flatten) {
                Ok(outlet) => outlets.get_mut().extend(outlet.map(|o| (target, Box::new(o) as _))),
                Err(e) => return self.give_up(target, &e),
            }
        }
        Ok(outlets)
    }

    /// What was sent ahead, and is not held, was undone here.
    pub fn take_back(&mut self) {
        self.targets.values_mut().for_each(TargetChannel::take_back);
    }

    /// Takes over what a first fill has to send, and the lock on the target.
    pub fn hold(&mut self, held: InitialLoadBuffer) -> Result<(), TransactionError> {
        let target = held.target;
        crash_point::point("held");
        if let (Some(sending), Some(upto)) = (self.targets.get_mut(&target), held.upto()) {
            sending.noted(upto);
            crash_point::point("sending");
        }
        self.held.insert(target, held);
        match self.ours.insert(target) {
            true => Ok(()),
            // It was ours already: it is held twice now.
            false => transaction(|| locks::unlock_target(target)),
        }
    }

    /// Lets others send what is left, but to targets that something is on its way to: they wait until this process
    /// has ended.
    pub fn close(&mut self) -> Result<(), TransactionError> {
        let ours: Vec<i32> = self.ours.iter().copied().collect();
        for target in ours {
            match self.targets.get(&target).is_some_and(TargetChannel::is_busy) {
                true => self.queue(target)?,
                false => self.leave(target)?,
            }
        }
        Ok(())
    }

    /// Whether anything is on its way.
    pub fn is_busy(&self) -> bool {
        self.targets.values().any(TargetChannel::is_busy)
    }

    /// Whether any target is being opened.
    pub fn is_opening(&self) -> bool {
        self.targets.values().any(TargetChannel::is_opening)
    }

    /// Notes what has arrived at the targets of a flow, and sends on.
    pub fn step(&mut self, flow: &str) -> Result<StepOutcome, TransactionError> {
        let mut all = StepOutcome::default();
        for target in externals(flow)? {
            let mut step = StepOutcome::default();
            self.step_of(flow, target, &mut step)?;
            all.busy |= step.busy;
            all.reads |= step.reads;
            all.elsewhere |= step.elsewhere;
            all.troubled |= step.troubled;
            all.interrupted |= step.interrupted;
            all.refused += step.refused;
            all.again = [all.again, step.again].into_iter().flatten().min();
        }
        Ok(all)
    }

    /// Closes what is not used any more, also of flows that are not among these: of them, what is on
    /// its way is waited for, so that nothing is sent beside it, and will be sent again.
    pub fn rest(&mut self, flows: impl Fn(&str) -> bool) -> Result<(), TransactionError> {
        let mut gone = Vec::new();
        self.targets.retain(|id, t| {
            let stays = match flows(&t.flow) {
                true => t.is_busy() || t.idle() < IDLE,
                false => t.is_running(),
            };
            if !stays {
                gone.push(*id);
            }
            stays
        });
        gone.into_iter().try_for_each(|target| self.leave(target))
    }

    fn step_of(
        &mut self,
        flow: &str,
        target: i32,
        step: &mut StepOutcome,
    ) -> Result<(), TransactionError> {
        let on = self.targets.get_mut(&target).map_or(ChannelEvent::NoWay, TargetChannel::arrived);
        let done = match on {
            ChannelEvent::NoWay => Ok(true),
            ChannelEvent::TheWay => Ok(false),
            ChannelEvent::Look(there, batch) => self.make(target, there, batch).map(|()| false),
            ChannelEvent::Arrival(arrived) => {
                self.arrived(flow, target, arrived, step).map(|()| true)
            }
            ChannelEvent::Return(why) => self.returned(flow, target, why).map(|()| true),
        };
        match done {
            Ok(true) => self.send(flow, target, step)?,
            Ok(false) => step.busy = true,
            Err(failed) => {
                // What became of the batch is not noted: it is sent again, before what comes after.
                self.targets.remove(&target);
                self.leave(target)?;
                return Err(failed);
            }
        }
        self.read_ahead(flow, target, step)
    }

    /// A target has nothing of what was sent ahead: all that is held is sent from the first.
    fn returned(
        &mut self,
        flow: &str,
        target: i32,
        why: Option<DeliveryError>,
    ) -> Result<(), TransactionError> {
        if let Some(sending) = self.targets.get_mut(&target) {
            sending.next = None;
        }
        if let Some(held) = self.held.get_mut(&target) {
            held.restart();
        }
        if let Some(DeliveryError { message, .. }) = why {
            let shown = transaction(|| delivery_state::delivery_error(target))?;
            tracing::info!("flow \"{flow}\": {shown} is sent rows once more: {message}");
        }
        Ok(())
    }

    /// Goes on where a target was looked for. That it is made is noted first, and stays so whatever happens.
    fn make(
        &mut self,
        target: i32,
        there: bool,
        batch: Option<ChangeBatch>,
    ) -> Result<(), TransactionError> {
        if !there {
            transaction(|| {
                spi::commit_durably();
                delivery_state::note_made(target, true)
            })?;
            crash_point::point("making");
        }
        let made = self.targets.get_mut(&target).map(|sending| sending.make(batch, !there));
        match made {
            Some(Err(e)) => Err(without_thread(&e)),
            _ => Ok(()),
        }
    }

    /// Reads what is to be sent after what is on its way, or some more of that.
    fn read_ahead(
        &mut self,
        flow: &str,
        target: i32,
        step: &mut StepOutcome,
    ) -> Result<(), TransactionError> {
        let Some(sending) = self.targets.get_mut(&target) else { return Ok(()) };
        if !sending.is_busy() {
            return Ok(());
        }
        let Some(held) = self.held.get_mut(&target) else {
            if let (None, Some(batch)) = (&sending.next, sending.batch()) {
                sending.next = next_batch::batch_after(
                    flow,
                    target,
                    sending.connector,
                    batch,
                    &mut step.refused,
                )?;
            }
            return Ok(());
        };
        // None of its rows has the key of another: the batch grows until it can be sent.
        if let Some(more) =
            next_batch::grow_batch(flow, target, sending.connector, held, sending.next.as_ref())?
        {
            step.reads = true;
            match &mut sending.next {
                Some(next) => next.append(more),
                None => sending.next = Some(more),
            }
        }
        Ok(())
    }

    /// A batch is back, or a target is open. Settles it, or records what hindered it.
    fn arrived(
        &mut self,
        flow: &str,
        target: i32,
        DeliveredBatch { batch, made, result }: DeliveredBatch,
        step: &mut StepOutcome,
    ) -> Result<(), TransactionError> {
        if batch.is_none() {
            crash_point::point("opened");
        }
        if let Some(made) = made {
            transaction(|| delivery_state::note_made(target, made))?;
        }
        let refused = match result {
            Ok(refused) => refused,
            // Of a target that nothing waits for yet nothing is noted: what comes is sent over another connection.
            Err(_) if batch.is_none() && !self.held.contains_key(&target) => {
                self.targets.remove(&target);
                return Ok(());
            }
            Err(trouble) => {
                // Another connection is opened for the next try, and the batch is read again.
                self.targets.remove(&target);
                return self.troubled(flow, target, &trouble, step);
            }
        };
        let Some(batch) = batch else { return Ok(()) };
        crash_point::point("sent");
        if self.held.contains_key(&target) {
            self.held_arrived(target, &batch, &refused)?;
        } else {
            step.refused += refused.len() as i64;
            transaction(|| {
                let ready = cache::runnable_flow(flow)?;
                match find_external(&ready.flow, target) {
                    Some((declared, external)) => {
                        let flow = &ready.flow;
                        queue::acknowledge(declared, external, &batch, &refused)?;
                        if self.empties { queue::empty_outbox(flow, declared) } else { Ok(()) }
                    }
                    None => Ok(()),
                }
            })?;
        }
        crash_point::point("settled");
        Ok(())
    }

    /// A batch of what a first fill has to send is back.
    fn held_arrived(
        &mut self,
        target: i32,
        batch: &ChangeBatch,
        refused: &[RejectedChange],
    ) -> Result<(), TransactionError> {
        let Some(held) = self.held.get(&target) else { return Ok(()) };
        if !refused.is_empty() {
            // The outbox knows how to go on about them.
            return self.queue(target);
        }
        let (all, over) = (held.is_all(batch.upto), held.is_over());
        transaction(|| {
            delivery_state::note_sent(target, batch.upto)?;
            if all { delivery_state::note_initial_load_sent(target) } else { Ok(()) }
        })?;
        if all {
            self.held.remove(&target);
        } else if over {
            self.queue(target)?;
        }
        Ok(())
    }

    /// Puts what a first fill has to send still into the outbox.
    fn queue(&mut self, target: i32) -> Result<(), TransactionError> {
        let Some(held) = self.held.remove(&target) else { return Ok(()) };
        if let Some(sending) = self.targets.get_mut(&target) {
            sending.next = None;
        }
        let flow = held.flow.clone();
        transaction(|| {
            let ready = cache::runnable_flow(&flow)?;
            let Some((declared, external)) = find_external(&ready.flow, target) else {
                return Ok(());
            };
            let Some(state) = delivery_state::delivery_status(target)? else { return Ok(()) };
            held.queue(&ready.flow, declared, external, Some(state.sent))
        })
    }

    fn troubled(
        &mut self,
        flow: &str,
        target: i32,
        trouble: &DeliveryError,
        step: &mut StepOutcome,
    ) -> Result<(), TransactionError> {
        step.troubled = true;
        let shown = transaction(|| {
            delivery_state::record_error(target, trouble)?;
            delivery_state::delivery_error(target)
        })?;
        tracing::warn!(
            sqlstate = trouble.sqlstate,
            detail = trouble.detail.as_deref(),
            hint = trouble.hint.as_deref(),
            "flow \"{flow}\": {shown} cannot be sent to: {}",
            trouble.message
        );
        self.leave(target)
    }

    /// Sends the next batch, if there is one, and it may be.
    fn send(
        &mut self,
        flow: &str,
        target: i32,
        step: &mut StepOutcome,
    ) -> Result<(), TransactionError> {
        if step.troubled && !self.targets.contains_key(&target) {
            return Ok(());
        }
        let next = self.targets.get_mut(&target);
        let next = next.and_then(|t| Some((t.next.take()?, t.shape.clone())));
        // The lock is kept from a batch to the next.
        if !self.reserve(target)? {
            step.elsewhere = true;
            return Ok(());
        }
        let held = self.held.get_mut(&target);
        let (interrupted, refused) = (&mut step.interrupted, &mut step.refused);
        let due =
            transaction(|| next_batch::next_action(flow, target, next, held, interrupted, refused));
        let due = match due {
            Ok(due) => due,
            Err(failed) => {
                self.targets.remove(&target);
                self.leave(target)?;
                return Err(failed);
            }
        };
        let (batch, reached) = match due {
            // A row of what is held cannot be encoded: the outbox knows how to go on about it.
            NextAction::Nothing if self.held.contains_key(&target) => {
                self.queue(target)?;
                return self.send(flow, target, step);
            }
            NextAction::Nothing => return self.leave(target),
            NextAction::Wait(wait) => {
                step.again = Some(step.again.map_or(wait, |a| a.min(wait)));
                return self.leave(target);
            }
            NextAction::DeliveryError(trouble) => {
                self.targets.remove(&target);
                return self.troubled(flow, target, &trouble, step);
            }
            NextAction::Batch(batch, reached) => (batch, reached),
        };
        crash_point::point("read");
        self.begin(flow, target, reached, Some(batch))?;
        step.busy = true;
        crash_point::point("sending");
        Ok(())
    }

    /// Has a batch sent to a target that nobody else sends to, or, without one, has it opened.
    fn begin(
        &mut self,
        flow: &str,
        target: i32,
        reached: ResolvedTarget,
        batch: Option<ChangeBatch>,
    ) -> Result<(), TransactionError> {
        let begun = match self.targets.entry(target) {
            Entry::Occupied(sending) => sending.into_mut().reach(reached),
            Entry::Vacant(place) => place.insert(TargetChannel::new(flow, reached)),
        }
        .begin(batch);
        begun.or_else(|e| self.give_up(target, &e))
    }

    fn give_up<T>(&mut self, target: i32, e: &io::Error) -> Result<T, TransactionError> {
        self.targets.remove(&target);
        self.leave(target)?;
        Err(without_thread(e))
    }

    /// Lets others send to a target: what they are to send is in its outbox then.
    fn leave(&mut self, target: i32) -> Result<(), TransactionError> {
        self.queue(target)?;
        match self.ours.remove(&target) {
            true => transaction(|| locks::unlock_target(target)),
            false => Ok(()),
        }
    }
}

fn without_thread(e: &io::Error) -> TransactionError {
    TransactionError::from(Error::internal(format!("no thread could be started: {e}")))
}
