//! Dropping a flow with what its connectors have made outside.

use std::time::Duration;

use crate::catalog::locks;
use crate::declare;
use crate::flows::cache;
use crate::pg::error::Error;
use crate::pg::{spi, subtransaction};
use crate::workers::async_runtime::{self, TaskState};
use crate::workers::delivery::next_batch::resolve_target;
use crate::workers::delivery::target_channel::ResolvedTarget;
use crate::workers::shared_memory;
use crate::workers::wait_event::WaitEvent;
use coco_core::change::DeliveryError;

/// Drops a flow with all that was made for it: here and outside, or neither. In one transaction of the
/// caller's, and with what keeps others from sending, until the process ends.
pub fn drop_flow(flow: &str) -> Result<(), Error> {
    // Nothing is added to the outboxes any more: a worker that sends comes to an end.
    locks::lock_flow_ending_transaction(
        cache::runnable_flow(flow)?.flow.id,
        shared_memory::announce_cancel,
    )?;
    let ready = cache::lock_runnable_flow(flow)?;
    let mut made = Vec::new();
    for target in ready.flow.targets.iter().filter(|t| t.made) {
        let Some(external) = &target.external else { continue };
        made.push(resolve_target(&ready.flow, target, external)?);
        while !locks::lock_target(target.id)? {
            crate::workers::process::wait(Duration::from_millis(100), WaitEvent::Delivery);
        }
    }
    declare::drop_flow(flow, false, shared_memory::announce_cancel)?;
    spi::commit_durably();
    // Last, since it cannot be undone.
    made.into_iter().try_for_each(remove)?;
    Ok(())
}

/// Removes what a connector has made.
fn remove(made: ResolvedTarget) -> Result<(), Error> {
    let ResolvedTarget { shape, connector, access, .. } = made;
    let work = async move { connector.connect(access)?.remove(&shape).await };
    let task = async_runtime::spawn(work)
        .map_err(|e| Error::internal(format!("no thread could be started: {e}")))?;
    let result = loop {
        match task.state() {
            TaskState::Running => {
                crate::workers::process::wait(Duration::from_secs(1), WaitEvent::Delivery)
            }
            TaskState::Done(result) => break result,
            TaskState::Lost => {
                break Err(DeliveryError::target("XX000", "the connector has failed"));
            }
        }
    };
    result.map_err(|trouble| {
        let mut error = Error::new(
            subtransaction::sqlstate_code(&trouble.sqlstate),
            format!("a target cannot be removed: {}", trouble.message),
        )
        .hint("The flow is not dropped. coco.drop_flow with keep_targets leaves its targets where they are.");
        error.detail = trouble.detail;
        error
    })
}
