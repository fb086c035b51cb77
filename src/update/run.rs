//! One update of one flow: each source, in the order of declaration, under one snapshot each.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::catalog::model::{Flow, Source};
use crate::catalog::relation_locks;
use crate::flows::cache::RunnableFlow;
use crate::flows::paused::check_not_paused;
use crate::memo::session::MemoSession;
use crate::memo::{self, store};
use crate::outbox::delivery_state;
use crate::outbox::initial_load_buffer::InitialLoadBuffer;
use crate::pg::acting_role::RoleGuard;
use crate::pg::clock::now_micros;
use crate::pg::error::{Error, Result};
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::tuplestore::statements::SpiSession;
use crate::pg::{invalidation, spi};
use crate::query::batch::{Action, Batch, Item};
use crate::query::logic_fingerprint;
use crate::update::backlog::{PendingKeys, ScanProgress};
use crate::update::candidate_rows::{Candidate, Candidates};
use crate::update::detect;
use crate::update::helper_pool::HelperPool;
use crate::update::limits::Limits;
use crate::update::progress::report_progress;
use crate::update::source_plan::{CursorCache, CursorUpdate};
use crate::update::target_writer::{TargetWriter, WriteOptions};
use crate::update::{handover, lookups, orphans, restore_targets, untracked_items};
use coco_core::counts::Counts;
use coco_core::decide::{Decision, Mode};
use coco_core::history::Reason;
use coco_core::memo::Stats;
use coco_core::version::{LogicId, ProcessOrdinal};

/// The counts of one source.
pub struct SourceCounts {
    pub source: String,
    pub counts: Counts,
    pub elapsed: Duration,
    /// What the calls of memoised functions came to, by the functions' names.
    pub memo: BTreeMap<String, Stats>,
}

impl SourceCounts {
    pub fn add_memo(&mut self, more: BTreeMap<String, Stats>) {
        for (function, stats) in more {
            *self.memo.entry(function).or_default() += stats;
        }
    }
}

/// For whom an update is.
#[derive(Clone, Copy)]
pub enum UpdateContext<'a> {
    /// For a caller: all at once.
    Caller,
    /// For a caller, in several transactions.
    Parts(&'a PendingKeys),
    /// For nobody: a live flow is followed.
    Live(&'a CursorCache, &'a PendingKeys, &'a dyn HelperPool),
}

impl<'a> UpdateContext<'a> {
    pub fn remembered(self) -> Option<&'a CursorCache> {
        match self {
            UpdateContext::Live(remembered, ..) => Some(remembered),
            _ => None,
        }
    }

    /// When the update began: microseconds since 1970.
    pub fn began(self) -> i64 {
        self.backlog().map_or_else(now_micros, |backlog| backlog.began)
    }

    pub fn backlog(self) -> Option<&'a PendingKeys> {
        match self {
            UpdateContext::Live(_, backlog, _) | UpdateContext::Parts(backlog) => Some(backlog),
            UpdateContext::Caller => None,
        }
    }
}

/// What a worker has done for a live flow.
pub struct UpdateOutcome {
    pub sources: Vec<SourceCounts>,
    /// Why it looked at what it looked at; `None` where it went on with what an earlier one had found.
    pub reason: Option<Reason>,
    /// Of the failed items, those that were left to wait for their next retry.
    pub waiting: i64,
    /// What is to be remembered, once this is committed.
    pub kept: Vec<CursorUpdate>,
    /// Changes are left.
    pub more: bool,
    /// Changes of a source pass the triggers by.
    pub uncaptured: bool,
    /// When to look again, if nothing else happens.
    pub again: Option<Duration>,
    /// The flow has targets outside this database, which are sent to afterwards.
    pub external: bool,
    /// What this process is to send, once this is committed.
    pub held: Vec<InitialLoadBuffer>,
}

impl UpdateOutcome {
    /// The counts of all sources.
    pub fn counts(&self) -> Counts {
        let mut all = Counts::default();
        self.sources.iter().for_each(|source| all += source.counts);
        all
    }
}

