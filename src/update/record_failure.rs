//! Records the failure of one item: in its tracking row, or outside if no index can hold its key.

use pgrx::pg_sys;

use crate::catalog::item_failure::ItemFailure;
use crate::catalog::model::Source;
use crate::pg::error::Result;
use crate::pg::subtransaction::subtransaction;
use crate::query::batch::{Action, Batch};
use crate::update::candidate_rows::Candidate;
use crate::update::run::UpdateRun;
use crate::update::{failure_rows, untracked_items};
use coco_core::backoff;
use coco_core::counts::Counts;

impl UpdateRun<'_> {
    /// Records an item that coco could not read.
    pub fn record_unread(
        &self,
        source: &Source,
        key: &[Option<pg_sys::Datum>],
        item: &Candidate,
        failure: &ItemFailure,
        counts: &mut Counts,
    ) -> Result<()> {
        let mut one = self.not_evaluated(source, key, item)?;
        self.record_failure(source, &mut one, failure, counts)
    }

    /// Records an item whose key is NULL. coco can neither track such an item nor distinguish it
    /// from others.
    pub fn record_without_key(
        &self,
        source: &Source,
        key: &[Option<pg_sys::Datum>],
        item: &Candidate,
        counts: &mut Counts,
    ) -> Result<()> {
        let one = self.not_evaluated(source, key, item)?;
        untracked_items::record(source, &one, &ItemFailure::null_key(source))?;
        counts.failed += 1;
        Ok(())
    }

    /// Returns a batch of one item that coco does not evaluate.
    fn not_evaluated(
        &self,
        source: &Source,
        key: &[Option<pg_sys::Datum>],
        item: &Candidate,
    ) -> Result<Batch> {
        let mut one = Batch::new(source, false)?;
        one.push(key, &[], self.batch_item(item, Action::Advance));
        Ok(one)
    }

    /// Records the failure of the only item of a batch.
    pub fn record_failure(
        &self,
        source: &Source,
        one: &mut Batch,
        failure: &ItemFailure,
        counts: &mut Counts,
    ) -> Result<()> {
        let attempts = one.items.first().map_or(0, |i| i.attempts) + 1;
        let delay = backoff::retry_delay(attempts as u32);
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
                    // The key is too long for the index.
                    Err(None) => untracked_items::record(source, one, failure)?,
                }
            }
        }
        counts.failed += 1;
        let evaluated = one.items.iter().any(|i| i.action == Action::Evaluate);
        counts.evaluated += i64::from(evaluated);
        Ok(())
    }
}
