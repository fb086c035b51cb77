//! Writes a batch to the targets, and its tracking rows. All of it happens in the transaction of
//! the caller, `write_batch`, which attempts it in a subtransaction.
//!
//! For each target, one statement over the whole batch does each step: evaluate the items into
//! `coco_output`, check them against expectations, delete the rows that no item produces any more, find key conflicts, and upsert
//! the new rows. For an external target, the ledger and the outbox replace the table. The tracking
//! rows follow after the last target.

use pgrx::pg_sys;

use crate::catalog::item_failure::BatchError;
use crate::catalog::target_table;
use crate::memo::{evaluate_batch, result_uses};
use crate::outbox::ledger;
use crate::pg::acting_role::RoleGuard;
use crate::pg::error::Result;
use crate::pg::tuplestore::rows::{RowColumn, TupleStore};
use crate::pg::tuplestore::statements::SpiSession;
use crate::query::batch::{Action, Batch};
use crate::query::compose::{self, Items};
use crate::query::expected_rows;
use crate::query::names::{KeyExprs, loses_keys, old_columns, output_columns};
use crate::update::expectations::{self, CheckedOutput};
use crate::update::stale_rows::{self, StaleRows};
use crate::update::target_writer::{BatchContext, TargetWriter, WriteCounts, WriteOrder};
use crate::update::tracking_rows::ItemRows;
use crate::update::upsert::TableUpsert;
use crate::update::{constraint_swaps, key_conflicts, tracking_rows};
use coco_core::counts::Counts;
use coco_core::expectation::{RowTally, add_tally};
use coco_core::write_plan::{
    BatchShape, DeletePlan, InsertPlan, WritePath, plan_deletes, plan_inserts,
};

/// The result of a step. An error stops the batch.
type StepResult<T> = std::result::Result<T, BatchError>;

/// What the steps need to know about the items of a batch as a whole.
struct BatchSummary {
    evaluated: usize,
    advanced: usize,
    has_tracked: bool,
    has_removed: bool,
    /// The newest process ordinal: the version of the batch's entries in ledgers and outboxes.
    version: i64,
}

impl BatchSummary {
    fn new(batch: &Batch) -> BatchSummary {
        let count = |action| batch.items.iter().filter(|i| i.action == action).count();
        BatchSummary {
            evaluated: count(Action::Evaluate),
            advanced: count(Action::Advance),
            has_tracked: batch.items.iter().any(|i| i.tracked),
            has_removed: batch.items.iter().any(|i| i.action == Action::Remove),
            version: batch.items.iter().map(|i| i.process_ordinal.0).max().unwrap_or(0),
        }
    }
}

/// A batch at one of its targets, after its evaluation.
struct TargetBatch<'a> {
    writer: &'a TargetWriter<'a>,
    names: KeyExprs,
    /// The rows that the items produced: `coco_output`.
    output: TupleStore,
    /// The rows that expectations keep out of the target, by item.
    parked: Option<TupleStore>,
    tally: RowTally,
    shape: BatchShape,
    version: i64,
}

