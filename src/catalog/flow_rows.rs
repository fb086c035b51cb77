//! Reads the rows of declared flows, and checks who may use a flow.
//!
//! Callers: `flows`, `declare`, `inspect`, `sql_api`.

use crate::pg::acting_role::{self, RoleGuard};
use crate::pg::error::{Error, Result};
use crate::pg::spi::{self, arg};

/// The identity of a flow, which exists even if other parts of the flow are lost.
pub struct FlowIdentity {
    pub id: i32,
    pub owner: pgrx::pg_sys::Oid,
}

/// Finds a flow by its name, for its owner.
pub fn identify_flow(name: &str) -> Result<FlowIdentity> {
    let acting = RoleGuard::extension_owner()?;
    let found = spi::select(
        "select id, owner::oid from coco_internal.flow where flow = $1",
        &[arg(name)],
        |r| Ok(FlowIdentity { id: spi::required(r, 1)?, owner: spi::required(r, 2)? }),
    )?;
    drop(acting);
    let identity = found.into_iter().next().ok_or_else(|| missing(name))?;
    check_rights(name, identity.owner)?;
    Ok(identity)
}

/// Reports whether a flow has this name, whoever owns it.
pub fn is_flow(name: &str) -> Result<bool> {
    let _as = RoleGuard::extension_owner()?;
    let found =
        spi::scalar::<bool>("select true from coco_internal.flow where flow = $1", &[arg(name)])?;
    Ok(found == Some(true))
}

pub fn missing(name: &str) -> Error {
    Error::new(
        pgrx::PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
        format!("flow \"{name}\" does not exist"),
    )
    .hint("See the view coco.flows for a list of your flows.")
}

/// Returns the id of a flow, for its owner. Other parts of the flow may no longer exist.
pub fn flow_id(name: &str) -> Result<i32> {
    let acting = RoleGuard::extension_owner()?;
    let found = spi::select(
        "select id, owner::oid from coco_internal.flow where flow = $1",
        &[arg(name)],
        |r| Ok((spi::required::<i32>(r, 1)?, spi::required::<pgrx::pg_sys::Oid>(r, 2)?)),
    )?;
    drop(acting);
    let Some((id, owner)) = found.into_iter().next() else {
        return Err(missing(name));
    };
    check_rights(name, owner)?;
    Ok(id)
}

pub fn check_rights(flow: &str, owner: pgrx::pg_sys::Oid) -> Result<()> {
    match acting_role::has_rights_of(owner) {
        true => Ok(()),
        false => Err(Error::new(
            pgrx::PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("must be owner of flow \"{flow}\""),
        )),
    }
}

/// Reports whether coco has created an object for a flow outside this database.
pub fn has_made_external(flow: &str) -> Result<bool> {
    let _as = RoleGuard::extension_owner()?;
    let made = spi::scalar::<bool>(
        "select true from coco_internal.target where flow = $1 and server is not null and managed limit 1",
        &[arg(flow)],
    )?;
    Ok(made == Some(true))
}
