//! The session's side of work that a worker does for it: an update of a flow that has external
//! targets or calls providers, the comparison of external targets with the ledger, or the drop of a
//! flow with its external targets. None of these can run inside the session's transaction.
//!
//! The session starts the worker and waits for it. If the session's statement is canceled, the worker
//! is terminated. The worker's side is in `update_worker.rs`.

use pgrx::bgworkers::{BackgroundWorkerStatus, DynamicBackgroundWorker};
use pgrx::prelude::*;
use serde_json::Value;
use std::time::{Duration, Instant};

use crate::catalog::{locks, run_label};
use crate::flows::{cache, paused};
use crate::inspect::verify::Difference;
use crate::outbox::worker_result::{self, WorkerResult};
use crate::pg::error::Error;
use crate::pg::json::Json;
use crate::pg::notice;
use crate::pg::{backend, subtransaction};
use crate::update::limits::Limits;
use crate::update::run::SourceCounts;
use crate::workers::process::{launch_update_worker, pause};
use crate::workers::wait_event::WaitEvent;
use crate::workers::{extra_rows, progress, update_result};
use coco_core::worker_request::{WorkerCommand, WorkerRequest};

/// Interval at which the session checks its worker.
const LOOK: Duration = Duration::from_millis(20);

/// Starts a worker that executes a command for a flow, and waits for its result.
pub fn run_in_worker(
    flow: &str,
    command: WorkerCommand,
    limits: Limits,
) -> Result<Vec<SourceCounts>, Error> {
    let done = request(flow, command, limits)?;
    for note in extra_rows::notes_from_json(&done["notes"]) {
        notice::notice_with_detail(note.message, note.detail);
    }
    Ok(update_result::from_json(&done["sources"]))
}

/// Compares the external targets of a flow with the ledger, in a worker that first updates the
/// flow. With `repair`, the worker also mends the differences. Returns those found before the
/// repair.
pub fn verify_in_worker(
    flow: &str,
    repair: bool,
    limits: Limits,
) -> Result<Vec<Difference>, Error> {
    let ready = cache::runnable_flow(flow)?;
    paused::check_not_paused(&ready.flow)?;
    if !ready.flow.is_external() {
        return Err(Error::invalid(format!("flow \"{flow}\" has no target outside this database"))
            .hint("Call coco.verify without outside."));
    }
    drop(ready);
    let command = if repair { WorkerCommand::Repair } else { WorkerCommand::Verify };
    let found = request(flow, command, limits)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for target in found["cut"].as_array().into_iter().flatten() {
        let message = format!("target {} has more differences than coco returns", text(target));
        notice::warning(
            message,
            "If most rows differ, coco.update with mode reexport sends all rows again.",
        );
    }
    let differences = found["differences"].as_array().into_iter().flatten();
    Ok(differences
        .map(|d| Difference {
            target: Some(text(&d["target"])),
            difference: text(&d["difference"]),
            key: Json::of_text(text(&d["key"])),
            source: None,
            since: None,
        })
        .collect())
}

/// Starts a worker that executes a command for a flow, and waits for its result.
fn request(flow: &str, command: WorkerCommand, limits: Limits) -> Result<Value, Error> {
    locks::not_during_recovery()?;
    let id = cache::runnable_flow(flow)?.flow.id;
    // Only one session at a time requests a worker: the workers of other sessions would occupy
    // processes while they wait.
    locks::lock_update_request(id)?;
    let request = WorkerRequest {
        run_id: backend::random_number()?,
        flow_id: id,
        command,
        batch_size: limits.batch,
        segment_bytes: limits.segment_bytes,
        label: run_label::current_label(),
    };
    let worker = launch_update_worker(&request).ok_or_else(|| {
        Error::new(
            PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
            "could not start a worker",
        )
        .detail("A worker updates flows that have external targets or call functions over the network. All worker processes are in use.")
        .hint("Increase max_worker_processes.")
    })?;
    let mut guard = UpdateWorkerGuard(Some(worker));
    let outcome = guard.wait(request.run_id, flow)?;
    locks::unlock_update_request(id)?;
    match outcome.message {
        None => Ok(outcome.counts.unwrap_or_default()),
        Some(message) => Err(Error {
            code: subtransaction::sqlstate_code(outcome.sqlstate.as_deref().unwrap_or_default()),
            message,
            detail: outcome.detail,
            hint: outcome.hint,
        }),
    }
}

/// Terminates the worker when the session's statement ends, for any reason.
struct UpdateWorkerGuard(Option<DynamicBackgroundWorker>);

impl UpdateWorkerGuard {
    fn wait(&mut self, run_id: i64, flow: &str) -> Result<WorkerResult, Error> {
        let mut looked = Instant::now();
        loop {
            let Some(worker) = &self.0 else {
                return Err(Error::internal("the worker was lost"));
            };
            let pid = match worker.pid() {
                Ok(pid) => pid,
                Err(BackgroundWorkerStatus::NotYetStarted) => 0,
                Err(_) => break,
            };
            if pid != 0 && looked.elapsed() > Duration::from_secs(1) {
                looked = Instant::now();
                if locks::is_blocked_by_us(pid)? {
                    return Err(Error::new(
                        PgSqlErrorCode::ERRCODE_OBJECT_IN_USE,
                        format!("worker for flow \"{flow}\" is blocked by this transaction"),
                    )
                    .detail("A worker updates flows that have external targets or call functions over the network, and drops flows with external targets. It does so in transactions of its own.")
                    .hint("COMMIT this transaction, and try again."));
                }
            }
            progress::tell_of(pid);
            // The worker wakes this session when the result is stored, and cleans up afterwards.
            if pause(LOOK, WaitEvent::Update)
                && let Some(outcome) = worker_result::load_result(run_id)?
            {
                self.0 = None;
                return Ok(outcome);
            }
        }
        self.0 = None;
        worker_result::load_result(run_id)?.ok_or_else(|| {
            Error::new(
                PgSqlErrorCode::ERRCODE_SYSTEM_ERROR,
                format!("worker for flow \"{flow}\" ended without a result"),
            )
            .hint("Look for the reason in the server's log. The next coco.update sends the worker's rows again.")
        })
    }
}

impl Drop for UpdateWorkerGuard {
    fn drop(&mut self) {
        if let Some(worker) = self.0.take() {
            worker.terminate();
        }
    }
}
