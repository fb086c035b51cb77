//! Shared memory: the activity of workers and sessions, the processes to wake, and the databases
//! that request a worker.
//!
//! It exists only if the library is in shared_preload_libraries. Its size is fixed.

use crate::pg::{backend, clock};
use pgrx::prelude::*;
use pgrx::{PGRXSharedMemory, PgLwLock, pg_shmem_init, pg_sys};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

/// Number of workers, of all databases, that can be visible and woken at a time.
const WORKERS: usize = 64;

/// Number of sessions running an update that can be visible at a time.
const SESSIONS: usize = 64;

/// The activity of a worker, or of a session that runs an update.
#[derive(Clone, Copy, Debug, Default)]
pub struct WorkerSlot {
    pub database: u32,
    pub pid: i32,
    pub seat: u16,
    process: usize,
    /// The flow and the source that it works on; 0 while it waits.
    pub flow: i32,
    pub source: i32,
    /// Number of items processed, and their total number in this transaction.
    pub done: i64,
    pub total: i64,
    /// When it processed the first of them: microseconds since 2000-01-01.
    pub began: i64,
    /// When it began with this flow, or began to wait: microseconds since 2000-01-01.
    pub since: i64,
    pub turns: i64,
    pub evaluated: i64,
    pub upserted: i64,
    pub deleted: i64,
    pub failed: i64,
    /// Number of live flows that the worker knows.
    pub live_flows: u32,
    /// When a transaction in its database was last canceled to change a flow: microseconds since
    /// 2000-01-01.
    canceled_at: i64,
}

impl WorkerSlot {
    /// Reports whether the process waits at this moment, except for the disk and for locks that are
    /// held only briefly.
    pub fn waits(&self) -> bool {
        // SAFETY: `own_process` gave the index; the value is one word, which only its process writes.
        let event = unsafe {
            let proc = (*pg_sys::ProcGlobal).allProcs.add(self.process);
            (&raw const (*proc).wait_event_info).read_volatile()
        };
        let class = event & 0xFF00_0000;
        [
            pg_sys::PG_WAIT_LOCK,
            pg_sys::PG_WAIT_CLIENT,
            pg_sys::PG_WAIT_EXTENSION,
            pg_sys::PG_WAIT_IPC,
            pg_sys::PG_WAIT_TIMEOUT,
        ]
        .contains(&class)
    }
}

/// A cancel reaches its worker within this time, in microseconds.
const CANCEL_ARRIVES: i64 = 10_000_000;

/// The last report of a database's first worker. The launcher reads it when the worker has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerEnd {
    /// Ended by others, before it knew whether there are live flows.
    Looking,
    /// Ended by others, while it followed live flows.
    Following,
    /// Found nothing to do.
    Idle,
    /// Found that a dump is being restored.
    Restoring,
    /// Had nothing to do, and other databases waited for its process.
    GaveWay,
    /// Another session needs exclusive use of the database, or the extension was dropped.
    Left,
    /// The extension in the database has another version than the library.
    OtherVersion,
    /// Could not begin.
    Failed,
}

#[derive(Default)]
struct SharedState {
    workers: heapless::Vec<WorkerSlot, WORKERS>,
    /// Sessions that run an update themselves.
    sessions: heapless::Vec<WorkerSlot, SESSIONS>,
    /// The launcher's index among the server's processes.
    launcher: Option<usize>,
    /// Databases that request a worker.
    requests: heapless::Vec<u32, WORKERS>,
    /// The last reports of the first workers of databases.
    ended: heapless::Vec<(u32, WorkerEnd), WORKERS>,
    /// Databases for which the log already contains that extension and library differ in version.
    other_version: heapless::Vec<u32, WORKERS>,
    /// A worker could not be started, because all processes are in use.
    crowded: bool,
}

// SAFETY: plain values of fixed size, behind a lock.
unsafe impl PGRXSharedMemory for SharedState {}

// SAFETY: the name is coco's.
static SHARED: PgLwLock<SharedState> = unsafe { PgLwLock::new(c"coco") };

thread_local! {
    /// The exit callback of this process is registered.
    static LISTENING: Cell<bool> = const { Cell::new(false) };
}

static AVAILABLE: AtomicBool = AtomicBool::new(false);

