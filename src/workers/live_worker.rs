//! A worker: keeps the live flows of one database up to date, one flow after the other.

use pgrx::bgworkers::DynamicBackgroundWorker;
use pgrx::prelude::*;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::catalog::installed::{self, InstalledExtension};
use crate::catalog::{locks, run_history};
use crate::declare::live;
use crate::flows::live_rows::{self, LeaveOutcome, LiveFlow};
use crate::memo::settle;
use crate::pg::{acting_role, clock, invalidation};
use crate::update::backlog::PendingKeys;
use crate::update::limits::{self, Limits};
use crate::update::run::UpdateOutcome;
use crate::update::source_plan::CursorCache;
use crate::update::{self};
use crate::workers::delivery::dispatcher::DeliveryDispatcher;
use crate::workers::parallel_helper::Helpers;
use crate::workers::process::{
    MAX_SEATS, attach_to_database, launch_worker, process_interrupts, salvage_rolled_back_results,
    set_activity, wait, wait_shortly,
};
use crate::workers::shared_memory::{self, WorkerEnd};
use crate::workers::transaction::{TransactionError, log_failure, transaction};
use crate::workers::upkeep::{self, Upkeep};
use crate::workers::wait_event::WaitEvent;
use crate::workers::{crash_notes, progress, stand_in, turn_limit};
use coco_core::counts::Counts;
use coco_core::decide::Mode;
use coco_core::history::{By, Entry, Reason, Stretch};

/// Polling interval with shared memory, where writers wake the worker, and without.
const POLL_WOKEN: Duration = Duration::from_secs(1);

const POLL: Duration = Duration::from_millis(100);

/// Shortest time between two attempts to restore missing triggers.
const RESTORE_TRIGGERS_EVERY: Duration = Duration::from_secs(10);

/// Interval at which a worker reads which flows are live, unless an invalidation tells it sooner.
const READ_CATALOG_EVERY: Duration = Duration::from_secs(1);

/// How long a worker stays after the last flow was stopped, because another flow may be started. A
/// worker that has never found a live flow exits at once.
const EXIT_WHEN_IDLE_FOR: Duration = Duration::from_secs(5);

/// How long a stand-in stays after it was last needed, because it may be needed again.
const EXIT_WHEN_NOT_NEEDED_FOR: Duration = Duration::from_secs(5);

/// How long a worker stays while other databases wait for its process: if it has nothing to do, and
/// in any case.
const STAY: Duration = Duration::from_millis(500);

const STAY_BUSY: Duration = Duration::from_secs(5);

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn coco_worker_main(argument: pg_sys::Datum) {
    let database = pg_sys::Oid::from(argument.value() as u32);
    let seat = (argument.value() >> 32) as u16;
    let note = |how| {
        if seat == 1 {
            shared_memory::note_ended(database, how);
        }
    };
    attach_to_database(database, c"coco worker");
    note(WorkerEnd::Looking);
    wait_shortly();
    let begun = transaction(|| match installed::installed_extension()? {
        Some(installed) if !installed.fits => Ok(Some(installed)),
        Some(installed) if locks::worker_slot(seat)? => Ok(Some(installed)),
        _ => Ok(None),
    });
    let installed = match begun {
        Ok(Some(installed)) if !installed.fits => return note(leave_other_version(database)),
        Ok(Some(installed)) => installed,
        // coco is not installed, or another process is this worker.
        Ok(None) => return note(WorkerEnd::Idle),
        Err(failed) => {
            log_failure("could not start the worker", &failed);
            return note(WorkerEnd::Failed);
        }
    };
    shared_memory::note_version(database, false);
    shared_memory::enter(database, seat);
    crash_notes::enter(database);
    upkeep::set_aside(database);
    progress::tell();
    settle::watch();
    let how = LiveWorker {
        seat,
        installed,
        database,
        began: Instant::now(),
        needed: Instant::now(),
        remembered: HashMap::new(),
        backlogs: HashMap::new(),
        behind: HashMap::new(),
        mended: HashMap::new(),
        stretches: HashMap::new(),
        first: 0,
        others: HashMap::new(),
        sender: DeliveryDispatcher::new(),
        interrupted: HashSet::new(),
        helpers: Helpers::default(),
        local: HashSet::new(),
        complained: HashMap::new(),
        put_off: HashMap::new(),
        known: vec![],
        upkeep: Upkeep::default(),
        looked: None,
    }
    .work();
    note(match how {
        WorkerEnd::OtherVersion => leave_other_version(database),
        how => how,
    });
}

