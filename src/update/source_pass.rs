//! The pass of an update over one source: what there is to do, and what remains for later updates.
//! [`UpdateRun::update_source`] is the path; the steps follow it in order.

use crate::capture::cursor;
use crate::catalog::model::Source;
use crate::outbox::initial_load_buffer::InitialLoadBuffer;
use crate::pg::clock::now_micros;
use crate::pg::error::Result;
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::tuplestore::rows::TupleStore;
use crate::pg::tuplestore::statements::SpiSession;
use crate::update::backlog::{KeySlice, ScanProgress};
use crate::update::cursor_cache::CursorUpdate;
use crate::update::decide_items::PassCounts;
use crate::update::full_scan::FullScanOutcome;
use crate::update::group_rows;
use crate::update::lookups::{self, FollowedLookups, LookupChanges};
use crate::update::run::{UpdateOutcome, UpdateRun};
use crate::update::source_plan::{self, ForcedKeys, PlannedCursor, PlannedSource, ReadMode};
use crate::update::source_work::{self, SourceWork};
use coco_core::counts::Counts;
use coco_core::run_history::Reason;

/// The result of the work on one source.
#[derive(Default)]
struct PassResult {
    pass: PassCounts,
    reason: Reason,
    /// The number of failed items that an update by keys left out, because they wait for a retry.
    waiting: i64,
    /// Whether items are pending for later transactions.
    has_pending: bool,
    /// The rows of an initial load that this process delivers.
    held: Vec<InitialLoadBuffer>,
}

