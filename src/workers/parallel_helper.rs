//! Helpers: processes that take over partitions of a worker's transaction.
//!
//! If a worker has found many items, and `coco.max_workers` allows further processes, it starts a
//! helper for each partition. It passes the partition in a segment of dynamic shared memory,
//! processes its own partition, and then waits for the helpers.

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
use crate::pg::backend;
use crate::pg::error::Result;
use crate::update::helper_pool::{self, HelperResult, HelperTask};
use crate::update::parallel;
use crate::workers::crash_notes;
use crate::workers::process::{attach_to_database, pause, set_activity, wait_shortly};
use crate::workers::transaction::{log_failure, transaction};
use crate::workers::wait_event::WaitEvent;
use coco_core::counts::Counts;

/// Interval at which a worker checks its helper.
const LOOK: Duration = Duration::from_millis(20);

/// Interval at which a worker checks whether a helper waits for the worker that waits for it.
const DEADLOCK_CHECK: Duration = Duration::from_millis(100);

/// For this time after such a deadlock, the worker uses no helpers.
const HELPER_COOLDOWN: Duration = Duration::from_secs(60);

/// The helpers available to a worker.
#[derive(Default)]
pub struct Helpers {
    spare: Cell<usize>,
    /// The flow that the worker works on.
    flow: Cell<i32>,
    quarrelled: Rc<Cell<Option<Instant>>>,
}

impl Helpers {
    /// Sets how many of a database's processes are not needed for flows of their own, and divides
    /// them among the flows.
    pub fn allow(&self, processes: usize, flows: usize) {
        let flows = flows.max(1);
        self.spare.set(processes.saturating_sub(flows) / flows);
    }
}

impl Helpers {
    /// Sets the flow that the worker works on from now on.
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
        let (database, notify) = (backend::database(), backend::process_id());
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
        // All of max_worker_processes are in use.
        let Ok(process) = started else { return Ok(None) };
        let quarrelled = self.quarrelled.clone();
        Ok(Some(Box::new(Helper { board, process: Some(process), quarrelled })))
    }
}

/// A helper that was started.
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
            // Postgres' deadlock detection does not find this deadlock, because this worker waits
            // for no lock.
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
        // The transaction has failed; the next one does this work. A process that takes the flow's
        // lock waits for the helper to end.
        if let Some(process) = self.process.take() {
            process.terminate();
        }
    }
}

/// The segment of dynamic shared memory that a worker and its helper share.
struct HelperSegment {
    segment: NonNull<pg_sys::dsm_segment>,
}

/// The beginning of the segment; the partition follows.
#[repr(C)]
struct SegmentHeader {
    length: usize,
    /// The helper has committed the partition.
    committed: AtomicBool,
    /// The [`Counts`] in the order of their declaration, and the number of present items.
    counts: [AtomicI64; 8],
}

impl HelperSegment {
    /// Creates the segment. `None` if no memory or segment is available.
    fn make(portion: &[u8]) -> Option<HelperSegment> {
        // Makes dsm_create return NULL instead of an error if all segments are in use.
        const NULL_IF_MAXSEGMENTS: i32 = 1;
        // SAFETY: the segment is as long as the data written to it.
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

    /// Attaches to a segment. `None` if the worker has detached from it.
    fn find(handle: u32) -> Option<HelperSegment> {
        // SAFETY: called outside a transaction, so the segment stays attached until the process
        // ends.
        Some(HelperSegment { segment: NonNull::new(unsafe { pg_sys::dsm_attach(handle) })? })
    }

    fn handle(&self) -> u32 {
        // SAFETY: the segment is attached as long as self lives.
        unsafe { pg_sys::dsm_segment_handle(self.segment.as_ptr()) }
    }

    fn face(&self) -> *const SegmentHeader {
        // SAFETY: as above; segments are aligned to pages.
        unsafe { pg_sys::dsm_segment_address(self.segment.as_ptr()).cast() }
    }

    fn portion(&self) -> &[u8] {
        // SAFETY: `make` wrote these bytes, and nothing changes them.
        unsafe {
            let face = self.face();
            std::slice::from_raw_parts(face.add(1).cast::<u8>(), (*face).length)
        }
    }

    fn commit(&self, done: &HelperResult) {
        let Counts { seen, skipped, unchanged, evaluated, upserted, deleted, failed } = done.counts;
        let all = [seen, skipped, unchanged, evaluated, upserted, deleted, failed, done.present];
        // SAFETY: as above; both processes access the fields only through atomics.
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
        // A failed transaction detaches from the segment by itself.
        if !std::thread::panicking() {
            // SAFETY: `make` or `find` attached the segment.
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
    set_activity("coco: part of a transaction");
    crash_notes::enter(database);
    crash_notes::note(BackgroundWorker::get_extra().parse().unwrap_or(0));
    match transaction(|| parallel::run_helper_task(board.portion())) {
        Ok(done) => board.commit(&done),
        Err(failed) => log_failure("helper failed and left its work to the worker", &failed),
    }
}
