//! Records the logic that a declaration has given a flow, together with the label of the code
//! (`coco.label`). A worker may be the first to run the logic, and has no label.

use crate::catalog::{logic_rows, run_label};
use crate::flows::load;
use crate::pg::error::Result;
use crate::pg::snapshot::PinnedSnapshot;
use crate::query::logic_fingerprint;

/// Records the current logic of a flow of the caller's under the label of the session. Does nothing
/// if the session has no label, or the flow cannot run yet.
pub fn record_labelled_logic(flow: &str) -> Result<()> {
    if run_label::current_label().is_none() {
        return Ok(());
    }
    let _now = PinnedSnapshot::take();
    // An incomplete or broken flow has no logic; the declaration itself has reported any error.
    let Ok(flow) = load::load_flow(flow) else { return Ok(()) };
    if flow.targets.is_empty() || flow.targets.iter().any(|target| target.relation.is_none()) {
        return Ok(());
    }
    let logic = logic_fingerprint::current_logic(&flow)?;
    logic_rows::label_logic(logic.0)
}
