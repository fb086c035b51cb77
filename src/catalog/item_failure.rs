//! The reasons why coco could not write an item or a batch of items, as recorded and shown.
//!
//! Callers: `update`, `memo`, `inspect`.

use std::collections::BTreeSet;

use crate::catalog::model::{Expectation, Source, Target};
use crate::pg::error::Error;
use crate::pg::json::Json;
use crate::pg::subtransaction::{DataError, is_conflict};
use coco_core::expectation::RowTally;

/// The reason why coco did not write a batch. Nothing of such a batch may be kept.
pub enum BatchError {
    /// The data of an item caused an error; the caller must find the item.
    Raised(DataError),
    /// These items must not have a target key that they produce, or a row that they produce.
    Refused(Vec<RejectedRow>),
    /// Rows of these items conflict with other rows under a constraint of the target, even after
    /// displacing the rows that change.
    Conflicting(BTreeSet<usize>),
    /// The batch must be written in parts.
    TooLarge,
    /// The batch was written, but its changes were only a trial.
    Undone,
    Flow(Error),
}

impl From<Error> for BatchError {
    fn from(error: Error) -> BatchError {
        BatchError::Flow(error)
    }
}

/// The reason why an item failed: an error, or a target key that the item must not have.
#[derive(Clone, Debug)]
pub struct ItemFailure {
    pub sqlstate: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    /// The target, and the key as a JSON list of texts, that the item waits for.
    pub claims: Option<(i32, String)>,
}

/// An item of a batch, by its number, that must not have a target key or a row.
#[derive(Clone, Debug)]
pub struct RejectedRow {
    pub item: usize,
    pub failure: ItemFailure,
    /// The rows of the item that do not satisfy an expectation.
    pub tally: RowTally,
}

/// The SQLSTATE for a row that does not satisfy an expectation (check_violation).
pub const UNMET: &str = "23514";

/// The SQLSTATE for a row whose key is NULL (null_value_not_allowed).
pub const NULL_KEY: &str = "22004";

/// The hint for a row whose key is NULL.
pub const NULL_KEY_HINT: &str =
    "Give such rows a key, or delete them. If the source is a view, the view can exclude them.";

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
    /// Returns the failure of an item whose key another item owns (unique_violation).
    pub fn claimed(target: &Target, key: String) -> ItemFailure {
        ItemFailure {
            sqlstate: "23505".to_owned(),
            message: format!("target key of {} already belongs to another item", target.shown()),
            detail: Some(format!("The key is {key}.")),
            hint: Some(
                "coco writes the row when the other item no longer produces the key.".to_owned(),
            ),
            claims: Some((target.id, key)),
        }
    }

    /// Returns the failure of an item that produces a key more than once (cardinality_violation).
    pub fn twice(target: &Target, key: String) -> ItemFailure {
        ItemFailure {
            sqlstate: "21000".to_owned(),
            message: format!("item has several rows with one key for target {}", target.shown()),
            detail: Some(format!("The key is {key}.")),
            hint: Some("Choose a key that distinguishes the rows of an item.".to_owned()),
            claims: None,
        }
    }

    /// Returns the failure of an item with a row that does not satisfy an expectation.
    pub fn unmet(target: &Target, expectation: &Expectation, key: &str) -> ItemFailure {
        ItemFailure {
            sqlstate: UNMET.to_owned(),
            message: ItemFailure::unmet_message(target, expectation),
            detail: Some(format!(
                "The condition is {}. The key of the row is {key}.",
                expectation.condition
            )),
            hint: Some(
                "Correct the item in its source, or the expectation with coco.expect.".to_owned(),
            ),
            claims: None,
        }
    }

    /// Returns the message about a row that does not satisfy an expectation.
    pub fn unmet_message(target: &Target, expectation: &Expectation) -> String {
        format!("row of {} does not satisfy expectation \"{}\"", target.shown(), expectation.name)
    }

    /// Returns the failure of an item without a key (null_value_not_allowed): coco cannot identify
    /// it.
    pub fn null_key(source: &Source) -> ItemFailure {
        ItemFailure {
            sqlstate: NULL_KEY.to_owned(),
            message: format!("source \"{}\" has a row whose key is NULL", source.name),
            detail: None,
            hint: Some(NULL_KEY_HINT.to_owned()),
            claims: None,
        }
    }

    /// Reports whether rows of other items may block the item's rows.
    pub fn is_conflict(&self) -> bool {
        is_conflict(&self.sqlstate)
    }

    /// Returns the failure as a preview shows it.
    pub fn shown(&self) -> Json {
        let ItemFailure { sqlstate, message, detail, .. } = self;
        Json::from(
            serde_json::json!({ "sqlstate": sqlstate, "message": message, "detail": detail }),
        )
    }

    /// Returns the error as JSON, for [`ItemFailure::from_text`].
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

    /// Reports whether the item waits for a key that another item owns.
    pub fn waits(&self) -> bool {
        self.claims.is_some()
    }
}
