//! The values that pass between the extension and a connector: the schema of a target, changes,
//! rejected changes and delivery errors.

use std::time::Duration;

use serde_json::{Map, Value};

/// The name, columns, key and options of an external target.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetSchema {
    pub flow: String,
    /// The name in the declaration. The connector decides what it names: a table, a collection, a
    /// label, a topic.
    pub target: String,
    pub columns: Vec<Column>,
    /// The key columns, as indexes in `columns`.
    pub key: Vec<usize>,
    /// The options of the declaration. The connector has checked them.
    pub options: Map<String, Value>,
}

impl TargetSchema {
    pub fn is_key(&self, index: usize) -> bool {
        self.key.contains(&index)
    }

    /// Reports whether rows for the other target are also rows for this one: both write rows of the same
    /// columns to the same object. The name of the flow and the options may differ.
    pub fn has_same_rows(&self, other: &TargetSchema) -> bool {
        (&self.target, &self.columns, &self.key) == (&other.target, &other.columns, &other.key)
    }

    pub fn key_columns(&self) -> impl Iterator<Item = &Column> {
        self.key.iter().map(|index| &self.columns[*index])
    }
}

/// A column of a target.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    pub name: String,
    /// The schema of the column's type: `pg_catalog` for built-in types.
    pub type_schema: String,
    /// The type as Postgres writes it, without the schema: `integer`, `numeric(10,2)`, `text[]`,
    /// `vector(384)`.
    pub type_name: String,
}

/// The encoding of a row's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// The fields of a tuple in `COPY … (format binary)`, without their count. Each column has its
    /// length as a big-endian i32 (-1 is NULL), followed by that many bytes of the type's binary
    /// form.
    Binary,
    /// A JSON object from column names to values, as `row_to_json` writes it.
    Json,
}

/// The values of several columns, in one of the encodings.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Values {
    Binary(Vec<u8>),
    Json(String),
}

impl Values {
    /// Returns the length in bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Values::Binary(bytes) => bytes.len(),
            Values::Json(text) => text.len(),
        }
    }

    /// Returns the fields if the encoding is binary.
    pub fn binary(&self) -> Option<&[u8]> {
        match self {
            Values::Binary(bytes) => Some(bytes),
            Values::Json(_) => None,
        }
    }

    /// Returns the object if the encoding is JSON.
    pub fn json(&self) -> Option<&str> {
        match self {
            Values::Json(text) => Some(text),
            Values::Binary(_) => None,
        }
    }
}

/// An upsert or a delete of one target row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The values of the key columns, in the order of [`TargetSchema::key`].
    pub key: Values,
    /// The values of all columns, in the order of [`TargetSchema::columns`]. `None` deletes the
    /// row.
    pub row: Option<Values>,
    /// The process ordinal of the attempt that made the change. Of two changes of a row, the one
    /// with the larger ordinal is newer.
    pub version: i64,
}

/// A receiver of one target's rows during an initial load. Its methods never wait.
pub trait RowSink {
    /// Reports whether the receiver accepts rows now.
    fn has_capacity(&self) -> bool;
    /// Sends rows in binary form. Returns `false` if the receiver is full or closed.
    fn try_push(&self, rows: Vec<Values>) -> bool;
}

/// A change that the target does not accept, for a reason in the row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedChange {
    /// The index of the change in the batch, from 0.
    pub change: usize,
    pub sqlstate: String,
    pub message: String,
}

/// The targets that an error stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorScope {
    /// All targets of the server: the server is unreachable, overloaded, or refuses the login.
    Server,
    /// One target: it does not match the query, or cannot be created.
    Target,
}

/// An error that stops delivery, and that no row causes. The batch may have been applied in whole
/// or in part, and must be applied again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryError {
    pub scope: ErrorScope,
    pub sqlstate: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    /// How long the server asks to wait before the next request, if it says so.
    pub retry_after: Option<Duration>,
}

impl DeliveryError {
    /// Creates an error of the whole server.
    pub fn server(sqlstate: &str, message: impl Into<String>) -> DeliveryError {
        DeliveryError::new(ErrorScope::Server, sqlstate, message.into())
    }

    /// Creates an error of one target.
    pub fn target(sqlstate: &str, message: impl Into<String>) -> DeliveryError {
        DeliveryError::new(ErrorScope::Target, sqlstate, message.into())
    }

    fn new(scope: ErrorScope, sqlstate: &str, message: String) -> DeliveryError {
        let sqlstate = sqlstate.to_owned();
        DeliveryError { scope, sqlstate, message, detail: None, hint: None, retry_after: None }
    }

    pub fn detail(mut self, detail: impl Into<String>) -> DeliveryError {
        self.detail = Some(detail.into());
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> DeliveryError {
        self.hint = Some(hint.into());
        self
    }

    pub fn retry_after(mut self, after: Duration) -> DeliveryError {
        self.retry_after = Some(after);
        self
    }
}
