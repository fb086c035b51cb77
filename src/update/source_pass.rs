//! One source of an update: what there is to look at of it, and what becomes of that.

use pgrx::pg_sys;

use crate::capture::cursor;
use crate::catalog::model::Source;
use crate::catalog::target_table;
use crate::outbox::initial_load_buffer::InitialLoadBuffer;
use crate::pg::clock::now_micros;
use crate::pg::error::Result;
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::tuplestore::rows::TupleStore;
use crate::pg::tuplestore::statements::SpiSession;
use crate::query::batch::Batch;
use crate::query::{compose, logic_fingerprint};
use crate::update::backlog::{self, KeySlice, PendingKeys, ScanProgress};
use crate::update::detect::{self, Scan};
use crate::update::helper_pool::HelperTask;
use crate::update::initial_load::{self, InitialLoadOutcome};
use crate::update::lookups::{self, LookupChanges};
use crate::update::progress::report_progress;
use crate::update::run::{UpdateContext, UpdateOutcome, UpdateRun};
use crate::update::source_plan::{
    self, CursorUpdate, LookupEffect, ReadMode, SourcePlan, SourceRead,
};
use crate::update::target_writer::WriteOptions;
use crate::update::untracked_items;
use coco_core::counts::Counts;
use coco_core::history::Reason;
use coco_core::version::{LogicId, ProcessOrdinal};

/// What became of a source.
#[derive(Default)]
struct SourceOutcome {
    counts: Counts,
    /// Of the items seen, those that were looked at one by one.
    present: i64,
    reason: Reason,
    /// The rest of what a scan has found is left to other transactions.
    set_aside: bool,
    /// What this process is to send.
    held: Vec<InitialLoadBuffer>,
}

