//! Drops a flow together with the external targets that coco created.

use std::time::Duration;

use crate::catalog::locks::{self, DeliveryLock};
use crate::declare;
use crate::flows::cache;
use crate::pg::error::Error;
use crate::pg::{spi, subtransaction};
use crate::workers::async_runtime::{self, TaskState};
use crate::workers::delivery::resolved_target::{ResolvedTarget, resolve_target};
use crate::workers::process;
use crate::workers::shared_memory;
use crate::workers::wait_event::WaitEvent;
use coco_core::change::DeliveryError;

/// Drops a flow and everything that coco created for it, here and on servers; if anything fails, it
/// drops nothing. Runs in the caller's transaction, and keeps the locks on the targets until the
/// process ends.
pub fn drop_flow(flow: &str) -> Result<(), Error> {
    // Nothing is added to the outboxes any more, so a worker that delivers comes to an end.
    locks::lock_flow_ending_transaction(
        cache::runnable_flow(flow)?.flow.id,
        shared_memory::announce_cancel,
    )?;
    let ready = cache::lock_runnable_flow(flow)?;
    let mut made = Vec::new();
    for target in ready.flow.targets.iter().filter(|t| t.made) {
        let Some(external) = &target.external else { continue };
        made.push(resolve_target(&ready.flow, target, external)?);
        let lock = loop {
            match DeliveryLock::acquire_if_free(target.id)? {
                Some(lock) => break lock,
                None => process::wait(Duration::from_millis(100), WaitEvent::Delivery),
            }
        };
        lock.keep_until_exit();
    }
    declare::drop_flow(flow, false, shared_memory::announce_cancel)?;
    spi::commit_durably();
    // This step is the last one, because it cannot be rolled back.
    made.into_iter().try_for_each(remove)?;
    Ok(())
}

/// Removes a target that coco created.
fn remove(made: ResolvedTarget) -> Result<(), Error> {
    let ResolvedTarget { schema, connector, access, .. } = made;
    let work = async move { connector.connect(access)?.remove(&schema).await };
    let task = async_runtime::spawn(work)
        .map_err(|e| Error::internal(format!("could not start a thread: {e}")))?;
    let result = loop {
        match task.state() {
            TaskState::Running => process::wait(Duration::from_secs(1), WaitEvent::Delivery),
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
