//! The launcher: finds the databases that have live flows and keeps a worker running in each.
//!
//! It is connected to no database. Whether there is anything to do in one, its worker finds out: it
//! ends where coco is not installed or no flow is live. The launcher tries again when a session there
//! asks for it, and from time to time.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use pgrx::bgworkers::DynamicBackgroundWorker;
use pgrx::prelude::*;

use super::transaction::{complain, transaction};
use super::waiting::Waiting;
use super::{attend, databases, handle_signals, launch, shared, wait};
use crate::catalog::locks;

/// How often a database in which a worker found nothing to do is looked at.
const PROBE: Duration = Duration::from_secs(60);

/// A worker that lasted so long had something to do, and is started again soon.
const USEFUL: Duration = Duration::from_secs(2);
const AGAIN: Duration = Duration::from_secs(3);

/// Between two starts of a worker in one database.
const BETWEEN: Duration = Duration::from_secs(1);

/// How soon a database is looked at again that somebody wanted for themselves.
const WANTED: Duration = Duration::from_millis(100);

struct Served {
    worker: Option<DynamicBackgroundWorker>,
    started: Instant,
    /// A session asked for a worker since it was started: the one that runs may be about to end.
    asked: bool,
    /// How long the last worker was there, once it has ended: one that found nothing ends at once.
    lasted: Option<Duration>,
}

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn coco_launcher_main(_arg: pg_sys::Datum) {
    handle_signals();
    // SAFETY: once, at the start; only shared catalogs can be read.
    unsafe {
        pg_sys::BackgroundWorkerInitializeConnection(std::ptr::null(), std::ptr::null(), 0);
    }
    shared::enter_launcher();
    let mut all: HashMap<u32, Served> = HashMap::new();
    loop {
        attend();
        let requested = shared::requests();
        let mut next = PROBE;
        match transaction(|| Ok(databases::all())) {
            Ok(found) => {
                let found: Vec<u32> = found.iter().map(|d| d.to_u32()).collect();
                all.retain(|database, _| found.contains(database));
                for database in found {
                    let asked = requested.contains(&database);
                    next = next.min(look_after(database, asked, &mut all));
                }
            }
            Err(failed) => {
                complain("databases cannot be listed", &failed);
            }
        }
        wait(next, Waiting::Launcher);
    }
}

/// Starts a worker where there is none and it is time; returns when to look again.
fn look_after(database: u32, asked: bool, all: &mut HashMap<u32, Served>) -> Duration {
    if let Some(served) = all.get_mut(&database) {
        served.asked |= asked;
        if served.worker.as_ref().is_some_and(is_running) {
            return PROBE;
        }
        let lasted = *served.lasted.get_or_insert_with(|| served.started.elapsed());
        let rest = match served.asked {
            true => BETWEEN,
            false if lasted > USEFUL => lasted.saturating_add(AGAIN),
            false => PROBE,
        };
        let left = rest.saturating_sub(served.started.elapsed());
        if !left.is_zero() {
            return left;
        }
    }
    let oid = pg_sys::Oid::from(database);
    // Else the worker would be in the way, or wait for a database that is gone then.
    if transaction(|| Ok(locks::database_is_wanted(oid))).unwrap_or(true) {
        return WANTED;
    }
    let worker = launch(oid, 1, None);
    if worker.is_none() {
        tracing::warn!(hint = "Raise max_worker_processes.", "no worker could be started");
    }
    let served = Served { worker, started: Instant::now(), asked: false, lasted: None };
    all.insert(database, served);
    PROBE
}

fn is_running(worker: &DynamicBackgroundWorker) -> bool {
    use pgrx::bgworkers::BackgroundWorkerStatus::{NotYetStarted, Started};
    match worker.pid() {
        Ok(_) => true,
        Err(status) => matches!(status, Started | NotYetStarted),
    }
}