impl UpdateRun<'_> {
    /// Brings the items of one source up to date, as far as the limits allow.
    pub fn update_source(
        &mut self,
        source: &Source,
        outcome: &mut UpdateOutcome,
    ) -> Result<Counts> {
        if self.context.has_finished(source) {
            return Ok(Counts::default());
        }
        let _snapshot = PinnedSnapshot::again();
        let reading = self.read_mode(source);
        let LookupChanges { forced, followed } =
            lookups::follow_all(self.flow, source, self.limits, reading)?;
        if let Some(slice) = self.take_pending_slice(source, &forced, &followed)? {
            return self.process_slice(source, slice, &forced, followed, outcome);
        }
        let reading = ReadMode {
            looked_up: followed.changed,
            when_due: self.context.scans_when_due(),
            ..reading
        };
        let statements = SpiSession::connect()?;
        let planned = source_plan::plan_source(&statements, source, reading)?;
        let PlannedSource { looking, cursor } =
            group_rows::follow_rows(source, self.writing.mode, planned)?;
        let _with_states = PinnedSnapshot::again();
        let result = match source_work::choose_source_work(self.writing, source, looking, forced)? {
            SourceWork::Nothing => PassResult::default(),
            SourceWork::Keys(keys) => self.process_planned_keys(source, keys, &cursor)?,
            SourceWork::FullScan(full) => {
                self.process_full_scan(&statements, source, full, &cursor)?.into()
            }
        };
        let has_pending = result.has_pending;
        let counts = self.account(source, result, outcome);
        self.advance_cursor(source, cursor, followed, has_pending, outcome)?;
        Ok(counts)
    }

    /// Returns how to read the lookups of a source.
    fn read_mode(&self, source: &Source) -> ReadMode<'_> {
        ReadMode {
            logic: self.writing.logic,
            mode: self.writing.mode,
            limit: self.limits.changes,
            live: self.context.cursors(),
            generation: self.generation,
            lookups: lookups::has_any(self.flow, source),
            looked_up: false,
            when_due: self.context.scans_when_due() || self.context.has_pending(source),
            shared: self.snapshot.is_shared(),
        }
    }

    /// Takes a slice of the source's pending keys. Discards keys that a change of a lookup made
    /// outdated.
    fn take_pending_slice(
        &self,
        source: &Source,
        forced: &ForcedKeys,
        followed: &FollowedLookups,
    ) -> Result<Option<KeySlice>> {
        let Some(pending) = self.context.pending() else { return Ok(None) };
        let has_lookups = lookups::has_any(self.flow, source);
        let outdated = pending.is_outdated(source, has_lookups, followed.changed);
        if outdated || matches!(forced, ForcedKeys::All) {
            pending.forget(source);
        }
        pending.take(source, self.writing.logic, self.limits.changes.unwrap_or(usize::MAX))
    }

    /// Processes a slice of the pending keys.
    fn process_slice(
        &mut self,
        source: &Source,
        mut slice: KeySlice,
        forced: &ForcedKeys,
        followed: FollowedLookups,
        outcome: &mut UpdateOutcome,
    ) -> Result<Counts> {
        self.takes_unowned_rows = true;
        for writer in &mut self.writers {
            writer.fresh = slice.fresh.contains(&writer.target.id);
        }
        let mut keys = match forced {
            ForcedKeys::Keys(forced) if forced.len() > 0 => {
                lookups::with_forced_keys(source, Some(&slice.keys), forced)?
            }
            _ => slice.keys,
        };
        let mut pass = PassCounts::default();
        self.process_keys(source, &mut keys, slice.part, &mut pass)?;
        let lookups_more = self.account_lookups(followed, outcome);
        outcome.add_logs(None);
        match slice.last.take() {
            Some(cursor) => {
                cursor::store_cursor(source, &cursor, true)?;
                outcome.kept.push(CursorUpdate::stored(source, cursor));
                if !lookups_more {
                    self.finish(source);
                }
            }
            None => outcome.more = true,
        }
        // The scan has counted the items as seen. The slice does not count items that wait for
        // their retry.
        let Counts { failed, .. } = pass.counts;
        Ok(Counts { seen: 0, failed: failed.max(0), ..pass.counts })
    }

    /// Processes the keys of the plan.
    fn process_planned_keys(
        &mut self,
        source: &Source,
        mut keys: TupleStore,
        cursor: &PlannedCursor,
    ) -> Result<PassResult> {
        let mut pass = PassCounts::default();
        let part = ScanProgress { done: 0, total: keys.len() as i64, began: now_micros() };
        self.process_keys(source, &mut keys, part, &mut pass)?;
        let waiting = cursor.waiting;
        pass.counts.seen = pass.present + waiting;
        pass.counts.failed += waiting;
        pass.present += waiting;
        Ok(PassResult { pass, waiting, ..PassResult::default() })
    }

    /// Adds the result of the work on a source to the outcome. Returns the counts of the source.
    fn account(&self, source: &Source, result: PassResult, outcome: &mut UpdateOutcome) -> Counts {
        let PassResult { pass, reason, waiting, held, .. } = result;
        outcome.held.extend(held);
        outcome.waiting += waiting;
        outcome.reason = outcome.reason.max(Reason::of_mode(self.writing.mode).or(Some(reason)));
        // A scan does not return the items that are up to date.
        let mut counts = pass.counts;
        counts.count_left_out(source.ordinal.is_some(), counts.seen - pass.present);
        counts
    }

    /// Adds what following the lookups has left to the outcome. Returns whether changes of lookups
    /// are left.
    fn account_lookups(&self, followed: FollowedLookups, outcome: &mut UpdateOutcome) -> bool {
        // An update that evaluates every item misses no change of a lookup.
        let more = followed.more && !self.writing.mode.evaluates_all();
        outcome.more |= more;
        outcome.uncaptured |= followed.uncaptured;
        outcome.again = [outcome.again, followed.again].into_iter().flatten().min();
        outcome.add_logs(followed.logs);
        outcome.kept.extend(followed.kept);
        more
    }

    /// Stores the cursor of a source, unless items of a scan are pending.
    fn advance_cursor(
        &self,
        source: &Source,
        cursor: PlannedCursor,
        followed: FollowedLookups,
        has_pending: bool,
        outcome: &mut UpdateOutcome,
    ) -> Result<()> {
        let lookups_more = self.account_lookups(followed, outcome);
        outcome.more |= cursor.more || has_pending;
        outcome.uncaptured |= cursor.uncaptured;
        outcome.add_logs(cursor.log().map(|log| vec![log]));
        outcome.again = [outcome.again, cursor.again].into_iter().flatten().min();
        if has_pending {
            return Ok(());
        }
        if !cursor.more && !lookups_more {
            self.finish(source);
        }
        let cached = self.context.cursors();
        outcome.kept.extend(cursor.store(source, cached, self.limits.segment_bytes)?);
        Ok(())
    }

    /// Records that the later transactions of this update need not look at a source.
    fn finish(&self, source: &Source) {
        if let Some(pending) = self.context.pending() {
            pending.done(source);
        }
    }
}

impl From<FullScanOutcome> for PassResult {
    fn from(outcome: FullScanOutcome) -> PassResult {
        let FullScanOutcome { pass, reason, has_pending, held } = outcome;
        PassResult { pass, reason, waiting: 0, has_pending, held }
    }
}
