//! How many workers a database has: `coco.max_workers`, and stand-ins beyond them, which follow the other flows of the
//! database while a turn takes long.
//!
//! A worker whose turn takes long wakes the launcher, which starts a stand-in. That leaves when it has not been needed
//! for some seconds. Without the library in shared_preload_libraries there is no launcher, and there are no stand-ins.

use pgrx::guc::GucSetting;
use pgrx::pg_sys;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::pg::clock;
use crate::workers::process::MAX_SEATS;
use crate::workers::shared_memory::{self, WorkerSlot};
use crate::workers::timer::Timer;
use coco_core::stand_in::{LONG_WAIT, Turn, allowed_workers};

/// The largest number of workers per database, without stand-ins.
pub static MAX_WORKERS: GucSetting<i32> = GucSetting::<i32>::new(1);

/// Interval at which a worker wakes the launcher while its turn is slow.
const WAKE_AGAIN: Duration = Duration::from_millis(500);

/// The launcher's index among the server's processes, for the signal handler; [`usize::MAX`] if no
/// launcher runs.
static LAUNCHER: AtomicUsize = AtomicUsize::new(usize::MAX);

thread_local! {
    static TIMER: Timer = const { Timer::new(wake_launcher) };
}

/// Wakes the launcher. Runs in a signal handler.
extern "C" fn wake_launcher() {
    let process = LAUNCHER.load(Ordering::Relaxed);
    if process != usize::MAX {
        shared_memory::set_latch(process);
    }
}

/// Runs the turn of a flow. If it is slow, wakes the launcher, which starts a stand-in if one is
/// needed.
pub fn turn_among_others<T>(work: impl FnOnce() -> T) -> T {
    let Some(launcher) = shared_memory::launcher() else { return work() };
    LAUNCHER.store(launcher, Ordering::Relaxed);
    TIMER.with(|timer| timer.during(LONG_WAIT, WAKE_AGAIN, work))
}

/// Returns the setting `coco.max_workers`.
pub fn max_workers() -> u16 {
    u16::try_from(MAX_WORKERS.get()).unwrap_or(1).clamp(1, MAX_SEATS)
}

/// Reports whether the worker with this number runs transactions of flows: it is a regular worker, or
/// a stand-in that is needed.
pub fn takes_turns(database: pg_sys::Oid, seat: u16) -> bool {
    seat <= max_workers() || seat <= allowed(database.to_u32(), &shared_memory::workers())
}

/// Returns the stand-ins that are needed and do not run, by database and number.
pub fn missing() -> Vec<(u32, u16)> {
    let workers = shared_memory::workers();
    let mut databases: Vec<u32> = workers.iter().map(|w| w.database).collect();
    databases.sort_unstable();
    databases.dedup();
    let there = |database, seat| workers.iter().any(|w| w.database == database && w.seat == seat);
    let stand_ins = |database| {
        (max_workers() + 1..=allowed(database, &workers)).map(move |seat| (database, seat))
    };
    databases.into_iter().flat_map(stand_ins).filter(|(d, seat)| !there(*d, *seat)).collect()
}

/// Returns the number of workers that a database may have now.
fn allowed(database: u32, workers: &[WorkerSlot]) -> u16 {
    let now = clock::timestamp_micros();
    let of_database = || workers.iter().filter(|w| w.database == database && w.seat > 0);
    let turns: Vec<Turn> = of_database().filter(|w| w.flow != 0).map(|w| turn(w, now)).collect();
    let live_flows = of_database().map(|w| w.live_flows).max().unwrap_or(0);
    allowed_workers(max_workers(), live_flows, &turns).min(MAX_SEATS)
}

fn turn(worker: &WorkerSlot, now: i64) -> Turn {
    let elapsed = u64::try_from(now.saturating_sub(worker.since)).unwrap_or(0);
    Turn { elapsed: Duration::from_micros(elapsed), waits: worker.waits() }
}
