//! Evaluating the items of a batch, of a query that calls memoised functions.
//!
//! A call without a result gives NULL and notes what is missing. What the whole batch misses is
//! computed together, and the items that missed it are evaluated again: until nothing is missing. An
//! error that is raised while something is missing is none yet: the NULL may have caused it.

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

/// How often the items of a batch are evaluated, at most: how deep results may rest on each other.
pub const DEPTH: usize = 100;

/// What a batch may hold of inputs and results before it is halved: bytes.
const LARGE: usize = 64 * 1024 * 1024;

/// Evaluates the items of a batch for one of its targets (`target` is its place among them) into rows
/// of these columns, the last of which is the number of the item.
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
        recalling.recall.borrow_mut().begin(due.iter().copied());
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
                    format!("results of memoised functions rest on each other more than {DEPTH} deep"),
                )
                .hint("A query that calls a memoised function with its own result has to end somewhere."),
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

/// What an item of a batch is known by while it is evaluated for one of the targets.
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