/// Logs once that the extension has another version than the library.
fn leave_other_version(database: pg_sys::Oid) -> WorkerEnd {
    if !shared_memory::note_version(database, true)
        && let Err(failed) = transaction(acting_role::check_version)
    {
        log_failure("cannot follow flows", &failed);
    }
    WorkerEnd::OtherVersion
}

struct LiveWorker {
    seat: u16,
    database: pg_sys::Oid,
    /// The extension that the worker serves. An extension that was created again has other worker
    /// slots.
    installed: InstalledExtension,
    began: Instant,
    /// When it last was to take turns: a stand-in is not always.
    needed: Instant,
    remembered: HashMap<i32, CursorCache>,
    /// Keys that scans of a flow's sources found and that are not processed yet.
    backlogs: HashMap<i32, PendingKeys>,
    /// Number of transactions in a row that left changes of a flow over.
    behind: HashMap<i32, u32>,
    /// When the worker last restored triggers of a flow's sources.
    mended: HashMap<i32, Instant>,
    /// Work on a flow that the history does not contain yet.
    stretches: HashMap<i32, Stretch>,
    /// Index of the flow with which the next round begins.
    first: usize,
    /// Other workers, started by the first one.
    others: HashMap<u16, DynamicBackgroundWorker>,
    sender: DeliveryDispatcher,
    /// Flows whose rows must all be sent again.
    interrupted: HashSet<i32>,
    helpers: Helpers,
    /// Flows whose delivery failed, with the last message logged.
    complained: HashMap<i32, String>,
    /// Flows whose failure could not be recorded, for example on a full disk: the number of
    /// attempts in a row, and when to try next.
    put_off: HashMap<i32, (i32, Instant)>,
    /// Flows without external targets.
    local: HashSet<i32>,
    /// The flows found by the last look; `looked` has its time and the invalidation count.
    known: Vec<LiveFlow>,
    upkeep: Upkeep,
    looked: Option<(Instant, u64)>,
}

/// The result of reading which flows are live.
enum LiveFlows {
    Flows(Vec<LiveFlow>),
    /// The extension has another version than the library by now.
    OtherVersion,
    /// The extension was dropped, or another session needs the database exclusively.
    Leave,
}

/// How long a worker leaves a flow to the session that canceled its transaction: longer than that
/// session waits between two attempts to lock the flow.
const YIELD: Duration = Duration::from_millis(500);

