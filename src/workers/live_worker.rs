//! A worker: follows the live flows of one database, in turns.

use pgrx::bgworkers::DynamicBackgroundWorker;
use pgrx::guc::GucSetting;
use pgrx::prelude::*;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::catalog::installed::{self, Installed};
use crate::catalog::{locks, run_history};
use crate::declare::live;
use crate::flows::live_rows::{self, Left, Live};
use crate::memo::settle;
use crate::pg::{acting_role, clock, invalidation};
use crate::update::backlog::Backlog;
use crate::update::limits::{self, Limits};
use crate::update::run::Turn;
use crate::update::source_plan::Remembered;
use crate::update::{self};
use crate::workers::delivery::dispatcher::Sender;
use crate::workers::parallel_helper::Helpers;
use crate::workers::process::{
    MAX_SEATS, attach, attend, keep_rolled_back, launch, wait, wait_shortly, works_on,
};
use crate::workers::shared_memory::{self, Ended};
use crate::workers::transaction::{Failed, complain, transaction};
use crate::workers::upkeep::{self, Upkeep};
use crate::workers::wait_event::Waiting;
use crate::workers::{crash_notes, progress, turn_limit};
use coco_core::counts::Counts;
use coco_core::decide::Mode;
use coco_core::history::{By, Entry, Reason, Stretch};

/// Workers a database, at most.
pub static MAX_WORKERS: GucSetting<i32> = GucSetting::<i32>::new(1);

/// How often a worker looks by itself: where writers wake it, and where they cannot.
const POLL_WOKEN: Duration = Duration::from_secs(1);

const POLL: Duration = Duration::from_millis(100);

/// How often triggers that are missing are put back, at most.
const MEND: Duration = Duration::from_secs(10);

/// How often a worker looks which flows are live, if nothing tells it sooner.
const LOOK: Duration = Duration::from_secs(1);

/// How long a worker stays after the last flow was stopped: another may be started. One that has never found a live
/// flow leaves at once.
const LINGER: Duration = Duration::from_secs(5);

/// How long a worker stays while other databases wait for its process: with nothing to do, and at most.
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
    attach(database, c"coco worker");
    note(Ended::Looking);
    wait_shortly();
    let begun = transaction(|| match installed::installed()? {
        Some(installed) if !installed.fits => Ok(Some(installed)),
        Some(installed) if locks::seat(seat)? => Ok(Some(installed)),
        _ => Ok(None),
    });
    let installed = match begun {
        Ok(Some(installed)) if !installed.fits => return note(leave_other_version(database)),
        Ok(Some(installed)) => installed,
        // Not here, or served by another.
        Ok(None) => return note(Ended::Idle),
        Err(failed) => {
            complain("cannot begin", &failed);
            return note(Ended::Failed);
        }
    };
    shared_memory::note_version(database, false);
    shared_memory::enter(database, seat);
    crash_notes::enter(database);
    upkeep::set_aside(database);
    progress::tell();
    settle::watch();
    let how = Worker {
        seat,
        installed,
        began: Instant::now(),
        remembered: HashMap::new(),
        backlogs: HashMap::new(),
        behind: HashMap::new(),
        mended: HashMap::new(),
        stretches: HashMap::new(),
        first: 0,
        others: HashMap::new(),
        sender: Sender::new(),
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
        Ended::OtherVersion => leave_other_version(database),
        how => how,
    });
}

/// Says, once, that the extension is another version than the library.
fn leave_other_version(database: pg_sys::Oid) -> Ended {
    if !shared_memory::note_version(database, true)
        && let Err(failed) = transaction(acting_role::check_version)
    {
        complain("cannot follow flows", &failed);
    }
    Ended::OtherVersion
}

struct Worker {
    seat: u16,
    /// The extension that it works for: one that was made anew has places of its own.
    installed: Installed,
    began: Instant,
    remembered: HashMap<i32, Remembered>,
    /// What scans of a flow's sources have found and is not worked off yet.
    backlogs: HashMap<i32, Backlog>,
    /// How many turns in a row have left changes of a flow.
    behind: HashMap<i32, u32>,
    /// When triggers of a flow's sources were last to be put back.
    mended: HashMap<i32, Instant>,
    /// What was done for a flow and is not noted yet.
    stretches: HashMap<i32, Stretch>,
    /// Where in the list of flows the next round begins.
    first: usize,
    /// Further workers, which the first one has started.
    others: HashMap<u16, DynamicBackgroundWorker>,
    sender: Sender,
    /// Flows that are to be sent as a whole once more.
    interrupted: HashSet<i32>,
    helpers: Helpers,
    /// Flows that cannot be sent, and what was said of it.
    complained: HashMap<i32, String>,
    /// Flows whose failure could not be recorded, as on a full disk: how often in a row, and until when they wait.
    put_off: HashMap<i32, (i32, Instant)>,
    /// Flows of which no target is outside this database.
    local: HashSet<i32>,
    /// The flows found by the last look, and what the system catalogs were like.
    known: Vec<Live>,
    upkeep: Upkeep,
    looked: Option<(Instant, u64)>,
}

