//! The number of a flow's pending changes.

use crate::capture::{self, change_log, cursor};
use crate::catalog::model::CaptureMode;
use crate::inspect::views;
use crate::pg::error::Result;
use crate::pg::snapshot::PinnedSnapshot;
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
            let since = &stored.cursor.snapshot;
            let Some(count) = change_log::pending(&statements, &capture, since, None, COUNTED)?
            else {
                continue;
            };
            let at_least = count >= COUNTED;
            all.push(PendingCounts { source: source.id, count: count.min(COUNTED), at_least });
        }
        Ok(all)
    })
}
