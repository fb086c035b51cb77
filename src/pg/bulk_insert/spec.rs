//! The parameters of a bulk insert: rows, destination, rights, and the time of index maintenance.

use crate::pg::acting_role::RoleGuard;
use crate::pg::error::Result;
use crate::pg::spi::Arg;
use crate::pg::tuplestore::rows::TupleStore;

/// The time at which index entries are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum IndexMaintenance {
    AtOnce,
    /// Later, by [`crate::pg::deferred_indexes::add_entries`].
    Later,
}

/// Rows that a bulk insert also collects, and the columns of the SELECT that they consist of.
pub struct RowBuffer<'a> {
    pub rows: &'a mut TupleStore,
    /// An expression for each column except the first, which counts.
    pub expressions: Vec<String>,
    /// The number of the first row.
    pub first: i64,
    /// The action after each row.
    pub then: Option<AfterRow<'a>>,
}

pub type AfterRow<'a> = Box<dyn FnMut(&mut TupleStore) + 'a>;

/// Rows that a bulk insert sets aside, and the columns of the SELECT that they consist of.
pub struct RowsAside<'a> {
    pub rows: &'a mut TupleStore,
    /// An expression for each column. The first one is boolean. If it is NULL, the row is not set
    /// aside. If it is true, the row is withheld: only tables that take all rows receive it.
    pub expressions: &'a [String],
}

/// The rows of a SELECT, for [`fill`](crate::pg::bulk_insert::fill).
pub struct FillingRows<'a> {
    /// The SELECT after its list of columns.
    pub from: &'a str,
    pub args: &'a [Arg<'static>],
    pub aside: Option<RowsAside<'a>>,
}

/// How many rows a bulk insert has written.
#[derive(Clone, Copy)]
pub struct FilledRows {
    /// To tables that take all rows.
    pub all: i64,
    /// To the other tables, and to the row buffer.
    pub kept: i64,
}

/// Which rows of the SELECT a table receives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TakenRows {
    All,
    /// All rows that are not withheld.
    Kept,
}

/// The role whose privileges on the table count.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum InsertRights {
    Caller,
    /// The extension's owner, for one of coco's own tables. The caller evaluates the SELECT, and
    /// the extension's owner writes the rows.
    Extension,
}

impl InsertRights {
    /// Acts as that role.
    pub fn act(self) -> Result<RoleGuard> {
        match self {
            InsertRights::Caller => Ok(RoleGuard::same()),
            InsertRights::Extension => RoleGuard::extension_owner(),
        }
    }
}

/// A table, and the columns of a SELECT that it receives.
#[derive(Clone, Copy)]
pub struct BulkTarget<'a> {
    pub table: &'a str,
    /// Names of columns, each with an expression.
    pub columns: &'a [(String, String)],
    pub entries: IndexMaintenance,
    /// A column of type bigint that counts the rows, and the number of the first row.
    pub counted: Option<(&'a str, i64)>,
    pub by: InsertRights,
    pub takes: TakenRows,
}

impl<'a> BulkTarget<'a> {
    /// Returns a target whose index entries are written later.
    pub fn new(table: &'a str, columns: &'a [(String, String)]) -> BulkTarget<'a> {
        BulkTarget {
            table,
            columns,
            entries: IndexMaintenance::Later,
            counted: None,
            by: InsertRights::Caller,
            takes: TakenRows::Kept,
        }
    }

    /// Returns such a target for one of coco's own tables.
    pub fn of_own(table: &'a str, columns: &'a [(String, String)]) -> BulkTarget<'a> {
        BulkTarget { by: InsertRights::Extension, ..BulkTarget::new(table, columns) }
    }
}
