//! The keys of the rows in a change log, if a source's key has expressions: the log has the columns
//! that the expressions use.

use crate::catalog::model::{KeyExpressions, Source};
use crate::pg::error::Result;
use crate::pg::tuplestore::rows::TupleStore;
use crate::pg::tuplestore::statements::SpiSession;
use crate::query::key_rows;
use crate::update::candidate_rows::key_columns;
use crate::update::unreadable_items;

/// Computes the keys of rows: each once, sorted, and whether a row with the key was `forced`. The
/// caller acts as the flow's owner.
///
/// Returns `None` if an expression raises an error for one of the rows. That row may no longer
/// exist, so the caller looks at all rows instead, and an error of one that does exist fails it.
pub fn keys_of_logged(
    source: &Source,
    key: &KeyExpressions,
    logged: &TupleStore,
) -> Result<Option<TupleStore>> {
    let read = |found: &mut TupleStore| -> Result<()> {
        let statements = SpiSession::connect()?;
        statements.name("coco_logged", logged)?;
        statements.select_into(&key_rows::keys_of_logged_sql(source, key), &[], found)?;
        Ok(())
    };
    Ok(unreadable_items::attempt(&key_columns(source), read)?.ok())
}
