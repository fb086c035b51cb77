//! Attempts a batch, and decides what to do if the attempt fails: defer the batch, displace rows,
//! leave failing items out, or halve it. [`apply_batch`] does one attempt.

use std::collections::BTreeSet;

use crate::catalog::item_failure::{BatchError, ItemFailure};
use crate::catalog::model::Source;
use crate::catalog::relation_locks::{self, PATIENCE};
use crate::memo;
use crate::pg::error::{Error, Result};
use crate::pg::subtransaction::{DataError, subtransaction};
use crate::query::batch::Batch;
use crate::update::apply_batch;
use crate::update::run::{UpdateRun, interrupt};
use crate::update::target_writer::{BatchContext, UnownedRows, WriteMode, WriteOrder};
use coco_core::bisect::{Attempt, bisect_failed};
use coco_core::counts::Counts;
use coco_core::expectation::add_tally;
use coco_core::memo_batch::Stats;

/// How often coco leaves further items out of a batch because they conflict with the rows that the
/// items left out before keep.
const ROUNDS: usize = 8;

/// The result of writing a batch with displaced rows.
enum Settled {
    /// The batch is written, or deferred.
    All,
    /// The batch is written without these items.
    But(BTreeSet<usize>),
    Nothing,
}

/// What becomes of the changes of a successful attempt.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Keep,
    /// The attempt only tells whether the batch fails.
    Undo,
}

/// An item that fails, by its number in the batch, and the reason.
type FailedItem = (usize, ItemFailure);

