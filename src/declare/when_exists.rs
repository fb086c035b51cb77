//! What a declaration does if its object exists already.

use crate::pg::error::{Error, Result};

/// What a declaration does if its object exists already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenExists {
    /// Raises an error.
    Fail,
    /// Changes nothing, and says so.
    Skip,
    /// Changes the object as far as the declaration differs from it. Only flows, and the tables of
    /// their targets, can be replaced.
    Replace,
}

impl WhenExists {
    /// Returns the meaning of the arguments of these names; NULL stands for false.
    pub fn from_arguments(if_not_exists: Option<bool>, or_replace: Option<bool>) -> Result<Self> {
        match (if_not_exists.unwrap_or(false), or_replace.unwrap_or(false)) {
            (true, true) => Err(Error::invalid(
                "arguments \"if_not_exists\" and \"or_replace\" cannot both be true",
            )
            .hint("Use or_replace to change an existing flow, or if_not_exists to leave it unchanged.")),
            (true, false) => Ok(WhenExists::Skip),
            (false, true) => Ok(WhenExists::Replace),
            (false, false) => Ok(WhenExists::Fail),
        }
    }
}
