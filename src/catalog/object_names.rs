//! Names of the objects that coco creates for a flow, and of their owners.

use pgrx::pg_sys;

use crate::pg::error::{Error, Result};
use crate::pg::spi::{self, arg};

/// Returns `prefix_id_flow`, cut to the longest name that PostgreSQL allows.
pub fn object_name(prefix: &str, id: i32, flow: &str) -> String {
    let mut name = format!("{prefix}_{id}_{flow}");
    while name.len() > 63 {
        name.pop();
    }
    name
}

pub fn owner_name(owner: pg_sys::Oid) -> Result<String> {
    spi::scalar(
        "select pg_catalog.quote_ident(rolname) from pg_catalog.pg_roles where oid = $1",
        &[arg(owner)],
    )?
    .ok_or_else(|| Error::internal("the flow's owner does not exist"))
}
