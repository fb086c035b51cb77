//! What a bulk insert writes, where to, with which rights, and when index entries are made.

use crate::pg::acting_role::ActingAs;
use crate::pg::error::Result;
use crate::pg::tuplestore::rows::Rows;

/// When the entries of the table's indexes are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Entries {
    AtOnce,
    /// By [`crate::pg::deferred_indexes::add_entries`].
    Later,
}

/// Rows that are kept, and which columns of a SELECT they are made of.
pub struct Keeping<'a> {
    pub rows: &'a mut Rows,
    /// An expression for each column but the first, which counts.
    pub expressions: Vec<String>,
    /// The number of the first row.
    pub first: i64,
    /// What is done after each of them.
    pub then: Option<Then<'a>>,
}

pub type Then<'a> = Box<dyn FnMut(&mut Rows) + 'a>;

/// Whose right to write a table counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    Caller,
    /// The table is one of coco's own: the caller evaluates the SELECT, and its rows are written as the extension's
    /// owner.
    Extension,
}

impl Rights {
    /// Acts as the role whose right it is.
    pub fn act(self) -> Result<ActingAs> {
        match self {
            Rights::Caller => Ok(ActingAs::same()),
            Rights::Extension => ActingAs::extension_owner(),
        }
    }
}

/// A table, and which columns of a SELECT go there.
#[derive(Clone, Copy)]
pub struct Filling<'a> {
    pub table: &'a str,
    /// Names, and expressions.
    pub columns: &'a [(String, String)],
    pub entries: Entries,
    /// A column of type bigint that counts the rows, and the number of the first.
    pub counted: Option<(&'a str, i64)>,
    pub by: Rights,
}

impl<'a> Filling<'a> {
    /// A table that gets its index entries later.
    pub fn new(table: &'a str, columns: &'a [(String, String)]) -> Filling<'a> {
        Filling { table, columns, entries: Entries::Later, counted: None, by: Rights::Caller }
    }

    /// The same, of one of coco's own tables.
    pub fn of_own(table: &'a str, columns: &'a [(String, String)]) -> Filling<'a> {
        Filling { by: Rights::Extension, ..Filling::new(table, columns) }
    }
}
