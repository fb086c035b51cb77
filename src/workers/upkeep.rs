//! Work of a worker for its database in addition to updating flows.

use pgrx::bgworkers::{BackgroundWorkerStatus, DynamicBackgroundWorker};
use pgrx::pg_sys;
use std::time::{Duration, Instant};

use crate::capture::triggers;
use crate::catalog::version_rows;
use crate::declare::gapless::swap;
use crate::flows::live_rows::{self, LiveFlow};
use crate::flows::verification;
use crate::memo::kept;
use crate::update::limits;
use crate::workers::process::launch_update_worker;
use crate::workers::shared_memory::WorkerEnd;
use crate::workers::transaction::{log_failure, transaction};
use crate::workers::{crash_notes, shared_memory};
use coco_core::worker_request::{WorkerCommand, WorkerRequest};

/// Interval at which a worker looks for triggers that no flow needs, and for expired results.
const SWEEP: Duration = Duration::from_secs(10);

/// How long the verification of a flow may take while another flow waits for its own.
const LONGEST_VERIFICATION: Duration = Duration::from_secs(3600);

/// How long no verification begins after no process could be started.
const PAUSE: Duration = Duration::from_secs(60);

/// Records the processes that crashed while they worked on a flow. coco sets a flow aside if its
/// processes keep crashing.
pub fn set_aside(database: pg_sys::Oid) {
    for flow in crash_notes::died(database) {
        match transaction(|| live_rows::record_process_death(flow)) {
            Ok(None) => {}
            Ok(Some(died)) => tracing::warn!(
                hint = died.hint.as_deref(),
                "flow \"{}\": {}",
                died.flow,
                died.message
            ),
            Err(failed) => log_failure("could not record the crash of a process", &failed),
        }
    }
}

/// The process that verifies a flow.
struct RunningVerification {
    flow: i32,
    process: DynamicBackgroundWorker,
    began: Instant,
}

/// Work that a worker does from time to time.
#[derive(Default)]
pub struct Upkeep {
    swept: Option<Instant>,
    verifying: Option<RunningVerification>,
    /// Until when no verification begins.
    verifies_after: Option<Instant>,
}

impl Upkeep {
    /// Sweeps once more before the process ends: the database may have no worker for a while.
    pub fn sweep_at_last(&mut self) {
        self.swept = None;
        self.sweep();
    }

    /// Drops triggers that dropped flows have left on tables, and old versions of flows that are no
    /// longer kept, in one transaction per table or version, and expired results of dropped flows.
    pub fn sweep(&mut self) {
        if self.swept.is_some_and(|at| at.elapsed() < SWEEP) {
            return;
        }
        self.swept = Some(Instant::now());
        let dropped = transaction(triggers::left_behind).and_then(|all| {
            all.into_iter().try_for_each(|table| transaction(|| triggers::drop_from(table)))
        });
        if let Err(failed) = dropped {
            log_failure("could not drop unneeded triggers", &failed);
        }
        if let Err(failed) = transaction(|| kept::drop_expired(None)) {
            log_failure("could not drop expired results of memoized functions", &failed);
        }
        let drop_version =
            |version| transaction(|| swap::drop_expired(version, shared_memory::announce_cancel));
        let dropped = transaction(version_rows::expired_versions)
            .and_then(|all| all.into_iter().try_for_each(drop_version));
        if let Err(failed) = dropped {
            log_failure("could not drop an old version of a flow", &failed);
        }
    }

    /// Ends a verification if its process must leave the database as this one does.
    pub fn leave(&mut self, how: WorkerEnd) {
        let must_leave = matches!(how, WorkerEnd::Left | WorkerEnd::OtherVersion);
        if let Some(running) = self.verifying.take().filter(|_| must_leave) {
            running.process.terminate();
        }
    }

    /// Starts a process that verifies the flow for which this has been due longest. One such
    /// process runs at a time, so verifications take one process from other work.
    pub fn verify_due_flow(&mut self, flows: &[LiveFlow]) {
        let verified = self.verifying.as_ref().map(|running| running.flow);
        let due = flows
            .iter()
            .filter(|flow| flow.attempts == 0 && verified != Some(flow.id))
            .filter(|flow| flow.verify_due_for.is_some())
            .max_by_key(|flow| flow.verify_due_for);
        if let Some(running) = self.verifying.take()
            && matches!(running.process.pid(), Ok(_) | Err(BackgroundWorkerStatus::NotYetStarted))
        {
            match due.is_some() && running.began.elapsed() > LONGEST_VERIFICATION {
                true => drop(running.process.terminate()),
                false => self.verifying = Some(running),
            }
            return;
        }
        let Some(flow) = due.filter(|_| !shared_memory::is_crowded()) else { return };
        if self.verifies_after.is_some_and(|after| Instant::now() < after) {
            return;
        }
        match transaction(|| verification::claim(flow.id)) {
            Ok(true) => {}
            Ok(false) => return,
            Err(failed) => {
                self.verifies_after = Some(Instant::now() + PAUSE);
                return log_failure("could not begin a verification", &failed);
            }
        }
        let limits = limits::configured_limits();
        let request = WorkerRequest {
            run_id: 0,
            flow_id: flow.id,
            command: WorkerCommand::VerifyDue,
            batch_size: limits.batch,
            segment_bytes: limits.segment_bytes,
            label: None,
        };
        let running =
            |process| RunningVerification { flow: flow.id, process, began: Instant::now() };
        self.verifying = launch_update_worker(&request).map(running);
        if self.verifying.is_none() {
            self.verifies_after = Some(Instant::now() + PAUSE);
            tracing::warn!(
                hint = "Increase max_worker_processes.",
                "could not start a process that verifies flow \"{}\"",
                flow.name
            );
        }
    }
}
