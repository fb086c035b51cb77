//! Writing a batch, and what is done about one that does not go through.

use pgrx::pg_sys;
use std::collections::BTreeSet;

use crate::catalog::item_failure::{BatchError, ItemFailure};
use crate::catalog::model::Source;
use crate::catalog::relation_locks;
use crate::memo;
use crate::pg::clock::now_micros;
use crate::pg::error::{Error, Result};
use crate::pg::subtransaction::{DataError, subtransaction};
use crate::query::batch::{Action, Batch, Item};
use crate::update::candidate_rows::Candidate;
use crate::update::run::{UpdateRun, interrupt};
use crate::update::target_writer::{BatchContext, UnownedRows, WriteMode, WriteOrder};
use crate::update::{apply_batch, failure_rows, untracked_items};
use coco_core::backoff;
use coco_core::counts::Counts;
use coco_core::isolate::{Attempt, halve};
use coco_core::memo::Stats;
use coco_core::version::ProcessOrdinal;

/// How often items are left out of a batch for a conflict with those left out before.
const ROUNDS: usize = 8;

/// What became of a batch with rows that conflict.
enum Settled {
    /// It is written, or put aside.
    All,
    /// It is written but for these items.
    But(BTreeSet<usize>),
    Nothing,
}

impl UpdateRun<'_> {
    /// Writes a batch, with what its items recall of memoised results.
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

    /// Writes a batch; items whose data is at fault are found, recorded, and left as they were. A
    /// batch that wants a target key of an item outside, or meets its row under another constraint,
    /// goes to `deferred`, to be written when all others have let go of what they no longer produce:
    /// what merely changes hands meets there.
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
        let mut displaces = true;
        // A batch that may be put aside is asked again when all others are written.
        let last = deferred.is_none();
        while this.len() > 0 {
            let unowned = match last && (self.takes_over || self.lost_keys.get()) {
                true => UnownedRows::TakenOver,
                false => UnownedRows::Refused,
            };
            let failed: Vec<(usize, ItemFailure)> =
                match self.attempt(source, this, true, WriteOrder::InPlace, unowned) {
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
                        refused.into_iter().map(|r| (r.item, r.failure)).collect()
                    }
                    Err(BatchError::Raised(raised)) if displaces && raised.is_conflict() => {
                        displaces = false;
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
                        // Those that fail for a conflict may go through once the others are left out.
                        let own = failed.iter().any(|(_, failure)| !failure.is_conflict());
                        let is_sure = |f: &ItemFailure| !(displaces && own && f.is_conflict());
                        failed.into_iter().filter(|(_, failure)| is_sure(failure)).collect()
                    }
                };
            if failed.is_empty() {
                return self.write_halves(source, this, counts);
            }
            let numbers = failed.iter().map(|(n, _)| *n).collect();
            for (n, failure) in failed {
                if !this.items.get(n).is_some_and(|item| item.along) {
                    self.record(source, &mut this.slice(n..n + 1)?, &failure, counts)?;
                }
            }
            rest = this.without(&numbers)?;
            this = &mut rest;
        }
        Ok(())
    }

    /// Writes a batch whose rows conflict under a constraint of a target beside its key, with rows that change such a
    /// value displaced. Items that still conflict are left out, then those that conflict with what these keep.
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
            match self.attempt(source, &mut these, true, WriteOrder::Displacing, unowned) {
                Ok(more) => {
                    *counts += more;
                    // What was only taken along stays as it is.
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

    /// The items that fail on their own. Nothing of these attempts is kept: the others are to be
    /// written together, since they may hand keys to each other.
    fn find_failing(
        &self,
        source: &Source,
        batch: &mut Batch,
        raised: DataError,
        unowned: UnownedRows,
    ) -> Result<Vec<(usize, ItemFailure)>> {
        let mut failed = Vec::new();
        let whole = 0..batch.len();
        let mut attempt = |range: std::ops::Range<usize>| -> Result<Attempt<DataError>> {
            match self.attempt(
                source,
                &mut batch.slice(range)?,
                false,
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
        halve(whole, raised, &mut attempt, &mut |n, raised| {
            failed.push((n, ItemFailure::from(raised)));
            Ok(())
        })?;
        Ok(failed)
    }

    /// Writes in two parts a batch that fails as a whole and of which no item fails alone: two of
    /// its items together break a constraint of the target.
    fn write_halves(&self, source: &Source, batch: &mut Batch, counts: &mut Counts) -> Result<()> {
        let middle = batch.len() / 2;
        self.write(source, &mut batch.slice(0..middle)?, counts, None)?;
        self.write(source, &mut batch.slice(middle..batch.len())?, counts, None)
    }

    /// Records that nothing could be read of an item.
    pub fn record_unread(
        &self,
        source: &Source,
        key: &[Option<pg_sys::Datum>],
        item: &Candidate,
        failure: &ItemFailure,
        counts: &mut Counts,
    ) -> Result<()> {
        let mut one = self.not_evaluated(source, key, item)?;
        self.record(source, &mut one, failure, counts)
    }

    /// Records an item whose key is NULL, which can be neither tracked nor told from others.
    pub fn record_without_key(
        &self,
        source: &Source,
        key: &[Option<pg_sys::Datum>],
        item: &Candidate,
        counts: &mut Counts,
    ) -> Result<()> {
        untracked_items::record(
            source,
            &self.not_evaluated(source, key, item)?,
            &ItemFailure::null_key(source),
        )?;
        counts.failed += 1;
        Ok(())
    }

    fn not_evaluated(
        &self,
        source: &Source,
        key: &[Option<pg_sys::Datum>],
        item: &Candidate,
    ) -> Result<Batch> {
        let mut one = Batch::new(source, false)?;
        let item = Item {
            action: Action::Advance,
            tracked: item.stored.is_some(),
            incoming: item.incoming,
            process_ordinal: ProcessOrdinal::next(item.process_ordinal, now_micros()),
            attempts: self.attempts(item),
            along: false,
        };
        one.push(key, &[], item);
        Ok(one)
    }

    fn record(
        &self,
        source: &Source,
        one: &mut Batch,
        failure: &ItemFailure,
        counts: &mut Counts,
    ) -> Result<()> {
        let attempts = one.items.first().map_or(0, |i| i.attempts) + 1;
        let delay = backoff::delay(attempts as u32);
        let logic = self.writing.logic;
        match one.key_bytes() > untracked_items::LONG {
            false => failure_rows::record_failures(source, one, failure, logic, attempts, delay)?,
            true => {
                let tracked = subtransaction(
                    || {
                        failure_rows::record_failures(source, one, failure, logic, attempts, delay)
                            .map_err(Some)
                    },
                    |_| None,
                );
                match tracked {
                    Ok(()) => {}
                    Err(Some(error)) => return Err(error),
                    // No index holds its key.
                    Err(None) => untracked_items::record(source, one, failure)?,
                }
            }
        }
        counts.failed += 1;
        let evaluated = one.items.iter().any(|i| i.action == Action::Evaluate);
        counts.evaluated += i64::from(evaluated);
        Ok(())
    }

    /// Writes a batch in a subtransaction, which without `keep` is undone.
    fn attempt(
        &self,
        source: &Source,
        batch: &mut Batch,
        keep: bool,
        order: WriteOrder,
        unowned: UnownedRows,
    ) -> std::result::Result<Counts, BatchError> {
        interrupt();
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
                if keep { Ok(written) } else { Err(BatchError::Undone) }
            },
            BatchError::Raised,
        )?;
        if let Some(recalling) = recalling {
            recalling.recall.borrow_mut().stored(&written.stored);
            for (function, calls) in written.calls {
                recalling.count(function, Stats { calls, ..Stats::default() });
            }
        }
        Ok(written.counts)
    }
}
