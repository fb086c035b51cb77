//! Reads items of which some may be unreadable. Halving determines the unreadable ones, and all
//! others are read.
//!
//! If every item can be read, this costs only a subtransaction. If `f` of `n` items cannot be read,
//! it costs about `2 f log2 n` statements.

use crate::pg::error::{Error, Result};
use crate::pg::spi::arg;
use crate::pg::subtransaction::{DataError, subtransaction};
use crate::pg::tuplestore::rows::{RowColumn, TupleStore};
use crate::pg::tuplestore::statements::SpiSession;
use coco_core::bisect::{Attempt, bisect_failed};

/// Reads rows of these columns in a subtransaction. Returns the error that Postgres raised if the
/// data caused it.
pub fn attempt(
    columns: &[RowColumn],
    read: impl FnOnce(&mut TupleStore) -> Result<()>,
) -> Result<std::result::Result<TupleStore, DataError>> {
    enum Stop {
        Flow(Error),
        Unread(DataError),
    }
    // Created outside the subtransaction, because its files on disk belong to the transaction level
    // that creates it.
    let mut rows = TupleStore::new(columns)?;
    match subtransaction(|| read(&mut rows).map_err(Stop::Flow), Stop::Unread) {
        Ok(()) => Ok(Ok(rows)),
        Err(Stop::Unread(raised)) => Ok(Err(raised)),
        Err(Stop::Flow(error)) => Err(error),
    }
}

/// A read of rows that could not be read with one statement.
pub struct Halves<'a> {
    pub all: &'a TupleStore,
    /// The columns of `all`.
    pub of: &'a [RowColumn],
    /// The columns of the result.
    pub columns: &'a [RowColumn],
}

impl Halves<'_> {
    /// Reads all readable rows. Passes each unreadable one to `unread`, with its error.
    pub fn read(
        &self,
        raised: DataError,
        read: impl Fn(&TupleStore, &mut TupleStore) -> Result<()>,
        unread: impl Fn(&TupleStore, DataError, &mut TupleStore) -> Result<()>,
    ) -> Result<TupleStore> {
        let mut found = TupleStore::new(self.columns)?;
        let mut left = TupleStore::new(self.columns)?;
        let mut some = |range: std::ops::Range<usize>| -> Result<Attempt<DataError>> {
            pgrx::check_for_interrupts!();
            let some = self.slice(range)?;
            match attempt(self.columns, |rows| read(&some, rows))? {
                Ok(mut rows) => found.append(&mut rows).map(|()| Attempt::Done),
                Err(raised) => Ok(Attempt::Failed(raised)),
            }
        };
        let mut one =
            |n: usize, raised: DataError| unread(&self.slice(n..n + 1)?, raised, &mut left);
        if self.all.len() > 0 {
            bisect_failed(0..self.all.len(), raised, &mut some, &mut one)?;
        }
        found.append(&mut left)?;
        Ok(found)
    }

    fn slice(&self, range: std::ops::Range<usize>) -> Result<TupleStore> {
        let mut some = TupleStore::new(self.of)?;
        let statements = SpiSession::connect()?;
        statements.name("coco_all", self.all)?;
        let args = [arg(range.start as i64), arg(range.len() as i64)];
        statements.select_into("select * from coco_all offset $1 limit $2", &args, &mut some)?;
        Ok(some)
    }
}

/// Adds the rows unchanged.
pub fn copy(some: &TupleStore, rows: &mut TupleStore) -> Result<()> {
    let statements = SpiSession::connect()?;
    statements.name("coco_all", some)?;
    statements.select_into("select * from coco_all", &[], rows)?;
    Ok(())
}
