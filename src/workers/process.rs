//! Common parts of all background processes: starting, signals, settings, attaching to a database,
//! and waiting.

use pgrx::bgworkers::{BackgroundWorkerBuilder, BgWorkerStartTime, DynamicBackgroundWorker};
use pgrx::pg_sys;
use std::time::Duration;

use crate::catalog::run_label;
use crate::pg::backend;
use crate::update::memo_salvage;
use crate::workers::transaction::{log_failure, transaction};
use crate::workers::wait_event::{self, WaitEvent};
use crate::workers::{async_runtime, dropped_database, server_log, shared_memory, turn_limit};
use coco_core::worker_request::WorkerRequest;

/// Delay before the server restarts a process that ended by an error of its own.
pub const RESTART: Duration = Duration::from_secs(5);

/// Largest number of workers in a database.
pub const MAX_SEATS: u16 = 32;

/// The process that will serve the database's live flows.
pub enum ServeOutcome {
    /// The launcher starts a worker, also after a restart of the server.
    Launcher,
    /// A worker that does not survive a restart of the server.
    DynamicWorker,
    /// No process: all of max_worker_processes are in use.
    Nobody,
}

/// Ensures that a worker serves this database. `taken` reports whether a worker number is in use.
pub fn serve_database(taken: impl Fn(u16) -> bool) -> ServeOutcome {
    let database = backend::database();
    if shared_memory::available() {
        shared_memory::request(database);
        return ServeOutcome::Launcher;
    }
    match taken(1) || launch_worker(database, 1, Some(RESTART)).is_some() {
        true => ServeOutcome::DynamicWorker,
        false => ServeOutcome::Nobody,
    }
}

/// Starts a worker for a database. `restart`: the delay before the server restarts it after an
/// error, or `None` for no restart.
pub fn launch_worker(
    database: pg_sys::Oid,
    seat: u16,
    restart: Option<Duration>,
) -> Option<DynamicBackgroundWorker> {
    let argument = (u64::from(seat) << 32) | u64::from(database.to_u32());
    BackgroundWorkerBuilder::new("coco worker")
        .set_type("coco worker")
        .set_library("coco")
        .set_function("coco_worker_main")
        .enable_spi_access()
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(restart)
        .set_argument(Some(pg_sys::Datum::from(argument)))
        .set_notify_pid(if restart.is_none() { backend::process_id() } else { 0 })
        .load_dynamic()
        .ok()
}

/// Starts a process that executes a request of this process for a flow. Returns `None` if all
/// worker processes are in use.
pub fn launch_update_worker(request: &WorkerRequest) -> Option<DynamicBackgroundWorker> {
    BackgroundWorkerBuilder::new("coco update")
        .set_type("coco update")
        .set_library("coco")
        .set_function("coco_update_main")
        .enable_spi_access()
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(None)
        .set_argument(Some(pg_sys::Datum::from(backend::database().to_u32() as usize)))
        .set_extra(&request.to_text())
        .set_notify_pid(backend::process_id())
        .load_dynamic()
        .ok()
}

unsafe extern "C-unwind" {
    // Declared here, because pgrx's bindings would wrap them in a guard, which a signal handler
    // must not have.
    fn die(signal: std::ffi::c_int);
    fn SignalHandlerForConfigReload(signal: std::ffi::c_int);
}

/// Installs the signal handlers that all background processes of a database use. SIGTERM also
/// ends a running query.
pub fn handle_signals() {
    // SAFETY: called at the start of the process, while signals are still blocked.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        use pg_sys::pqsignal;
        #[cfg(feature = "pg18")]
        use pg_sys::pqsignal_be as pqsignal;
        pqsignal(pg_sys::SIGHUP as i32, Some(SignalHandlerForConfigReload));
        pqsignal(pg_sys::SIGTERM as i32, Some(die));
        // SIGHUP was ignored until here, so a reload since the fork has gone unnoticed.
        (&raw mut pg_sys::ConfigReloadPending).write_volatile(1);
        pg_sys::BackgroundWorkerUnblockSignals();
    }
}