impl LiveWorker {
    /// Works until the process should end. Returns the reason.
    fn work(&mut self) -> WorkerEnd {
        let mut useful = None;
        loop {
            process_interrupts();
            let is_needed = self.seat <= stand_in::max_workers()
                || self.needed.elapsed() < EXIT_WHEN_NOT_NEEDED_FOR;
            if !is_needed && self.has_nothing_set_aside() {
                return WorkerEnd::Idle;
            }
            if !self.knows() {
                let generation = invalidation::invalidation_count();
                match transaction(|| find_live_flows(self.installed)) {
                    Ok(LiveFlows::Leave) => return WorkerEnd::Left,
                    Ok(LiveFlows::OtherVersion) => return WorkerEnd::OtherVersion,
                    Ok(LiveFlows::Flows(flows)) => {
                        let live = |id: &i32| flows.iter().any(|f| f.id == *id);
                        self.remembered.retain(|id, _| live(id));
                        self.backlogs.retain(|id, _| live(id));
                        self.interrupted.retain(live);
                        self.behind.retain(|id, _| live(id));
                        self.mended.retain(|id, _| live(id));
                        let stopped = self.stretches.iter_mut().filter(|(id, _)| !live(id));
                        stopped.for_each(|(_, stretch)| stretch.close());
                        // Facts about a flow are valid until the invalidation count changes.
                        self.local.clear();
                        self.complained.retain(|id, _| live(id));
                        self.put_off.retain(|id, _| live(id));
                        let names: HashSet<&str> = flows.iter().map(|f| f.name.as_str()).collect();
                        if let Err(failed) = self.sender.rest(|flow| names.contains(flow)) {
                            log_failure("could not close targets", &failed);
                        }
                        shared_memory::report(|slot| slot.live_flows = flows.len() as u32);
                        self.known = flows;
                        self.looked = Some((Instant::now(), generation));
                    }
                    Err(failed) => {
                        log_failure("could not read coco's catalog", &failed);
                        wait(Duration::from_secs(5), WaitEvent::Changes);
                        continue;
                    }
                }
            }
            if !self.known.is_empty() {
                if useful.is_none() && self.seat == 1 {
                    shared_memory::note_ended(self.database, WorkerEnd::Following);
                }
                useful = Some(Instant::now());
            } else if useful.is_none_or(|at: Instant| at.elapsed() > EXIT_WHEN_IDLE_FOR)
                || shared_memory::is_crowded()
            {
                if self.seat == 1 {
                    self.upkeep.sweep_at_last();
                }
                match transaction(|| live_rows::leave_if_idle(self.seat)) {
                    Ok(LeaveOutcome::Yes) => return WorkerEnd::Idle,
                    Ok(LeaveOutcome::Restoring) => return WorkerEnd::Restoring,
                    // A session is just starting a flow.
                    Ok(LeaveOutcome::No) => {
                        wait(POLL, WaitEvent::Changes);
                        continue;
                    }
                    Err(failed) => {
                        log_failure("could not end the idle worker", &failed);
                        return WorkerEnd::Failed;
                    }
                }
            }
            let pause = self.round();
            self.note();
            if self.seat == 1 {
                self.upkeep.sweep();
            }
            // Publishes the worker's statistics, which tell autovacuum what to do. The server
            // limits how often it really does so.
            // SAFETY: called outside a transaction.
            unsafe { pg_sys::pgstat_report_stat(false) };
            if self.gives_way(pause.is_none()) {
                return WorkerEnd::GaveWay;
            }
            if let Some(pause) = pause {
                report_idle();
                let delivery = self.sender.is_busy();
                wait(pause, if delivery { WaitEvent::Delivery } else { WaitEvent::Changes });
            }
        }
    }

    /// Reports whether to leave the process to a database that waits for one. The worker first
    /// finishes work that exists only in its memory.
    fn gives_way(&self, busy: bool) -> bool {
        let stay = if busy { STAY_BUSY } else { STAY };
        self.began.elapsed() > stay && shared_memory::is_crowded() && self.has_nothing_set_aside()
    }

    /// Whether it can end without another having to do again what it has begun.
    fn has_nothing_set_aside(&self) -> bool {
        !self.sender.is_busy()
            && self.backlogs.values().all(PendingKeys::is_empty)
            && self.remembered.values().all(|r| r.unsaved_for().is_none())
            && self.interrupted.is_empty()
    }

    /// Reports whether the last look at the catalog is still valid. Starting or stopping a flow
    /// changes the invalidation count, which this process notices at its next transaction.
    fn knows(&self) -> bool {
        self.looked.is_some_and(|(at, generation)| {
            at.elapsed() < READ_CATALOG_EVERY
                && generation == invalidation::invalidation_count()
                && !self.known.is_empty()
        })
    }

