//! `coco.create_flow`: declares a flow, or changes an existing one to what is declared.

use pgrx::prelude::*;

use crate::catalog::flow_rows;
use crate::declare::declaration::{Declaration, declare_flow};
use crate::declare::flow_settings::changed_settings;
use crate::declare::names::check_name;
use crate::declare::replace::{self, ReplacedFlow};
use crate::declare::when_exists::WhenExists;
use crate::pg::acting_role::{self, SavedGucs};
use crate::pg::error::{Error, Result};
use crate::pg::notice::notice;

/// Declares a flow of the current role. `when_exists` decides about a flow that has the name
/// already. For `announce`, see [`drop_flow`](crate::declare::drop_flow).
pub fn create_flow(
    new: &Declaration,
    when_exists: WhenExists,
    announce: fn(),
) -> Result<ReplacedFlow> {
    check_name("flow", &new.flow)?;
    let unchanged = ReplacedFlow { wants_worker: false };
    if when_exists != WhenExists::Fail && flow_rows::is_flow(&new.flow)? {
        return match when_exists {
            WhenExists::Replace => replace::replace_flow(new, announce),
            _ => skip(&new.flow).map(|()| unchanged),
        };
    }
    let owner = acting_role::current();
    let settings = SavedGucs::of_caller(&new.search_path)?;
    let settings = changed_settings(&settings, owner, None, new.settings.as_ref())?;
    if declare_flow(new, owner, &settings, WhenExists::Fail)? {
        return Ok(unchanged);
    }
    // Another session may have declared the flow in the meantime.
    if when_exists == WhenExists::Skip {
        return skip(&new.flow).map(|()| unchanged);
    }
    Err(Error::new(
        PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT,
        format!("flow \"{}\" already exists", new.flow),
    )
    .hint("Choose another name, change the existing flow with coco.set_query or with or_replace => true, or drop it with coco.drop_flow."))
}

/// Says that a flow of this name exists already, and is left unchanged.
pub fn skip(flow: &str) -> Result<()> {
    notice(format!("flow \"{flow}\" already exists, skipping"));
    Ok(())
}
