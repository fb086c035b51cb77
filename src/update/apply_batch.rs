//! Writing a batch to its targets, and its tracking rows, all in one transaction. For a target
//! outside this database that is its ledger and its outbox.
//!
//! The steps for each target, every one a single statement over the whole batch: evaluate into
//! `coco_output`; delete what an item no longer produces; refuse keys that are another item's;
//! update the rows that came out different; insert the new ones. Then the tracking rows.

use pgrx::pg_sys;
use std::rc::Rc;

use crate::catalog::item_failure::BatchError;
use crate::catalog::model::{Flow, Source, Target};
use crate::catalog::target_table;
use crate::memo::session::MemoSession;
use crate::memo::{evaluate_batch, result_uses};
use crate::outbox::ledger;
use crate::pg::acting_role::RoleGuard;
use crate::pg::bulk_insert;
use crate::pg::columns::{all_equal, numbered};
use crate::pg::error::Result;
use crate::pg::tuplestore::rows::{self, RowColumn, TupleStore};
use crate::pg::tuplestore::statements::SpiSession;
use crate::query::batch::{Action, Batch};
use crate::query::compose::{self, Items};
use crate::query::names::{
    KeyExprs, key_values, keys_are_valid, loses_keys, old_columns, output_columns,
};
use crate::update::differences::update_differing;
use crate::update::target_writer::{
    TargetWriter, WriteCounts, WriteMode, WriteOptions, WriteOrder,
};
use crate::update::{constraint_swaps, key_conflicts, tracking_rows};
use coco_core::counts::Counts;
use coco_core::decide::Mode;

/// The target keys that the items of the batch have now, out of their tracking rows.
pub fn old_keys(source: &Source, target: &Target, names: &KeyExprs) -> String {
    let typed = key_values(target, "e.key");
    format!(
        "select {keys}, {typed}
           from coco_batch as b join {tracking} as t on {on}
          cross join lateral pg_catalog.jsonb_object_keys(t.target_keys operator(pg_catalog.->) '{id}'::pg_catalog.text) as e(key)
          where b.action operator(pg_catalog.<>) 'a'::pg_catalog.\"char\"",
        keys = names.batch.join(", "),
        typed = typed.join(", "),
        tracking = source.tracking_view,
        on = all_equal(&source.key, &names.tracking, &names.batch),
        id = target.id,
    )
}

/// `x` rows that belong to items of the batch and are no longer produced: `from … where …`.
pub fn stale_rows_sql(source: &Source, target: &Target, names: &KeyExprs) -> (String, String) {
    let kept = all_equal(&target.key, &names.new_key, &names.target_key);
    match &target.covered {
        Some(covered) => {
            let (from, own) = owned_rows_sql(source, covered, names);
            let left = format!(
                "{own} and b.action operator(pg_catalog.<>) 'a'::pg_catalog.\"char\"
                 and not exists (select from coco_output as n where {kept})"
            );
            (from, left)
        }
        None => {
            let on = all_equal(&target.key, &names.target_key, &names.old_key);
            // A row that passes to another item of the batch is updated, so that what refers to it stays.
            (
                "coco_old as o".to_owned(),
                format!("{on} and not exists (select from coco_output as n where {kept})"),
            )
        }
    }
}

/// The same, where all rows of the items that were evaluated are still produced.
fn removed_item_rows_sql(
    source: &Source,
    covered: &[String],
    names: &KeyExprs,
) -> (String, String) {
    let (from, own) = owned_rows_sql(source, covered, names);
    (from, format!("{own} and b.action operator(pg_catalog.=) 'r'::pg_catalog.\"char\""))
}

/// `x` rows that belong to items of the batch, where rows are found by the source key.
fn owned_rows_sql(source: &Source, covered: &[String], names: &KeyExprs) -> (String, String) {
    let columns: Vec<String> =
        covered.iter().map(|c| format!("x.{}", crate::pg::spi::ident(c))).collect();
    ("coco_batch as b".to_owned(), all_equal(&source.key, &columns, &names.batch))
}