    /// Runs one transaction for each flow. Returns how long to wait afterwards, `None` if there is
    /// more to do.
    fn round(&mut self) -> Option<Duration> {
        let flows = std::mem::take(&mut self.known);
        self.call_others(flows.len());
        self.helpers.allow(stand_in::max_workers().into(), flows.len());
        let takes_turns = stand_in::takes_turns(self.database, self.seat);
        if !takes_turns {
            // Others go on with all flows: they find by themselves what is left to do.
            self.remembered.clear();
            self.backlogs.clear();
        }
        let poll = if shared_memory::available() { POLL_WOKEN } else { POLL };
        let mut pause = Some(poll);
        let count = flows.len();
        self.first = if count == 0 { 0 } else { (self.first + 1) % count };
        for n in 0..count {
            let flow = &flows[(self.first + n) % count];
            process_interrupts();
            if !self.local.contains(&flow.id) {
                pause = self.send(flow, pause);
            }
            if !takes_turns {
                continue;
            }
            let put_off = self.put_off.get(&flow.id).map(|(_, until)| *until);
            let wait =
                put_off.map_or(Duration::ZERO, |u| u.saturating_duration_since(Instant::now()));
            let wait = wait.max(flow.wait);
            if !wait.is_zero() {
                pause = pause.map(|p| p.min(wait));
                continue;
            }
            let (started, began) = (clock::now_micros(), Instant::now());
            crash_notes::note(flow.id);
            let done = self.turn(flow, count == 1);
            crash_notes::note(0);
            // A session canceled the transaction to change this flow or another one; this is no
            // failure of the flow.
            if done.as_ref().is_err_and(turn_limit::is_canceled)
                && shared_memory::cancel_was_announced()
            {
                self.undone(flow.id);
                self.looked = None;
                let times = self.put_off.get(&flow.id).map_or(0, |(times, _)| *times);
                self.put_off.insert(flow.id, (times, Instant::now() + YIELD));
                pause = pause.map(|p| p.min(YIELD));
                continue;
            }
            self.took_turn(flow, started, began.elapsed(), &done);
            if done.is_ok() {
                self.put_off.remove(&flow.id);
            }
            match done {
                Ok(None) => {}
                Ok(Some(turn)) => {
                    match turn.external {
                        false => {
                            self.local.insert(flow.id);
                        }
                        // Delivers the changes while the next transaction runs.
                        true => pause = self.send(flow, pause),
                    }
                    if turn.more {
                        pause = None;
                    }
                    let again = turn.again.into_iter();
                    let unsaved = self.remembered.get(&flow.id).and_then(CursorCache::unsaved_for);
                    for d in again.chain(unsaved) {
                        pause = pause.map(|p| p.min(d));
                    }
                }
                Err(failed) => {
                    self.troubled(flow, &failed);
                    self.looked = None;
                }
            }
            // The flow's error is over; reads the catalog again.
            if flow.attempts > 0 {
                self.looked = None;
            }
        }
        self.known = flows;
        if takes_turns {
            self.needed = Instant::now();
        }
        pause
    }

    /// Delivers the flow's changes to external targets. Returns how long to wait afterwards.
    fn send(&mut self, flow: &LiveFlow, pause: Option<Duration>) -> Option<Duration> {
        crash_notes::note(flow.id);
        let step = self.sender.step(&flow.name);
        crash_notes::note(0);
        match step {
            Ok(step) => {
                self.complained.remove(&flow.id);
                if step.interrupted && self.interrupted.insert(flow.id) {
                    self.backlogs.remove(&flow.id);
                }
                match (pause, step.again) {
                    (Some(pause), Some(again)) => Some(pause.min(again)),
                    _ => pause,
                }
            }
            Err(failed) => {
                // The flow was dropped in the meantime.
                if matches!(transaction(|| live_rows::flow_name(flow.id)), Ok(None)) {
                    return pause;
                }
                // Logs each message once, not with every attempt.
                let before = self.complained.insert(flow.id, failed.error.message.clone());
                if before.as_ref() != Some(&failed.error.message) {
                    let what = format!("flow \"{}\": could not deliver changes", flow.name);
                    log_failure(&what, &failed);
                }
                pause
            }
        }
    }

