//! Checks whether a flow is paused.

use crate::catalog::model::Flow;
use crate::pg::error::{Error, Result};
use crate::pg::spi;

/// Returns the hint for a paused flow.
pub fn unpause_hint(flow: &str) -> String {
    format!(
        "Run SELECT coco.alter_flow({}, paused => false) to resume the flow.",
        spi::literal(flow)
    )
}

/// Fails if the flow is paused.
pub fn check_not_paused(flow: &Flow) -> Result<()> {
    match flow.paused {
        false => Ok(()),
        true => Err(Error::new(
            pgrx::PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("flow \"{}\" is paused", flow.name),
        )
        .hint(unpause_hint(&flow.name))),
    }
}