/// Writes a batch.
pub fn write_batch(
    flow: &Flow,
    source: &Source,
    writers: &[TargetWriter],
    batch: &mut Batch,
    writing: WriteOptions,
    how: WriteMode,
    recalling: Option<&Rc<MemoSession>>,
) -> std::result::Result<WriteCounts, BatchError> {
    let statements = SpiSession::connect()?;
    statements.name("coco_batch", batch.rows())?;
    let mut counts = Counts::default();
    let mut listed: Vec<(i32, TupleStore)> = Vec::new();
    let any_evaluated = batch.items.iter().any(|i| i.action == Action::Evaluate);
    let any_tracked = batch.items.iter().any(|i| i.tracked);
    let version = batch.items.iter().map(|i| i.process_ordinal.0).max().unwrap_or(0);
    let items = if batch.carries { Items::Carried } else { Items::Batch };
    for (place, writer) in writers.iter().enumerate() {
        let target = writer.target;
        let names = KeyExprs::new(source, target);
        let mut columns = output_columns(source, target);
        let sql = compose::evaluate(flow, source, target, items)?;
        let output = match recalling {
            Some(recalling) if any_evaluated && !flow.memoised.is_empty() => {
                columns.push(RowColumn::new(compose::ITEM_NUMBER, pg_sys::INT4OID));
                evaluate_batch::evaluate_batch(recalling, &sql, &columns, batch, place)?
            }
            _ => {
                let mut output = TupleStore::new(&columns)?;
                if any_evaluated {
                    statements.select_into(&sql, &[], &mut output)?;
                }
                output
            }
        };
        let mut old = TupleStore::new(&old_columns(source, target))?;
        if target.covered.is_none() && any_tracked {
            statements.select_into(&old_keys(source, target, &names), &[], &mut old)?;
            if loses_keys(target) && has_nulls(&mut old, source.key.len(), target.key.len()) {
                how.lost_keys.set(true);
            }
        }
        let _by_key = RoleGuard::finding_by_key()?;
        let inner = SpiSession::connect()?;
        inner.name("coco_batch", batch.rows())?;
        inner.name("coco_output", &output)?;
        if target.covered.is_none() {
            inner.name("coco_old", &old)?;
        }
        let first_time = writer.fresh && target.covered.is_some() && !any_tracked;
        // One row an item, and each has one: what is left over is of items that are gone.
        let evaluated = batch.items.iter().filter(|i| i.action == Action::Evaluate).count();
        let one_each = target.covered.is_some()
            && target.key.len() == source.key.len()
            && output.len() == evaluated;
        let nothing_left = one_each && !batch.items.iter().any(|i| i.action == Action::Remove);
        if !first_time && !nothing_left {
            let (using, condition) = match (one_each, &target.covered) {
                (true, Some(covered)) => removed_item_rows_sql(source, covered, &names),
                _ => stale_rows_sql(source, target, &names),
            };
            counts.deleted += match &target.external {
                Some(external) => {
                    ledger::delete_ledger(&inner, target, external, &using, &condition, version)?
                }
                None => inner.execute(
                    &format!(
                        "delete from {} as x using {using} where {condition}",
                        target.relation_name()
                    ),
                    &[],
                )?,
            };
        }
        if output.len() > 0 {
            let refused =
                key_conflicts::conflicting_rows(&inner, flow, source, target, &names, how.unowned)?;
            if !refused.is_empty() {
                return Err(BatchError::Refused(refused));
            }
            counts.upserted += match &target.external {
                Some(external) => {
                    let mode = writing.mode;
                    ledger::upsert_ledger(&inner, target, external, &names, mode, version)?
                }
                None if how.order == WriteOrder::Displacing => {
                    let displaced = constraint_swaps::upsert_displacing(
                        &inner,
                        source,
                        target,
                        &names,
                        &output,
                        writing.mode,
                    )?;
                    if !displaced.conflicting.is_empty() {
                        return Err(BatchError::Conflicting(displaced.conflicting));
                    }
                    displaced.written
                }
                None => upsert(&inner, target, &names, &output, first_time, writing.mode)?,
            };
        }
        drop(inner);
        if target.covered.is_none() {
            listed.push((target.id, output));
        }
    }
    let used = match recalling {
        Some(recalling) => Some(result_uses::note_uses(recalling, source, batch, writers.len())?),
        None => None,
    };
    drop(statements);
    tracking_rows::write_tracking_rows(source, writers, &listed, batch, writing, used.as_ref())?;
    counts.evaluated = batch.items.iter().filter(|i| i.action == Action::Evaluate).count() as i64;
    counts.unchanged = batch.items.iter().filter(|i| i.action == Action::Advance).count() as i64;
    let (stored, calls) = used.map(|used| (used.stored, used.calls)).unwrap_or_default();
    Ok(WriteCounts { counts, stored, calls })
}