    fn turn(
        &mut self,
        flow: &LiveFlow,
        alone: bool,
    ) -> Result<Option<UpdateOutcome>, TransactionError> {
        report_flow(flow);
        let behind = self.behind.entry(flow.id).or_default();
        let limits = turn_limits(if alone { *behind } else { 0 });
        let remembered = self.remembered.entry(flow.id).or_default();
        // If a process ended before it sent its rows, nobody knows which rows are missing, so coco
        // sends all of them again.
        let interrupted = self.interrupted.contains(&flow.id);
        let mode = if interrupted { Mode::Reexport } else { Mode::Normal };
        let new = || if interrupted { PendingKeys::once(None) } else { PendingKeys::default() };
        let backlog = self.backlogs.entry(flow.id).or_insert_with(new);
        let helpers = &self.helpers;
        helpers.work_on(flow.id);
        let mut work = || {
            transaction(|| {
                let turn = update::update_live_flow(
                    &flow.name, mode, limits, remembered, backlog, helpers,
                )?;
                if turn.is_some() && flow.attempts > 0 {
                    live_rows::clear_flow_error(flow)?;
                }
                Ok(turn)
            })
        };
        let mut turn = turn_limit::turn(|| match alone {
            true => work(),
            false => stand_in::turn_among_others(work),
        })
        .inspect(|_| settle::committed())?;
        let Some(done) = &mut turn else { return Ok(None) };
        remembered.keep(std::mem::take(&mut done.kept));
        *behind = if done.more { *behind + 1 } else { 0 };
        if interrupted && !done.more {
            self.interrupted.remove(&flow.id);
            self.backlogs.remove(&flow.id);
        }
        let mended =
            self.mended.get(&flow.id).is_some_and(|at| at.elapsed() < RESTORE_TRIGGERS_EVERY);
        if done.uncaptured && !mended {
            self.mended.insert(flow.id, Instant::now());
            // In a separate transaction, because it may block writers, although it never waits for
            // them.
            if let Err(failed) = transaction(|| live::restore_triggers(&flow.name)) {
                log_failure(
                    &format!("flow \"{}\": could not restore triggers", flow.name),
                    &failed,
                );
            }
        }
        report_outcome(done);
        Ok(turn)
    }

    /// Adds a transaction to the history that is not stored yet.
    fn took_turn(
        &mut self,
        flow: &LiveFlow,
        started: i64,
        elapsed: Duration,
        turn: &Result<Option<UpdateOutcome>, TransactionError>,
    ) {
        let (mut counts, mut reason, mut error) = (Counts::default(), None, None);
        match turn {
            Ok(None) => return,
            Ok(Some(turn)) => {
                reason = turn.reason;
                counts = turn.counts();
                // Every transaction counts the items that wait for their next retry, so they are
                // subtracted.
                counts.seen -= turn.waiting;
                counts.failed -= turn.waiting;
            }
            Err(failed) => error = Some(failed.error.message.clone()),
        }
        let by = By::Worker;
        let entry = Entry { started, elapsed, reason: Reason::default(), by, counts, error };
        self.stretches.entry(flow.id).or_default().add(entry, reason, Instant::now());
    }

    /// Stores the history of flows when it is due.
    fn note(&mut self) {
        let now = Instant::now();
        let known: HashSet<i32> = self.known.iter().map(|f| f.id).collect();
        self.stretches.retain(|id, stretch| {
            let due = stretch.due(now);
            if !due.is_empty() {
                match transaction(|| run_history::note_run_if_free(*id, due)) {
                    Ok(true) => stretch.noted(now),
                    // Another process holds the flow's lock.
                    Ok(false) => {}
                    Err(failed) => {
                        log_failure("could not record runs", &failed);
                        stretch.noted(now);
                    }
                }
            }
            known.contains(id) || !stretch.due(now).is_empty()
        });
    }

    /// Discards state that came from a transaction that was rolled back.
    fn undone(&mut self, flow: i32) {
        self.remembered.remove(&flow);
        self.backlogs.remove(&flow);
        salvage_rolled_back_results();
    }

