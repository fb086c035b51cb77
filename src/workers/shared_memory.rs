//! Shared memory: who works on what, whom to wake, and which databases ask for a worker.
//!
//! It is there only with the library in shared_preload_libraries; all of fixed size.

use pgrx::prelude::*;
use pgrx::{PGRXSharedMemory, PgLwLock, pg_shmem_init, pg_sys};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

/// Workers of all databases that can be seen, and woken, at a time.
const WORKERS: usize = 64;

/// Sessions that can be seen updating at a time.
const SESSIONS: usize = 64;

/// What a worker is doing.
#[derive(Clone, Copy, Debug, Default)]
pub struct WorkerSlot {
    pub database: u32,
    pub pid: i32,
    pub seat: u16,
    process: usize,
    /// The flow and the source it works on; 0 while it waits.
    pub flow: i32,
    pub source: i32,
    /// Items looked at, and how many there are to look at in this turn.
    pub done: i64,
    pub total: i64,
    /// When the first of them was: microseconds since 2000-01-01.
    pub began: i64,
    /// When it turned to this flow, or began to wait: microseconds since 2000-01-01.
    pub since: i64,
    pub turns: i64,
    pub evaluated: i64,
    pub upserted: i64,
    pub deleted: i64,
    pub failed: i64,
    /// Live flows that it knows of.
    pub live_flows: u32,
    /// When a turn in its database was last canceled to change the flow: microseconds since 2000-01-01.
    canceled_at: i64,
}

