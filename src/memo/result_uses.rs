//! Tracks which items use which results: an entry of the store counts these items, and their
//! tracking rows list the entry.
//!
//! A statement as the flow's owner reads the tracking rows, and returns only numbers. A separate
//! statement then writes the store.

use pgrx::{IntoDatum, pg_sys};
use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::catalog::model::Source;
use crate::memo::evaluate_batch;
use crate::memo::session::MemoSession;
use crate::memo::store::{self, New, Until};
use crate::pg::acting_role::RoleGuard;
use crate::pg::columns::{all_equal, numbered};
use crate::pg::error::{Error, Result};
use crate::pg::spi::arg;
use crate::pg::tuplestore::rows::{RowColumn, TupleStore};
use crate::pg::tuplestore::statements::SpiSession;
use crate::query::batch::{Action, Batch};
use crate::query::compose;
use coco_core::memo_batch::{EntryIndex, FunctionId, MemoEntry, State};

/// Returns the entries that the items of a batch used when they were last evaluated. The items are
/// likely to use them again.
pub fn used_by(recalling: &MemoSession, source: &Source, batch: &Batch) -> Result<Vec<MemoEntry>> {
    if recalling.table.is_none() {
        return Ok(vec![]);
    }
    let mut numbers = TupleStore::new(&[RowColumn::new("entry", pg_sys::INT8OID)])?;
    let statements = SpiSession::connect()?;
    statements.name("coco_batch", batch.rows())?;
    statements.query_into(
        &format!(
            "select distinct u.entry {}
              where b.action operator(pg_catalog.=) 'e'::pg_catalog.\"char\" and u.entry is not null",
            tracked(source),
        ),
        &[],
        &mut numbers,
    )?;
    drop(statements);
    match numbers.len() {
        0 => Ok(vec![]),
        _ => store::read(recalling, &numbers),
    }
}

/// Returns SQL that selects the entries `u` that the tracking rows of the items `b` of a batch
/// list.
fn tracked(source: &Source) -> String {
    let batch = numbered("b.k", source.key.len());
    let same = all_equal(&source.key, &compose::tracking_keys(source, "t"), &batch);
    format!(
        "from coco_batch as b join {} as t on {same}
         cross join lateral pg_catalog.unnest(t.memo_refs) as u(entry)",
        source.tracking_view
    )
}

/// The changes in the store for a batch that is being written.
pub struct ResultUses {
    /// The entries that each item uses: the item's number `no`, and `refs`.
    pub refs: TupleStore,
    /// New entries and their numbers, which are valid only if the batch is committed.
    pub stored: Vec<(EntryIndex, i64)>,
    /// How many results of each function the items use.
    pub calls: BTreeMap<FunctionId, i64>,
}

/// Stores the results that the items of a batch use, before coco writes the items' tracking rows.
/// Adds new entries, and deletes entries that no item uses any more.
pub fn note_uses(
    recalling: &MemoSession,
    source: &Source,
    batch: &Batch,
    targets: usize,
) -> Result<ResultUses> {
    let table = recalling
        .table
        .as_deref()
        .ok_or_else(|| Error::internal("flow has no table of results"))?;
    let recall = recalling.recall.borrow();
    let mut uses: Vec<(usize, BTreeSet<EntryIndex>)> = Vec::new();
    let mut counts: BTreeMap<EntryIndex, i32> = BTreeMap::new();
    let mut calls: BTreeMap<FunctionId, i64> = BTreeMap::new();
    for (n, item) in batch.items.iter().enumerate() {
        if item.action != Action::Evaluate {
            continue;
        }
        let of = |target| recall.uses().get(&evaluate_batch::item_of(batch, target, n));
        let places: BTreeSet<EntryIndex> = (0..targets).filter_map(of).flatten().copied().collect();
        for place in &places {
            *counts.entry(*place).or_default() += 1;
            *calls.entry(recall.get(*place).function).or_default() += 1;
        }
        uses.push((n, places));
    }
    let mut new = Vec::new();
    for (place, uses) in &counts {
        let entry = recall.get(*place);
        if matches!((&entry.state, entry.stored), (State::Known(_), None)) {
            new.push(New { place: *place, entry, uses: *uses });
        }
    }
    let stored = store::add(table, &new, Until::Unused)?;
    let numbers: HashMap<EntryIndex, i64> = stored.iter().copied().collect();
    let number =
        |place: &EntryIndex| recall.get(*place).stored.or_else(|| numbers.get(place).copied());

    let mut refs = TupleStore::new(&[
        RowColumn::new("no", pg_sys::INT4OID),
        RowColumn::new("refs", pg_sys::INT8ARRAYOID),
    ])?;
    let mut held = false;
    for (n, places) in uses.iter().filter(|(_, places)| !places.is_empty()) {
        let list: Vec<i64> = places.iter().filter_map(number).collect();
        held |= places.iter().any(|p| recall.get(*p).stored.is_some());
        refs.push(&[(*n as i32).into_datum(), list.into_datum()]);
    }
    if held || batch.items.iter().any(|i| i.tracked && i.action != Action::Advance) {
        let first_new = stored.iter().map(|(_, id)| *id).min().unwrap_or(i64::MAX);
        balance(table, source, batch, &refs, first_new)?;
    }
    Ok(ResultUses { refs, stored, calls })
}

/// Adjusts the use counts of the entries that existed before this batch (below `first_new`).
/// Deletes those that no item uses any more.
fn balance(
    table: &str,
    source: &Source,
    batch: &Batch,
    refs: &TupleStore,
    first_new: i64,
) -> Result<()> {
    let mut changes = TupleStore::new(&[
        RowColumn::new("entry", pg_sys::INT8OID),
        RowColumn::new("more", pg_sys::INT4OID),
    ])?;
    let statements = SpiSession::connect()?;
    statements.name("coco_batch", batch.rows())?;
    statements.name("coco_refs", refs)?;
    statements.query_into(
        &format!(
            "select x.entry, pg_catalog.sum(x.more)::pg_catalog.int4
               from (select u.entry, -1 as more
                       {}
                      where b.action operator(pg_catalog.<>) 'a'::pg_catalog.\"char\"
                     union all
                     select u.entry, 1
                       from coco_refs as r cross join lateral pg_catalog.unnest(r.refs) as u(entry)
                      where u.entry operator(pg_catalog.<) $1) as x
              group by x.entry
             having pg_catalog.sum(x.more) operator(pg_catalog.<>) 0",
            tracked(source),
        ),
        &[arg(first_new)],
        &mut changes,
    )?;
    if changes.len() == 0 {
        return Ok(());
    }
    drop(statements);
    let _as = RoleGuard::extension_owner()?;
    let writing = SpiSession::connect()?;
    writing.name("coco_changes", &changes)?;
    writing.execute(
        &format!(
            "delete from {table} as m using coco_changes as c
              where m.entry = c.entry and m.uses + c.more <= 0"
        ),
        &[],
    )?;
    writing.execute(
        &format!(
            "update {table} as m set uses = m.uses + c.more, kept_until = null
               from coco_changes as c where m.entry = c.entry"
        ),
        &[],
    )?;
    Ok(())
}
