//! What a worker remembers of one live flow between two transactions, and one such transaction.
//!
//! `live_worker` decides which flow comes next. Everything here can be lost without harm: another
//! process finds out from the catalog what is left to do.

use std::time::{Duration, Instant};

use crate::catalog::run_history;
use crate::declare::live;
use crate::flows::live_rows::{self, LiveFlow};
use crate::flows::schedules;
use crate::memo::settle;
use crate::pg::clock;
use crate::update;
use crate::update::backlog::PendingKeys;
use crate::update::context::LiveUpdate;
use crate::update::cursor_cache::CursorCache;
use crate::update::helper_pool::NoHelpers;
use crate::update::limits::{self, Limits};
use crate::update::run::UpdateOutcome;
use crate::workers::delivery::dispatcher::DeliveryDispatcher;
use crate::workers::idle_flow::IdleFlow;
use crate::workers::parallel_helper::Helpers;
use crate::workers::process::{salvage_rolled_back_results, set_activity};
use crate::workers::transaction::{TransactionError, log_failure, transaction};
use crate::workers::turn_limit::YIELD;
use crate::workers::version_swap::SwapAttempts;
use crate::workers::{crash_notes, shared_memory, stand_in, turn_limit};
use coco_core::counts::Counts;
use coco_core::decision::Mode;
use coco_core::run_history::{Initiator, Reason, RunAccumulator, RunEntry};

/// Shortest time between two attempts to restore missing triggers.
const RESTORE_TRIGGERS_EVERY: Duration = Duration::from_secs(10);

/// The state of one live flow in a worker's memory.
#[derive(Default)]
pub struct FollowedFlow {
    cursors: CursorCache,
    /// Keys that scans of the flow's sources found and that are not processed yet.
    pending: Option<PendingKeys>,
    /// Number of transactions in a row that left changes over.
    behind: u32,
    /// When the worker last restored triggers of the flow's sources.
    triggers_restored: Option<Instant>,
    /// Work that the history does not contain yet.
    unstored: RunAccumulator,
    /// Whether all rows must be sent to external targets again.
    resends_all: bool,
    /// The last delivery error that was logged.
    delivery_error: Option<String>,
    /// Number of failures in a row that could not be recorded, for example on a full disk.
    unrecorded_failures: i32,
    /// When the worker may try the flow again.
    postponed_until: Option<Instant>,
    /// Whether the flow is known to have no external targets.
    is_local: bool,
    /// The last transaction found external targets. Unlike `is_local`, this stays when the catalog
    /// changes.
    was_external: bool,
    /// Whether the flow is known to need transactions of its own.
    runs_alone: bool,
    /// Whether the flow has nothing to do.
    idle: IdleFlow,
    /// For the new version of another flow: its attempts to replace that flow.
    swap: SwapAttempts,
}

/// The result of a flow's turn.
pub enum Turn {
    /// Another process has locked the flow, or the flow no longer exists.
    NotTaken,
    /// A session canceled the transaction in order to change a flow.
    Yielded,
    /// The transaction failed, and the failure was recorded.
    Failed,
    Done(FinishedTurn),
}

pub struct FinishedTurn {
    pub is_external: bool,
    /// Whether the transaction left changes over.
    pub has_more: bool,
    /// When the flow needs its next turn, if it has no changes until then.
    pub next: Option<Duration>,
}

impl FollowedFlow {
    /// Forgets facts that are valid only until the catalog changes.
    pub fn catalog_changed(&mut self) {
        self.is_local = false;
        self.runs_alone = false;
    }

    /// Takes over what the catalog says now of the flow's schedule.
    pub fn note_schedule(&mut self, flow: &LiveFlow) {
        if flow.next_update.is_some() {
            // Cursors that are not stored are from the time before the flow had a schedule.
            self.cursors = CursorCache::default();
        }
    }

    /// Forgets a flow that is no longer live, except its history.
    pub fn stopped(&mut self) {
        let mut unstored = std::mem::take(&mut self.unstored);
        unstored.close_run();
        *self = FollowedFlow { unstored, ..FollowedFlow::default() };
    }

    /// Discards work that exists only in this process's memory. Another process repeats it.
    pub fn discard_unfinished(&mut self) {
        self.cursors = CursorCache::default();
        self.pending = None;
    }

    /// Reports whether work exists only in this process's memory.
    pub fn has_unfinished(&self) -> bool {
        self.resends_all
            || self.cursors.unsaved_for().is_some()
            || self.pending.as_ref().is_some_and(|pending| !pending.is_empty())
    }

    pub fn may_be_external(&self) -> bool {
        !self.is_local
    }

    /// Reports whether the flow had external targets when it had its last transaction.
    pub fn was_external(&self) -> bool {
        self.was_external
    }