impl UpdateRun<'_> {
    pub fn source(&mut self, source: &Source, turn: &mut UpdateOutcome) -> Result<Counts> {
        let backlog = self.by.backlog();
        if backlog.is_some_and(|backlog| backlog.is_done(source)) {
            return Ok(Counts::default());
        }
        let live = self.by.remembered();
        let WriteOptions { mode, logic } = self.writing;
        let mut how = ReadMode {
            logic,
            mode,
            limit: self.limits.changes,
            live,
            generation: self.generation,
            lookups: lookups::has_any(self.flow, source),
            looked_up: false,
            when_due: live.is_some() || backlog.is_some_and(|backlog| backlog.has(source)),
        };
        let _snapshot = PinnedSnapshot::again();
        let mut lookups = lookups::follow_all(self.flow, source, self.limits, how)?;
        if let Some(backlog) = backlog {
            let outdated = backlog.is_outdated(source, how.lookups, lookups.changed);
            if outdated || matches!(lookups.forced, LookupEffect::All) {
                backlog.forget(source);
            }
            let most = self.limits.changes.unwrap_or(usize::MAX);
            if let Some(slice) = backlog.take(source, logic, most)? {
                return self.slice(source, slice, lookups, backlog, turn);
            }
        }
        how.looked_up = lookups.changed;
        how.when_due = live.is_some();
        let statements = SpiSession::connect()?;
        let mut following = source_plan::plan_source(&statements, source, how)?;
        let scans = matches!(following.looking, SourcePlan::All);
        let all_affected = matches!(lookups.forced, LookupEffect::All);
        match (&mut following.forced, &mut lookups.forced) {
            (more, LookupEffect::Keys(forced)) if scans => match more {
                LookupEffect::All => lookups.forced = LookupEffect::All,
                LookupEffect::Keys(more) if more.len() > 0 => {
                    *forced = lookups::with_forced_keys(source, Some(more), forced)?;
                }
                LookupEffect::Keys(_) => {}
            },
            _ => {}
        }
        let mut keys = match (&following.looking, &lookups.forced) {
            (SourcePlan::Keys(keys), LookupEffect::Keys(forced)) if forced.len() > 0 => {
                Some(lookups::with_forced_keys(source, Some(keys), forced)?)
            }
            _ => None,
        };
        let mut found = SourceOutcome::default();
        let (keys, all) = match (&mut following.looking, &lookups.forced, &mut keys) {
            (_, LookupEffect::All, _) => (None, Some(Scan { mode: mode.evaluating_all(), logic })),
            (_, _, Some(keys)) => (Some(keys), None),
            (SourcePlan::Keys(keys), ..) => (Some(keys), None),
            (SourcePlan::Nothing, ..) => (None, None),
            (SourcePlan::All, ..) => (None, Some(Scan { mode, logic })),
        };
        if let Some(keys) = keys {
            let SourceOutcome { counts, present, .. } = &mut found;
            let part = ScanProgress { done: 0, total: keys.len() as i64, began: now_micros() };
            self.some(source, keys, part, counts, present)?;
            counts.seen = *present + following.waiting;
            counts.failed += following.waiting;
            *present += following.waiting;
            turn.waiting += following.waiting;
        } else if let Some(scan) = all {
            let forced = match &lookups.forced {
                LookupEffect::Keys(forced) => Some(forced),
                LookupEffect::All => None,
            };
            // Who is affected as a whole by each change would never get beyond the first part.
            let at_once = all_affected;
            found = self.all(&statements, source, scan, forced, at_once, &following)?;
        }
        let SourceOutcome { mut counts, present, reason, set_aside, held } = found;
        turn.held.extend(held);
        turn.reason = turn.reason.max(Reason::asked(mode).or(Some(reason)));
        let left_out = counts.seen - present;
        match source.ordinal {
            Some(_) => counts.skipped += left_out,
            None => counts.unchanged += left_out,
        }
        // Of a lookup nothing is missed by who evaluates every item.
        let lookups_more = lookups.more && !mode.evaluates_all();
        turn.more |= following.more || lookups_more;
        turn.uncaptured |= following.uncaptured || lookups.uncaptured;
        turn.again = [turn.again, following.again, lookups.again].into_iter().flatten().min();
        turn.kept.extend(lookups.kept);
        if set_aside {
            turn.more = true;
            return Ok(counts);
        }
        if let Some(backlog) = self.by.backlog()
            && !following.more
            && !lookups_more
        {
            backlog.done(source);
        }
        turn.kept.extend(following.done(source, live, self.limits.segment_bytes)?);
        Ok(counts)
    }

    /// Looks at the items of some keys, with the help of other processes where there are many.
    pub fn some(
        &mut self,
        source: &Source,
        keys: &mut TupleStore,
        mut part: ScanProgress,
        counts: &mut Counts,
        present: &mut i64,
    ) -> Result<()> {
        if keys.len() == 0 {
            return Ok(());
        }
        let Some(shares) = self.shares(source, keys)? else {
            return self.alone(source, keys, part, counts, present);
        };
        let (others, own): (Vec<_>, Vec<_>) =
            shares.into_iter().partition(|share| share.elsewhere.is_some());
        for mut share in own {
            self.alone(source, &mut share.keys, part, counts, present)?;
            part.done += share.keys.len() as i64;
        }
        for mut share in others {
            let done = share.elsewhere.map_or(Ok(None), HelperTask::done)?;
            match done {
                Some(done) => {
                    *counts += done.counts;
                    *present += done.present;
                }
                None => {
                    // As they are by now: the other may have written them.
                    let _now = PinnedSnapshot::take();
                    self.alone(source, &mut share.keys, part, counts, present)?;
                }
            }
            part.done += share.keys.len() as i64;
        }
        Ok(())
    }

    /// The same without help, a batch at a time: what is read of the items is held until they are written, and
    /// what it was read from is still cached then.
    fn alone(
        &mut self,
        source: &Source,
        keys: &mut TupleStore,
        mut part: ScanProgress,
        counts: &mut Counts,
        present: &mut i64,
    ) -> Result<()> {
        let mut deferred = Batch::new(source, compose::carries(source))?;
        keys.rewind();
        loop {
            let some = keys
                .take(&source_plan::key_columns(source), at_once(keys.len(), self.limits.batch))?;
            if some.len() == 0 {
                break;
            }
            let mut found = detect::lookup_candidates(source, &some, true)?;
            self.part = Some(part);
            self.work_off(source, &mut found, |_| true, counts, present, &mut deferred)?;
            part.done += some.len() as i64;
        }
        self.part = None;
        self.write_deferred(source, &mut deferred, counts)
    }

    /// Looks at all items of a source, and at all that are tracked.
    fn all(
        &mut self,
        statements: &SpiSession,
        source: &Source,
        scan: Scan,
        forced: Option<&TupleStore>,
        at_once: bool,
        following: &SourceRead,
    ) -> Result<SourceOutcome> {
        self.takes_over = true;
        for writer in &mut self.writers {
            writer.fresh = target_table::is_empty(writer.target)?;
        }
        let began = now_micros();
        let tracked = detect::count_tracked(statements, source)?;
        let reason = self.reason(following.logic_before(), tracked)?;
        if tracked == 0
            && let Some(InitialLoadOutcome { counts, held }) = self.fill(source)?
        {
            let present = counts.seen;
            return Ok(SourceOutcome { counts, present, reason, set_aside: false, held });
        }
        let mut changed = detect::scan(statements, source, scan, forced)?;
        let writing = self.writing;
        // Items in the source are those tracked, less the gone, and the new.
        let mut counts = Counts { seen: tracked, ..Counts::default() };
        let mut present = 0;
        let mut set_aside = false;
        if let (Some(backlog), Some(limit)) = (self.by.backlog(), self.limits.changes)
            && changed.len() > limit
            && !at_once
        {
            let fresh = self.writers.iter().filter(|w| w.fresh && w.target.external.is_some());
            let fresh = fresh.map(|w| w.target.id).collect();
            let part = ScanProgress {
                done: limit as i64,
                total: changed.len() as i64,
                began: now_micros(),
            };
            let first = changed.first(limit);
            self.writing.mode = scan.mode;
            self.decide_and_write(source, first, |_| true, &mut counts, &mut present)?;
            let lookups = lookups::has_any(self.flow, source);
            let mut cursor = following.next().clone();
            // Meanwhile lookups are followed, and the log is not.
            cursor.behind = lookups && cursor.signature != cursor::NOWHERE;
            backlog::unfinished(source, &cursor)?;
            let all = forced.is_none();
            let rest = changed.rest();
            let set = backlog.set(source, rest, cursor, fresh, part, (all, lookups))?;
            counts.seen += set.new - set.gone;
            present += set.present;
            set_aside = true;
        } else {
            self.writing.mode = scan.mode;
            self.decide_and_write(source, &mut changed, |_| true, &mut counts, &mut present)?;
            untracked_items::forget_before(source, began)?;
        }
        self.writing = writing;
        Ok(SourceOutcome { counts, present, reason, set_aside, held: vec![] })
    }

    /// Fills the targets out of a source of which nothing is tracked yet. For a caller alone: who follows flows
    /// has others too, and takes up a part at a time.
    fn fill(&self, source: &Source) -> Result<Option<InitialLoadOutcome>> {
        if matches!(self.by, UpdateContext::Live(..)) || self.recalling.is_some() {
            return Ok(None);
        }
        let began = now_micros();
        let at = ProcessOrdinal::next(None, began);
        let tell = |done, total| report_progress(source, ScanProgress { done, total, began }, 0);
        let sends = self.by.backlog().and_then(|backlog| backlog.sends.as_ref());
        initial_load::initial_load(
            self.flow,
            source,
            &self.writers,
            self.writing.logic,
            at,
            sends,
            tell,
        )
    }

    /// Why a scan looks at all items of a source, of which so many are tracked.
    fn reason(&self, before: Option<LogicId>, tracked: i64) -> Result<Reason> {
        Ok(match before {
            None if tracked == 0 => Reason::First,
            None => Reason::Change,
            Some(logic) if logic == self.writing.logic => Reason::Change,
            // Somebody has not finished: with the first logic that there was, or with another.
            Some(backlog::UNFINISHED) if logic_fingerprint::is_first(self.flow)? => Reason::First,
            Some(_) => Reason::Logic,
        })
    }

    /// Works off a part of what a scan has set aside.
    fn slice(
        &mut self,
        source: &Source,
        mut slice: KeySlice,
        lookups: LookupChanges,
        backlog: &PendingKeys,
        turn: &mut UpdateOutcome,
    ) -> Result<Counts> {
        let mut counts = Counts::default();
        let mut present = 0;
        self.takes_over = true;
        for writer in &mut self.writers {
            writer.fresh = slice.fresh.contains(&writer.target.id);
        }
        let mut keys = match &lookups.forced {
            LookupEffect::Keys(forced) if forced.len() > 0 => {
                lookups::with_forced_keys(source, Some(&slice.keys), forced)?
            }
            _ => slice.keys,
        };
        self.some(source, &mut keys, slice.part, &mut counts, &mut present)?;
        turn.kept.extend(lookups.kept);
        let lookups_more = lookups.more && !self.writing.mode.evaluates_all();
        turn.more |= lookups_more;
        turn.uncaptured |= lookups.uncaptured;
        turn.again = [turn.again, lookups.again].into_iter().flatten().min();
        // They were counted when they were found; items that wait for their retry are not counted here.
        counts.seen = 0;
        counts.failed = counts.failed.max(0);
        match slice.last.take() {
            Some(cursor) => {
                cursor::store_cursor(source, &cursor, true)?;
                turn.kept.push(CursorUpdate::stored(source, cursor));
                if !lookups_more {
                    backlog.done(source);
                }
            }
            None => turn.more = true,
        }
        Ok(counts)
    }
}

/// How many of so many keys are looked up and written at a time. Their rows lie on pages of their own, in source, target
/// and tracking table: so many that those are still cached when they are written. But each time is a
/// subtransaction, and a transaction with more than 64 of these costs others time.
fn at_once(keys: usize, batch: usize) -> usize {
    const SUBTRANSACTIONS: usize = 60;
    // SAFETY: reads a variable that is set when the server starts.
    let buffers = usize::try_from(unsafe { pg_sys::NBuffers }).unwrap_or(0);
    (buffers / 8).max(keys.div_ceil(SUBTRANSACTIONS)).clamp(1, batch)
}