/// Reserves the memory. Called only in the postmaster.
pub fn define() {
    // The macro tests for features of older servers.
    #[allow(unexpected_cfgs)]
    {
        pg_shmem_init!(SHARED);
    }
    AVAILABLE.store(true, Ordering::Relaxed);
}

/// Reports whether coco's shared memory exists.
pub fn available() -> bool {
    AVAILABLE.load(Ordering::Relaxed)
}

/// Returns this process's index among the server's processes.
fn own_process() -> usize {
    // SAFETY: MyProc is an element of the array.
    unsafe { pg_sys::MyProc.offset_from((*pg_sys::ProcGlobal).allProcs) as usize }
}

unsafe extern "C-unwind" {
    // Declared here because pgrx's binding has a guard, which must not run in a signal handler.
    fn SetLatch(latch: *mut pg_sys::Latch);
}

/// Wakes a process. A signal handler may call this.
pub fn set_latch(process: usize) {
    // SAFETY: process numbers come from `own_process`. If the process has ended, or another process
    // has its slot, setting the latch does no harm.
    unsafe {
        let proc = (*pg_sys::ProcGlobal).allProcs.add(process);
        SetLatch(&raw mut (*proc).procLatch);
    }
}

/// Wakes the workers of a database.
pub fn wake(database: pg_sys::Oid) {
    if !available() {
        return;
    }
    let shared = SHARED.share();
    for slot in shared.workers.iter().filter(|s| s.database == database.to_u32()) {
        set_latch(slot.process);
    }
}

/// Requests a worker from the launcher, and wakes the database's current workers.
pub fn request(database: pg_sys::Oid) {
    if !available() {
        return;
    }
    let launcher = {
        let mut shared = SHARED.exclusive();
        if !shared.requests.contains(&database.to_u32()) {
            // If the list is full, the launcher still finds the database soon, because it looks at
            // all databases.
            shared.requests.push(database.to_u32()).ok();
        }
        shared.launcher
    };
    if let Some(process) = launcher {
        set_latch(process);
    }
    wake(database);
}

/// Registers this process as the launcher.
pub fn enter_launcher() {
    SHARED.exclusive().launcher = Some(own_process());
}

/// Returns the launcher's place among the server's processes.
pub fn launcher() -> Option<usize> {
    if available() { SHARED.share().launcher } else { None }
}

/// Returns the databases that requested a worker since the last call.
pub fn requests() -> Vec<u32> {
    let mut shared = SHARED.exclusive();
    let all = shared.requests.iter().copied().collect();
    shared.requests.clear();
    all
}

/// Stores the report of a database's first worker, for the launcher to read when the worker has
/// ended.
pub fn note_ended(database: pg_sys::Oid, how: WorkerEnd) {
    if !available() {
        return;
    }
    let mut shared = SHARED.exclusive();
    match shared.ended.iter_mut().find(|(d, _)| *d == database.to_u32()) {
        Some((_, known)) => *known = how,
        // If the list is full, the launcher starts a worker for the database again a little later.
        None => drop(shared.ended.push((database.to_u32(), how))),
    }
}

/// Reports whether a database's first worker has found live flows.
pub fn is_following(database: u32) -> bool {
    SHARED.share().ended.contains(&(database, WorkerEnd::Following))
}

/// Returns and removes the report of a database's first worker.
pub fn take_ended(database: u32) -> Option<WorkerEnd> {
    let mut shared = SHARED.exclusive();
    let how = shared.ended.iter().find(|(d, _)| *d == database).map(|(_, how)| *how);
    shared.ended.retain(|(d, _)| *d != database);
    how
}

/// Records whether the extension in a database has another version than the library. Returns
/// whether it was already recorded as another version.
pub fn note_version(database: pg_sys::Oid, is_other: bool) -> bool {
    if !available() {
        return false;
    }
    let database = database.to_u32();
    let mut shared = SHARED.exclusive();
    let known = shared.other_version.contains(&database);
    match is_other {
        true if !known => drop(shared.other_version.push(database)),
        false if known => shared.other_version.retain(|other| *other != database),
        _ => {}
    }
    known
}

/// Records whether databases wait for a process.
pub fn set_crowded(crowded: bool) {
    SHARED.exclusive().crowded = crowded;
}

