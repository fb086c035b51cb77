//! A source, as a query refers to it.

use pgrx::pg_sys;

/// A relation that has its own name in a text.
#[derive(Clone)]
pub struct Named {
    pub name: String,
    pub relation: pg_sys::Oid,
    /// The source's id, as recorded in [`Places`].
    pub id: i32,
    pub schema: String,
    pub table: String,
}

/// A source, as the query refers to it.
pub struct Shadow {
    pub named: Named,
    /// Numbers and names of all columns, in the relation's order.
    pub columns: Vec<(i16, String)>,
    pub key: Vec<String>,
}

impl Shadow {
    pub fn column(&self, number: i16) -> Option<&String> {
        self.columns.iter().find(|(n, _)| *n == number).map(|(_, name)| name)
    }
}
