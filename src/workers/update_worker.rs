//! Work that a session asks for and a worker does: an update of a flow with targets outside this
//! database, or its drop with them, which cannot be in the session's transaction.
//!
//! The session starts a worker for it and waits; the worker ends with it, and leaves a result in a
//! row of coco.worker_result. A session that is cancelled ends its worker.

use pgrx::bgworkers::{
    BackgroundWorker, BackgroundWorkerBuilder, BackgroundWorkerStatus, BgWorkerStartTime,
    DynamicBackgroundWorker,
};
use pgrx::prelude::*;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

use crate::catalog::{locks, run_history};
use crate::flows::{cache, live_rows};
use crate::memo::settle;
use crate::outbox::worker_result::{self, WorkerResult};
use crate::outbox::{delivery_state, drain, queue};
use crate::pg::error::Error;
use crate::pg::{clock, subtransaction};
use crate::update;
use crate::update::backlog::PendingKeys;
use crate::update::limits::Limits;
use crate::update::run::SourceCounts;
use crate::workers::delivery::dispatcher::DeliveryDispatcher;
use crate::workers::delivery::drop_flow;
use crate::workers::process::{
    attach_to_database, pause, process_interrupts, salvage_rolled_back_results, set_activity, wait,
};
use crate::workers::transaction::{TransactionError, log_failure, transaction};
use crate::workers::wait_event::WaitEvent;
use crate::workers::{crash_point, progress, shared_memory};
use coco_core::counts::Counts;
use coco_core::decide::Mode;
use coco_core::history::{By, Entry, Reason};

/// What a worker is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerCommand {
    Update(Mode),
    /// To drop the flow with all that was made for it.
    Drop,
}

const ORDERS: [(&str, WorkerCommand); 5] = [
    ("normal", WorkerCommand::Update(Mode::Normal)),
    ("retry", WorkerCommand::Update(Mode::Retry)),
    ("full_reprocess", WorkerCommand::Update(Mode::FullReprocess)),
    ("reexport", WorkerCommand::Update(Mode::Reexport)),
    ("drop", WorkerCommand::Drop),
];

/// Between two looks of the session at its worker.
const LOOK: Duration = Duration::from_millis(20);

/// How long it is waited for that a target is opened, before anything is evaluated.
const OPENING: Duration = Duration::from_millis(250);

/// Batches that are evaluated in one transaction, before they are sent. More cost less: each transaction
/// finds its items in the source again, and waits for the disk. But all of it is sent later.
const BATCHES: usize = 4;

/// Has a worker do something for a flow, and waits for it.
pub fn run_in_worker(
    flow: &str,
    order: WorkerCommand,
    limits: Limits,
) -> Result<Vec<SourceCounts>, Error> {
    locks::not_during_recovery()?;
    let id = cache::runnable_flow(flow)?.flow.id;
    // A process is asked for by one session at a time: others would only hold theirs while they wait.
    locks::lock_update_request(id)?;
    let name = ORDERS.iter().find(|(_, o)| *o == order).map_or("normal", |(name, _)| name);
    // SAFETY: fills the bytes it is given.
    let run = unsafe {
        let mut bytes = [0u8; 8];
        if !pg_sys::pg_strong_random(bytes.as_mut_ptr().cast(), bytes.len()) {
            return Err(Error::internal("there are no random numbers"));
        }
        i64::from_ne_bytes(bytes)
    };
    let extra = format!("{run} {id} {name} {} {}", limits.batch, limits.segment_bytes);
    // SAFETY: reads the backend's own state.
    let (database, notify) = unsafe { (pg_sys::MyDatabaseId, pg_sys::MyProcPid) };
    let worker = BackgroundWorkerBuilder::new("coco update")
        .set_type("coco update")
        .set_library("coco")
        .set_function("coco_update_main")
        .enable_spi_access()
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(None)
        .set_argument(Some(pg_sys::Datum::from(database.to_u32() as usize)))
        .set_extra(&extra)
        .set_notify_pid(notify)
        .load_dynamic()
        .map_err(|_| {
            Error::new(
                PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
                "no worker could be started",
            )
            .detail("A flow that reaches outside this database (a target, a function over the network) is updated by a worker.")
            .hint("Raise max_worker_processes.")
        })?;
    let mut guard = UpdateWorkerGuard(Some(worker));
    let outcome = guard.wait(run, flow)?;
    locks::unlock_update_request(id)?;
    match outcome.message {
        None => Ok(counts(outcome.counts.unwrap_or_default())),
        Some(message) => Err(Error {
            code: subtransaction::sqlstate_code(outcome.sqlstate.as_deref().unwrap_or_default()),
            message,
            detail: outcome.detail,
            hint: outcome.hint,
        }),
    }
}

