//! Dropping a flow with what its connectors have made outside.

use std::time::Duration;

use super::due::reach;
use super::runtime::{self, State};
use super::sending::Reached;
use super::shared;
use super::waiting::Waiting;
use crate::catalog::error::Error;
use crate::catalog::{declare, locks, ready, sql, subtransaction};
use crate::engine::delivery::Trouble;

/// Drops a flow with all that was made for it: here and outside, or neither. In one transaction of the
/// caller's, and with what keeps others from sending, until the process ends.
pub fn drop_flow(flow: &str) -> Result<(), Error> {
    // Nothing is added to the outboxes any more: a worker that sends comes to an end.
    locks::flow_ending_turn(ready::ready(flow)?.flow.id, shared::announce_cancel)?;
    let ready = ready::locked(flow)?;
    let mut made = Vec::new();
    for target in ready.flow.targets.iter().filter(|t| t.made) {
        let Some(external) = &target.external else { continue };
        made.push(reach(&ready.flow, target, external)?);
        while !locks::target(target.id)? {
            super::wait(Duration::from_millis(100), Waiting::Delivery);
        }
    }
    declare::drop_flow(flow, false, shared::announce_cancel)?;
    sql::commit_durably();
    // Last, since it cannot be undone.
    made.into_iter().try_for_each(remove)?;
    Ok(())
}

/// Removes what a connector has made.
fn remove(made: Reached) -> Result<(), Error> {
    let Reached { shape, connector, access, .. } = made;
    let work = async move { connector.connect(access)?.remove(&shape).await };
    let task = runtime::spawn(work)
        .map_err(|e| Error::internal(format!("no thread could be started: {e}")))?;
    let result = loop {
        match task.state() {
            State::Running => super::wait(Duration::from_secs(1), Waiting::Delivery),
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