/// Whether any value of so many columns from one on is NULL.
fn has_nulls(rows: &mut TupleStore, from: usize, many: usize) -> bool {
    let mut found = false;
    while !found && rows.advance() {
        found = (from..from + many).any(|c| rows.datum(c).is_none());
    }
    rows.rewind();
    found
}

/// Writes the rows of `coco_output` that are not there, or not as they are: those that differ, then those
/// that are missing, which are looked for only among those that the first step has not written.
fn upsert(
    statements: &SpiSession,
    target: &Target,
    names: &KeyExprs,
    output: &TupleStore,
    first_time: bool,
    mode: Mode,
) -> Result<i64> {
    let relation = target.relation_name();
    let values = numbered("n.c", target.columns.len());
    let insert: Vec<_> =
        target.columns.iter().map(|c| c.name.clone()).zip(values.iter().cloned()).collect();
    if first_time {
        return bulk_insert::insert(statements, &relation, &insert, "coco_output as n", &[]);
    }
    let same = all_equal(&target.key, &names.target_key, &names.new_key);
    let update = update_differing(target, names, mode);
    let missing = format!("not exists (select from {relation} as x where {same})");
    // A rule may do something else instead, of which nothing is returned.
    if target_table::has_rules(target) {
        let written = statements.execute(&update, &[])?;
        let from = format!("coco_output as n where {missing}");
        return Ok(written + bulk_insert::insert(statements, &relation, &insert, &from, &[])?);
    }
    let mut updated = TupleStore::new(&rows::typed("t", &target.key))?;
    let returning = format!("{update} returning {}", names.new_key.join(", "));
    let written = statements.query_into(&returning, &[], &mut updated)?;
    if updated.len() == output.len() {
        return Ok(written);
    }
    let inner = SpiSession::connect()?;
    inner.name("coco_output", output)?;
    inner.name("coco_updated", &updated)?;
    let known = all_equal(&target.key, &numbered("w.t", target.key.len()), &names.new_key);
    let from = format!(
        "coco_output as n
          where not exists (select from coco_updated as w where {known}) and {missing}"
    );
    Ok(written + bulk_insert::insert(&inner, &relation, &insert, &from, &[])?)
}

/// For each target whose keys are listed: which failed items of the source wait for a key that is
/// free now, as the condition of a scan over their tracking rows `t`.
pub fn free_claims(writers: &[TargetWriter]) -> Option<String> {
    let conditions: Vec<String> = writers
        .iter()
        .filter(|w| w.target.covered.is_none())
        .map(|w| {
            let claims = "t.failure operator(pg_catalog.->>) 'claims'";
            let typed = key_values(w.target, claims);
            let keys: Vec<String> =
                w.target.key.iter().map(|k| format!("x.{}", k.quoted())).collect();
            format!(
                "((t.failure operator(pg_catalog.->>) 'target') operator(pg_catalog.=) '{}'
                  and {}not exists (select from {} as x where {}))",
                w.target.id,
                // Of what is no key it is not known whether it is free: the item waits for its retry.
                keys_are_valid(w.target, claims),
                w.target.relation_name(),
                all_equal(&w.target.key, &keys, &typed),
            )
        })
        .collect();
    (!conditions.is_empty()).then(|| {
        format!(
            "(t.failure operator(pg_catalog.->>) 'claims') is not null and ({})",
            conditions.join(" or ")
        )
    })
}