pub fn run_update(
    ready: &RunnableFlow,
    mode: Mode,
    limits: Limits,
    by: UpdateContext,
) -> Result<UpdateOutcome> {
    // The snapshot of the caller's statement is as old as its wait for the flow's lock.
    let _now = PinnedSnapshot::take();
    let restored;
    let mut flow = &ready.flow;
    check_not_paused(flow)?;
    let limits = limits.of(flow);
    if flow.targets.is_empty() {
        return Err(Error::new(
            pgrx::PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("flow \"{}\" has no target yet", flow.name),
        )
        .hint("Call coco.add_target first."));
    }
    if flow.targets.iter().any(|t| t.relation.is_none()) {
        let mut with_targets = flow.clone();
        restore_targets::restore_targets(&mut with_targets)?;
        restored = with_targets;
        flow = &restored;
    }
    let logic = match ready.logic {
        Some(logic) => logic,
        None => logic_fingerprint::current_logic(flow)?,
    };
    if flow.is_external() {
        spi::commit_durably();
    }
    let began = invalidation::invalidation_count();
    let turn = follow_sources(flow, logic, mode, limits, by)?;
    if mode == Mode::Reexport && !turn.more && turn.held.is_empty() {
        // All that was kept by a process that is gone is in the outboxes now.
        for target in flow.targets.iter().filter(|t| t.external.is_some()) {
            delivery_state::note_initial_load_sent(target.id)?;
        }
    }
    // What ran may not be what was fingerprinted: then nothing of it is to be kept as that.
    if invalidation::invalidation_count() != began && logic_is_another(flow, logic)? {
        return Err(check_flow_unchanged(flow));
    }
    Ok(turn)
}

/// An update that went by a query which is another now.
pub fn check_flow_unchanged(flow: &Flow) -> Error {
    Error::new(
        pgrx::PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
        format!("the logic of flow \"{}\" changed while it was being updated", flow.name),
    )
    .hint("Try again.")
}

pub fn logic_is_another(flow: &Flow, logic: LogicId) -> Result<bool> {
    let _now = PinnedSnapshot::latest();
    Ok(logic_fingerprint::known_logic(flow)? != logic)
}

fn follow_sources(
    flow: &Flow,
    logic: LogicId,
    mode: Mode,
    limits: Limits,
    by: UpdateContext,
) -> Result<UpdateOutcome> {
    let _as = RoleGuard::flow_owner(flow.owner, &flow.settings)?;
    let writers = flow.targets.iter().map(|target| TargetWriter { target, fresh: false }).collect();
    // Who reprocesses everything wants nothing of before; what it has computed itself it takes.
    let since = (mode == Mode::FullReprocess).then(|| by.began());
    let recalling = memo::session_of_update(flow, since)?;
    let writing = WriteOptions { mode, logic };
    let generation = invalidation::invalidation_count();
    // All that is read is of one moment: what was followed of lookups is what items are evaluated with.
    let _snapshot = PinnedSnapshot::take();
    relation_locks::check_not_rewritten(flow)?;
    let mut run = UpdateRun {
        flow,
        writers,
        writing,
        limits,
        by,
        recalling,
        part: None,
        generation,
        takes_over: mode == Mode::Retry,
        lost_keys: Rc::default(),
    };
    let mut turn = UpdateOutcome {
        sources: vec![],
        reason: None,
        waiting: 0,
        kept: vec![],
        more: false,
        uncaptured: false,
        again: None,
        external: flow.is_external(),
        held: vec![],
    };
    for source in &flow.sources {
        let began = Instant::now();
        let counts = run.source(source, &mut turn)?;
        let elapsed = began.elapsed();
        let memo = run.recalled()?;
        turn.sources.push(SourceCounts { source: source.name.clone(), counts, elapsed, memo });
    }
    run.take_over(&mut turn.sources)?;
    run.delete_orphans(turn.more, &mut turn.sources)?;
    let memo = run.recalled()?;
    if let Some(first) = turn.sources.first_mut() {
        first.add_memo(memo);
    }
    if let (Some(recalling), false) = (&run.recalling, turn.more) {
        store::expire(recalling)?;
    }
    Ok(turn)
}

pub struct UpdateRun<'a> {
    pub flow: &'a Flow,
    pub writers: Vec<TargetWriter<'a>>,
    pub writing: WriteOptions,
    pub limits: Limits,
    pub by: UpdateContext<'a>,
    pub recalling: Option<Rc<MemoSession>>,
    /// What is worked off is a part of that.
    pub part: Option<ScanProgress>,
    /// The generation of the system catalogs before the snapshot was taken.
    pub generation: u64,
    /// Rows that no item has are taken over by those that produce them. So where all items are looked at, which reads
    /// all that is tracked anyway: an update by keys leaves them to it.
    pub takes_over: bool,
    /// Items had target keys of which it cannot be told any more which rows they were.
    pub lost_keys: Rc<Cell<bool>>,
}