/// Writes a batch.
pub fn write_batch(context: &BatchContext, batch: &mut Batch) -> StepResult<WriteCounts> {
    let statements = SpiSession::connect()?;
    statements.name("coco_batch", batch.rows())?;
    let summary = BatchSummary::new(batch);
    let mut counts = Counts::default();
    let mut listed: Vec<(i32, TupleStore)> = Vec::new();
    let mut parked: Vec<(i32, TupleStore)> = Vec::new();
    let mut tally = RowTally::new();
    for place in 0..context.writers.len() {
        let target = evaluate(context, &statements, &summary, place, batch)?;
        let old = read_old_keys(context, &statements, &summary, &target)?;

        let _by_key = RoleGuard::finding_by_key()?;
        let by_key = SpiSession::connect()?;
        by_key.name("coco_batch", batch.rows())?;
        by_key.name("coco_output", &target.output)?;
        if !target.shape.is_owned_by_key {
            by_key.name("coco_old", &old)?;
        }
        counts.deleted += delete_stale_rows(context, &by_key, &target)?;
        check_key_conflicts(context, &by_key, &target)?;
        counts.upserted += upsert(context, &by_key, &target)?;
        drop(by_key);
        add_tally(&mut tally, &target.tally);
        let id = target.writer.target.id;
        parked.extend(target.parked.map(|rows| (id, rows)));
        if !target.shape.is_owned_by_key {
            listed.push((id, target.output));
        }
    }
    let used = match context.recalling {
        Some(recalling) => {
            Some(result_uses::note_uses(recalling, context.source, batch, context.writers.len())?)
        }
        None => None,
    };
    drop(statements);
    tracking_rows::write_tracking_rows(
        context.source,
        context.writers,
        &ItemRows { listed, parked },
        batch,
        context.writing,
        used.as_ref(),
    )?;
    counts.evaluated = summary.evaluated as i64;
    counts.unchanged = summary.advanced as i64;
    let (stored, calls) = used.map(|used| (used.stored, used.calls)).unwrap_or_default();
    Ok(WriteCounts { counts, stored, calls, tally })
}

/// Evaluates the items of a batch for the target at a place in the flow.
fn evaluate<'a>(
    context: &BatchContext<'a>,
    statements: &SpiSession,
    summary: &BatchSummary,
    place: usize,
    batch: &mut Batch,
) -> StepResult<TargetBatch<'a>> {
    let BatchContext { flow, source, .. } = *context;
    let writer = &context.writers[place];
    let target = writer.target;
    let names = KeyExprs::new(source, target);
    let mut columns = output_columns(source, target);
    let items = if batch.carries { Items::Carried } else { Items::Batch };
    let sql = expected_rows::evaluate_checked(flow, source, target, items)?;
    if !target.expectations.is_empty() {
        columns.push(RowColumn::new(expected_rows::UNMET, pg_sys::INT4ARRAYOID));
    }
    let output = match context.recalling {
        Some(recalling) if summary.evaluated > 0 && !flow.memoized.is_empty() => {
            columns.push(RowColumn::new(compose::ITEM_NUMBER, pg_sys::INT4OID));
            evaluate_batch::evaluate_batch(recalling, &sql, &columns, batch, place)?
        }
        _ => {
            let mut output = TupleStore::new(&columns)?;
            if summary.evaluated > 0 {
                statements.select_into(&sql, &[], &mut output)?;
            }
            output
        }
    };
    let CheckedOutput { output, parked, tally } =
        expectations::check_output(source, target, &names, batch, &columns, output)?;
    let shape = BatchShape {
        is_owned_by_key: target.covered.is_some(),
        is_target_fresh: writer.fresh,
        has_one_row_per_key: target.key.len() == source.key.len(),
        has_tracked: summary.has_tracked,
        has_removed: summary.has_removed,
        evaluated: summary.evaluated,
        output_rows: output.len(),
    };
    Ok(TargetBatch { writer, names, output, parked, tally, shape, version: summary.version })
}

/// Returns the target keys that the items have, if the target is owned by list; otherwise no row.
fn read_old_keys(
    context: &BatchContext,
    statements: &SpiSession,
    summary: &BatchSummary,
    batch: &TargetBatch,
) -> Result<TupleStore> {
    let (source, target) = (context.source, batch.writer.target);
    let mut old = TupleStore::new(&old_columns(source, target))?;
    if !batch.shape.is_owned_by_key && summary.has_tracked {
        let sql = stale_rows::old_keys_sql(source, target, &batch.names);
        statements.select_into(&sql, &[], &mut old)?;
        if loses_keys(target) && has_null_key(&mut old, source.key.len(), target.key.len()) {
            context.how.lost_keys.set(true);
            if target.key.iter().any(|k| k.nullable.is_some()) {
                // A text that no longer names a value must not stand for the key NULL.
                let sql = stale_rows::valid_old_keys_sql(source, target, &batch.names);
                old = TupleStore::new(&old_columns(source, target))?;
                statements.select_into(&sql, &[], &mut old)?;
            }
        }
    }
    Ok(old)
}

