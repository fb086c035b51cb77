//! Whether all changes up to a position are delivered.

use crate::catalog::model::Flow;
use crate::outbox::delivery_state::delivery_status;
use crate::outbox::queue;
use crate::pg::error::Result;

/// The position of the last entry for a target at some moment.
pub struct DeliveryMark {
    target: i32,
    last: i64,
}

/// Returns the current ends of a flow's outboxes, and of its initial-load buffers.
pub fn delivery_marks(flow: &Flow) -> Result<Vec<DeliveryMark>> {
    flow.targets
        .iter()
        .filter_map(|t| t.external.as_ref().map(|e| (t.id, e)))
        .map(|(target, external)| {
            let filling = delivery_status(target)?.and_then(|state| state.filling).unwrap_or(0);
            Ok(DeliveryMark { target, last: queue::last_position(external)?.max(filling) })
        })
        .collect()
}

/// Reports whether any entry up to these marks is undelivered.
pub fn undelivered(marks: &[DeliveryMark]) -> Result<bool> {
    for mark in marks {
        if delivery_status(mark.target)?.is_some_and(|s| s.sent < mark.last) {
            return Ok(true);
        }
    }
    Ok(false)
}
