//! Processes all items of a source: by an initial load if coco tracks none yet, otherwise by a scan
//! for changed items. An update that can continue in later transactions leaves most of them
//! pending.

use crate::capture::cursor;
use crate::catalog::model::Source;
use crate::catalog::target_table;
use crate::outbox::initial_load_buffer::InitialLoadBuffer;
use crate::pg::clock::now_micros;
use crate::pg::error::Result;
use crate::pg::tuplestore::statements::SpiSession;
use crate::query::logic_fingerprint;
use crate::update::backlog::{self, PendingKeys, SavedKeys, ScanProgress};
use crate::update::candidate_rows::Candidates;
use crate::update::decide_items::PassCounts;
use crate::update::detect;
use crate::update::initial_load::{InitialLoad, InitialLoadOutcome};
use crate::update::progress::report_progress;
use crate::update::run::UpdateRun;
use crate::update::source_plan::PlannedCursor;
use crate::update::source_work::FullScan;
use crate::update::{group_rows, lookups, untracked_items};
use coco_core::expectation::add_tally;
use coco_core::run_history::Reason;
use coco_core::version::{LogicId, ProcessOrdinal};

/// The result of a full scan.
pub struct FullScanOutcome {
    pub pass: PassCounts,
    /// Why the update looked at all items.
    pub reason: Reason,
    /// Whether items are pending for later transactions.
    pub has_pending: bool,
    /// The rows of an initial load that this process delivers.
    pub held: Vec<InitialLoadBuffer>,
}

/// The candidates of a scan that are left to later transactions.
struct PendingItems<'a> {
    candidates: &'a mut Candidates,
    /// The progress before them.
    part: ScanProgress,
    forces_all: bool,
}

impl UpdateRun<'_> {
    /// Processes all items of a source, and all tracked items.
    pub fn process_full_scan(
        &mut self,
        statements: &SpiSession,
        source: &Source,
        full: FullScan,
        cursor: &PlannedCursor,
    ) -> Result<FullScanOutcome> {
        self.takes_unowned_rows = true;
        for writer in &mut self.writers {
            writer.fresh = target_table::is_empty(writer.target)?;
        }
        let began = now_micros();
        let tracked = detect::count_tracked(statements, source)?;
        let reason = self.full_scan_reason(cursor.logic_before(), tracked)?;
        if tracked == 0
            && let Some(loaded) = self.try_initial_load(source)?
        {
            let InitialLoadOutcome { counts, held, tally } = loaded;
            add_tally(&mut self.expected.borrow_mut(), &tally);
            let pass = PassCounts { counts, present: counts.seen };
            return Ok(FullScanOutcome { pass, reason, has_pending: false, held });
        }
        let mut changed = detect::scan(statements, source, full.scan, full.forced.as_ref())?;
        if let Some(order) = self.flow.fill_order.filter(|_| source.ordinal.is_some())
            && changed.len() > self.limits.batch
        {
            changed = detect::in_order(source, &changed, order)?;
        }
        // Of the tracked items, those that have disappeared are subtracted, and new items added.
        let mut pass = PassCounts::default();
        pass.counts.seen = tracked;
        let writing = self.writing;
        self.writing.mode = full.scan.mode;
        let has_pending = match (self.context.pending(), self.limits.changes) {
            (Some(pending), Some(limit)) if changed.len() > limit && !full.at_once => {
                let (done, total) = (limit as i64, changed.len() as i64);
                let part = ScanProgress { done, total, began: now_micros() };
                self.process_candidates(source, changed.first(limit), |_| true, &mut pass)?;
                let rest = PendingItems {
                    candidates: changed.rest(),
                    part,
                    forces_all: full.forced.is_none(),
                };
                let left = self.leave_pending(source, rest, pending, cursor)?;
                pass.counts.seen += left.new - left.gone;
                pass.present += left.present;
                true
            }
            _ => {
                self.process_candidates(source, &mut changed, |_| true, &mut pass)?;
                untracked_items::forget_before(source, began)?;
                false
            }
        };
        self.writing = writing;
        Ok(FullScanOutcome { pass, reason, has_pending, held: vec![] })
    }

    /// Leaves the rest of a scan's candidates to later transactions.
    fn leave_pending(
        &self,
        source: &Source,
        rest: PendingItems,
        pending: &PendingKeys,
        planned: &PlannedCursor,
    ) -> Result<SavedKeys> {
        let has_lookups = lookups::has_any(self.flow, source);
        let mut cursor = planned.next().clone();
        // While keys are pending, updates follow the lookups, but do not read the log.
        cursor.behind = has_lookups && cursor.signature != cursor::NOWHERE;
        backlog::unfinished(source, &cursor)?;
        let fresh = self.writers.iter().filter(|w| w.fresh && w.target.external.is_some());
        let fresh = fresh.map(|w| w.target.id).collect();
        let forces = (rest.forces_all, has_lookups);
        pending.set(source, rest.candidates, cursor, fresh, rest.part, forces)
    }

    /// Fills the targets from a source without tracked items, unless a live flow's worker runs the
    /// update. Such a worker has other flows to follow, and processes a part at a time.
    fn try_initial_load(&self, source: &Source) -> Result<Option<InitialLoadOutcome>> {
        if self.context.is_live()
            || self.recalling.is_some()
            || group_rows::has_failing_groups(source)?
        {
            return Ok(None);
        }
        let began = now_micros();
        let load = InitialLoad {
            flow: self.flow,
            source,
            writers: &self.writers,
            logic: self.writing.logic,
            at: ProcessOrdinal::next(None, began),
            sends: self.context.pending().and_then(|pending| pending.sends.as_ref()),
        };
        load.run(|done, total| report_progress(source, ScanProgress { done, total, began }, 0))
    }

    /// Returns why a scan looks at all items of a source. `tracked` is the number of tracked items.
    fn full_scan_reason(&self, before: Option<LogicId>, tracked: i64) -> Result<Reason> {
        Ok(match before {
            None if tracked == 0 => Reason::First,
            None => Reason::Change,
            Some(logic) if logic == self.writing.logic => Reason::Change,
            // Another process has left pending keys: of the first logic, or of a later one.
            Some(backlog::UNFINISHED) if logic_fingerprint::is_first(self.flow)? => Reason::First,
            Some(_) => Reason::Logic,
        })
    }
}
