//! Attempts items that failed because of a conflict together with the items that they conflict
//! with.
//!
//! Items can exchange target keys, or values of another unique constraint, while a transaction of a
//! worker sees only some of them. The items that the transaction sees fail. The others would fail
//! after them, because a failed item keeps its rows; attempted alone, each item would fail forever.
//! A batch that met such a conflict therefore takes along items that failed because of one, and
//! coco writes all of them together.

use crate::catalog::model::Source;
use crate::pg::acting_role::RoleGuard;
use crate::pg::clock::now_micros;
use crate::pg::columns::{all_equal, numbered};
use crate::pg::error::Result;
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::tuplestore::rows::TupleStore;
use crate::pg::tuplestore::statements::SpiSession;
use crate::query::batch::{Action, Batch, Item};
use crate::query::compose;
use crate::update::candidate_rows::key_columns;
use crate::update::detect;
use crate::update::run::UpdateRun;
use coco_core::counts::Counts;
use coco_core::decision::{Decision, Mode};
use coco_core::version::ProcessOrdinal;

/// The largest number of items that a batch takes along: those with the fewest attempts first, and
/// of these the latest to fail. Items that have failed many times are unlikely to succeed now.
pub const MOST: usize = 1000;

impl UpdateRun<'_> {
    /// Writes the items that conflicted with items outside their batches, after all batches are
    /// written.
    pub fn write_deferred(
        &self,
        source: &Source,
        deferred: &mut Batch,
        counts: &mut Counts,
    ) -> Result<()> {
        // Of the tracking rows, the state that the batches have left: an item that one of them has
        // written, or removed, owns other keys now. All else is read as of the same snapshot.
        let _snapshot = PinnedSnapshot::again();
        if deferred.len() > 0 {
            let along = self.take_along(source, deferred)?;
            // Items taken along are already counted as failed, like all items that wait for their
            // retry. Items that fail again are counted once more.
            counts.failed -= along;
        }
        self.write(source, deferred, counts, None)
    }

    /// Adds items that failed because of a conflict over a target key or a unique value. Returns
    /// how many.
    fn take_along(&self, source: &Source, deferred: &mut Batch) -> Result<i64> {
        let keys = conflicting(source, deferred)?;
        if keys.len() == 0 {
            return Ok(0);
        }
        let mut found = detect::lookup_candidates(source, &keys, deferred.carries)?;
        let mut along = 0;
        while let Some(item) = found.next() {
            if item.unread.is_some() {
                continue;
            }
            let action = match item.decide(self.writing.logic, Mode::Retry) {
                Decision::Evaluate => Action::Evaluate,
                Decision::Remove => Action::Remove,
                Decision::Skip | Decision::Advance | Decision::Wait => continue,
            };
            let taken = Item {
                action,
                tracked: item.stored.is_some(),
                incoming: item.incoming,
                process_ordinal: ProcessOrdinal::next(item.process_ordinal, now_micros()),
                attempts: item.attempts,
                along: true,
            };
            deferred.push(&found.key(), &found.carried(), taken);
            along += 1;
        }
        Ok(along)
    }
}

/// Returns the keys of the items that failed because of a conflict, except those in the batch.
fn conflicting(source: &Source, batch: &Batch) -> Result<TupleStore> {
    let acting = RoleGuard::qualifying_names()?;
    // Use the index on failed items even before the table is analyzed for the first time.
    acting.set("enable_seqscan", "off")?;
    let mut keys = TupleStore::new(&key_columns(source))?;
    let statements = SpiSession::connect()?;
    statements.name("coco_batch", batch.rows())?;
    let tracked = compose::tracking_keys(source, "t");
    let there = all_equal(&source.key, &numbered("b.k", source.key.len()), &tracked);
    statements.select_into(
        &format!(
            "select {keys}, false from {tracking} as t
              where t.failure is not null
                and ((t.failure operator(pg_catalog.->>) 'claims') is not null
                     or (t.failure operator(pg_catalog.->>) 'sqlstate') in ('23505', '23P01'))
                and not exists (select from coco_batch as b where {there})
              order by (t.failure operator(pg_catalog.->>) 'attempts')::pg_catalog.int4,
                       (t.failure operator(pg_catalog.->>) 'failed_at')::pg_catalog.timestamptz desc
              limit {MOST}",
            keys = tracked.join(", "),
            tracking = source.tracking_view,
        ),
        &[],
        &mut keys,
    )?;
    Ok(keys)
}
