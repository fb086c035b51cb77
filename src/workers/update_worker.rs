//! The worker that a session starts for an update of a flow that has external targets or calls
//! providers, to verify external targets, or for the drop of a flow with its external targets. The
//! session's side is in `update_client.rs`.
//!
//! The worker leaves its result in a row of coco_internal.worker_result and ends. A process of the
//! same kind verifies a live flow when that is due; no session waits for it.

use pgrx::bgworkers::BackgroundWorker;
use pgrx::prelude::*;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

use crate::catalog::{run_history, run_label};
use crate::flows::{cache, live_rows};
use crate::memo::settle;
use crate::outbox::worker_result::{self, WorkerResult};
use crate::outbox::{delivery_state, drain, queue};
use crate::pg::clock;
use crate::pg::error::Error;
use crate::update;
use crate::update::backlog::PendingKeys;
use crate::update::limits::Limits;
use crate::update::run::SourceCounts;
use crate::workers::delivery::dispatcher::DeliveryDispatcher;
use crate::workers::delivery::drop_flow;
use crate::workers::delivery::target_store::EmptyOutbox;
use crate::workers::extra_rows::{self, DeletedExtras};
use crate::workers::process::{
    attach_to_database, process_interrupts, salvage_rolled_back_results, set_activity, wait,
};
use crate::workers::transaction::{TransactionError, log_failure, transaction};
use crate::workers::verify_worker::{Mending, verify_targets};
use crate::workers::wait_event::WaitEvent;
use crate::workers::{crash_point, progress, shared_memory, update_result, verify_due};
use coco_core::counts::Counts;
use coco_core::decision::Mode;
use coco_core::run_history::{Initiator, Reason, RunEntry};
use coco_core::worker_request::{WorkerCommand, WorkerRequest};

/// Interval at which the worker checks whether another process has delivered a row.
const LOOK: Duration = Duration::from_millis(20);

/// How long the worker waits for targets to open before it evaluates anything.
const OPENING: Duration = Duration::from_millis(250);

/// Batches that are evaluated in one transaction before the worker sends them. More batches cost
/// less, because each transaction looks up its items in the source again and waits for the disk.
/// But then all rows are sent later.
const BATCHES: usize = 4;

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn coco_update_main(argument: pg_sys::Datum) {
    let database = pg_sys::Oid::from(argument.value() as u32);
    attach_to_database(database, c"coco update");
    let extra = BackgroundWorker::get_extra().to_owned();
    let Some(request) = WorkerRequest::from_text(&extra) else {
        return tracing::warn!("worker ends: \"{extra}\" is not a request");
    };
    let WorkerRequest { run_id, flow_id: flow, command, batch_size, segment_bytes, label } =
        request;
    run_label::use_label_of_session(label);
    let limits = Limits { batch: batch_size, changes: None, segment_bytes };
    shared_memory::enter(database, 0);
    progress::tell();
    settle::watch();
    shared_memory::report(|slot| slot.flow = flow);
    if command == WorkerCommand::VerifyDue {
        return verify_due::verify_flow(flow);
    }
    let (started, began) = (clock::now_micros(), Instant::now());
    let mut done = UpdateResult::default();
    let worked = work_on_request(flow, command, limits, &mut done);
    let elapsed = began.elapsed();
    let error = worked.as_ref().err().map(|failed| failed.error.message.clone());
    let outcome = match worked {
        Ok(counts) => WorkerResult {
            counts: Some(counts),
            sqlstate: None,
            message: None,
            detail: None,
            hint: None,
        },
        Err(failed) => WorkerResult {
            counts: None,
            sqlstate: Some(failed.sqlstate),
            message: Some(failed.error.message),
            detail: failed.error.detail,
            hint: failed.error.hint,
        },
    };
    if let Some(mode) = command.update_mode() {
        let mut counts = Counts::default();
        done.sources.iter().for_each(|source| counts += source.counts);
        let reason = done.reason.or(Reason::of_mode(mode)).unwrap_or_default();
        let entry =
            RunEntry { started, elapsed, reason, initiator: Initiator::Session, counts, error };
        // If another process holds the flow's lock, the worker only logs the run and does not wait:
        // the session is waiting for this worker.
        let noted = transaction(|| {
            match run_history::note_run_if_free(flow, std::slice::from_ref(&entry))? {
                true => Ok(()),
                false => run_history::log(flow, &entry),
            }
        });
        if let Err(failed) = noted {
            log_failure("could not record a run", &failed);
        }
    }
    if let Err(failed) = transaction(|| worker_result::store_result(run_id, &outcome)) {
        log_failure("could not store the result", &failed);
    }
    // The session does not wait for the rest.
    wake_session();
    if command.update_mode().is_some()
        && let Err(failed) = transaction(|| empty_outboxes(flow))
    {
        log_failure("could not empty outboxes", &failed);
    }
}

