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
    /// The expressions of the key by their names in it, over the columns of one row.
    pub key_expressions: Vec<(String, *mut pg_sys::Node)>,
}

impl Shadow {
    pub fn column(&self, number: i16) -> Option<&String> {
        self.columns.iter().find(|(n, _)| *n == number).map(|(_, name)| name)
    }

    /// Returns an expression of the key by its name.
    pub fn key_expression(&self, name: &str) -> Option<*mut pg_sys::Node> {
        let found = self.key_expressions.iter().find(|(of, _)| of == name);
        found.map(|(_, expression)| *expression)
    }
}