    /// Records the error of a failed transaction.
    fn troubled(&mut self, flow: &LiveFlow, failed: &TransactionError) {
        self.undone(flow.id);
        match transaction(|| live_rows::record_flow_error(flow, &failed.sqlstate, &failed.error)) {
            // Logs errors of locked tables less and less often, because a lock may last an hour.
            Ok(true)
                if live_rows::is_lock_error(&failed.sqlstate) && !next_power(flow.attempts) => {}
            Ok(true) => log_failure(&format!("flow \"{}\" failed", flow.name), failed),
            // The flow was dropped or stopped in the meantime.
            Ok(false) => {}
            Err(again) => {
                let before = self.put_off.get(&flow.id).map_or(0, |(times, _)| *times);
                if next_power(before) {
                    log_failure(&format!("flow \"{}\" failed", flow.name), failed);
                    log_failure(
                        &format!("flow \"{}\": could not record the failure", flow.name),
                        &again,
                    );
                }
                // Without this, the worker would try again at once.
                let times = before.saturating_add(1);
                self.put_off
                    .insert(flow.id, (times, Instant::now() + live_rows::retry_delay(times)));
            }
        }
    }

    /// Starts other workers if this is the first one: one per live flow, at most
    /// `coco.max_workers`.
    fn call_others(&mut self, flows: usize) {
        if self.seat != 1 || shared_memory::is_crowded() {
            return;
        }
        let wanted = flows.min(stand_in::max_workers().into()) as u16;
        self.others.retain(|_, worker| worker.pid().is_ok());
        for seat in 2..=wanted.min(MAX_SEATS) {
            // A worker that existed before this one is not in `others`.
            let free = || Ok(!locks::is_worker_slot_taken(seat)?);
            if !self.others.contains_key(&seat) && transaction(free).unwrap_or(false) {
                if let Some(worker) = launch_worker(self.database, seat, None) {
                    worker.wait_for_startup().ok();
                    self.others.insert(seat, worker);
                }
            }
        }
    }
}

/// Reports whether the next attempt is the first, second, fourth, eighth, …
fn next_power(attempts: i32) -> bool {
    attempts.saturating_add(1).unsigned_abs().is_power_of_two()
}

fn find_live_flows(known: InstalledExtension) -> Result<LiveFlows, crate::pg::error::Error> {
    // SAFETY: reads the process's own state.
    if locks::database_being_dropped(unsafe { pg_sys::MyDatabaseId }) {
        return Ok(LiveFlows::Leave);
    }
    match installed::installed_extension()? {
        Some(now) if now == known => live_rows::live_flows().map(LiveFlows::Flows),
        Some(now) if now.extension == known.extension => Ok(LiveFlows::OtherVersion),
        _ => Ok(LiveFlows::Leave),
    }
}

/// Limits a transaction to a few batches, so that other flows get their share. For a single flow
/// that stays behind, the limit grows: items that change repeatedly are then evaluated less often.
fn turn_limits(behind: u32) -> Limits {
    let limits = limits::configured_limits();
    let batches = 4usize << behind.min(5);
    Limits { changes: Some(limits.batch.saturating_mul(batches)), ..limits }
}

fn report_flow(flow: &LiveFlow) {
    set_activity(&format!("coco: flow {}", flow.name));
    shared_memory::report(|slot| {
        slot.flow = flow.id;
        slot.source = 0;
        slot.done = 0;
        slot.total = 0;
        // SAFETY: reads the clock.
        slot.since = unsafe { pg_sys::GetCurrentTimestamp() };
    });
}

fn report_outcome(turn: &UpdateOutcome) {
    shared_memory::report(|slot| {
        slot.turns += 1;
        for source in &turn.sources {
            slot.evaluated += source.counts.evaluated;
            slot.upserted += source.counts.upserted;
            slot.deleted += source.counts.deleted;
            slot.failed += source.counts.failed;
        }
    });
}

/// Shows that the worker is idle; called before it waits.
fn report_idle() {
    // SAFETY: changes the process's own state.
    unsafe {
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, std::ptr::null());
    }
    shared_memory::report(|slot| {
        slot.flow = 0;
        slot.source = 0;
        // SAFETY: reads the clock.
        slot.since = unsafe { pg_sys::GetCurrentTimestamp() };
    });
}