/// Wakes the session that started this worker, so that it reads the result.
fn wake_session() {
    // SAFETY: the process may have ended, or its slot may belong to another process, which an
    // unexpected wakeup does not harm.
    unsafe {
        let session = pg_sys::BackendPidGetProc((*pg_sys::MyBgworkerEntry).bgw_notify_pid);
        if !session.is_null() {
            pg_sys::SetLatch(&raw mut (*session).procLatch);
        }
    }
}

/// Empties a flow's outboxes that are large and completely delivered.
fn empty_outboxes(flow: i32) -> Result<(), Error> {
    let Some(name) = live_rows::flow_name(flow)? else { return Ok(()) };
    let ready = cache::runnable_flow(&name)?;
    ready.flow.targets.iter().try_for_each(|target| queue::empty_outbox(&ready.flow, target))
}

/// The progress of an update so far.
#[derive(Default)]
struct UpdateResult {
    sources: Vec<SourceCounts>,
    reason: Option<Reason>,
}

fn work_on_request(
    flow: i32,
    command: WorkerCommand,
    limits: Limits,
    done: &mut UpdateResult,
) -> Result<Value, TransactionError> {
    let Some(flow) = transaction(|| live_rows::flow_name(flow))? else {
        return Err(TransactionError::from(
            Error::new(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "the flow is not committed yet",
            )
            .detail("A worker updates flows that have external targets or call functions over the network, and drops flows with external targets. It sees only committed flows.")
            .hint("COMMIT, and try again."),
        ));
    };
    set_activity(&format!("coco: update of flow {flow}"));
    match command {
        WorkerCommand::Drop => transaction(|| drop_flow::drop_flow(&flow)).map(|()| json!([])),
        WorkerCommand::Update(mode) => {
            update_and_deliver(&flow, mode, limits, done)?;
            let mut extra = DeletedExtras::default();
            if mode == Mode::Reexport {
                extra = extra_rows::delete_extra_rows(&flow, || deliver_queued(&flow))?;
                if let Some(first) = done.sources.first_mut() {
                    first.counts.deleted += extra.deleted;
                }
            }
            let notes = extra_rows::notes_to_json(&extra.notes);
            Ok(json!({ "sources": update_result::to_json(&done.sources), "notes": notes }))
        }
        WorkerCommand::Verify | WorkerCommand::Repair => {
            // Whatever is due is delivered first, so that it does not appear as a difference.
            update_and_deliver(&flow, Mode::Normal, limits, done)?;
            let mending = match command {
                WorkerCommand::Repair => Mending::Mend,
                _ => Mending::Report,
            };
            let found = verify_targets(&flow, mending)?;
            if found.queued > 0 {
                deliver_queued(&flow)?;
            }
            Ok(found.into_json())
        }
        // No session waits for its result.
        WorkerCommand::VerifyDue => Ok(json!([])),
    }
}

/// Updates a flow, and delivers everything that its outboxes contain by then.
fn update_and_deliver(
    flow: &str,
    mode: Mode,
    limits: Limits,
    done: &mut UpdateResult,
) -> Result<(), TransactionError> {
    transaction(|| {
        delivery_state::retry_at_once(flow)?;
        match mode {
            Mode::Retry => queue::retry_rejected(&cache::runnable_flow(flow)?.flow),
            _ => Ok(()),
        }
    })?;
    let mut sender = DeliveryDispatcher::new(EmptyOutbox::Later);
    let refused = evaluate_flow(flow, mode, limits, done, &mut sender)
        .and_then(|refused| Ok(refused + send_flow(flow, &mut sender)?));
    // Releases the targets now, so that the next process need not wait until this one has ended.
    let closed = sender.close();
    let refused = refused?;
    closed?;
    if let Some(first) = done.sources.first_mut() {
        first.counts.failed += refused;
    }
    Ok(())
}

/// Delivers everything that a flow's outboxes contain.
fn deliver_queued(flow: &str) -> Result<(), TransactionError> {
    let mut sender = DeliveryDispatcher::new(EmptyOutbox::Later);
    let sent = send_flow(flow, &mut sender);
    let closed = sender.close();
    sent?;
    closed
}

