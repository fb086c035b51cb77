//! The SQL function that CREATE EXTENSION calls.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::pg::server_version;

/// Raises a WARNING if the server lacks fixes that queries of flows need.
#[pg_extern(sql = false)]
fn check_server_version() -> Result<(), ErrorReport> {
    Ok(server_version::warn_if_too_old()?)
}