/// Reports whether databases wait for a process.
pub fn is_crowded() -> bool {
    available() && SHARED.share().crowded
}

/// Registers this process as a worker until it ends.
pub fn enter(database: pg_sys::Oid, seat: u16) {
    if !available() {
        return;
    }
    // SAFETY: the callback is a plain function.
    unsafe { pg_sys::before_shmem_exit(Some(leave), pg_sys::Datum::from(0usize)) };
    let slot = WorkerSlot {
        database: database.to_u32(),
        pid: backend::process_id(),
        seat,
        process: own_process(),
        since: clock::timestamp_micros(),
        ..Default::default()
    };
    // If no slot is free, the worker is invisible and finds changes only by polling.
    SHARED.exclusive().workers.push(slot).ok();
}

#[pg_guard]
unsafe extern "C-unwind" fn leave(_code: i32, _arg: pg_sys::Datum) {
    let pid = backend::process_id();
    let launcher = {
        let mut shared = SHARED.exclusive();
        shared.workers.retain(|s| s.pid != pid);
        shared.launcher
    };
    // The server notifies only the launcher that started this process, and that launcher may have
    // ended.
    if let Some(process) = launcher {
        set_latch(process);
    }
}

/// Changes the activity that other processes see of this process.
pub fn report(change: impl FnOnce(&mut WorkerSlot)) {
    if !available() {
        return;
    }
    let pid = backend::process_id();
    let mut shared = SHARED.exclusive();
    let SharedState { workers, sessions, .. } = &mut *shared;
    if let Some(slot) = workers.iter_mut().chain(sessions).find(|s| s.pid == pid) {
        change(slot);
    }
}

/// Announces to the workers of this database that a transaction will be canceled in order to change
/// its flow.
pub fn announce_cancel() {
    if !available() {
        return;
    }
    let (database, now) = (backend::database(), clock::timestamp_micros());
    let mut shared = SHARED.exclusive();
    for slot in shared.workers.iter_mut().filter(|s| s.database == database.to_u32()) {
        slot.canceled_at = now;
    }
}

/// Reports whether the cancel that ended this worker's transaction may have come from a session
/// that changes a flow, see [`announce_cancel`]. That flow may be another one: the cancel may have
/// arrived after the transaction it was meant for.
pub fn cancel_was_announced() -> bool {
    if !available() {
        return false;
    }
    let (pid, now) = (backend::process_id(), clock::timestamp_micros());
    let shared = SHARED.share();
    let own = shared.workers.iter().find(|s| s.pid == pid);
    own.is_some_and(|s| (0..CANCEL_ARRIVES).contains(&now.saturating_sub(s.canceled_at)))
}

/// Registers that this session runs an update, until [`leave_session`] or the session's end.
pub fn enter_session(flow: i32) {
    if !available() {
        return;
    }
    if !LISTENING.replace(true) {
        // SAFETY: a plain function, registered once per backend.
        unsafe {
            pg_sys::before_shmem_exit(Some(leave_session_at_exit), pg_sys::Datum::from(0usize));
        }
    }
    leave_session();
    let slot = WorkerSlot {
        database: backend::database().to_u32(),
        pid: backend::process_id(),
        process: own_process(),
        flow,
        since: clock::timestamp_micros(),
        ..Default::default()
    };
    // If no slot is free, the update is invisible.
    SHARED.exclusive().sessions.push(slot).ok();
}

/// Removes this session's registration.
pub fn leave_session() {
    if !available() {
        return;
    }
    let pid = backend::process_id();
    SHARED.exclusive().sessions.retain(|s| s.pid != pid);
}

#[pg_guard]
unsafe extern "C-unwind" fn leave_session_at_exit(_code: i32, _arg: pg_sys::Datum) {
    leave_session();
}

/// Returns all workers, of all databases.
pub fn workers() -> Vec<WorkerSlot> {
    match available() {
        true => SHARED.share().workers.iter().copied().collect(),
        false => vec![],
    }
}

/// Returns all sessions that run an update, of all databases.
pub fn sessions() -> Vec<WorkerSlot> {
    match available() {
        true => SHARED.share().sessions.iter().copied().collect(),
        false => vec![],
    }
}