/// Brings ledgers and outboxes up to date in several transactions. The worker sends the rows of one
/// while it evaluates the next. Returns the number of rejected rows.
fn evaluate_flow(
    flow: &str,
    mode: Mode,
    limits: Limits,
    done: &mut UpdateResult,
    sender: &mut DeliveryDispatcher,
) -> Result<i64, TransactionError> {
    // A retry tries each failed item once, so it runs in one transaction.
    let asks = transaction(|| Ok(cache::runnable_flow(flow)?.flow.asks_providers()))?;
    // With providers, a transaction handles a single batch, so that it stays open only as long as
    // one batch of requests takes.
    let part = limits.batch.saturating_mul(if asks { 1 } else { BATCHES });
    // If a process ended before it sent its rows, nobody knows which rows are missing, so coco
    // sends all of them again.
    let mode = if sender.is_interrupted(flow)? { Mode::Reexport } else { mode };
    let limits = Limits { changes: (mode != Mode::Retry).then_some(part), ..limits };
    let mut refused = 0;
    sender.open_new_targets(flow)?;
    // Records the targets that were created on the server before anything can fail here.
    let opened = Instant::now();
    while sender.is_opening() && opened.elapsed() < OPENING {
        wait(OPENING, WaitEvent::Delivery);
        refused += sender.advance(flow)?.rejected;
    }
    let backlog = PendingKeys::once(Some(sender.start_streams(flow)?));
    // A session that drops the flow holds the flow's lock and waits until nothing is in flight;
    // waiting for the lock with changes in flight would be a deadlock.
    let mut wait_for_flow = !sender.is_in_flight();
    loop {
        let part = transaction(|| {
            let part = update::update_slice(flow, mode, limits, &backlog, wait_for_flow)?;
            crash_point::point("evaluated");
            Ok(part)
        })
        .inspect(|_| settle::committed())
        .inspect_err(|_| salvage_rolled_back_results())?;
        let Some(part) = part else {
            sender.withdraw_streams();
            let progress = sender.advance(flow)?;
            refused += progress.rejected;
            wait_for_flow = !progress.is_in_flight;
            wait(LOOK, WaitEvent::Update);
            continue;
        };
        wait_for_flow = false;
        done.reason = done.reason.max(part.reason);
        for held in part.held {
            sender.take_over(held);
        }
        sender.withdraw_streams();
        for (n, source) in part.sources.into_iter().enumerate() {
            match done.sources.get_mut(n) {
                None => done.sources.push(source),
                Some(sum) => {
                    sum.counts += source.counts;
                    sum.elapsed += source.elapsed;
                    sum.add_memo(source.memo);
                }
            }
        }
        refused += sender.advance(flow)?.rejected;
        process_interrupts();
        if !part.more {
            return Ok(refused);
        }
    }
}

/// Sends everything that the flow's outboxes contain by now. Returns the number of rejected rows.
fn send_flow(flow: &str, sender: &mut DeliveryDispatcher) -> Result<i64, TransactionError> {
    let marks = transaction(|| drain::delivery_marks(&cache::runnable_flow(flow)?.flow))?;
    let mut refused = 0;
    loop {
        let progress = sender.advance(flow)?;
        refused += progress.rejected;
        if !progress.is_in_flight {
            let left = transaction(|| drain::undelivered(&marks))?;
            if !left {
                return Ok(refused);
            }
            if !progress.has_other_process {
                break;
            }
        }
        match progress.can_read {
            true => process_interrupts(),
            false => {
                let woken = progress.is_in_flight;
                wait(if woken { Duration::from_secs(1) } else { LOOK }, WaitEvent::Delivery)
            }
        }
    }
    let trouble = transaction(|| delivery_state::record_target_error(flow))?;
    let Some((target, trouble)) = trouble else {
        let error = Error::internal("delivery to a target stopped for an unknown reason");
        return Err(TransactionError::from(error));
    };
    let mut error = Error::new(
        PgSqlErrorCode::ERRCODE_CONNECTION_EXCEPTION,
        format!("could not deliver to target {target}: {}", trouble.message),
    )
    .hint(trouble.hint.unwrap_or_else(|| {
        "Correct the cause. No change is lost: the next coco.update delivers the waiting changes, or a worker does if the flow is live.".to_owned()
    }));
    error.detail = trouble.detail;
    Err(TransactionError { sqlstate: trouble.sqlstate, error })
}
