//! The launcher: finds the databases that have live flows and keeps a worker running in each.
//!
//! The launcher is connected to no database. A database's worker finds out whether there is work:
//! it ends at once if coco is not installed or no flow is live, and reports this in shared memory.
//! The launcher starts a worker again when a session requests one, and from time to time. A
//! database without live flows therefore occupies a process only briefly. If max_worker_processes
//! is smaller than the number of databases with live flows, the databases take turns: an idle
//! worker exits, and the database that has waited longest comes next.

use pgrx::bgworkers::DynamicBackgroundWorker;
use pgrx::prelude::*;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::catalog::locks;
use crate::workers::databases;
use crate::workers::process::{handle_signals, launch_worker, process_interrupts, wait};
use crate::workers::shared_memory::{self, WorkerEnd};
use crate::workers::stand_in;
use crate::workers::transaction::{log_failure, transaction};
use crate::workers::wait_event::WaitEvent;

/// Interval at which a database is examined again after its worker found nothing to do.
const PROBE: Duration = Duration::from_secs(60);

/// Interval at which the launcher lists the databases.
const LOOK: Duration = Duration::from_secs(5);

/// Interval at which a database is examined while a dump is restored.
const RESTORING: Duration = Duration::from_secs(5);

/// Number of databases that the launcher examines at a time without a request.
const PROBES: usize = 4;

/// Shortest time between two starts of a worker in one database: after a request, and otherwise.
const BETWEEN: Duration = Duration::from_millis(100);

const AGAIN: Duration = Duration::from_secs(1);

/// A worker that ends within this time after its start, more often in a row than `OFTEN`, counts as
/// failing, whatever ends it.
const SOON: Duration = Duration::from_secs(2);

const OFTEN: u32 = 12;

/// Time after which a database is tried again that another session needed exclusively.
const WANTED: Duration = Duration::from_millis(100);

/// Time after which a failed start is tried again if all processes are in use, unless a process
/// ends sooner.
const CROWDED: Duration = Duration::from_millis(250);

/// Interval at which the log repeats that there are too few processes.
const SAID: Duration = Duration::from_secs(60);

struct Served {
    worker: Option<DynamicBackgroundWorker>,
    started: Instant,
    /// When to start the next worker.
    due: Instant,
    /// The last worker found live flows, or a session requested a worker.
    live: bool,
    /// The last worker found no live flow.
    is_idle: bool,
    /// A session requested a worker since the last start: the running worker may be about to end.
    asked: bool,
    /// How often in a row the worker failed by itself, and how often it ended soon after its start.
    failures: u32,
    short: u32,
}

impl Served {
    fn new(now: Instant) -> Served {
        Served {
            worker: None,
            started: now,
            due: now,
            live: false,
            is_idle: false,
            asked: false,
            failures: 0,
            short: 0,
        }
    }

    fn is_running(&self) -> bool {
        self.worker.as_ref().is_some_and(is_running)
    }

    /// Records that the database's worker has ended.
    fn ended(&mut self, how: Option<WorkerEnd>, now: Instant) {
        self.worker = None;
        let failed = match how {
            Some(WorkerEnd::Idle | WorkerEnd::Restoring | WorkerEnd::OtherVersion) => {
                self.live = false;
                self.is_idle = true;
                self.short = 0;
                false
            }
            Some(WorkerEnd::GaveWay) => {
                self.live = true;
                self.is_idle = false;
                self.short = 0;
                false
            }
            Some(WorkerEnd::Left) => {
                self.short = 0;
                false
            }
            // Another process ended the worker.
            Some(WorkerEnd::Looking | WorkerEnd::Following) => {
                let soon = now.duration_since(self.started) < SOON;
                self.short = if soon { self.short.saturating_add(1) } else { 0 };
                self.live |= how == Some(WorkerEnd::Following);
                self.short > OFTEN
            }
            Some(WorkerEnd::Failed) | None => true,
        };
        self.failures = if failed { self.failures.saturating_add(1) } else { 0 };
        self.due = match how {
            _ if failed => now + AGAIN.saturating_mul(1 << (self.failures - 1).min(6)).min(PROBE),
            Some(WorkerEnd::Idle | WorkerEnd::OtherVersion) => now + PROBE,
            Some(WorkerEnd::Restoring) => now + RESTORING,
            Some(WorkerEnd::GaveWay) => now,
            Some(WorkerEnd::Left) => now + AGAIN,
            _ => now.max(self.started + AGAIN),
        };
    }

    /// Brings the next start forward if a session requested a worker.
    fn ask(&mut self, now: Instant) {
        if std::mem::take(&mut self.asked) {
            self.live = true;
            self.is_idle = false;
            self.due = self.due.min(now.max(self.started + BETWEEN));
        }
    }
}

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn coco_launcher_main(_arg: pg_sys::Datum) {
    handle_signals();
    // SAFETY: called once, at the start; only shared catalogs can be read.
    unsafe {
        pg_sys::BackgroundWorkerInitializeConnection(std::ptr::null(), std::ptr::null(), 0);
    }
    shared_memory::enter_launcher();
    let mut launcher = Launcher::default();
    loop {
        process_interrupts();
        let next = launcher.look();
        wait(next, WaitEvent::Launcher);
    }
}

#[derive(Default)]
struct Launcher {
    all: HashMap<u32, Served>,
    /// Stand-ins that it has started, by database and number.
    stand_ins: HashMap<(u32, u16), DynamicBackgroundWorker>,
    said: Option<Instant>,
}