/// Ends the worker with the session's statement, however that ends.
struct UpdateWorkerGuard(Option<DynamicBackgroundWorker>);

impl UpdateWorkerGuard {
    fn wait(&mut self, run: i64, flow: &str) -> Result<WorkerResult, Error> {
        let mut looked = Instant::now();
        loop {
            let Some(worker) = &self.0 else {
                return Err(Error::internal("the worker is lost"));
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
                        format!("the worker for flow \"{flow}\" waits for this transaction"),
                    )
                    .detail("A flow that reaches outside this database (a target, a function over the network) is updated, and dropped with its targets, by a worker, in transactions of its own.")
                    .hint("COMMIT what this transaction has changed, and try it again after that."));
                }
            }
            progress::tell_of(pid);
            // It is woken when the result is there: the worker has something to tidy up then.
            if pause(LOOK, WaitEvent::Update)
                && let Some(outcome) = worker_result::load_result(run)?
            {
                self.0 = None;
                return Ok(outcome);
            }
        }
        self.0 = None;
        worker_result::load_result(run)?.ok_or_else(|| {
            Error::new(
                PgSqlErrorCode::ERRCODE_SYSTEM_ERROR,
                format!("the worker for flow \"{flow}\" has ended without a result"),
            )
            .hint("The server's log says why. What it had sent is sent again by the next coco.update.")
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

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn coco_update_main(argument: pg_sys::Datum) {
    let database = pg_sys::Oid::from(argument.value() as u32);
    attach_to_database(database, c"coco update");
    let extra = BackgroundWorker::get_extra().to_owned();
    let parts: Vec<&str> = extra.split(' ').collect();
    let number = |n: usize| parts.get(n).and_then(|p| p.parse::<i64>().ok()).unwrap_or(0);
    let order = ORDERS.iter().find(|(name, _)| parts.get(2) == Some(name)).map(|(_, o)| *o);
    let Some(order) = order else { return };
    let limits = Limits {
        batch: usize::try_from(number(3)).unwrap_or(1).max(1),
        changes: None,
        segment_bytes: number(4),
    };
    shared_memory::enter(database, 0);
    progress::tell();
    settle::watch();
    let flow = number(1) as i32;
    shared_memory::report(|slot| slot.flow = flow);
    let (started, began) = (clock::now_micros(), Instant::now());
    let mut done = UpdateResult::default();
    let worked = work_on_request(flow, order, limits, &mut done);
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
    if let WorkerCommand::Update(mode) = order {
        let mut counts = Counts::default();
        done.sources.iter().for_each(|source| counts += source.counts);
        let reason = done.reason.or(Reason::asked(mode)).unwrap_or_default();
        let entry = Entry { started, elapsed, reason, by: By::Session, counts, error };
        // Where another has the flow by now it is not waited for: the session waits for this one.
        let noted = transaction(|| {
            match run_history::note_run_if_free(flow, std::slice::from_ref(&entry))? {
                true => Ok(()),
                false => run_history::log(flow, &entry),
            }
        });
        if let Err(failed) = noted {
            log_failure("a run cannot be noted", &failed);
        }
    }
    if let Err(failed) = transaction(|| worker_result::store_result(number(0), &outcome)) {
        log_failure("a result cannot be left", &failed);
    }
    // The session does not wait for what comes now.
    wake_session();
    if let WorkerCommand::Update(_) = order
        && let Err(failed) = transaction(|| empty_outboxes(flow))
    {
        log_failure("an outbox cannot be emptied", &failed);
    }
}

/// Has the session that started this worker look for its result.
fn wake_session() {
    // SAFETY: a process that was there may be gone, or another by now: to be woken does nobody harm.
    unsafe {
        let session = pg_sys::BackendPidGetProc((*pg_sys::MyBgworkerEntry).bgw_notify_pid);
        if !session.is_null() {
            pg_sys::SetLatch(&raw mut (*session).procLatch);
        }
    }
}

/// Empties the outboxes of a flow, where they are large, and all is sent.
fn empty_outboxes(flow: i32) -> Result<(), Error> {
    let Some(name) = live_rows::flow_name(flow)? else { return Ok(()) };
    let ready = cache::runnable_flow(&name)?;
    ready.flow.targets.iter().try_for_each(|target| queue::empty_outbox(&ready.flow, target))
}

/// What was done so far.
#[derive(Default)]
struct UpdateResult {
    sources: Vec<SourceCounts>,
    reason: Option<Reason>,
}

fn work_on_request(
    flow: i32,
    order: WorkerCommand,
    limits: Limits,
    done: &mut UpdateResult,
) -> Result<Value, TransactionError> {
    let Some(flow) = transaction(|| live_rows::flow_name(flow))? else {
        return Err(TransactionError::from(
            Error::new(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "the flow is not committed yet",
            )
            .detail("A flow that reaches outside this database (a target, a function over the network) is updated, and dropped with its targets, by a worker, which sees what is committed.")
            .hint("COMMIT, and try it again after that."),
        ));
    };
    set_activity(&format!("coco: update of flow {flow}"));
    match order {
        WorkerCommand::Drop => transaction(|| drop_flow::drop_flow(&flow)).map(|()| json!([])),
        WorkerCommand::Update(mode) => {
            transaction(|| {
                delivery_state::retry_at_once(&flow)?;
                match mode {
                    Mode::Retry => queue::retry_rejected(&cache::runnable_flow(&flow)?.flow),
                    _ => Ok(()),
                }
            })?;
            let mut sender = DeliveryDispatcher::of_session();
            let refused = evaluate_flow(&flow, mode, limits, done, &mut sender)
                .and_then(|refused| Ok(refused + send_flow(&flow, &mut sender)?));
            // The next one is not to wait until this process has ended.
            let closed = sender.close();
            let refused = refused?;
            closed?;
            if let Some(first) = done.sources.first_mut() {
                first.counts.failed += refused;
            }
            Ok(done.sources.iter().map(count).collect())
        }
    }
}

/// Brings ledgers and outboxes up to date, a part at a time: what a part has written is sent while the
/// next is evaluated. Returns how many rows were refused.
fn evaluate_flow(
    flow: &str,
    mode: Mode,
    limits: Limits,
    done: &mut UpdateResult,
    sender: &mut DeliveryDispatcher,
) -> Result<i64, TransactionError> {
    // What failed is tried once: in one transaction.
    let asks = transaction(|| Ok(cache::runnable_flow(flow)?.flow.asks_providers()))?;
    // Nor is a transaction kept open for longer than it takes to ask for one.
    let part = limits.batch.saturating_mul(if asks { 1 } else { BATCHES });
    // What a process was to send that is gone, nobody knows: all is sent once more.
    let mode = if sender.is_interrupted(flow)? { Mode::Reexport } else { mode };
    let limits = Limits { changes: (mode != Mode::Retry).then_some(part), ..limits };
    let mut refused = 0;
    sender.open_ahead(flow)?;
    // What was made there is to be noted before anything can go wrong here.
    let opened = Instant::now();
    while sender.is_opening() && opened.elapsed() < OPENING {
        wait(OPENING, WaitEvent::Delivery);
        refused += sender.step(flow)?.refused;
    }
    let backlog = PendingKeys::once(Some(sender.send_ahead(flow)?));
    // Who drops the flow has its lock, and waits until nothing is sent any more: that would wait for us.
    let mut wait_for_flow = !sender.is_busy();
    loop {
        let part = transaction(|| {
            let part = update::update_slice(flow, mode, limits, &backlog, wait_for_flow)?;
            crash_point::point("evaluated");
            Ok(part)
        })
        .inspect(|_| settle::committed())
        .inspect_err(|_| salvage_rolled_back_results())?;
        let Some(part) = part else {
            sender.take_back();
            let step = sender.step(flow)?;
            refused += step.refused;
            wait_for_flow = !step.busy;
            wait(LOOK, WaitEvent::Update);
            continue;
        };
        wait_for_flow = false;
        done.reason = done.reason.max(part.reason);
        for held in part.held {
            sender.hold(held)?;
        }
        sender.take_back();
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
        refused += sender.step(flow)?.refused;
        process_interrupts();
        if !part.more {
            return Ok(refused);
        }
    }
}

/// Sends all that the flow has to send by now; returns how many rows were refused.
fn send_flow(flow: &str, sender: &mut DeliveryDispatcher) -> Result<i64, TransactionError> {
    let marks = transaction(|| drain::delivery_marks(&cache::runnable_flow(flow)?.flow))?;
    let mut refused = 0;
    loop {
        let step = sender.step(flow)?;
        refused += step.refused;
        if !step.busy {
            let left = transaction(|| drain::undelivered(&marks))?;
            if !left {
                return Ok(refused);
            }
            if !step.elsewhere {
                break;
            }
        }
        match step.reads {
            true => process_interrupts(),
            false => {
                wait(if step.busy { Duration::from_secs(1) } else { LOOK }, WaitEvent::Delivery)
            }
        }
    }
    let trouble = transaction(|| delivery_state::record_target_error(flow))?;
    let Some((target, trouble)) = trouble else {
        let error = Error::internal("a target was not sent to, for no known reason");
        return Err(TransactionError::from(error));
    };
    let mut error = Error::new(
        PgSqlErrorCode::ERRCODE_CONNECTION_EXCEPTION,
        format!("target {target} cannot be sent to: {}", trouble.message),
    )
    .hint(trouble.hint.unwrap_or_else(|| {
        "Nothing is lost: what is to be sent waits, and is sent by the next coco.update, or by a worker if the flow is live.".to_owned()
    }));
    error.detail = trouble.detail;
    Err(TransactionError { sqlstate: trouble.sqlstate, error })
}

fn count(source: &SourceCounts) -> Value {
    let c = source.counts;
    json!({
        "source": source.source, "seen": c.seen, "skipped": c.skipped, "unchanged": c.unchanged,
        "evaluated": c.evaluated, "upserted": c.upserted, "deleted": c.deleted, "failed": c.failed,
        "elapsed": source.elapsed.as_micros() as i64, "memo": source.memo,
    })
}

fn counts(all: Value) -> Vec<SourceCounts> {
    let one = |v: &Value| {
        let n = |name: &str| v[name].as_i64().unwrap_or(0);
        SourceCounts {
            source: v["source"].as_str().unwrap_or_default().to_owned(),
            counts: Counts {
                seen: n("seen"),
                skipped: n("skipped"),
                unchanged: n("unchanged"),
                evaluated: n("evaluated"),
                upserted: n("upserted"),
                deleted: n("deleted"),
                failed: n("failed"),
            },
            elapsed: Duration::from_micros(n("elapsed").max(0) as u64),
            memo: serde_json::from_value(v["memo"].clone()).unwrap_or_default(),
        }
    };
    all.as_array().into_iter().flatten().map(one).collect()
}
