//! Checking the names that a user gives.

use pgrx::prelude::*;

use crate::pg::error::{Error, Result};

pub fn check_name(argument: &str, name: &str) -> Result<()> {
    if name.trim().is_empty() {
        return Err(Error::invalid(format!("argument \"{argument}\" is empty")));
    }
    if name.len() > 63 {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_NAME_TOO_LONG,
            format!(
                "argument \"{argument}\": \"{name}\" is {} bytes, at most 63 can be",
                name.len()
            ),
        ));
    }
    Ok(())
}
