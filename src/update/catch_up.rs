//! Waiting for a live flow: whether it has followed everything that was committed before a moment.
//!
//! A flow may follow what other flows write. A change has then reached the flow only when it has
//! passed through all flows that feed it. [`ChainWait`] waits for these flows first.

use std::time::Duration;

use crate::capture::{self, change_log, cursor};
use crate::catalog::flow_rows;
use crate::catalog::model::CaptureMode;
use crate::flows::upstream::{self, ChainedFlow};
use crate::flows::{cache, paused, schedules};
use crate::outbox::drain;
use crate::pg::acting_role::{RoleGuard, SavedGucs};
use crate::pg::error::{Error, Result};
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::subtransaction::look;
use crate::pg::tuplestore::statements::SpiSession;
use crate::query::logic_fingerprint;
use coco_core::snapshot::Snapshot;

/// A wait for a live flow, and for all flows that feed it.
pub struct ChainWait {
    /// The flows that have not caught up yet, the next one last.
    left: Vec<ChainedFlow>,
    /// The moment up to which the next flow must have followed its sources.
    mark: CaughtUpMark,
}

impl ChainWait {
    /// Begins to wait for everything that is committed now. Fails if the flow, or a flow that feeds
    /// it, is not live or is paused.
    pub fn begin(name: &str) -> Result<ChainWait> {
        flow_rows::identify_flow(name)?;
        let mut chains = upstream::read_chains()?;
        let last = chains.find(name).ok_or_else(|| flow_rows::missing(name))?;
        let mut order = chains.feeding(last);
        order.push(last);
        for flow in &order {
            let flow = &chains.flows[*flow];
            as_owner_of(flow, || check_followed(&flow.name)).map_err(|error| {
                let feeds = format!("The flow feeds flow \"{name}\".");
                match flow.is_usable() {
                    true if flow.name == name => error,
                    true => Error { detail: error.detail.or(Some(feeds)), ..error },
                    false => foreign_is_not_followed(name),
                }
            })?;
        }
        let mut flows: Vec<Option<ChainedFlow>> = chains.flows.drain(..).map(Some).collect();
        let left = order.iter().rev().filter_map(|flow| flows[*flow].take()).collect();
        Ok(ChainWait { left, mark: CaughtUpMark::now()? })
    }

    /// Reports whether all flows have caught up. When a flow has, the next one must follow what was
    /// committed until now, which includes the rows that the former has written. `left` is how long
    /// the caller can still wait: fails if no update of a scheduled flow begins in this time.
    pub fn has_ended(&mut self, left: Duration) -> Result<bool> {
        let Some(last) = self.left.first().map(|flow| flow.name.clone()) else { return Ok(true) };
        while let Some(flow) = self.left.last() {
            let is_usable = flow.is_usable();
            // Before the look at the flow, because an update may commit in between.
            let in_time = match is_usable && !left.is_zero() {
                true => schedules::check_updated_in_time(flow.id, self.mark.at.elapsed(), left),
                false => Ok(()),
            };
            let caught_up = as_owner_of(flow, || has_caught_up(&flow.name, &self.mark));
            if !caught_up.map_err(|e| if is_usable { e } else { foreign_is_not_followed(&last) })? {
                return in_time.map(|()| false);
            }
            self.left.pop();
            self.mark = CaughtUpMark::now()?;
        }
        Ok(true)
    }
}

/// A wait for one live flow, whether or not the flows that feed it have caught up.
pub struct FlowWait {
    flow: String,
    mark: CaughtUpMark,
}

impl FlowWait {
    /// Begins to wait for everything that is committed now. Fails if the flow is not live, or is
    /// paused.
    pub fn begin(flow: &str) -> Result<FlowWait> {
        check_followed(flow)?;
        Ok(FlowWait { flow: flow.to_owned(), mark: CaughtUpMark::now()? })
    }

    /// Reports whether the flow has caught up.
    pub fn has_ended(&self) -> Result<bool> {
        has_caught_up(&self.flow, &self.mark)
    }
}

/// Runs `look` with the rights of the flow's owner, unless the caller has them.
fn as_owner_of<T>(flow: &ChainedFlow, look: impl FnOnce() -> Result<T>) -> Result<T> {
    let _as = match flow.is_usable() {
        true => None,
        false => Some(RoleGuard::flow_owner(flow.owner, &SavedGucs::qualifying())?),
    };
    look()
}

/// Returns the error that a flow which the caller may not see cannot be waited for.
fn foreign_is_not_followed(name: &str) -> Error {
    Error::new(
        pgrx::PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("a flow of another role that feeds flow \"{name}\" is not live"),
    )
    .detail("Changes reach the flow only when the other flow has followed them.")
    .hint("Ask the owner of the table that the flow follows to make the flow that writes it live.")
}

/// A moment, and what was committed before it.
struct CaughtUpMark {
    seen: Snapshot,
    at: std::time::Instant,
}

impl CaughtUpMark {
    /// Returns the current moment.
    fn now() -> Result<CaughtUpMark> {
        let _now = PinnedSnapshot::latest();
        let seen = cursor::current_position()?;
        Ok(CaughtUpMark { seen, at: std::time::Instant::now() })
    }
}

/// Fails if the flow is not live, or is paused.
fn check_followed(name: &str) -> Result<()> {
    let ready = cache::runnable_flow(name)?;
    if !ready.flow.live {
        return Err(Error::new(
            pgrx::PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("flow \"{name}\" is not live"),
        )
        .hint(
            "Call coco.start to make the flow live, or coco.update to bring it up to date once.",
        ));
    }
    paused::check_not_paused(&ready.flow)
}

/// Reports whether a live flow has followed everything that was committed before a mark.
fn has_caught_up(name: &str, mark: &CaughtUpMark) -> Result<bool> {
    let _now = PinnedSnapshot::latest();
    let ready = cache::runnable_flow(name)?;
    let flow = &ready.flow;
    if flow.targets.iter().any(|t| t.relation.is_none()) {
        return Ok(false);
    }
    let logic = match ready.logic {
        Some(logic) => logic,
        None => logic_fingerprint::known_logic(flow)?,
    };
    let statements = SpiSession::connect()?;
    for source in flow.followed() {
        let Some(stored) = cursor::load_cursor(source)? else {
            return Ok(false);
        };
        if stored.cursor.logic != logic && flow.sources.iter().any(|s| s.id == source.id) {
            return Ok(false);
        }
        let captured = source.capture != CaptureMode::Scan;
        if let Some(capture) =
            capture::find_capture(source.relation)?.filter(|c| captured && c.is_whole())
        {
            let (signature, adequate) = cursor::signature(&statements, source.relation, &capture)?;
            if adequate {
                let until = Some(&mark.seen);
                let snapshot =
                    look(|| change_log::followed_until(&statements, &capture, &stored.cursor))?;
                if stored.cursor.signature != signature
                    || change_log::pending(&statements, &capture, &snapshot, until, 1)?
                        .is_none_or(|n| n > 0)
                {
                    return Ok(false);
                }
                continue;
            }
        }
        // The relation was scanned. The scan must have begun after the mark.
        if stored.age > mark.at.elapsed() {
            return Ok(false);
        }
    }
    // The resulting changes are in the outboxes; wait until they are delivered, too.
    Ok(!flow.is_external() || !drain::undelivered(&drain::delivery_marks(flow)?)?)
}

/// The largest number of a source's pending changes that coco counts.
pub const COUNTED: i64 = 100_000;
