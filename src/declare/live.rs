//! Starting and stopping live flows, and restoring triggers that are missing.

use crate::capture::triggers;
use crate::catalog::model::{CaptureMode, Flow};
use crate::catalog::{flow_rows, locks, restored};
use crate::flows::{load, paused};
use crate::pg::acting_role::RoleGuard;
use crate::pg::error::{Error, Result};
use crate::pg::invalidation;
use crate::pg::spi::{self, arg};

/// Makes a flow live, and ensures that triggers capture its sources and lookups. Returns the flow's
/// id.
pub fn start_flow(name: &str) -> Result<i32> {
    let flow = load::lock_and_load(name)?;
    if flow.targets.is_empty() {
        return Err(Error::new(
            pgrx::PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("flow \"{name}\" has no target yet"),
        )
        .hint("Call coco.add_target first."));
    }
    put_triggers(&flow, true)?;
    if flow.paused {
        pgrx::ereport!(
            pgrx::PgLogLevel::NOTICE,
            pgrx::PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
            format!("flow \"{name}\" is paused, so workers do not update it"),
            paused::unpause_hint(name)
        );
    }
    restored::complete()?;
    let _as = RoleGuard::extension_owner()?;
    set_live(flow.id, true)?;
    invalidation::note_change()?;
    spi::execute("delete from coco_internal.flow_error where flow = $1", &[arg(flow.id)])?;
    // A flow that has a schedule is updated at once.
    spi::execute("delete from coco_internal.scheduled_run where flow = $1", &[arg(flow.id)])?;
    Ok(flow.id)
}

/// Stops a live flow. Cancels a worker's current transaction for it, see
/// [`locks::lock_flow_ending_transaction`].
pub fn stop_flow(name: &str, announce: fn()) -> Result<()> {
    let id = flow_rows::flow_id(name)?;
    locks::lock_flow_ending_transaction(id, announce)?;
    let _as = RoleGuard::extension_owner()?;
    set_live(id, false)?;
    invalidation::note_change()?;
    spi::execute("delete from coco_internal.flow_error where flow = $1", &[arg(id)])?;
    Ok(())
}

/// Stores whether a flow and its versions are live. The caller acts as the extension's owner.
fn set_live(flow: i32, live: bool) -> Result<()> {
    spi::execute(
        "update coco_internal.flow set live = $2
          where (id = $1 or id in (select v.flow from coco_internal.version v where v.of = $1)) and live <> $2",
        &[arg(flow), arg(live)],
    )?;
    Ok(())
}

/// Restores missing triggers if the flow's owner still has the right to create them; otherwise coco
/// scans the source. `wait` is true if a user requested it. Without `wait`, skips tables on which
/// writers hold locks.
fn put_triggers(flow: &Flow, wait: bool) -> Result<()> {
    for source in flow.followed() {
        if source.capture != CaptureMode::Scan
            && triggers::may_be_put_back(source.relation, flow.owner, wait)?
        {
            let always = source.capture == CaptureMode::Always;
            triggers::ensure(source.relation, &source.captured_key(), always, wait)?;
        }
    }
    Ok(())
}

/// Restores the triggers of a flow's sources and lookups, without waiting for locks.
pub fn restore_triggers(name: &str) -> Result<()> {
    put_triggers(&load::load_flow(name)?, false)
}
