//! The checks of arguments that all SQL functions share. No function is STRICT, except functions
//! for queries: a call that PostgreSQL skips would look like a success.

use pgrx::PgSqlErrorCode;

use crate::pg::error::{Error, Result};

/// Returns an argument that needs a value, or an error (22004) if it is NULL.
pub fn required_argument<T>(argument: Option<T>, name: &str) -> Result<T> {
    argument.ok_or_else(|| null_argument(name))
}

/// Returns the error (22004) for an argument that is NULL.
pub fn null_argument(name: &str) -> Error {
    Error::new(
        PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
        format!("argument \"{name}\" must not be NULL"),
    )
}

/// Returns the elements of an array argument, or an error (22004) if one of them is NULL.
pub fn array_elements(
    argument: Option<Vec<Option<String>>>,
    name: &str,
) -> Result<Option<Vec<String>>> {
    let Some(elements) = argument else { return Ok(None) };
    let elements: Option<Vec<String>> = elements.into_iter().collect();
    let elements = elements.ok_or_else(|| {
        Error::new(
            PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
            format!("argument \"{name}\" must not contain NULL"),
        )
    })?;
    Ok(Some(elements))
}