/// What a look at the database found.
enum Found {
    Flows(Vec<Live>),
    /// The extension is another version than the library by now.
    OtherVersion,
    /// The extension was dropped, or somebody wants the database for themselves.
    Leave,
}

/// How long a flow is left to the session that canceled its turn: longer than that session waits between two attempts to
/// lock the flow.
const YIELD: Duration = Duration::from_millis(500);

impl Worker {
    /// Works until the process is to end; returns why.
    fn work(&mut self) -> Ended {
        let mut useful = None;
        loop {
            attend();
            // Fewer are wanted now.
            if i32::from(self.seat) > MAX_WORKERS.get() {
                return Ended::Idle;
            }
            if !self.knows() {
                let generation = invalidation::now();
                match transaction(|| look(self.installed)) {
                    Ok(Found::Leave) => return Ended::Left,
                    Ok(Found::OtherVersion) => return Ended::OtherVersion,
                    Ok(Found::Flows(flows)) => {
                        let live = |id: &i32| flows.iter().any(|f| f.id == *id);
                        self.remembered.retain(|id, _| live(id));
                        self.backlogs.retain(|id, _| live(id));
                        self.interrupted.retain(live);
                        self.behind.retain(|id, _| live(id));
                        self.mended.retain(|id, _| live(id));
                        let stopped = self.stretches.iter_mut().filter(|(id, _)| !live(id));
                        stopped.for_each(|(_, stretch)| stretch.close());
                        // What a flow is, it is until the generation changes.
                        self.local.clear();
                        self.complained.retain(|id, _| live(id));
                        self.put_off.retain(|id, _| live(id));
                        let names: HashSet<&str> = flows.iter().map(|f| f.name.as_str()).collect();
                        if let Err(failed) = self.sender.rest(|flow| names.contains(flow)) {
                            complain("cannot leave a target", &failed);
                        }
                        self.known = flows;
                        self.looked = Some((Instant::now(), generation));
                    }
                    Err(failed) => {
                        complain("cannot read coco's catalog", &failed);
                        wait(Duration::from_secs(5), Waiting::Changes);
                        continue;
                    }
                }
            }
            if !self.known.is_empty() {
                if useful.is_none() && self.seat == 1 {
                    // SAFETY: reads the process's own state.
                    shared_memory::note_ended(unsafe { pg_sys::MyDatabaseId }, Ended::Following);
                }
                useful = Some(Instant::now());
            } else if useful.is_none_or(|at: Instant| at.elapsed() > LINGER)
                || shared_memory::is_crowded()
            {
                if self.seat == 1 {
                    self.upkeep.sweep_at_last();
                }
                match transaction(|| live_rows::leave(self.seat)) {
                    Ok(Left::Yes) => return Ended::Idle,
                    Ok(Left::Restoring) => return Ended::Restoring,
                    // A flow is just being started.
                    Ok(Left::No) => {
                        wait(POLL, Waiting::Changes);
                        continue;
                    }
                    Err(failed) => {
                        complain("cannot leave", &failed);
                        return Ended::Failed;
                    }
                }
            }
            let pause = self.round();
            self.note();
            if self.seat == 1 {
                self.upkeep.sweep();
            }
            // What it did becomes visible in the statistics, from which autovacuum knows what to do;
            // the server sees to it that this is not too often.
            // SAFETY: outside of a transaction.
            unsafe { pg_sys::pgstat_report_stat(false) };
            if self.gives_way(pause.is_none()) {
                return Ended::GaveWay;
            }
            if let Some(pause) = pause {
                rest();
                let delivery = self.sender.is_busy();
                wait(pause, if delivery { Waiting::Delivery } else { Waiting::Changes });
            }
        }
    }

    /// Whether to leave the process to a database that waits for one. What is set aside in memory alone is worked off
    /// before.
    fn gives_way(&self, busy: bool) -> bool {
        let stay = if busy { STAY_BUSY } else { STAY };
        self.began.elapsed() > stay
            && shared_memory::is_crowded()
            && !self.sender.is_busy()
            && self.backlogs.values().all(Backlog::is_empty)
            && self.remembered.values().all(|r| r.unsaved_for().is_none())
            && self.interrupted.is_empty()
    }

