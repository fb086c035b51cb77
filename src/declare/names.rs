//! Checks of the names that users choose.

use pgrx::prelude::*;

use crate::pg::error::{Error, Result};

/// Checks that a name is not empty and has at most 63 bytes.
pub fn check_name(argument: &str, name: &str) -> Result<()> {
    if name.trim().is_empty() {
        return Err(Error::invalid(format!("argument \"{argument}\" is empty")));
    }
    if name.len() > 63 {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_NAME_TOO_LONG,
            format!("argument \"{argument}\": name \"{name}\" is too long"),
        )
        .detail(format!("The name has {} bytes, and a name can have at most 63.", name.len())));
    }
    Ok(())
}