impl WorkerSlot {
    /// Whether its process waits just now, for anything but the disk and what is over at once.
    pub fn waits(&self) -> bool {
        // SAFETY: an element of the array, by `own_process`; the value is one word, which its process alone writes.
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

/// A cancel reaches the worker that it was sent to within this time, in microseconds.
const CANCEL_ARRIVES: i64 = 10_000_000;

/// What is known of the first worker of a database, for the launcher to learn when it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerEnd {
    /// Not by itself: it was about to look what there is.
    Looking,
    /// Not by itself: it followed live flows.
    Following,
    /// It has found nothing to do.
    Idle,
    /// It has found that a dump is being restored.
    Restoring,
    /// It had nothing to do just then, and others waited for its process.
    GaveWay,
    /// Somebody wants the database for themselves, or the extension was dropped.
    Left,
    /// The extension in the database is another version than the library.
    OtherVersion,
    /// It could not begin.
    Failed,
}

#[derive(Default)]
struct SharedState {
    workers: heapless::Vec<WorkerSlot, WORKERS>,
    /// Sessions that make an update themselves.
    sessions: heapless::Vec<WorkerSlot, SESSIONS>,
    /// The launcher's place among the server's processes.
    launcher: Option<usize>,
    /// Databases that ask for a worker.
    requests: heapless::Vec<u32, WORKERS>,
    /// What became of the first workers of databases.
    ended: heapless::Vec<(u32, WorkerEnd), WORKERS>,
    /// Databases of which it was said that the extension there is another version than the library.
    other_version: heapless::Vec<u32, WORKERS>,
    /// A worker could not be started: all processes are taken.
    crowded: bool,
}

// SAFETY: plain values of fixed size, behind a lock.
unsafe impl PGRXSharedMemory for SharedState {}

// SAFETY: the name is coco's.
static SHARED: PgLwLock<SharedState> = unsafe { PgLwLock::new(c"coco") };

thread_local! {
    /// The end of this process is heard of.
    static LISTENING: Cell<bool> = const { Cell::new(false) };
}

static AVAILABLE: AtomicBool = AtomicBool::new(false);

/// Reserves the memory; in the postmaster alone.
pub fn define() {
    // The macro asks for features of older servers.
    #[allow(unexpected_cfgs)]
    {
        pg_shmem_init!(SHARED);
    }
    AVAILABLE.store(true, Ordering::Relaxed);
}

pub fn available() -> bool {
    AVAILABLE.load(Ordering::Relaxed)
}

/// This process's place among the server's.
fn own_process() -> usize {
    // SAFETY: MyProc is an element of the array.
    unsafe { pg_sys::MyProc.offset_from((*pg_sys::ProcGlobal).allProcs) as usize }
}

unsafe extern "C-unwind" {
    // As it is: through pgrx's bindings it would be guarded, which a signal handler must not be.
    fn SetLatch(latch: *mut pg_sys::Latch);
}

/// Wakes a process. May be called in a signal handler.
pub fn set_latch(process: usize) {
    // SAFETY: process numbers come from `own_process`; the latch of a process that is gone, or of
    // another that took its place, may be set without harm.
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

/// Asks the launcher for a worker, and wakes the one there is.
pub fn request(database: pg_sys::Oid) {
    if !available() {
        return;
    }
    let launcher = {
        let mut shared = SHARED.exclusive();
        if !shared.requests.contains(&database.to_u32()) {
            // Where it is full the launcher looks at all databases soon anyway.
            shared.requests.push(database.to_u32()).ok();
        }
        shared.launcher
    };
    if let Some(process) = launcher {
        set_latch(process);
    }
    wake(database);
}

/// This process is the launcher.
pub fn enter_launcher() {
    SHARED.exclusive().launcher = Some(own_process());
}

/// The launcher's place among the server's processes.
pub fn launcher() -> Option<usize> {
    if available() { SHARED.share().launcher } else { None }
}

/// Databases that have asked for a worker since the last call.
pub fn requests() -> Vec<u32> {
    let mut shared = SHARED.exclusive();
    let all = shared.requests.iter().copied().collect();
    shared.requests.clear();
    all
}

/// Notes what the launcher is to know of a database's first worker when that has ended.
pub fn note_ended(database: pg_sys::Oid, how: WorkerEnd) {
    if !available() {
        return;
    }
    let mut shared = SHARED.exclusive();
    match shared.ended.iter_mut().find(|(d, _)| *d == database.to_u32()) {
        Some((_, known)) => *known = how,
        // Where it is full the launcher tries it again a little later.
        None => drop(shared.ended.push((database.to_u32(), how))),
    }
}

/// Whether a database's first worker has found live flows.
pub fn is_following(database: u32) -> bool {
    SHARED.share().ended.contains(&(database, WorkerEnd::Following))
}

/// What became of a database's first worker; forgotten by that.
pub fn take_ended(database: u32) -> Option<WorkerEnd> {
    let mut shared = SHARED.exclusive();
    let how = shared.ended.iter().find(|(d, _)| *d == database).map(|(_, how)| *how);
    shared.ended.retain(|(d, _)| *d != database);
    how
}

/// Notes whether the extension in a database is another version than the library. Returns whether that is known already.
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

/// Says whether databases wait for a process.
pub fn set_crowded(crowded: bool) {
    SHARED.exclusive().crowded = crowded;
}

/// Whether databases wait for a process.
pub fn is_crowded() -> bool {
    available() && SHARED.share().crowded
}

/// This process is a worker, until it ends.
pub fn enter(database: pg_sys::Oid, seat: u16) {
    if !available() {
        return;
    }
    // SAFETY: reads the process's own state; the callback is a plain function.
    let slot = unsafe {
        pg_sys::before_shmem_exit(Some(leave), pg_sys::Datum::from(0usize));
        WorkerSlot {
            database: database.to_u32(),
            pid: pg_sys::MyProcPid,
            seat,
            process: own_process(),
            since: pg_sys::GetCurrentTimestamp(),
            ..Default::default()
        }
    };
    // Where there is no room the worker works unseen, and looks for changes by itself.
    SHARED.exclusive().workers.push(slot).ok();
}

#[pg_guard]
unsafe extern "C-unwind" fn leave(_code: i32, _arg: pg_sys::Datum) {
    // SAFETY: reads the process's own state.
    let pid = unsafe { pg_sys::MyProcPid };
    let launcher = {
        let mut shared = SHARED.exclusive();
        shared.workers.retain(|s| s.pid != pid);
        shared.launcher
    };
    // One that has not started this process is not told of its end by the server.
    if let Some(process) = launcher {
        set_latch(process);
    }
}

/// Changes what others see of this process.
pub fn report(change: impl FnOnce(&mut WorkerSlot)) {
    if !available() {
        return;
    }
    // SAFETY: reads the process's own state.
    let pid = unsafe { pg_sys::MyProcPid };
    let mut shared = SHARED.exclusive();
    let SharedState { workers, sessions, .. } = &mut *shared;
    if let Some(slot) = workers.iter_mut().chain(sessions).find(|s| s.pid == pid) {
        change(slot);
    }
}

/// Tells the workers of this database that a turn will be canceled in order to change its flow.
pub fn announce_cancel() {
    if !available() {
        return;
    }
    // SAFETY: reads the process's own state, and the clock.
    let (database, now) = unsafe { (pg_sys::MyDatabaseId, pg_sys::GetCurrentTimestamp()) };
    let mut shared = SHARED.exclusive();
    for slot in shared.workers.iter_mut().filter(|s| s.database == database.to_u32()) {
        slot.canceled_at = now;
    }
}

/// Whether a cancel that ended this worker's turn may have been sent in order to change a flow, by
/// [`announce_cancel`]. That may be another flow than that of the turn: its own turn was over before the cancel came.
pub fn cancel_was_announced() -> bool {
    if !available() {
        return false;
    }
    // SAFETY: reads the process's own state, and the clock.
    let (pid, now) = unsafe { (pg_sys::MyProcPid, pg_sys::GetCurrentTimestamp()) };
    let shared = SHARED.share();
    let own = shared.workers.iter().find(|s| s.pid == pid);
    own.is_some_and(|s| (0..CANCEL_ARRIVES).contains(&now.saturating_sub(s.canceled_at)))
}

/// This session makes an update, until [`leave_session`], or its end.
pub fn enter_session(flow: i32) {
    if !available() {
        return;
    }
    if !LISTENING.replace(true) {
        // SAFETY: a plain function, registered once a backend.
        unsafe {
            pg_sys::before_shmem_exit(Some(leave_session_at_exit), pg_sys::Datum::from(0usize));
        }
    }
    leave_session();
    // SAFETY: reads the process's own state.
    let slot = unsafe {
        WorkerSlot {
            database: pg_sys::MyDatabaseId.to_u32(),
            pid: pg_sys::MyProcPid,
            process: own_process(),
            flow,
            since: pg_sys::GetCurrentTimestamp(),
            ..Default::default()
        }
    };
    // Where there is no room it goes unseen.
    SHARED.exclusive().sessions.push(slot).ok();
}

/// What this session was doing it does no more.
pub fn leave_session() {
    if !available() {
        return;
    }
    // SAFETY: reads the process's own state.
    let pid = unsafe { pg_sys::MyProcPid };
    SHARED.exclusive().sessions.retain(|s| s.pid != pid);
}

#[pg_guard]
unsafe extern "C-unwind" fn leave_session_at_exit(_code: i32, _arg: pg_sys::Datum) {
    leave_session();
}

/// All workers, of all databases.
pub fn workers() -> Vec<WorkerSlot> {
    match available() {
        true => SHARED.share().workers.iter().copied().collect(),
        false => vec![],
    }
}

/// All sessions that make an update, of all databases.
pub fn sessions() -> Vec<WorkerSlot> {
    match available() {
        true => SHARED.share().sessions.iter().copied().collect(),
        false => vec![],
    }
}