    /// Reports whether a transaction of the flow would find nothing.
    pub fn is_idle(&self, flow: &LiveFlow) -> bool {
        self.has_no_changes(flow) && self.idle.is_idle()
    }

    /// Reports whether a transaction of the flow would find no changes. It may be necessary all the
    /// same, because an object may have been altered.
    pub fn has_no_changes(&self, flow: &LiveFlow) -> bool {
        let is_plain = flow.attempts == 0 && !flow.swaps && flow.next_update.is_none();
        is_plain && !self.has_unfinished() && self.idle.has_no_changes()
    }

    /// Returns a number that changes with each commit that concerns the flow, if there was one since
    /// the flow's last transaction.
    pub fn counted(&self) -> Option<u64> {
        self.idle.counted()
    }

    /// Returns how long the worker must leave the flow alone: after a failure, or because of its
    /// schedule.
    pub fn postponed_for(&self, flow: &LiveFlow) -> Duration {
        let now = Instant::now();
        // Rows that a process has not sent are no matter of the schedule.
        let scheduled = flow.next_update.filter(|_| !self.resends_all);
        let until = self.postponed_until.max(scheduled);
        until.map(|until| until.saturating_duration_since(now)).unwrap_or_default().max(flow.wait)
    }

    /// Delivers the flow's changes to external targets. Returns when the flow needs its next
    /// delivery, if that is known.
    pub fn deliver(
        &mut self,
        flow: &LiveFlow,
        dispatcher: &mut DeliveryDispatcher,
    ) -> Option<Duration> {
        crash_notes::note(flow.id);
        let progress = dispatcher.advance(&flow.name);
        crash_notes::note(0);
        match progress {
            Ok(progress) => {
                self.delivery_error = None;
                if progress.is_interrupted && !self.resends_all && has_name(flow) {
                    self.resends_all = true;
                    self.pending = None;
                }
                progress.retry_in
            }
            Err(failed) => {
                // The flow may have been dropped or renamed in the meantime. Logs each message once, not
                // with every attempt.
                if has_name(flow) && self.delivery_error.as_ref() != Some(&failed.error.message) {
                    self.delivery_error = Some(failed.error.message.clone());
                    log_failure(
                        &format!("flow \"{}\": could not deliver changes", flow.name),
                        &failed,
                    );
                }
                None
            }
        }
    }

    /// Reports whether the flow can share its next transaction with flows that feed it: it has not
    /// failed, and no changes are left from earlier transactions.
    pub fn can_share_turn(&self, flow: &LiveFlow) -> bool {
        let has_pending = self.pending.as_ref().is_some_and(|pending| !pending.is_empty());
        flow.attempts == 0
            && self.postponed_for(flow).is_zero()
            && !self.runs_alone
            && !self.resends_all
            && !has_pending
            && self.behind == 0
    }

    /// Remembers that the flow needs transactions of its own.
    pub fn run_alone(&mut self) {
        self.runs_alone = true;
    }

