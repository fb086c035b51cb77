//! Evaluates the items of a batch for a query that calls memoized functions.
//!
//! A call without a result returns NULL, and the session notes it as missing. coco computes all
//! missing results of the batch together, and evaluates the items that missed a result again, until
//! no result is missing. An error that is raised while a result is missing does not count yet,
//! because the NULL may have caused it.

use pgrx::PgSqlErrorCode;
use std::collections::BTreeSet;
use std::rc::Rc;

use crate::catalog::item_failure::BatchError;
use crate::memo::resolve_misses;
use crate::memo::session::MemoSession;
use crate::pg::error::Error;
use crate::pg::subtransaction::subtransaction;
use crate::pg::tuplestore::rows::{RowColumn, TupleStore};
use crate::pg::tuplestore::statements::SpiSession;
use crate::query::batch::{Action, Batch};

/// How often coco evaluates the items of a batch, at most. This limits how deep calls of memoized
/// functions can be nested.
pub const DEPTH: usize = 100;

/// Bytes. A batch whose inputs and results exceed this size is halved.
const LARGE: usize = 64 * 1024 * 1024;

/// Evaluates the items of a batch for one of its targets (`target` is the target's index). Returns
/// rows of these columns; the last column is the item's number.
pub fn evaluate_batch(
    recalling: &Rc<MemoSession>,
    sql: &str,
    columns: &[RowColumn],
    batch: &mut Batch,
    target: usize,
) -> std::result::Result<TupleStore, BatchError> {
    let own: Vec<usize> = (0..batch.len()).map(|n| item_of(batch, target, n)).collect();
    let due = batch.items.iter().enumerate().filter(|(_, i)| i.action == Action::Evaluate);
    let mut due: BTreeSet<usize> = due.map(|(n, _)| own[n]).collect();
    let mut output = TupleStore::new(columns)?;
    for pass in 0.. {
        if too_large(recalling, batch) {
            return Err(BatchError::TooLarge);
        }
        let some;
        let part = if pass == 0 {
            recalling.numbers.replace(own.clone());
            &*batch
        } else {
            let numbers = (0..batch.len()).filter(|n| due.contains(&own[*n])).collect();
            some = batch.only(&numbers)?;
            recalling.numbers.replace(due.iter().copied().collect());
            &some
        };
        recalling.recall.borrow_mut().begin_evaluation(due.iter().copied());
        let mut rows = TupleStore::new(columns)?;
        let result = run_statement(recalling, sql, part, &mut rows);
        let missing = recalling.recall.borrow_mut().take_missing();
        match result {
            Ok(()) if missing.is_empty() && pass == 0 => {
                output = rows;
                break;
            }
            Ok(()) => {
                let numbers = recalling.numbers.borrow().clone();
                let place = columns.len() - 1;
                let appended = output.append_where(&mut rows, |row| {
                    let number = row.get::<i32>(place).and_then(|n| usize::try_from(n).ok());
                    number.and_then(|n| numbers.get(n)).is_some_and(|item| !missing.contains(item))
                });
                appended.map_err(BatchError::Flow)?;
                due = missing;
            }
            Err(BatchError::Raised(_)) if !missing.is_empty() => {}
            Err(stop) => return Err(stop),
        }
        if due.is_empty() {
            break;
        }
        if pass == DEPTH {
            return Err(BatchError::Flow(
                Error::new(
                    PgSqlErrorCode::ERRCODE_STATEMENT_TOO_COMPLEX,
                    format!("memoized functions are nested more than {DEPTH} levels deep"),
                )
                .hint("Check the query for a memoized function that is called, directly or indirectly, with its own result."),
            ));
        }
        if too_large(recalling, batch) {
            recalling.answered();
            return Err(BatchError::TooLarge);
        }
        resolve_misses::resolve_misses(recalling)?;
    }
    Ok(output)
}

/// Returns the number that identifies an item of a batch, and one of the targets, in the session.
pub fn item_of(batch: &Batch, target: usize, number: usize) -> usize {
    target * batch.len() + number
}

fn too_large(recalling: &MemoSession, batch: &Batch) -> bool {
    batch.len() > 1 && recalling.recall.borrow().bytes() > LARGE
}

fn run_statement(
    recalling: &Rc<MemoSession>,
    sql: &str,
    part: &Batch,
    rows: &mut TupleStore,
) -> std::result::Result<(), BatchError> {
    let _running = recalling.begin();
    subtransaction(
        || {
            let statements = SpiSession::connect()?;
            statements.name("coco_batch", part.rows())?;
            statements.select_into(sql, &[], rows)?;
            Ok(())
        },
        BatchError::Raised,
    )
}