/// The settings of all background processes, regardless of the defaults of the server and the
/// database. Commits are asynchronous: a crash that loses a commit also loses its cursor, so coco
/// does the work again.
const SETTINGS: [(&std::ffi::CStr, &std::ffi::CStr); 10] = [
    // The same value as in coco's functions: Postgres' output about views and functions depends on
    // it, and that output is part of a flow's logic.
    (c"search_path", c"pg_catalog, pg_temp"),
    (c"synchronous_commit", c"off"),
    (c"default_transaction_isolation", c"read committed"),
    (c"default_transaction_read_only", c"off"),
    (c"statement_timeout", c"0"),
    // Processes that follow live flows set a short timeout: see `wait_shortly`.
    (c"lock_timeout", c"0"),
    // In a deadlock with a session, Postgres should cancel the worker, which tries again.
    (c"deadlock_timeout", c"100ms"),
    (c"idle_in_transaction_session_timeout", c"0"),
    (c"idle_session_timeout", c"0"),
    (c"row_security", c"on"),
];

/// Settings that exist since PostgreSQL 17.
#[cfg(any(feature = "pg17", feature = "pg18"))]
const SETTINGS_17: [(&std::ffi::CStr, &std::ffi::CStr); 1] = [(c"transaction_timeout", c"0")];

#[cfg(not(any(feature = "pg17", feature = "pg18")))]
const SETTINGS_17: [(&std::ffi::CStr, &std::ffi::CStr); 0] = [];

/// Connects this process to a database, under this application name.
pub fn attach_to_database(database: pg_sys::Oid, name: &std::ffi::CStr) {
    handle_signals();
    run_label::use_label_of_session(None);
    // SAFETY: called once, at the start, as the bootstrap superuser; flows never run with its
    // rights.
    unsafe {
        dropped_database::end_without_restart_if_dropped(|| {
            pg_sys::BackgroundWorkerInitializeConnectionByOid(database, pg_sys::InvalidOid, 0)
        });
        for (name, value) in
            SETTINGS.into_iter().chain(SETTINGS_17).chain([(c"application_name", name)])
        {
            pg_sys::SetConfigOption(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_SUSET,
                pg_sys::GucSource::PGC_S_OVERRIDE,
            );
        }
    }
}

/// Limits every lock wait of this process to a moment: the lock concerns one flow, and other flows
/// wait for the process.
pub fn wait_shortly() {
    const LONGEST: &std::ffi::CStr = c"300ms";
    // SAFETY: changes a setting of this process, outside a transaction.
    unsafe {
        pg_sys::SetConfigOption(
            c"lock_timeout".as_ptr(),
            LONGEST.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_OVERRIDE,
        );
    }
}

/// Waits until the latch is set or the timeout expires. Ends the process if SIGTERM has arrived.
pub fn wait(timeout: Duration, waiting: WaitEvent) {
    pause(timeout, waiting);
    process_interrupts();
}

/// Waits like [`wait`], but does not reload the configuration, because a session's settings must
/// not change within a statement. Returns whether the latch was set.
pub fn pause(timeout: Duration, waiting: WaitEvent) -> bool {
    let event = wait_event::event(waiting);
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    let socket = async_runtime::socket();
    let events = events | socket.map_or(0, |_| pg_sys::WL_SOCKET_READABLE);
    // SAFETY: the latch and the socket belong to this process.
    let woken = unsafe {
        let woken = pg_sys::WaitLatchOrSocket(
            pg_sys::MyLatch,
            events as i32,
            socket.unwrap_or(-1),
            timeout.as_millis().clamp(1, 3_600_000) as std::ffi::c_long,
            event,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
        woken
    };
    async_runtime::listen();
    server_log::report_waiting();
    turn_limit::forget_cancel();
    pgrx::check_for_interrupts!();
    woken & pg_sys::WL_LATCH_SET as i32 != 0
}

/// Handles pending signals: cancels, termination and configuration reloads.
pub fn process_interrupts() {
    turn_limit::forget_cancel();
    pgrx::check_for_interrupts!();
    // SAFETY: reads and writes the process's own state, as PostgresMain does.
    unsafe {
        if (&raw const pg_sys::ConfigReloadPending).read_volatile() != 0 {
            (&raw mut pg_sys::ConfigReloadPending).write_volatile(0);
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
    }
}

/// Shows a text in pg_stat_activity as the current activity of this process.
pub fn set_activity(what: &str) {
    let text = std::ffi::CString::new(what).unwrap_or_default();
    // SAFETY: the text outlives the call, which copies it.
    unsafe {
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, text.as_ptr());
    }
}

/// Stores results computed in a failed transaction, so that they are not paid for again.
pub fn salvage_rolled_back_results() {
    if let Err(failed) = transaction(memo_salvage::salvage_rolled_back) {
        log_failure("could not store computed results", &failed);
    }
}