    /// Returns what the flow brings into a transaction that it shares with others.
    pub fn shared_update(&mut self, flow: &LiveFlow) -> LiveUpdate<'_> {
        let is_scheduled = flow.next_update.is_some();
        self.idle.begin_turn();
        self.begin_pending(is_scheduled);
        let pending = self.pending.get_or_insert_default();
        LiveUpdate { cursors: &self.cursors, pending, helpers: &NoHelpers, is_scheduled }
    }

    /// Makes the pending keys those of an update that looks at each source once, or of one that
    /// looks at all sources in each transaction.
    fn begin_pending(&mut self, looks_once: bool) {
        if self.pending.as_ref().is_none_or(|pending| pending.looks_once() != looks_once) {
            self.pending = Some(match looks_once {
                true => PendingKeys::once(None),
                false => PendingKeys::default(),
            });
        }
    }

    /// Discards the pending keys of an update that looks at each source once and has nothing left, or
    /// has not begun.
    pub fn end_pending(&mut self) {
        if self.pending.as_ref().is_some_and(|p| p.looks_once() && p.is_empty()) {
            self.pending = None;
        }
    }

    /// Takes over the result of a transaction that the flow has shared with others and that has
    /// committed.
    pub fn finish_shared(
        &mut self,
        flow: &LiveFlow,
        started: i64,
        mut outcome: UpdateOutcome,
    ) -> FinishedTurn {
        self.keep(flow, &mut outcome);
        let elapsed: Duration = outcome.sources.iter().map(|source| source.elapsed).sum();
        let finished = self.finished(&outcome);
        self.add_to_history(started, elapsed, &Ok(Some(outcome)));
        self.unrecorded_failures = 0;
        self.postponed_until = None;
        finished
    }

    /// Leaves the flow to the session that canceled its transaction.
    pub fn yield_to_session(&mut self) {
        self.roll_back();
        self.postponed_until = Some(Instant::now() + YIELD);
    }

    /// Runs one transaction of the flow. `is_alone` says that no other flow is live.
    pub fn take_turn(&mut self, flow: &LiveFlow, is_alone: bool, helpers: &Helpers) -> Turn {
        let (started, began) = (clock::now_micros(), Instant::now());
        crash_notes::note(flow.id);
        let result = self.update(flow, is_alone, helpers);
        crash_notes::note(0);
        if result.as_ref().is_err_and(turn_limit::is_canceled)
            && shared_memory::cancel_was_announced()
        {
            self.yield_to_session();
            return Turn::Yielded;
        }
        self.add_to_history(started, began.elapsed(), &result);
        match result {
            Ok(outcome) => {
                self.unrecorded_failures = 0;
                self.postponed_until = None;
                outcome.map_or(Turn::NotTaken, |outcome| Turn::Done(self.finished(&outcome)))
            }
            Err(failed) => {
                self.record_failure(flow, &failed);
                Turn::Failed
            }
        }
    }

    fn finished(&mut self, outcome: &UpdateOutcome) -> FinishedTurn {
        self.is_local = !outcome.external;
        self.was_external = outcome.external;
        let times = outcome.again.into_iter().chain(self.cursors.unsaved_for());
        let next = times.min();
        self.idle.end_turn(outcome, next);
        FinishedTurn { is_external: outcome.external, has_more: outcome.more, next }
    }

    fn update(
        &mut self,
        flow: &LiveFlow,
        is_alone: bool,
        helpers: &Helpers,
    ) -> Result<Option<UpdateOutcome>, TransactionError> {
        report_flow(flow);
        self.idle.begin_turn();
        let limits = turn_limits(if is_alone { self.behind } else { 0 });
        // If a process ended before it sent its rows, nobody knows which rows are missing, so coco
        // sends all of them again.
        let resends_all = self.resends_all;
        let mode = if resends_all { Mode::Reexport } else { Mode::Normal };
        let is_scheduled = flow.next_update.is_some();
        let by_schedule = is_scheduled && !resends_all;
        self.begin_pending(resends_all || is_scheduled);
        let pending = self.pending.get_or_insert_default();
        helpers.work_on(flow.id);
        let live = LiveUpdate { cursors: &self.cursors, pending, helpers, is_scheduled };
        let work = || {
            transaction(|| {
                if by_schedule && !schedules::lock_if_due(flow.id)? {
                    return Ok(None);
                }
                let outcome = update::update_live_flow(flow.id, &flow.name, mode, limits, live)?;
                if outcome.is_some() && flow.attempts > 0 {
                    live_rows::clear_flow_error(flow)?;
                }
                if by_schedule && outcome.as_ref().is_some_and(|done| !done.more) {
                    schedules::note_update(flow.id, live.pending.began)?;
                }
                Ok(outcome)
            })
        };
        let mut outcome = turn_limit::turn(|| match is_alone {
            true => work(),
            false => stand_in::turn_among_others(work),
        })
        .inspect(|_| settle::committed())?;
        let Some(done) = &mut outcome else {
            if by_schedule {
                self.end_pending();
            }
            return Ok(None);
        };
        if resends_all && !done.more {
            self.resends_all = false;
        }
        self.keep(flow, done);
        Ok(outcome)
    }

    /// Keeps the results of a transaction that has committed.
    fn keep(&mut self, flow: &LiveFlow, done: &mut UpdateOutcome) {
        self.cursors.keep(std::mem::take(&mut done.kept));
        self.behind = if done.more { self.behind + 1 } else { 0 };
        if !done.more {
            self.end_pending();
        }
        if done.uncaptured {
            self.restore_triggers(flow);
        }
        report_outcome(done);
    }

    /// Lets a new version that has caught up replace its flow. Returns whether it did.
    pub fn try_swap(&mut self, flow: &LiveFlow) -> bool {
        let mut swap = std::mem::take(&mut self.swap);
        let has_swapped = swap.try_swap(flow, || self.roll_back());
        self.swap = swap;
        has_swapped
    }

    /// Returns when a new version may try again to replace its flow.
    pub fn swap_in(&self, flow: &LiveFlow) -> Option<Duration> {
        self.swap.next_in(flow)
    }

    /// Restores missing triggers in a separate transaction, because this may block writers,
    /// although it never waits for them.
    fn restore_triggers(&mut self, flow: &LiveFlow) {
        if self.triggers_restored.is_some_and(|at| at.elapsed() < RESTORE_TRIGGERS_EVERY) {
            return;
        }
        self.triggers_restored = Some(Instant::now());
        let restored = transaction(|| match live_rows::flow_name(flow.id)? {
            Some(name) => live::restore_triggers(&name),
            None => Ok(()),
        });
        if let Err(failed) = restored {
            let what = format!("flow \"{}\": could not restore triggers", flow.name);
            log_failure(&what, &failed);
        }
    }

    fn add_to_history(
        &mut self,
        started: i64,
        elapsed: Duration,
        result: &Result<Option<UpdateOutcome>, TransactionError>,
    ) {
        let (mut counts, mut reason, mut error) = (Counts::default(), None, None);
        match result {
            Ok(None) => return,
            Ok(Some(outcome)) => {
                reason = outcome.reason;
                counts = outcome.counts();
                // Every transaction counts the items that wait for their next retry, so they are
                // subtracted.
                counts.seen -= outcome.waiting;
                counts.failed -= outcome.waiting;
            }
            Err(failed) => error = Some(failed.error.message.clone()),
        }
        let (initiator, no_reason) = (Initiator::Worker, Reason::default());
        let entry = RunEntry { started, elapsed, reason: no_reason, initiator, counts, error };
        self.unstored.add_transaction(entry, reason, Instant::now());
    }

    /// Stores the flow's history when it is due. Returns whether something is left to store now.
    pub fn store_history(&mut self, flow: i32, now: Instant) -> bool {
        let due = self.unstored.due_entries(now);
        if !due.is_empty() {
            match transaction(|| run_history::note_run_if_free(flow, due)) {
                Ok(true) => self.unstored.mark_recorded(now),
                // Another process holds the flow's lock.
                Ok(false) => {}
                Err(failed) => {
                    log_failure("could not record runs", &failed);
                    self.unstored.mark_recorded(now);
                }
            }
        }
        !self.unstored.due_entries(now).is_empty()
    }

    /// Discards state that came from a transaction that was rolled back.
    pub fn roll_back(&mut self) {
        self.discard_unfinished();
        salvage_rolled_back_results();
    }

    /// Records the error of a failed transaction.
    fn record_failure(&mut self, flow: &LiveFlow, failed: &TransactionError) {
        self.roll_back();
        match transaction(|| live_rows::record_flow_error(flow, &failed.sqlstate, &failed.error)) {
            // Logs errors of locked tables less and less often, because a lock may last an hour.
            Ok(true)
                if live_rows::is_lock_error(&failed.sqlstate) && !next_power(flow.attempts) => {}
            Ok(true) => log_failure(&format!("flow \"{}\" failed", flow.name), failed),
            // The flow was dropped or stopped in the meantime.
            Ok(false) => {}
            Err(again) => {
                if next_power(self.unrecorded_failures) {
                    log_failure(&format!("flow \"{}\" failed", flow.name), failed);
                    let what = format!("flow \"{}\": could not record the failure", flow.name);
                    log_failure(&what, &again);
                }
                // Without this, the worker would try again at once.
                self.unrecorded_failures = self.unrecorded_failures.saturating_add(1);
                let delay = live_rows::retry_delay(self.unrecorded_failures);
                self.postponed_until = Some(Instant::now() + delay);
            }
        }
    }
}

