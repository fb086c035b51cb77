//! What a bulk insert writes, where to, with which rights, and when index entries are made.

use crate::pg::acting_role::RoleGuard;
use crate::pg::error::Result;
use crate::pg::tuplestore::rows::TupleStore;

/// When the entries of the table's indexes are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum IndexMaintenance {
    AtOnce,
    /// By [`crate::pg::deferred_indexes::add_entries`].
    Later,
}

/// Rows that are kept, and which columns of a SELECT they are made of.
pub struct RowBuffer<'a> {
    pub rows: &'a mut TupleStore,
    /// An expression for each column but the first, which counts.
    pub expressions: Vec<String>,
    /// The number of the first row.
    pub first: i64,
    /// What is done after each of them.
    pub then: Option<AfterRow<'a>>,
}

pub type AfterRow<'a> = Box<dyn FnMut(&mut TupleStore) + 'a>;

/// Whose right to write a table counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum InsertRights {
    Caller,
    /// The table is one of coco's own: the caller evaluates the SELECT, and its rows are written as the extension's
    /// owner.
    Extension,
}

impl InsertRights {
    /// Acts as the role whose right it is.
    pub fn act(self) -> Result<RoleGuard> {
        match self {
            InsertRights::Caller => Ok(RoleGuard::same()),
            InsertRights::Extension => RoleGuard::extension_owner(),
        }
    }
}

/// A table, and which columns of a SELECT go there.
#[derive(Clone, Copy)]
pub struct BulkTarget<'a> {
    pub table: &'a str,
    /// Names, and expressions.
    pub columns: &'a [(String, String)],
    pub entries: IndexMaintenance,
    /// A column of type bigint that counts the rows, and the number of the first.
    pub counted: Option<(&'a str, i64)>,
    pub by: InsertRights,
}

impl<'a> BulkTarget<'a> {
    /// A table that gets its index entries later.
    pub fn new(table: &'a str, columns: &'a [(String, String)]) -> BulkTarget<'a> {
        BulkTarget {
            table,
            columns,
            entries: IndexMaintenance::Later,
            counted: None,
            by: InsertRights::Caller,
        }
    }

    /// The same, of one of coco's own tables.
    pub fn of_own(table: &'a str, columns: &'a [(String, String)]) -> BulkTarget<'a> {
        BulkTarget { by: InsertRights::Extension, ..BulkTarget::new(table, columns) }
    }
}
