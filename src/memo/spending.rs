//! What was spent at the providers' servers, and what may be yet.

use crate::pg::acting_role::RoleGuard;
use crate::pg::error::Result;
use crate::pg::spi::{self, arg};
use coco_core::options::Access;
use coco_core::provider::Usage;

/// What may still be spent at a server: `spending_cap`, less what was. None: there is no cap.
pub fn left(server: &str, access: &Access) -> Result<Option<f64>> {
    let cap = access.server.get("spending_cap").and_then(|cap| cap.parse::<f64>().ok());
    let Some(cap) = cap else { return Ok(None) };
    let _as = RoleGuard::extension_owner()?;
    let spent = spi::scalar::<f64>(
        "select sum(cost) from coco.provider_usage where server = $1",
        &[arg(server)],
    )?;
    Ok(Some(cap - spent.unwrap_or(0.0)))
}

/// Notes what was spent, if it was anything. A row each time: no two flows ever wait for each other here.
pub fn note(server: &str, flow: Option<i32>, usage: &Usage) -> Result<()> {
    if usage.cost == 0.0 {
        return Ok(());
    }
    let _as = RoleGuard::extension_owner()?;
    spi::execute(
        "insert into coco.provider_usage (server, flow, requests, tokens_in, tokens_out, cost)
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