    /// Whether what the last look found can still be gone by: a flow that is started or stopped
    /// changes the generation, as soon as this process hears of it at its next transaction.
    fn knows(&self) -> bool {
        self.looked.is_some_and(|(at, generation)| {
            at.elapsed() < LOOK && generation == invalidation::now() && !self.known.is_empty()
        })
    }

    /// A turn for each flow; returns how long to wait then, `None` where more is to be done.
    fn round(&mut self) -> Option<Duration> {
        let flows = std::mem::take(&mut self.known);
        self.call_others(flows.len());
        self.helpers.allow(MAX_WORKERS.get().max(1) as usize, flows.len());
        let poll = if shared_memory::available() { POLL_WOKEN } else { POLL };
        let mut pause = Some(poll);
        let count = flows.len();
        self.first = if count == 0 { 0 } else { (self.first + 1) % count };
        for n in 0..count {
            let flow = &flows[(self.first + n) % count];
            attend();
            if !self.local.contains(&flow.id) {
                pause = self.send(flow, pause);
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
            // It is no failure of this flow that this one, or another, is being changed.
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
                        // What it has written is sent while the next turn goes on.
                        true => pause = self.send(flow, pause),
                    }
                    if turn.more {
                        pause = None;
                    }
                    let again = turn.again.into_iter();
                    let unsaved = self.remembered.get(&flow.id).and_then(Remembered::unsaved_for);
                    for d in again.chain(unsaved) {
                        pause = pause.map(|p| p.min(d));
                    }
                }
                Err(failed) => {
                    self.troubled(flow, &failed);
                    self.looked = None;
                }
            }
            // A failure is over.
            if flow.attempts > 0 {
                self.looked = None;
            }
        }
        self.known = flows;
        pause
    }

    /// Sends on what the flow has for targets outside this database; returns how long to wait then.
    fn send(&mut self, flow: &Live, pause: Option<Duration>) -> Option<Duration> {
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
                // It was dropped in the meantime.
                if matches!(transaction(|| live_rows::name(flow.id)), Ok(None)) {
                    return pause;
                }
                // Once, and not each time it looks.
                let before = self.complained.insert(flow.id, failed.error.message.clone());
                if before.as_ref() != Some(&failed.error.message) {
                    let what = format!("flow \"{}\": what it has cannot be sent", flow.name);
                    complain(&what, &failed);
                }
                pause
            }
        }
    }

    fn turn(&mut self, flow: &Live, alone: bool) -> Result<Option<Turn>, Failed> {
        begin(flow);
        let behind = self.behind.entry(flow.id).or_default();
        let limits = limits(if alone { *behind } else { 0 });
        let remembered = self.remembered.entry(flow.id).or_default();
        // What a process was to send that is gone, nobody knows: all is sent once more.
        let interrupted = self.interrupted.contains(&flow.id);
        let mode = if interrupted { Mode::Reexport } else { Mode::Normal };
        let new = || if interrupted { Backlog::once(None) } else { Backlog::default() };
        let backlog = self.backlogs.entry(flow.id).or_insert_with(new);
        let helpers = &self.helpers;
        helpers.work_on(flow.id);
        let mut turn = turn_limit::turn(|| {
            transaction(|| {
                let turn = update::turn(&flow.name, mode, limits, remembered, backlog, helpers)?;
                if turn.is_some() && flow.attempts > 0 {
                    live_rows::recovered(flow)?;
                }
                Ok(turn)
            })
        })
        .inspect(|_| settle::committed())?;
        let Some(done) = &mut turn else { return Ok(None) };
        remembered.keep(std::mem::take(&mut done.kept));
        *behind = if done.more { *behind + 1 } else { 0 };
        if interrupted && !done.more {
            self.interrupted.remove(&flow.id);
            self.backlogs.remove(&flow.id);
        }
        let mended = self.mended.get(&flow.id).is_some_and(|at| at.elapsed() < MEND);
        if done.uncaptured && !mended {
            self.mended.insert(flow.id, Instant::now());
            // In a transaction of its own: it may hold off writers, though it never waits for them.
            if let Err(failed) = transaction(|| live::mend(&flow.name)) {
                complain(&format!("flow \"{}\": triggers are missing", flow.name), &failed);
            }
        }
        end(done);
        Ok(turn)
    }

    /// Adds a turn to what is to be noted of a flow.
    fn took_turn(
        &mut self,
        flow: &Live,
        started: i64,
        elapsed: Duration,
        turn: &Result<Option<Turn>, Failed>,
    ) {
        let (mut counts, mut reason, mut error) = (Counts::default(), None, None);
        match turn {
            Ok(None) => return,
            Ok(Some(turn)) => {
                reason = turn.reason;
                counts = turn.counts();
                // What waits for its next retry is counted by each turn.
                counts.seen -= turn.waiting;
                counts.failed -= turn.waiting;
            }
            Err(failed) => error = Some(failed.error.message.clone()),
        }
        let by = By::Worker;
        let entry = Entry { started, elapsed, reason: Reason::default(), by, counts, error };
        self.stretches.entry(flow.id).or_default().add(entry, reason, Instant::now());
    }

    /// Notes what was done for flows, where it is time.
    fn note(&mut self) {
        let now = Instant::now();
        let known: HashSet<i32> = self.known.iter().map(|f| f.id).collect();
        self.stretches.retain(|id, stretch| {
            let due = stretch.due(now);
            if !due.is_empty() {
                match transaction(|| run_history::note_if_free(*id, due)) {
                    Ok(true) => stretch.noted(now),
                    // Somebody is working on it.
                    Ok(false) => {}
                    Err(failed) => {
                        complain("what was done cannot be noted", &failed);
                        stretch.noted(now);
                    }
                }
            }
            known.contains(id) || !stretch.due(now).is_empty()
        });
    }

    /// Forgets what a turn that was rolled back had found.
    fn undone(&mut self, flow: i32) {
        self.remembered.remove(&flow);
        self.backlogs.remove(&flow);
        keep_rolled_back();
    }

    /// Records what happened in a transaction that it cannot undo.
    fn troubled(&mut self, flow: &Live, failed: &Failed) {
        self.undone(flow.id);
        match transaction(|| live_rows::troubled(flow, &failed.sqlstate, &failed.error)) {
            // What is locked for an hour is not said a thousand times.
            Ok(true)
                if live_rows::is_for_a_lock(&failed.sqlstate) && !next_power(flow.attempts) => {}
            Ok(true) => complain(&format!("flow \"{}\" failed", flow.name), failed),
            // It was dropped or stopped in the meantime.
            Ok(false) => {}
            Err(again) => {
                let before = self.put_off.get(&flow.id).map_or(0, |(times, _)| *times);
                if next_power(before) {
                    complain(&format!("flow \"{}\" failed", flow.name), failed);
                    complain(&format!("flow \"{}\": that cannot be recorded", flow.name), &again);
                }
                // Else it would be tried again at once.
                let times = before.saturating_add(1);
                self.put_off.insert(flow.id, (times, Instant::now() + live_rows::put_off(times)));
            }
        }
    }

    /// The first worker starts others, as many as there are flows for.
    fn call_others(&mut self, flows: usize) {
        if self.seat != 1 || shared_memory::is_crowded() {
            return;
        }
        let wanted = flows.min(MAX_WORKERS.get().max(1) as usize) as u16;
        self.others.retain(|_, worker| worker.pid().is_ok());
        for seat in 2..=wanted.min(MAX_SEATS) {
            // One that was there before this one came is not of its starting.
            let free = || Ok(!locks::seat_is_taken(seat)?);
            if !self.others.contains_key(&seat) && transaction(free).unwrap_or(false) {
                // SAFETY: reads the process's own state.
                let database = unsafe { pg_sys::MyDatabaseId };
                if let Some(worker) = launch(database, seat, None) {
                    worker.wait_for_startup().ok();
                    self.others.insert(seat, worker);
                }
            }
        }
    }
}

