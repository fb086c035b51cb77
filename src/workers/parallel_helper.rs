//! Helpers: processes that take care of portions of a worker's turn.
//!
//! A worker that has found many items, and for which there are processes to spare (`coco.max_workers`), starts
//! one for each portion, tells it in a piece of shared memory what to do, and waits for it when its own
//! portion is done.

use pgrx::bgworkers::{
    BackgroundWorker, BackgroundWorkerBuilder, BackgroundWorkerStatus, BgWorkerStartTime,
    DynamicBackgroundWorker,
};
use pgrx::prelude::*;
use std::cell::Cell;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use crate::catalog::locks;
use crate::pg::error::Result;
use crate::update::helper_pool::{self, HelperResult, HelperTask};
use crate::update::parallel;
use crate::workers::crash_notes;
use crate::workers::process::{attach_to_database, pause, set_activity, wait_shortly};
use crate::workers::transaction::{log_failure, transaction};
use crate::workers::wait_event::WaitEvent;
use coco_core::counts::Counts;

/// Between two looks at a helper.
const LOOK: Duration = Duration::from_millis(20);

/// Between two looks whether a helper waits for the worker that waits for it.
const DEADLOCK_CHECK: Duration = Duration::from_millis(100);

/// After such a quarrel no helper is asked for so long.
const HELPER_COOLDOWN: Duration = Duration::from_secs(60);

/// The helpers that a worker can have.
#[derive(Default)]
pub struct Helpers {
    spare: Cell<usize>,
    /// The flow whose turn it is.
    flow: Cell<i32>,
    quarrelled: Rc<Cell<Option<Instant>>>,
}

impl Helpers {
    /// How many of the processes that a database may have are not needed by flows of their own.
    pub fn allow(&self, processes: usize, flows: usize) {
        let flows = flows.max(1);
        self.spare.set(processes.saturating_sub(flows) / flows);
    }
}

impl Helpers {
    /// Tells which flow is worked on from now on.
    pub fn work_on(&self, flow: i32) {
        self.flow.set(flow);
    }
}

impl helper_pool::HelperPool for Helpers {
    fn count(&self) -> usize {
        match self.quarrelled.get() {
            Some(at) if at.elapsed() < HELPER_COOLDOWN => 0,
            _ => self.spare.get(),
        }
    }

    fn ask(&self, portion: &[u8]) -> Result<Option<Box<dyn HelperTask>>> {
        let Some(board) = HelperSegment::make(portion) else { return Ok(None) };
        // SAFETY: reads the backend's own state.
        let (database, notify) = unsafe { (pg_sys::MyDatabaseId, pg_sys::MyProcPid) };
        let argument = (u64::from(board.handle()) << 32) | u64::from(database.to_u32());
        let started = BackgroundWorkerBuilder::new("coco helper")
            .set_type("coco helper")
            .set_library("coco")
            .set_function("coco_helper_main")
            .enable_spi_access()
            .set_start_time(BgWorkerStartTime::RecoveryFinished)
            .set_restart_time(None)
            .set_argument(Some(pg_sys::Datum::from(argument)))
            .set_extra(&self.flow.get().to_string())
            .set_notify_pid(notify)
            .load_dynamic();
        // All of max_worker_processes are taken.
        let Ok(process) = started else { return Ok(None) };
        let quarrelled = self.quarrelled.clone();
        Ok(Some(Box::new(Helper { board, process: Some(process), quarrelled })))
    }
}

/// A helper that was asked.
struct Helper {
    board: HelperSegment,
    process: Option<DynamicBackgroundWorker>,
    quarrelled: Rc<Cell<Option<Instant>>>,
}

impl HelperTask for Helper {
    fn done(mut self: Box<Self>) -> Result<Option<HelperResult>> {
        let mut looked = Instant::now();
        while let Some(process) = &self.process {
            if self.board.is_done() {
                self.process = None;
                break;
            }
            let pid = match process.pid() {
                Ok(pid) => pid,
                Err(BackgroundWorkerStatus::NotYetStarted) => 0,
                Err(_) => {
                    self.process = None;
                    break;
                }
            };
            // Nobody else would see it: what this worker waits for is no lock.
            if pid != 0 && looked.elapsed() > DEADLOCK_CHECK {
                looked = Instant::now();
                if locks::is_blocked_by_us(pid)? {
                    self.quarrelled.set(Some(looked));
                    if let Some(process) = self.process.take() {
                        process.terminate().wait_for_shutdown().ok();
                    }
                    break;
                }
            }
            pause(LOOK, WaitEvent::Helper);
        }
        Ok(self.board.done())
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // What it would do, the next turn does: this one has failed. Who takes the flow's lock waits for it.
        if let Some(process) = self.process.take() {
            process.terminate();
        }
    }
}

