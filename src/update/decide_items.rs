//! Decides about candidates, one by one, and puts those that need work into batches.

use crate::catalog::model::Source;
use crate::pg::clock::now_micros;
use crate::pg::error::Result;
use crate::query::batch::{Action, Batch, Item};
use crate::update::backlog::ScanProgress;
use crate::update::candidate_rows::{Candidate, Candidates};
use crate::update::progress::report_progress;
use crate::update::run::UpdateRun;
use crate::update::untracked_items;
use coco_core::counts::Counts;
use coco_core::decision::Decision;
use coco_core::version::ProcessOrdinal;

/// The counts of the candidates that an update has decided about.
#[derive(Clone, Copy, Debug, Default)]
pub struct PassCounts {
    pub counts: Counts,
    /// The number of candidates that exist in the source.
    pub present: i64,
}

impl PassCounts {
    /// Counts a candidate whose key is NULL. coco cannot know whether it had found the row before.
    fn count_without_key(&mut self) {
        self.counts.seen += 1;
        self.present += 1;
    }

    /// Counts a candidate. `seen` already includes the tracked items.
    fn count_candidate(&mut self, item: &Candidate) {
        match (&item.incoming, &item.stored) {
            (Some(_), None) => self.counts.seen += 1,
            (None, Some(_)) => self.counts.seen -= 1,
            _ => {}
        }
        self.present += i64::from(item.incoming.is_some());
    }

    fn count_skipped(&mut self, source: &Source, items: i64) {
        self.counts.count_left_out(source.ordinal.is_some(), items);
    }
}

impl UpdateRun<'_> {
    /// Decides about candidates, and writes the items that need work.
    pub fn process_candidates(
        &self,
        source: &Source,
        candidates: &mut Candidates,
        takes: impl FnMut(&Candidate) -> bool,
        pass: &mut PassCounts,
    ) -> Result<()> {
        let mut deferred = Batch::new(source, candidates.carry)?;
        self.process_all_but_deferred(source, candidates, takes, pass, &mut deferred)?;
        self.write_deferred(source, &mut deferred, &mut pass.counts)
    }

    /// Does the same, but leaves the items that must wait for others in `deferred`. The caller
    /// writes them after all others.
    pub fn process_all_but_deferred(
        &self,
        source: &Source,
        candidates: &mut Candidates,
        mut takes: impl FnMut(&Candidate) -> bool,
        pass: &mut PassCounts,
        deferred: &mut Batch,
    ) -> Result<()> {
        let mut batch = Batch::new(source, candidates.carry)?;
        let mut gone = Batch::new(source, false)?;
        let mut done = 0;
        let whole = ScanProgress { done: 0, total: candidates.len() as i64, began: now_micros() };
        let part = self.part.unwrap_or(whole);
        report_progress(source, part, 0);
        while let Some(item) = candidates.next() {
            done += 1;
            if !takes(&item) {
                continue;
            }
            let key = candidates.key();
            if source.lacks_key(&key) {
                pass.count_without_key();
                self.record_without_key(source, &key, &item, &mut pass.counts)?;
                continue;
            }
            pass.count_candidate(&item);
            let action = match item.decide(self.writing.logic, self.writing.mode) {
                Decision::Skip => {
                    if item.incoming.is_none() {
                        gone.push(&key, &[], Item::gone());
                    }
                    pass.count_skipped(source, i64::from(item.incoming.is_some()));
                    continue;
                }
                Decision::Wait => {
                    pass.counts.failed += 1;
                    continue;
                }
                Decision::Advance => Action::Advance,
                Decision::Evaluate => Action::Evaluate,
                Decision::Remove => Action::Remove,
            };
            if let Some(failure) = &item.unread {
                self.record_unread(source, &key, &item, failure, &mut pass.counts)?;
                continue;
            }
            batch.push(&key, &candidates.carried(), self.batch_item(&item, action));
            if batch.len() >= self.limits.batch {
                self.write(source, &mut batch, &mut pass.counts, Some(&mut *deferred))?;
                batch = Batch::new(source, candidates.carry)?;
                report_progress(source, part, done);
            }
        }
        if gone.len() > 0 {
            untracked_items::forget(source, &gone)?;
        }
        self.write(source, &mut batch, &mut pass.counts, Some(deferred))
    }

    /// Returns a candidate as an item of a batch.
    pub fn batch_item(&self, item: &Candidate, action: Action) -> Item {
        Item {
            action,
            tracked: item.stored.is_some(),
            incoming: item.incoming,
            process_ordinal: ProcessOrdinal::next(item.process_ordinal, now_micros()),
            attempts: self.attempts(item),
            along: false,
        }
    }

    /// Returns how often an item has failed with its current content and logic.
    fn attempts(&self, item: &Candidate) -> i32 {
        match item.failure {
            Some(f)
                if f.content == item.incoming.and_then(|i| i.content)
                    && f.logic == Some(self.writing.logic) =>
            {
                item.attempts
            }
            _ => 0,
        }
    }
}
