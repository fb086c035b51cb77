//! Why an item, or a batch of items, could not be written: what is recorded of it, and what is done next.

use std::collections::BTreeSet;

use crate::catalog::model::{Source, Target};
use crate::pg::error::Error;
use crate::pg::json::Json;
use crate::pg::subtransaction::{DataError, is_conflict};

/// Why a batch was not written: then nothing of it may be kept.
pub enum BatchError {
    /// An item's data is at fault; which, is to be found.
    Raised(DataError),
    /// These items are refused a target key.
    Refused(Vec<RejectedRow>),
    /// Rows of these items meet others under a constraint of a target, also where those that change are displaced.
    Conflicting(BTreeSet<usize>),
    /// It is to be written in parts.
    TooLarge,
    /// All went well, and was not to be kept.
    Undone,
    Flow(Error),
}

impl From<Error> for BatchError {
    fn from(error: Error) -> BatchError {
        BatchError::Flow(error)
    }
}

/// Why an item failed: an error that was raised, or a target key that it may not have.
#[derive(Clone, Debug)]
pub struct ItemFailure {
    pub sqlstate: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    /// The target and the key, as a JSON list of texts, that the item waits for.
    pub claims: Option<(i32, String)>,
}

/// An item of a batch, by its number, that is refused a target key.
#[derive(Clone, Debug)]
pub struct RejectedRow {
    pub item: usize,
    pub failure: ItemFailure,
}

/// The SQLSTATE of a row whose key is NULL (null_value_not_allowed).
pub const NULL_KEY: &str = "22004";

/// What is to be done about a row whose key is NULL.
pub const NULL_KEY_HINT: &str =
    "Give such rows a key, or delete them. A view that is the source can leave them out.";

impl From<DataError> for ItemFailure {
    fn from(r: DataError) -> ItemFailure {
        ItemFailure {
            sqlstate: r.sqlstate,
            message: r.message,
            detail: r.detail,
            hint: r.hint,
            claims: None,
        }
    }
}

impl ItemFailure {
    /// Another item has the key (unique_violation).
    pub fn claimed(target: &Target, key: String) -> ItemFailure {
        ItemFailure {
            sqlstate: "23505".to_owned(),
            message: format!("target key of {} is already another item's", target.shown()),
            detail: Some(format!("Key {key}")),
            hint: Some(
                "As soon as the other item lets go of the key, this one takes it over.".to_owned(),
            ),
            claims: Some((target.id, key)),
        }
    }

    /// The item produces the key more than once (cardinality_violation).
    pub fn twice(target: &Target, key: String) -> ItemFailure {
        ItemFailure {
            sqlstate: "21000".to_owned(),
            message: format!("target key of {} is produced twice", target.shown()),
            detail: Some(format!("Key {key}")),
            hint: Some("Choose a key that tells the rows of an item apart.".to_owned()),
            claims: None,
        }
    }

    /// The item has no key (null_value_not_allowed): it can be told neither from others nor from none.
    pub fn null_key(source: &Source) -> ItemFailure {
        ItemFailure {
            sqlstate: NULL_KEY.to_owned(),
            message: format!("source \"{}\" has a row whose key is NULL", source.name),
            detail: None,
            hint: Some(NULL_KEY_HINT.to_owned()),
            claims: None,
        }
    }

    /// Whether rows of others may be in the way of the item's.
    pub fn is_conflict(&self) -> bool {
        is_conflict(&self.sqlstate)
    }

    /// What a preview says of it.
    pub fn shown(&self) -> Json {
        let ItemFailure { sqlstate, message, detail, .. } = self;
        Json::from(
            serde_json::json!({ "sqlstate": sqlstate, "message": message, "detail": detail }),
        )
    }

    /// What was raised, as JSON, for [`ItemFailure::from_text`].
    pub fn to_text(&self) -> String {
        let ItemFailure { sqlstate, message, detail, hint, .. } = self;
        serde_json::json!([sqlstate, message, detail, hint]).to_string()
    }

    pub fn from_text(text: &str) -> ItemFailure {
        let parts: Vec<Option<String>> = serde_json::from_str(text).unwrap_or_default();
        let mut parts = parts.into_iter();
        let mut next = || parts.next().flatten();
        ItemFailure {
            sqlstate: next().unwrap_or_else(|| "XX000".to_owned()),
            message: next().unwrap_or_default(),
            detail: next(),
            hint: next(),
            claims: None,
        }
    }

    /// Whether the item waits for a key that another has.
    pub fn waits(&self) -> bool {
        self.claims.is_some()
    }
}
