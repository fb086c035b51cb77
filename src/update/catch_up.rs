//! Waiting for a live flow: whether it has followed everything that was committed before a moment.

use crate::capture::{self, change_log, cursor};
use crate::catalog::model::CaptureMode;
use crate::flows::{cache, paused};
use crate::outbox::drain;
use crate::pg::error::{Error, Result};
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::tuplestore::statements::SpiSession;
use crate::query::logic_fingerprint;
use coco_core::snapshot::Snapshot;

/// A moment, and what was committed before it.
pub struct CaughtUpMark {
    seen: Snapshot,
    at: std::time::Instant,
}

/// Returns the current moment. Fails if the flow is not live, or is paused.
pub fn caught_up_mark(name: &str) -> Result<CaughtUpMark> {
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
    paused::check_not_paused(&ready.flow)?;
    let _now = PinnedSnapshot::latest();
    let seen = cursor::current_position()?;
    Ok(CaughtUpMark { seen, at: std::time::Instant::now() })
}

/// Reports whether a live flow has followed everything that was committed before a mark.
pub fn has_caught_up(name: &str, mark: &CaughtUpMark) -> Result<bool> {
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
                let snapshot = &stored.cursor.snapshot;
                if stored.cursor.signature != signature
                    || change_log::pending(&statements, &capture, snapshot, until, 1)?
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