/// What a worker and its helper have in common: a piece of shared memory.
struct HelperSegment {
    segment: NonNull<pg_sys::dsm_segment>,
}

/// What it begins with; the portion follows.
#[repr(C)]
struct SegmentHeader {
    length: usize,
    /// The portion is committed.
    committed: AtomicBool,
    /// [`Counts`] in the order of their declaration, and the items that are there.
    counts: [AtomicI64; 8],
}

impl HelperSegment {
    /// `None` where there is no room for it.
    fn make(portion: &[u8]) -> Option<HelperSegment> {
        // Not an error where all segments are taken.
        const NULL_IF_MAXSEGMENTS: i32 = 1;
        // SAFETY: the segment is as long as what is written to it.
        unsafe {
            let segment =
                pg_sys::dsm_create(size_of::<SegmentHeader>() + portion.len(), NULL_IF_MAXSEGMENTS);
            let board = HelperSegment { segment: NonNull::new(segment)? };
            let face = board.face().cast_mut();
            let counts = Default::default();
            let committed = AtomicBool::new(false);
            face.write(SegmentHeader { length: portion.len(), committed, counts });
            face.add(1).cast::<u8>().copy_from_nonoverlapping(portion.as_ptr(), portion.len());
            Some(board)
        }
    }

    /// `None` where who made it has let go of it.
    fn find(handle: u32) -> Option<HelperSegment> {
        // SAFETY: outside of a transaction: it stays until the process ends.
        Some(HelperSegment { segment: NonNull::new(unsafe { pg_sys::dsm_attach(handle) })? })
    }

    fn handle(&self) -> u32 {
        // SAFETY: attached as long as self.
        unsafe { pg_sys::dsm_segment_handle(self.segment.as_ptr()) }
    }

    fn face(&self) -> *const SegmentHeader {
        // SAFETY: as above; segments are aligned to pages.
        unsafe { pg_sys::dsm_segment_address(self.segment.as_ptr()).cast() }
    }

    fn portion(&self) -> &[u8] {
        // SAFETY: written by `make`, and not changed since.
        unsafe {
            let face = self.face();
            std::slice::from_raw_parts(face.add(1).cast::<u8>(), (*face).length)
        }
    }

    fn commit(&self, done: &HelperResult) {
        let Counts { seen, skipped, unchanged, evaluated, upserted, deleted, failed } = done.counts;
        let all = [seen, skipped, unchanged, evaluated, upserted, deleted, failed, done.present];
        // SAFETY: as above; both processes use atomics alone.
        let face = unsafe { &*self.face() };
        for (place, count) in face.counts.iter().zip(all) {
            place.store(count, Ordering::Relaxed);
        }
        face.committed.store(true, Ordering::Release);
    }

    fn is_done(&self) -> bool {
        // SAFETY: as above.
        unsafe { (*self.face()).committed.load(Ordering::Acquire) }
    }

    fn done(&self) -> Option<HelperResult> {
        if !self.is_done() {
            return None;
        }
        // SAFETY: as above.
        let counts = unsafe { &(*self.face()).counts };
        let [seen, skipped, unchanged, evaluated, upserted, deleted, failed, present] =
            std::array::from_fn(|n| counts[n].load(Ordering::Relaxed));
        let counts = Counts { seen, skipped, unchanged, evaluated, upserted, deleted, failed };
        Some(HelperResult { counts, present })
    }
}

impl Drop for HelperSegment {
    fn drop(&mut self) {
        // A transaction that fails lets go of it by itself.
        if !std::thread::panicking() {
            // SAFETY: attached by `make` or `find`.
            unsafe { pg_sys::dsm_detach(self.segment.as_ptr()) };
        }
    }
}

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn coco_helper_main(argument: pg_sys::Datum) {
    let database = pg_sys::Oid::from(argument.value() as u32);
    attach_to_database(database, c"coco helper");
    wait_shortly();
    let Some(board) = HelperSegment::find((argument.value() >> 32) as u32) else { return };
    set_activity("coco: portion of a turn");
    crash_notes::enter(database);
    crash_notes::note(BackgroundWorker::get_extra().parse().unwrap_or(0));
    match transaction(|| parallel::run_helper_task(board.portion())) {
        Ok(done) => board.commit(&done),
        Err(failed) => log_failure("a portion of a turn is left to the worker", &failed),
    }
}
