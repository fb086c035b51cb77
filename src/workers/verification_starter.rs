//! Starts the processes that verify live flows from time to time, one at a time. The first worker of
//! a database does so.

use pgrx::bgworkers::{BackgroundWorkerStatus, DynamicBackgroundWorker};
use std::time::{Duration, Instant};

use crate::flows::live_rows::LiveFlow;
use crate::flows::verification;
use crate::update::limits;
use crate::workers::process::launch_update_worker;
use crate::workers::shared_memory::{self, WorkerEnd};
use crate::workers::transaction::{log_failure, transaction};
use coco_core::worker_request::{WorkerCommand, WorkerRequest};

/// How long the verification of a flow may take while another flow waits for its own.
const LONGEST_VERIFICATION: Duration = Duration::from_secs(3600);

/// How long no verification begins after no process could be started.
const PAUSE: Duration = Duration::from_secs(60);

/// The process that verifies a flow.
struct RunningVerification {
    flow: i32,
    process: DynamicBackgroundWorker,
    began: Instant,
}

/// The verifications that a worker starts.
#[derive(Default)]
pub struct VerificationStarter {
    running: Option<RunningVerification>,
    /// Until when no verification begins.
    pauses_until: Option<Instant>,
}

impl VerificationStarter {
    /// Ends a verification if its process must leave the database as this one does.
    pub fn leave(&mut self, how: WorkerEnd) {
        let must_leave = matches!(how, WorkerEnd::Left | WorkerEnd::OtherVersion);
        if let Some(running) = self.running.take().filter(|_| must_leave) {
            running.process.terminate();
        }
    }

    /// Starts a process that verifies the flow for which this has been due longest. One such
    /// process runs at a time, so verifications take one process from other work.
    pub fn start_due(&mut self, flows: &[LiveFlow]) {
        let verified = self.running.as_ref().map(|running| running.flow);
        let due = flows
            .iter()
            .filter(|flow| flow.attempts == 0 && verified != Some(flow.id))
            .filter(|flow| flow.verify_due_for.is_some())
            .max_by_key(|flow| flow.verify_due_for);
        if let Some(running) = self.running.take()
            && matches!(running.process.pid(), Ok(_) | Err(BackgroundWorkerStatus::NotYetStarted))
        {
            match due.is_some() && running.began.elapsed() > LONGEST_VERIFICATION {
                true => drop(running.process.terminate()),
                false => self.running = Some(running),
            }
            return;
        }
        let Some(flow) = due.filter(|_| !shared_memory::is_crowded()) else { return };
        if self.pauses_until.is_some_and(|after| Instant::now() < after) {
            return;
        }
        match transaction(|| verification::claim(flow.id)) {
            Ok(true) => {}
            Ok(false) => return,
            Err(failed) => {
                self.pauses_until = Some(Instant::now() + PAUSE);
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
        self.running = launch_update_worker(&request).map(running);
        if self.running.is_none() {
            self.pauses_until = Some(Instant::now() + PAUSE);
            tracing::warn!(
                hint = "Increase max_worker_processes.",
                "could not start a process that verifies flow \"{}\"",
                flow.name
            );
        }
    }
}
