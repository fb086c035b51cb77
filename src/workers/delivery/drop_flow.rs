//! Dropping a flow with what its connectors have made outside.

use std::time::Duration;

use crate::catalog::locks;
use crate::declare;
use crate::flows::cache;
use crate::pg::error::Error;
use crate::pg::{spi, subtransaction};
use crate::workers::async_runtime::{self, State};
use crate::workers::delivery::next_batch::reach;
use crate::workers::delivery::target_channel::Reached;
use crate::workers::shared_memory;
use crate::workers::wait_event::Waiting;
use coco_core::delivery::Trouble;

/// Drops a flow with all that was made for it: here and outside, or neither. In one transaction of the
/// caller's, and with what keeps others from sending, until the process ends.
pub fn drop_flow(flow: &str) -> Result<(), Error> {
    // Nothing is added to the outboxes any more: a worker that sends comes to an end.
    locks::flow_ending_turn(cache::ready(flow)?.flow.id, shared_memory::announce_cancel)?;
    let ready = cache::locked(flow)?;
    let mut made = Vec::new();
    for target in ready.flow.targets.iter().filter(|t| t.made) {
        let Some(external) = &target.external else { continue };
        made.push(reach(&ready.flow, target, external)?);
        while !locks::target(target.id)? {
            crate::workers::process::wait(Duration::from_millis(100), Waiting::Delivery);
        }
    }
    declare::drop_flow(flow, false, shared_memory::announce_cancel)?;
    spi::commit_durably();
    // Last, since it cannot be undone.
    made.into_iter().try_for_each(remove)?;
    Ok(())
}

/// Removes what a connector has made.
fn remove(made: Reached) -> Result<(), Error> {
    let Reached { shape, connector, access, .. } = made;
    let work = async move { connector.connect(access)?.remove(&shape).await };
    let task = async_runtime::spawn(work)
        .map_err(|e| Error::internal(format!("no thread could be started: {e}")))?;
    let result = loop {
        match task.state() {
            State::Running => {
                crate::workers::process::wait(Duration::from_secs(1), Waiting::Delivery)
            }
            State::Done(result) => break result,
            State::Lost => break Err(Trouble::target("XX000", "the connector has failed")),
        }
    };
    result.map_err(|trouble| {
        let mut error = Error::new(
            subtransaction::code(&trouble.sqlstate),
            format!("a target cannot be removed: {}", trouble.message),
        )
        .hint("The flow is not dropped. coco.drop_flow with keep_targets leaves its targets where they are.");
        error.detail = trouble.detail;
        error
    })
}
