//! `coco.allow`: lets the next update of a flow pass the flow's limits.

use crate::catalog::flow_rows::FlowIdentity;
use crate::flows::load;
use crate::pg::acting_role::RoleGuard;
use crate::pg::error::Result;
use crate::pg::invalidation;
use crate::pg::spi::{self, arg};

/// Lets the next update that evaluates items pass the limits of a flow. A worker that the limits have
/// stopped retries the flow at once. Returns whether a worker follows the flow.
pub fn allow(flow: &str) -> Result<bool> {
    let FlowIdentity { id, .. } = load::lock_identified(flow)?;
    let _as = RoleGuard::extension_owner()?;
    spi::execute("update coco_internal.flow set beyond_limits = true where id = $1", &[arg(id)])?;
    spi::execute(
        "update coco_internal.flow_error set next_retry = clock_timestamp()
          where flow = $1 and sqlstate = '54000'",
        &[arg(id)],
    )?;
    let live = spi::scalar::<bool>(
        "select live and not paused from coco_internal.flow where id = $1",
        &[arg(id)],
    )?;
    // Workers notice the earlier retry.
    invalidation::note_change()?;
    Ok(live == Some(true))
}