/// Reports whether a flow still has the name that the worker knows. If the server does not tell, it
/// has.
fn has_name(flow: &LiveFlow) -> bool {
    match transaction(|| live_rows::flow_name(flow.id)) {
        Ok(name) => name.as_ref() == Some(&flow.name),
        Err(_) => true,
    }
}

/// Reports whether the next attempt is the first, second, fourth, eighth, …
fn next_power(attempts: i32) -> bool {
    attempts.saturating_add(1).unsigned_abs().is_power_of_two()
}

/// Limits a transaction that flows share. The limit is so large that a shared transaction rarely
/// leaves changes over: until these are processed, the flows run one by one.
pub fn shared_limits() -> Limits {
    turn_limits(u32::MAX)
}

/// Limits a transaction to a few batches, so that other flows get their share. For a single flow
/// that stays behind, the limit grows: items that change repeatedly are then evaluated less often.
fn turn_limits(behind: u32) -> Limits {
    let limits = limits::configured_limits();
    let batches = 4usize << behind.min(5);
    Limits { changes: Some(limits.batch.saturating_mul(batches)), ..limits }
}

/// Shows that the process works on a flow.
pub fn report_flow(flow: &LiveFlow) {
    set_activity(&format!("coco: flow {}", flow.name));
    shared_memory::report(|slot| {
        slot.flow = flow.id;
        slot.source = 0;
        slot.done = 0;
        slot.total = 0;
        slot.since = clock::timestamp_micros();
    });
}

fn report_outcome(outcome: &UpdateOutcome) {
    shared_memory::report(|slot| {
        slot.turns += 1;
        for source in &outcome.sources {
            slot.evaluated += source.counts.evaluated;
            slot.upserted += source.counts.upserted;
            slot.deleted += source.counts.deleted;
            slot.failed += source.counts.failed;
        }
    });
}
