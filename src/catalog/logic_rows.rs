//! The rows of `coco_internal.logic`: each logic that a flow has had, identified by its fingerprint.

use crate::catalog::run_label;
use crate::pg::acting_role::RoleGuard;
use crate::pg::error::{Error, Result};
use crate::pg::json::Json;
use crate::pg::spi::{self, arg};

/// Returns the id of this logic, if it is recorded.
pub fn known_logic_id(flow: &str, fingerprint: pgrx::Uuid) -> Result<Option<i32>> {
    let _as = RoleGuard::extension_owner()?;
    spi::scalar(
        "select id from coco_internal.logic where flow = $1 and fingerprint = $2",
        &[arg(flow), arg(fingerprint)],
    )
}

/// Returns the id of this logic, if a transaction that has ended recorded it.
pub fn settled_logic_id(flow: &str, fingerprint: pgrx::Uuid) -> Result<Option<i32>> {
    let _as = RoleGuard::extension_owner()?;
    let found = spi::select(
        "select id, xmin::text from coco_internal.logic where flow = $1 and fingerprint = $2",
        &[arg(flow), arg(fingerprint)],
        |r| Ok((spi::required::<i32>(r, 1)?, spi::required::<String>(r, 2)?)),
    )?;
    Ok(found.into_iter().find(|(_, xmin)| !spi::is_ours(xmin)).map(|(id, _)| id))
}

/// Records a logic, and returns its id.
pub fn record_logic(
    flow: &str,
    fingerprint: pgrx::Uuid,
    parts: serde_json::Value,
    described: serde_json::Value,
) -> Result<i32> {
    let _as = RoleGuard::extension_owner()?;
    spi::returning(
        // If a row exists that this transaction cannot see yet, the statement ends with 40001.
        "insert into coco_internal.logic (flow, fingerprint, parts, described) values ($1, $2, $3, $4)
         on conflict (flow, fingerprint) do nothing returning id",
        &[arg(flow), arg(fingerprint), arg(Json::from(parts)), arg(Json::from(described))],
        |r| spi::required(r, 1),
    )?
    .pop()
    .ok_or_else(|| Error::internal("INSERT INTO coco_internal.logic returned no id"))
}

/// Gives a logic the label of the code under which this process works, if it has one. A logic keeps
/// the first label that it was given.
pub fn label_logic(id: i32) -> Result<()> {
    let Some(label) = run_label::current_label() else { return Ok(()) };
    let _as = RoleGuard::extension_owner()?;
    spi::execute(
        "update coco_internal.logic set label = $2 where id = $1 and label is null",
        &[arg(id), arg(label)],
    )?;
    Ok(())
}

/// Returns the label of a logic, if it has one.
pub fn logic_label(id: i32) -> Result<Option<String>> {
    let _as = RoleGuard::extension_owner()?;
    spi::scalar("select label from coco_internal.logic where id = $1", &[arg(id)])
}
