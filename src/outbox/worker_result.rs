//! The result that a worker stores for the session that requested an update.

use crate::pg::acting_role::RoleGuard;
use crate::pg::error::Result;
use crate::pg::json::Json;
use crate::pg::spi::{self, arg};

/// The result of an update that a worker ran for a session.
pub struct WorkerResult {
    pub counts: Option<serde_json::Value>,
    pub sqlstate: Option<String>,
    pub message: Option<String>,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

/// Stores a result for the session. Deletes results that are older than an hour.
pub fn store_result(run: i64, outcome: &WorkerResult) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    spi::execute(
        "delete from coco_internal.worker_result where ended < clock_timestamp() - interval '1 hour'",
        &[],
    )?;
    spi::execute(
        "insert into coco_internal.worker_result (id, counts, sqlstate, message, detail, hint)
         values ($1, $2, $3, $4, $5, $6)",
        &[
            arg(run),
            arg(outcome.counts.clone().map(Json::from)),
            arg(outcome.sqlstate.clone()),
            arg(outcome.message.clone()),
            arg(outcome.detail.clone()),
            arg(outcome.hint.clone()),
        ],
    )?;
    Ok(())
}

/// Reads the result that a worker stored; `None` if there is none.
pub fn load_result(run: i64) -> Result<Option<WorkerResult>> {
    let _as = RoleGuard::extension_owner()?;
    let _now = crate::pg::snapshot::PinnedSnapshot::latest();
    let statements = crate::pg::tuplestore::statements::SpiSession::connect()?;
    let text = statements.read_text(
        "select pg_catalog.row_to_json(r)::text from coco_internal.worker_result as r where r.id = $1",
        &[arg(run)],
    )?;
    let Some(text) = text else { return Ok(None) };
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|e| {
        crate::pg::error::Error::internal(format!("could not read the result of a worker: {e}"))
    })?;
    let text = |name: &str| json[name].as_str().map(str::to_owned);
    Ok(Some(WorkerResult {
        counts: json.get("counts").filter(|c| !c.is_null()).cloned(),
        sqlstate: text("sqlstate"),
        message: text("message"),
        detail: text("detail"),
        hint: text("hint"),
    }))
}
