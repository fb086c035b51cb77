//! When workers update the caller's scheduled flows next, for `coco.status_detail`.

use pgrx::datum::TimestampWithTimeZone;

use crate::flows::schedules;
use crate::pg::acting_role;
use crate::pg::clock;
use crate::pg::error::Result;

/// The next update of a live flow that has a schedule.
pub struct NextUpdate {
    pub flow: i32,
    /// `None` if workers have not updated the flow by its schedule yet, or if there is no next time.
    pub at: Option<TimestampWithTimeZone>,
}

/// Returns the next update of each live flow that has a schedule and whose owner's rights the caller
/// has.
pub fn next_updates() -> Result<Vec<NextUpdate>> {
    let now = clock::now_micros();
    let flows = schedules::scheduled_flows()?.into_iter();
    let visible = flows.filter(|f| f.is_followed && acting_role::has_rights_of(f.owner));
    let next = visible.map(|flow| {
        let at = flow.last_update.and_then(|_| flow.next_update(now)).and_then(clock::timestamp_of);
        NextUpdate { flow: flow.id, at }
    });
    Ok(next.collect())
}