impl UpdateRun<'_> {
    /// What calls of memoised functions came to since this was asked before.
    pub fn recalled(&self) -> Result<BTreeMap<String, Stats>> {
        match &self.recalling {
            Some(recalling) => memo::count_calls(recalling),
            None => Ok(BTreeMap::new()),
        }
    }

    /// Decides about candidates, and writes what comes of it.
    pub fn decide_and_write(
        &self,
        source: &Source,
        candidates: &mut Candidates,
        takes: impl FnMut(&Candidate) -> bool,
        counts: &mut Counts,
        present: &mut i64,
    ) -> Result<()> {
        let mut deferred = Batch::new(source, candidates.carry)?;
        self.work_off(source, candidates, takes, counts, present, &mut deferred)?;
        self.write_deferred(source, &mut deferred, counts)
    }

    /// The same, but for what is deferred until all others are written.
    pub fn work_off(
        &self,
        source: &Source,
        candidates: &mut Candidates,
        mut takes: impl FnMut(&Candidate) -> bool,
        counts: &mut Counts,
        present: &mut i64,
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
            if key.iter().any(Option::is_none) {
                // Not even whether the row is still there, where it was found before: the next scan tells.
                counts.seen += 1;
                *present += 1;
                self.record_without_key(source, &key, &item, counts)?;
                continue;
            }
            match (&item.incoming, &item.stored) {
                (Some(_), None) => counts.seen += 1,
                (None, Some(_)) => counts.seen -= 1,
                _ => {}
            }
            *present += i64::from(item.incoming.is_some());
            let action = match item.decide(self.writing.logic, self.writing.mode) {
                Decision::Skip => {
                    if item.incoming.is_none() {
                        gone.push(&key, &[], Item::gone());
                    }
                    let there = i64::from(item.incoming.is_some());
                    match source.ordinal {
                        Some(_) => counts.skipped += there,
                        None => counts.unchanged += there,
                    }
                    continue;
                }
                Decision::Wait => {
                    counts.failed += 1;
                    continue;
                }
                Decision::Advance => Action::Advance,
                Decision::Evaluate => Action::Evaluate,
                Decision::Remove => Action::Remove,
            };
            if let Some(failure) = &item.unread {
                self.record_unread(source, &key, &item, failure, counts)?;
                continue;
            }
            batch.push(
                &key,
                &candidates.carried(),
                Item {
                    action,
                    tracked: item.stored.is_some(),
                    incoming: item.incoming,
                    process_ordinal: ProcessOrdinal::next(item.process_ordinal, now_micros()),
                    attempts: self.attempts(&item),
                    along: false,
                },
            );
            if batch.len() >= self.limits.batch {
                self.write(source, &mut batch, counts, Some(deferred))?;
                batch = Batch::new(source, candidates.carry)?;
                report_progress(source, part, done);
            }
        }
        if gone.len() > 0 {
            untracked_items::forget(source, &gone)?;
        }
        self.write(source, &mut batch, counts, Some(deferred))
    }

    /// Deletes the rows of items whose target keys have lost their values, when nothing is left to look at. Those that are
    /// produced have been taken over by then.
    pub fn delete_orphans(&self, more: bool, all: &mut [SourceCounts]) -> Result<()> {
        let backlog = self.by.backlog();
        let lost = self.lost_keys.get() || backlog.is_some_and(|b| b.lost_keys.get());
        if let Some(backlog) = backlog {
            backlog.lost_keys.set(lost && more);
        }
        if !lost || more {
            return Ok(());
        }
        let deleted = orphans::delete_orphans(self.flow)?;
        if let Some(first) = all.first_mut() {
            first.counts.deleted += deleted;
        }
        Ok(())
    }

    /// How often an item has failed as it is: another content or another logic is another attempt.
    pub fn attempts(&self, item: &Candidate) -> i32 {
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

    /// Evaluates again the items that wait for a target key which is free now, until none is.
    pub fn take_over(&self, all: &mut [SourceCounts]) -> Result<()> {
        let Some(free) = handover::has_free_claim_sql(&self.writers) else {
            return Ok(());
        };
        loop {
            let mut found = false;
            for (source, result) in self.flow.sources.iter().zip(all.iter_mut()) {
                let _snapshot = match lookups::has_any(self.flow, source) {
                    true => PinnedSnapshot::again(),
                    false => PinnedSnapshot::take(),
                };
                let statements = SpiSession::connect()?;
                if !detect::has_waiting(&statements, source, &free)? {
                    continue;
                }
                let mut candidates = detect::waiting_candidates(&statements, source, &free)?;
                // Of several that claim one key the first is let in; the others go on waiting.
                let mut let_in = BTreeSet::new();
                let first = |c: &Candidate| let_in.insert(c.claims.clone());
                let mut counts = Counts::default();
                let writing = WriteOptions { mode: Mode::Retry, ..self.writing };
                let (writers, recalling) = (self.writers.clone(), self.recalling.clone());
                let lost_keys = Rc::clone(&self.lost_keys);
                let retry = UpdateRun { writing, writers, recalling, lost_keys, ..*self };
                retry.decide_and_write(source, &mut candidates, first, &mut counts, &mut 0)?;
                let c = &mut result.counts;
                c.evaluated += counts.evaluated;
                c.upserted += counts.upserted;
                c.deleted += counts.deleted;
                c.failed += counts.failed + counts.skipped - let_in.len() as i64;
                found |= counts.evaluated > 0;
            }
            if !found {
                return Ok(());
            }
        }
    }
}

pub fn interrupt() {
    pgrx::check_for_interrupts!();
}
