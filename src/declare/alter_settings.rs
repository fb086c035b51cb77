//! Changes the search path and the settings under which a flow runs. [`crate::declare::alter_flow`]
//! calls it.
//!
//! The flow's queries are bound already, so no name in them is resolved again. The settings are part
//! of the logic, so the next update evaluates every item.

use serde_json::Value;

use crate::catalog::model::Flow;
use crate::declare::alter_source;
use crate::declare::flow_settings::changed_settings;
use crate::pg::acting_role::RoleGuard;
use crate::pg::error::Result;
use crate::pg::spi::{self, arg};

/// Changes the search path, if it is given, and the settings that are in a JSON object. The caller
/// holds the flow's lock.
pub fn alter_settings(
    flow: &Flow,
    search_path: Option<&str>,
    settings: Option<&Value>,
) -> Result<()> {
    let changed = changed_settings(&flow.settings, flow.owner, search_path, settings)?;
    if changed == flow.settings {
        return Ok(());
    }
    let acting = RoleGuard::extension_owner()?;
    spi::execute(
        "update coco_internal.flow set search_path = $2, settings = $3 where id = $1",
        &[arg(flow.id), arg(changed.search_path()), arg(changed.to_json())],
    )?;
    drop(acting);
    // An ordinal may have another value under other settings, and a smaller one would hide a change.
    flow.sources.iter().filter(|s| s.ordinal.is_some()).try_for_each(alter_source::compare_all)
}
