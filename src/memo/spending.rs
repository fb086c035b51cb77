//! What flows have spent at the servers of providers, and how much they may still spend.

use crate::pg::acting_role::RoleGuard;
use crate::pg::error::Result;
use crate::pg::spi::{self, arg};
use coco_core::options::Access;
use coco_core::provider::Usage;

/// Returns how much may still be spent at a server: `spending_cap` minus the amount spent. Returns
/// `None` if the server has no cap.
pub fn left(server: &str, access: &Access) -> Result<Option<f64>> {
    let cap = access.server.get("spending_cap").and_then(|cap| cap.parse::<f64>().ok());
    let Some(cap) = cap else { return Ok(None) };
    let _as = RoleGuard::extension_owner()?;
    let spent = spi::scalar::<f64>(
        "select sum(cost) from coco_internal.provider_usage where server = $1",
        &[arg(server)],
    )?;
    Ok(Some(cap - spent.unwrap_or(0.0)))
}

/// Records an expense, unless it is zero. Adds a row each time, so that two flows never wait for
/// each other.
pub fn note(server: &str, flow: Option<i32>, usage: &Usage) -> Result<()> {
    if usage.cost == 0.0 {
        return Ok(());
    }
    let _as = RoleGuard::extension_owner()?;
    spi::execute(
        "insert into coco_internal.provider_usage (server, flow, requests, tokens_in, tokens_out, cost)
         values ($1, $2, $3, $4, $5, $6)",
        &[
            arg(server),
            arg(flow),
            arg(usage.requests as i64),
            arg(usage.tokens_in as i64),
            arg(usage.tokens_out as i64),
            arg(usage.cost),
        ],
    )?;
    Ok(())
}
