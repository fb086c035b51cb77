//! Whether everything up to a position was delivered.

use crate::catalog::model::Flow;
use crate::outbox::delivery_state::state;
use crate::outbox::queue;
use crate::pg::error::Result;

/// Up to where the outbox of a target is filled.
pub struct Mark {
    target: i32,
    last: i64,
}

/// Where the outboxes of a flow end now.
pub fn marks(flow: &Flow) -> Result<Vec<Mark>> {
    flow.targets
        .iter()
        .filter_map(|t| t.external.as_ref().map(|e| (t.id, e)))
        .map(|(target, external)| {
            let filling = state(target)?.and_then(|state| state.filling).unwrap_or(0);
            Ok(Mark { target, last: queue::last(external)?.max(filling) })
        })
        .collect()
}

/// Whether anything up to these marks is not sent yet.
pub fn left(marks: &[Mark]) -> Result<bool> {
    for mark in marks {
        if state(mark.target)?.is_some_and(|s| s.sent < mark.last) {
            return Ok(true);
        }
    }
    Ok(false)
}
