//! The number of a flow's pending changes, also of those that have yet to pass through other flows.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys;
use std::collections::HashMap;

use crate::capture::{self, change_log, cursor};
use crate::catalog::model::CaptureMode;
use crate::flows::upstream;
use crate::inspect::views;
use crate::pg::acting_role::RoleGuard;
use crate::pg::error::Result;
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::spi;
use crate::pg::subtransaction::look;
use crate::pg::tuplestore::statements::SpiSession;
use crate::update::catch_up::COUNTED;

/// The number of changes of a source that its flow has not followed yet.
pub struct PendingCounts {
    pub source: i32,
    pub count: i64,
    /// The number is a lower bound, because counting stops at a limit.
    pub at_least: bool,
}

/// Returns the number of captured changes that the caller's flows have not followed yet, for each
/// source and lookup.
pub fn pending_counts() -> Result<Vec<PendingCounts>> {
    views::of_each(|flow| {
        let mut all = Vec::new();
        for source in flow.followed() {
            let Some(stored) = cursor::load_cursor(source)? else { continue };
            let Some(capture) = capture::find_capture(source.relation)?.filter(|c| c.is_whole())
            else {
                continue;
            };
            let _now = PinnedSnapshot::latest();
            let statements = SpiSession::connect()?;
            let (signature, _) = cursor::signature(&statements, source.relation, &capture)?;
            if source.capture == CaptureMode::Scan || signature != stored.cursor.signature {
                continue;
            }
            let since = look(|| change_log::followed_until(&statements, &capture, &stored.cursor))?;
            let Some(count) = change_log::pending(&statements, &capture, &since, None, COUNTED)?
            else {
                continue;
            };
            let at_least = count >= COUNTED;
            all.push(PendingCounts { source: source.id, count: count.min(COUNTED), at_least });
        }
        Ok(all)
    })
}

/// The changes that have not reached a flow yet.
pub struct FlowBacklog {
    pub flow: String,
    /// The number of its own sources and lookups whose changes are counted.
    pub sources: i64,
    /// The number of changes that the flow, or a flow that feeds it, has not followed yet.
    pub pending: i64,
    /// The time at which the flow that is furthest behind last followed its sources; `None` if no
    /// changes are pending.
    pub behind_since: Option<TimestampWithTimeZone>,
}

/// Returns the backlog of each of the caller's flows that has one. Counts the changes that pass
/// through other flows of the caller's, but not those that pass through flows of other roles.
pub fn flow_backlogs() -> Result<Vec<FlowBacklog>> {
    let counted = pending_counts()?;
    let acting = RoleGuard::extension_owner()?;
    let followed = spi::select(
        "select s.id, f.id, k.followed_at
           from coco_internal.source s join coco_internal.flow f on f.flow = s.flow
           join coco_internal.cursor k on k.source = s.id",
        &[],
        |r| {
            let ids: (i32, i32) = (spi::required(r, 1)?, spi::required(r, 2)?);
            Ok((ids, spi::required::<TimestampWithTimeZone>(r, 3)?))
        },
    )?;
    drop(acting);
    let flow_of: HashMap<i32, i32> =
        followed.iter().map(|((source, flow), _)| (*source, *flow)).collect();
    let mut pending: HashMap<i32, i64> = HashMap::new();
    let mut sources: HashMap<i32, i64> = HashMap::new();
    for source in &counted {
        if let Some(flow) = flow_of.get(&source.source) {
            *pending.entry(*flow).or_default() += source.count;
            *sources.entry(*flow).or_default() += 1;
        }
    }
    let since = |flow: i32| {
        let of = followed.iter().filter(|((_, other), _)| *other == flow);
        earliest(of.map(|(_, followed_at)| *followed_at))
    };
    let chains = upstream::read_chains()?;
    let mut all = Vec::new();
    for (at, flow) in chains.flows.iter().enumerate() {
        let Some(own) = pending.get(&flow.id) else { continue };
        let feeding = chains.order.upstream(at).into_iter().filter(|feeder| *feeder != at);
        let feeding = feeding.map(|feeder| chains.flows[feeder].id);
        let behind = feeding.filter_map(|id| Some((id, *pending.get(&id)?)));
        let behind: Vec<(i32, i64)> =
            behind.chain([(flow.id, *own)]).filter(|(_, count)| *count > 0).collect();
        all.push(FlowBacklog {
            flow: flow.name.clone(),
            sources: sources.get(&flow.id).copied().unwrap_or_default(),
            pending: behind.iter().map(|(_, count)| count).sum(),
            behind_since: earliest(behind.iter().filter_map(|(id, _)| since(*id))),
        });
    }
    Ok(all)
}

fn earliest(times: impl Iterator<Item = TimestampWithTimeZone>) -> Option<TimestampWithTimeZone> {
    times.min_by_key(|time| pg_sys::TimestampTz::from(*time))
}