impl Launcher {
    /// Starts the workers that are due. Returns the time until the next call.
    fn look(&mut self) -> Duration {
        let requested = shared_memory::requests();
        let found = match transaction(|| Ok(databases::all())) {
            Ok(found) => found,
            Err(failed) => {
                log_failure("could not list databases", &failed);
                // Keeps the requests for the next call.
                for database in requested {
                    self.all.entry(database).or_insert_with(|| Served::new(Instant::now())).asked =
                        true;
                }
                return AGAIN;
            }
        };
        let now = Instant::now();
        let found: Vec<u32> = found.iter().map(|d| d.to_u32()).collect();
        self.all.retain(|database, _| found.contains(database));
        let others: Vec<u32> =
            shared_memory::workers().iter().filter(|w| w.seat == 1).map(|w| w.database).collect();
        for database in found {
            let served = self.all.entry(database).or_insert_with(|| Served::new(now));
            served.asked |= requested.contains(&database);
            if served.is_running() {
                served.live |= shared_memory::is_following(database);
                continue;
            }
            if served.worker.is_some() {
                served.ended(shared_memory::take_ended(database), now);
            } else if others.contains(&database) {
                // A previous launcher started this worker; the worker wakes this launcher when it
                // ends.
                served.live = true;
                served.due = now + AGAIN;
                continue;
            }
            served.ask(now);
        }
        let next = self.start_due(now);
        if !shared_memory::is_crowded() {
            self.start_stand_ins();
        }
        next
    }

    /// Starts the stand-ins that are missing, and wakes those that run.
    fn start_stand_ins(&mut self) {
        self.stand_ins.retain(|_, worker| is_running(worker));
        for (database, seat) in stand_in::missing() {
            let oid = pg_sys::Oid::from(database);
            if self.stand_ins.contains_key(&(database, seat)) || is_wanted_by_others(oid) {
                continue;
            }
            match launch_worker(oid, seat, None) {
                Some(worker) => drop(self.stand_ins.insert((database, seat), worker)),
                // All processes are in use. The slow worker wakes the launcher again.
                None => return,
            }
        }
        let databases: HashSet<u32> =
            self.stand_ins.keys().map(|(database, _)| *database).collect();
        databases.into_iter().for_each(|database| shared_memory::wake(pg_sys::Oid::from(database)));
    }

    /// Starts due workers. Databases without work come last, unless they have waited long;
    /// otherwise the database that has waited longest comes first.
    fn start_due(&mut self, now: Instant) -> Duration {
        let waits = |s: &Served| s.worker.is_none();
        let mut due: Vec<(bool, Instant, u32)> = self
            .all
            .iter()
            .filter(|(_, s)| waits(s) && s.due <= now)
            .map(|(d, s)| (s.is_idle && now.duration_since(s.due) < PROBE, s.due, *d))
            .collect();
        due.sort_unstable();
        let mut probes = self.all.values().filter(|s| s.worker.is_some() && !s.live).count();
        let (mut crowded, mut next) = (false, LOOK);
        for (_, _, database) in due {
            let Some(served) = self.all.get_mut(&database) else { continue };
            // A worker that keeps running has found work, so it does not count as a probe.
            if served.live || probes < PROBES {
                match start(database, served) {
                    Started::Yes => probes += usize::from(!served.live),
                    Started::Wanted => next = next.min(WANTED),
                    Started::Crowded => {
                        crowded = true;
                        break;
                    }
                }
            } else {
                next = next.min(CROWDED);
            }
        }
        shared_memory::set_crowded(crowded);
        if crowded {
            next = next.min(CROWDED);
            if self.said.is_none_or(|at| at.elapsed() > SAID) {
                self.said = Some(now);
                tracing::warn!(
                    detail =
                        "All worker processes are in use. Databases with live flows take turns.",
                    hint = "Increase max_worker_processes.",
                    "could not start a worker"
                );
            }
        }
        let coming = self.all.values().filter(|s| waits(s) && s.due > now);
        coming.map(|s| s.due - now).fold(next, Duration::min)
    }
}

enum Started {
    Yes,
    /// Another session needs the database exclusively.
    Wanted,
    /// All processes are in use.
    Crowded,
}

fn start(database: u32, served: &mut Served) -> Started {
    let oid = pg_sys::Oid::from(database);
    if is_wanted_by_others(oid) {
        return Started::Wanted;
    }
    // Discards the report of a previous worker.
    shared_memory::take_ended(database);
    match launch_worker(oid, 1, None) {
        None => Started::Crowded,
        Some(worker) => {
            served.worker = Some(worker);
            served.started = Instant::now();
            Started::Yes
        }
    }
}

/// Whether somebody wants a database for themselves, or it is gone since it was found: a worker would be in the way, or
/// wait for a database that is gone then.
fn is_wanted_by_others(database: pg_sys::Oid) -> bool {
    let wanted =
        || Ok(locks::database_being_dropped(database) || !databases::all().contains(&database));
    transaction(wanted).unwrap_or(true)
}

fn is_running(worker: &DynamicBackgroundWorker) -> bool {
    use pgrx::bgworkers::BackgroundWorkerStatus::NotYetStarted;
    use pgrx::bgworkers::BackgroundWorkerStatus::Started;
    match worker.pid() {
        Ok(_) => true,
        Err(status) => matches!(status, Started | NotYetStarted),
    }
}
