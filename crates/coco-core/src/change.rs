//! What is sent to a target outside this database, and what can become of it.

use std::time::Duration;

use serde_json::{Map, Value};

/// What a target looks like.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetSchema {
    pub flow: String,
    /// What the declaration calls the target. What that names is the connector's to say: a table,
    /// a collection, a label, a topic.
    pub target: String,
    pub columns: Vec<Column>,
    /// The columns that name a row, as places in `columns`.
    pub key: Vec<usize>,
    /// The options of the declaration, as the connector has checked them.
    pub options: Map<String, Value>,
}

impl TargetSchema {
    pub fn is_key(&self, index: usize) -> bool {
        self.key.contains(&index)
    }

    pub fn key_columns(&self) -> impl Iterator<Item = &Column> {
        self.key.iter().map(|index| &self.columns[*index])
    }
}

/// A column of a target.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    pub name: String,
    /// The schema of its type: `pg_catalog` for what Postgres comes with.
    pub type_schema: String,
    /// As Postgres writes it, without the schema: `integer`, `numeric(10,2)`, `text[]`,
    /// `vector(384)`.
    pub type_name: String,
}

/// How the values of a row are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As the fields of a tuple in `COPY … (format binary)`, without their count: for each column
    /// its length as a big-endian i32 (-1: NULL), and so many bytes of its type's binary form.
    Binary,
    /// As a JSON object from column names to values, as `row_to_json` writes it.
    Json,
}

/// Values of several columns, in one of the encodings.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Values {
    Binary(Vec<u8>),
    Json(String),
}

impl Values {
    /// Bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Values::Binary(bytes) => bytes.len(),
            Values::Json(text) => text.len(),
        }
    }

    /// The fields, where they are binary.
    pub fn binary(&self) -> Option<&[u8]> {
        match self {
            Values::Binary(bytes) => Some(bytes),
            Values::Json(_) => None,
        }
    }

    /// The object, where they are JSON.
    pub fn json(&self) -> Option<&str> {
        match self {
            Values::Json(text) => Some(text),
            Values::Binary(_) => None,
        }
    }
}

/// What one row of a target is to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key columns, in the order of [`TargetSchema::key`].
    pub key: Values,
    /// All columns, in the order of [`TargetSchema::columns`]; `None`: the row is to go.
    pub row: Option<Values>,
    /// The process ordinal of the attempt that asks for it: which of two changes of a row is newer.
    pub version: i64,
}

/// What takes rows of one target while others are evaluated. It never waits.
pub trait RowSink {
    /// Whether it takes some now.
    fn has_capacity(&self) -> bool;
    /// Takes some, in binary form; `false` where there is no room, or nobody takes them any more.
    fn try_push(&self, rows: Vec<Values>) -> bool;
}

/// A change that a target does not take, for a reason of the row's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedChange {
    /// Its place in what was to be applied, from 0.
    pub change: usize,
    pub sqlstate: String,
    pub message: String,
}

/// Whom an error keeps from getting changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorScope {
    /// All targets of the server: it cannot be reached, is overloaded, does not let us in.
    Server,
    /// This target: it does not fit what is to be in it, or cannot be made.
    Target,
}

/// Why nothing could be done: an error of no row's. What was to be applied may have been, in whole
/// or in part, and is to be applied again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryError {
    pub scope: ErrorScope,
    pub sqlstate: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    /// When the server wants to be asked again, if it has said so.
    pub retry_after: Option<Duration>,
}

impl DeliveryError {
    /// The server cannot be reached, or does not answer as it should.
    pub fn server(sqlstate: &str, message: impl Into<String>) -> DeliveryError {
        DeliveryError::new(ErrorScope::Server, sqlstate, message.into())
    }

    /// The target is not as it must be.
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
