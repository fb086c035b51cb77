//! The external targets that this process delivers to.
//!
//! Between its transactions, a worker calls [`DeliveryDispatcher::advance`], which does everything
//! that is possible without waiting. The state of each target, and what follows from it, is in
//! `coco_core::target_delivery`.

use std::collections::HashMap;
use std::time::Duration;

use crate::outbox::initial_load_buffer::InitialLoadBuffer;
use crate::update::initial_load::RowSinks;
use crate::workers::delivery::resolved_target::external_targets;
use crate::workers::delivery::target_store::{EmptyOutbox, TargetStore};
use crate::workers::transaction::TransactionError;
use coco_core::target_delivery::TargetDelivery;
use coco_core::target_delivery::progress::{Progress, Standing};

/// How long an unused connection stays open.
const IDLE: Duration = Duration::from_secs(60);

/// The deliveries of a process, by the ids of their targets.
pub struct DeliveryDispatcher {
    targets: HashMap<i32, TargetDelivery<TargetStore>>,
    empty_outbox: EmptyOutbox,
}

/// The progress of all external targets of a flow.
#[derive(Clone, Copy, Debug, Default)]
pub struct FlowProgress {
    /// A job is running. It wakes the process when it ends.
    pub is_in_flight: bool,
    /// More rows can be read while jobs are running.
    pub can_read: bool,
    /// Another process delivers to a target.
    pub has_other_process: bool,
    /// When to try again after a delivery error.
    pub retry_in: Option<Duration>,
    /// How many rows were rejected.
    pub rejected: i64,
    /// Rows of an initial load are lost with the process that had them, so all rows must be sent.
    pub is_interrupted: bool,
}

impl FlowProgress {
    fn add(&mut self, progress: Progress) {
        self.rejected += progress.rejected;
        self.is_interrupted |= progress.is_interrupted;
        match progress.standing {
            Standing::Done | Standing::Failed => {}
            Standing::InFlight => self.is_in_flight = true,
            Standing::Reading => {
                self.is_in_flight = true;
                self.can_read = true;
            }
            Standing::OtherProcess => self.has_other_process = true,
            Standing::Waiting(pause) => {
                self.retry_in = Some(self.retry_in.map_or(pause, |retry_in| retry_in.min(pause)));
            }
        }
    }
}

impl DeliveryDispatcher {
    pub fn new(empty_outbox: EmptyOutbox) -> DeliveryDispatcher {
        DeliveryDispatcher { targets: HashMap::new(), empty_outbox }
    }

    /// Records what was delivered to the targets of a flow, and sends more.
    pub fn advance(&mut self, flow: &str) -> Result<FlowProgress, TransactionError> {
        let mut all = FlowProgress::default();
        for target in external_targets(flow)? {
            all.add(self.target(flow, target).advance()?);
        }
        Ok(all)
    }

    /// Reports whether rows of an initial load of the flow are lost with the process that had them.
    pub fn is_interrupted(&mut self, flow: &str) -> Result<bool, TransactionError> {
        for target in external_targets(flow)? {
            if self.target(flow, target).is_interrupted()? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Opens the targets of a flow that have received nothing yet, and creates them if necessary.
    /// [`DeliveryDispatcher::advance`] records which targets were created.
    pub fn open_new_targets(&mut self, flow: &str) -> Result<(), TransactionError> {
        for target in external_targets(flow)? {
            self.target(flow, target).open_if_new()?;
        }
        Ok(())
    }

    /// Starts streams to the open targets of a flow that can receive rows before their commit here.
    pub fn start_streams(&mut self, flow: &str) -> Result<RowSinks, TransactionError> {
        let mut sinks = RowSinks::default();
        for target in external_targets(flow)? {
            if let Some(sink) = self.target(flow, target).start_stream()? {
                sinks.get_mut().insert(target, Box::new(sink));
            }
        }
        Ok(sinks)
    }

    /// Causes servers to roll back streams, unless their commit was signaled.
    pub fn withdraw_streams(&mut self) {
        self.targets.values_mut().for_each(TargetDelivery::withdraw_stream);
    }

    /// Delivers the rows of an initial load that is committed.
    pub fn take_over(&mut self, mut buffer: InitialLoadBuffer) {
        let flow = buffer.flow.clone();
        let lock = buffer.take_lock();
        self.target(&flow, buffer.target).take_over(buffer, lock);
    }

    /// Allows other processes to deliver what is left, except to targets with a job in flight: these
    /// stay locked until this process has ended.
    pub fn close(&mut self) -> Result<(), TransactionError> {
        close_all(self.targets.values_mut())
    }

    /// Reports whether any job is in flight.
    pub fn is_in_flight(&self) -> bool {
        self.targets.values().any(TargetDelivery::is_in_flight)
    }

    /// Reports whether any target is being opened.
    pub fn is_opening(&self) -> bool {
        self.targets.values().any(TargetDelivery::is_opening)
    }

    /// Follows flows that were renamed. `new_name` returns the new name of a flow with this name, if
    /// it has one.
    pub fn follow_names(&mut self, new_name: impl Fn(&str) -> Option<String>) {
        for delivery in self.targets.values_mut() {
            if let Some(name) = new_name(&delivery.store.flow) {
                delivery.store.flow = name;
            }
        }
    }

    /// Closes connections that are not used any more, and those of flows that are not live. A job
    /// of such a flow keeps its lock until it ends, and its batch is sent again later.
    pub fn close_unused(&mut self, is_live: impl Fn(&str) -> bool) -> Result<(), TransactionError> {
        let is_unused =
            |delivery: &mut TargetDelivery<TargetStore>| match is_live(&delivery.store.flow) {
                true => !delivery.is_in_flight() && delivery.idle_for().is_none_or(|t| t >= IDLE),
                false => !delivery.is_running(),
            };
        let mut unused: Vec<_> =
            self.targets.extract_if(|_, delivery| is_unused(delivery)).collect();
        close_all(unused.iter_mut().map(|(_, delivery)| delivery))
    }

    /// Returns the delivery to a target of a flow. The flow may have another name than before.
    fn target(&mut self, flow: &str, target: i32) -> &mut TargetDelivery<TargetStore> {
        let empty_outbox = self.empty_outbox;
        let delivery = self.targets.entry(target).or_insert_with(|| {
            TargetDelivery::new(TargetStore { flow: flow.to_owned(), target, empty_outbox })
        });
        if delivery.store.flow != flow {
            delivery.store.flow = flow.to_owned();
        }
        delivery
    }
}

/// Closes all of these, and returns the first error.
fn close_all<'a>(
    deliveries: impl Iterator<Item = &'a mut TargetDelivery<TargetStore>>,
) -> Result<(), TransactionError> {
    deliveries.map(TargetDelivery::close).fold(Ok(()), Result::and)
}