/// Whether the next attempt is the first, second, fourth, eighth, …
fn next_power(attempts: i32) -> bool {
    attempts.saturating_add(1).unsigned_abs().is_power_of_two()
}

fn look(known: Installed) -> Result<Found, crate::pg::error::Error> {
    // SAFETY: reads the process's own state.
    if locks::database_is_wanted(unsafe { pg_sys::MyDatabaseId }) {
        return Ok(Found::Leave);
    }
    match installed::installed()? {
        Some(now) if now == known => live_rows::flows().map(Found::Flows),
        Some(now) if now.extension == known.extension => Ok(Found::OtherVersion),
        _ => Ok(Found::Leave),
    }
}

/// A turn is a few batches long: then it is another flow's. For a flow that is alone and stays behind
/// it grows: what changes again and again is looked at less often.
fn limits(behind: u32) -> Limits {
    let limits = limits::configured();
    let batches = 4usize << behind.min(5);
    Limits { changes: Some(limits.batch.saturating_mul(batches)), ..limits }
}

fn begin(flow: &Live) {
    works_on(&format!("coco: flow {}", flow.name));
    shared_memory::report(|slot| {
        slot.flow = flow.id;
        slot.source = 0;
        slot.done = 0;
        slot.total = 0;
        // SAFETY: reads the clock.
        slot.since = unsafe { pg_sys::GetCurrentTimestamp() };
    });
}

fn end(turn: &Turn) {
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

/// Before the worker waits.
fn rest() {
    // SAFETY: the process's own state.
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