/// Reports whether any column of a target key is NULL. The target key follows the item's key.
fn has_null_key(old: &mut TupleStore, item_columns: usize, key_columns: usize) -> bool {
    let mut found = false;
    while !found && old.advance() {
        found = (item_columns..item_columns + key_columns).any(|c| old.datum(c).is_none());
    }
    old.rewind();
    found
}

/// Deletes the rows that no item of the batch produces any more. Returns how many.
fn delete_stale_rows(
    context: &BatchContext,
    statements: &SpiSession,
    batch: &TargetBatch,
) -> StepResult<i64> {
    let (source, target, names) = (context.source, batch.writer.target, &batch.names);
    let StaleRows { from, condition } = match (plan_deletes(&batch.shape), &target.covered) {
        (DeletePlan::Nothing, _) => return Ok(0),
        (DeletePlan::RemovedItems, Some(covered)) => {
            stale_rows::removed_item_rows_sql(source, covered, names)
        }
        (DeletePlan::RemovedItems, None) | (DeletePlan::StaleRows, _) => {
            stale_rows::stale_rows_sql(source, target, names)
        }
    };
    Ok(match &target.external {
        Some(external) => {
            ledger::delete_ledger(statements, target, external, &from, &condition, batch.version)?
        }
        None => statements.execute(
            &format!("delete from {} as x using {from} where {condition}", target.relation_name()),
            &[],
        )?,
    })
}

/// Fails if an item cannot get a key that it produces. Follows the deletions, because an item may
/// take a key that another item of the batch gave up.
fn check_key_conflicts(
    context: &BatchContext,
    statements: &SpiSession,
    batch: &TargetBatch,
) -> StepResult<()> {
    if batch.output.len() == 0 {
        return Ok(());
    }
    let refused = key_conflicts::conflicting_rows(
        statements,
        context.flow,
        context.source,
        batch.writer.target,
        &batch.names,
        context.how.unowned,
    )?;
    match refused.is_empty() {
        true => Ok(()),
        false => Err(BatchError::Refused(refused)),
    }
}

/// Writes the new rows that do not exist or that differ. Returns how many.
fn upsert(context: &BatchContext, statements: &SpiSession, batch: &TargetBatch) -> StepResult<i64> {
    let BatchContext { source, writing, how, .. } = *context;
    let TargetBatch { writer, names, output, shape, version, .. } = batch;
    let target = writer.target;
    let path = match (&target.external, how.order) {
        (Some(_), _) => WritePath::Ledger,
        (None, WriteOrder::InPlace) => WritePath::InPlace,
        (None, WriteOrder::Displacing) => WritePath::Displacing,
    };
    let table = || TableUpsert::new(target, names);
    let plan = plan_inserts(shape, path, || target_table::has_rules(target));
    Ok(match (plan, &target.external) {
        (InsertPlan::Nothing, _) => 0,
        (InsertPlan::Ledger, Some(external)) => {
            ledger::upsert_ledger(statements, target, external, names, writing.mode, *version)?
        }
        (InsertPlan::Displacing, _) => {
            let displaced = constraint_swaps::upsert_displacing(
                statements,
                source,
                target,
                names,
                output,
                writing.mode,
            )?;
            if !displaced.conflicting.is_empty() {
                return Err(BatchError::Conflicting(displaced.conflicting));
            }
            displaced.written
        }
        (InsertPlan::IntoEmpty, _) => table().insert_all(statements)?,
        (InsertPlan::ThroughRules, _) => {
            table().update_then_insert_through_rules(statements, writing.mode)?
        }
        (InsertPlan::UpdateThenInsert, _) | (InsertPlan::Ledger, None) => {
            table().update_then_insert(statements, output, writing.mode)?
        }
    })
}