impl UpdateRun<'_> {
    /// Writes a batch. Loads the memoized results of its items before, and stores new ones after.
    pub fn write(
        &self,
        source: &Source,
        batch: &mut Batch,
        counts: &mut Counts,
        deferred: Option<&mut Batch>,
    ) -> Result<()> {
        let Some(recalling) = self.recalling.as_deref().filter(|_| batch.len() > 0) else {
            return self.write_parts(source, batch, counts, deferred);
        };
        memo::begin_batch(recalling, source, batch)?;
        self.write_parts(source, batch, counts, deferred)?;
        memo::end_batch(recalling)
    }

    /// Writes a batch. Finds and records the items whose data causes an error, and leaves them as
    /// they were. If the batch conflicts with items outside it, over a target key or under another
    /// constraint, moves it to `deferred`. The caller writes `deferred` after all other batches
    /// have deleted what their items no longer produce, so that items which exchange keys meet in
    /// it.
    fn write_parts(
        &self,
        source: &Source,
        batch: &mut Batch,
        counts: &mut Counts,
        deferred: Option<&mut Batch>,
    ) -> Result<()> {
        let mut rest;
        let mut this = batch;
        let mut deferred = deferred;
        let mut may_displace = true;
        // A batch that can be deferred is attempted once more after all others.
        let is_last_attempt = deferred.is_none();
        while this.len() > 0 {
            let takes_over = self.takes_unowned_rows || self.lost_keys.get();
            let unowned = match is_last_attempt && takes_over {
                true => UnownedRows::TakenOver,
                false => UnownedRows::Refused,
            };
            let failed: Vec<FailedItem> =
                match self.attempt(source, this, Outcome::Keep, WriteOrder::InPlace, unowned) {
                    Ok(more) => {
                        *counts += more;
                        return Ok(());
                    }
                    Err(BatchError::Flow(error)) => return Err(error),
                    Err(BatchError::TooLarge) => return self.write_halves(source, this, counts),
                    Err(BatchError::Undone | BatchError::Conflicting(_)) => {
                        return Err(Error::internal("a batch was not kept"));
                    }
                    Err(BatchError::Refused(refused)) => {
                        let waits = refused.iter().any(|r| r.failure.waits());
                        if let Some(deferred) = deferred.take().filter(|_| waits) {
                            return this.move_into(deferred);
                        }
                        let fails = |item: usize| !this.items.get(item).is_some_and(|i| i.along);
                        for rejected in refused.iter().filter(|r| fails(r.item)) {
                            add_tally(&mut self.expected.borrow_mut(), &rejected.tally);
                        }
                        refused.into_iter().map(|r| (r.item, r.failure)).collect()
                    }
                    Err(BatchError::Raised(raised)) if may_displace && raised.is_conflict() => {
                        may_displace = false;
                        match self.displace(
                            source,
                            this,
                            counts,
                            deferred.as_deref_mut(),
                            unowned,
                        )? {
                            Settled::All => return Ok(()),
                            Settled::But(conflicting) => {
                                rest = this.only(&conflicting)?;
                                this = &mut rest;
                            }
                            Settled::Nothing => {}
                        }
                        continue;
                    }
                    Err(BatchError::Raised(raised)) => {
                        let along = this.along();
                        if !along.is_empty() {
                            rest = this.without(&along)?;
                            this = &mut rest;
                            continue;
                        }
                        let failed = self.find_failing(source, this, raised, unowned)?;
                        // Items that fail because of a conflict may succeed without the others.
                        let others = failed.iter().any(|(_, failure)| !failure.is_conflict());
                        let is_sure =
                            |f: &ItemFailure| !(may_displace && others && f.is_conflict());
                        failed.into_iter().filter(|(_, failure)| is_sure(failure)).collect()
                    }
                };
            if failed.is_empty() {
                return self.write_halves(source, this, counts);
            }
            let numbers = failed.iter().map(|(n, _)| *n).collect();
            for (n, failure) in failed {
                if !this.items.get(n).is_some_and(|item| item.along) {
                    self.record_failure(source, &mut this.slice(n..n + 1)?, &failure, counts)?;
                }
            }
            rest = this.without(&numbers)?;
            this = &mut rest;
        }
        Ok(())
    }

    /// Writes a batch whose rows conflict under another constraint of a target than its key, and
    /// displaces the rows that change such a value. Leaves out the items that still conflict, then
    /// the items that conflict with the rows that these keep.
    fn displace(
        &self,
        source: &Source,
        batch: &mut Batch,
        counts: &mut Counts,
        deferred: Option<&mut Batch>,
        unowned: UnownedRows,
    ) -> Result<Settled> {
        let mut deferred = deferred;
        let mut left_out = BTreeSet::new();
        for _ in 0..ROUNDS {
            let numbers: Vec<usize> = (0..batch.len()).filter(|n| !left_out.contains(n)).collect();
            let mut these = batch.without(&left_out)?;
            match self.attempt(source, &mut these, Outcome::Keep, WriteOrder::Displacing, unowned) {
                Ok(more) => {
                    *counts += more;
                    // Items that were only taken along stay as they are.
                    left_out.retain(|n| batch.items.get(*n).is_some_and(|item| !item.along));
                    return Ok(match left_out.is_empty() {
                        true => Settled::All,
                        false => Settled::But(left_out),
                    });
                }
                Err(BatchError::Flow(error)) => return Err(error),
                Err(BatchError::Conflicting(conflicting)) => {
                    if let Some(deferred) = deferred.take() {
                        batch.move_into(deferred)?;
                        return Ok(Settled::All);
                    }
                    left_out.extend(conflicting.iter().filter_map(|n| numbers.get(*n)));
                }
                Err(_) => break,
            }
        }
        Ok(Settled::Nothing)
    }

    /// Returns the items that fail alone. Undoes all of these attempts: coco must write the other
    /// items together, because they may hand keys to each other.
    fn find_failing(
        &self,
        source: &Source,
        batch: &mut Batch,
        raised: DataError,
        unowned: UnownedRows,
    ) -> Result<Vec<FailedItem>> {
        let mut failed = Vec::new();
        let whole = 0..batch.len();
        let mut attempt = |range: std::ops::Range<usize>| -> Result<Attempt<DataError>> {
            match self.attempt(
                source,
                &mut batch.slice(range)?,
                Outcome::Undo,
                WriteOrder::InPlace,
                unowned,
            ) {
                Ok(_)
                | Err(
                    BatchError::Undone
                    | BatchError::Refused(_)
                    | BatchError::Conflicting(_)
                    | BatchError::TooLarge,
                ) => Ok(Attempt::Done),
                Err(BatchError::Raised(raised)) => Ok(Attempt::Failed(raised)),
                Err(BatchError::Flow(error)) => Err(error),
            }
        };
        bisect_failed(whole, raised, &mut attempt, &mut |n, raised| {
            failed.push((n, ItemFailure::from(raised)));
            Ok(())
        })?;
        Ok(failed)
    }

    /// Writes a batch in two halves if it fails as a whole but no item fails alone. Two of its
    /// items together then break a constraint of the target.
    fn write_halves(&self, source: &Source, batch: &mut Batch, counts: &mut Counts) -> Result<()> {
        let middle = batch.len() / 2;
        self.write(source, &mut batch.slice(0..middle)?, counts, None)?;
        self.write(source, &mut batch.slice(middle..batch.len())?, counts, None)
    }

    /// Writes a batch in a subtransaction.
    fn attempt(
        &self,
        source: &Source,
        batch: &mut Batch,
        outcome: Outcome,
        order: WriteOrder,
        unowned: UnownedRows,
    ) -> std::result::Result<Counts, BatchError> {
        interrupt();
        if self.context.is_live() {
            relation_locks::hold_targets(self.flow, PATIENCE)?;
        }
        relation_locks::hear_of_changes();
        let recalling = self.recalling.as_ref();
        let context = BatchContext {
            flow: self.flow,
            source,
            writers: &self.writers,
            writing: self.writing,
            how: WriteMode { order, unowned, lost_keys: &self.lost_keys },
            recalling,
        };
        let written = subtransaction(
            || {
                let written = apply_batch::write_batch(&context, batch)?;
                match outcome {
                    Outcome::Keep => Ok(written),
                    Outcome::Undo => Err(BatchError::Undone),
                }
            },
            BatchError::Raised,
        )?;
        if let Some(recalling) = recalling {
            recalling.recall.borrow_mut().mark_stored(&written.stored);
            for (function, calls) in written.calls {
                recalling.count(function, Stats { calls, ..Stats::default() });
            }
        }
        add_tally(&mut self.expected.borrow_mut(), &written.tally);
        Ok(written.counts)
    }
}
