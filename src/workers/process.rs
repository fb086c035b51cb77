//! What every background process of coco does: starting, attaching to a database, waiting, ending.

use pgrx::bgworkers::{BackgroundWorkerBuilder, BgWorkerStartTime};
use pgrx::pg_sys;
use std::time::Duration;

use crate::update::memo_salvage;
use crate::workers::transaction::{log_failure, transaction};
use crate::workers::wait_event::{self, WaitEvent};
use crate::workers::{async_runtime, server_log, shared_memory, turn_limit};

/// How long a worker that died by itself stays away.
pub const RESTART: Duration = Duration::from_secs(5);

/// Places for workers in a database, at most.
pub const MAX_SEATS: u16 = 32;

/// Who will look after the database's live flows.
pub enum ServeOutcome {
    /// The launcher, also after a restart of the server.
    Launcher,
    /// A worker that a restart of the server ends.
    DynamicWorker,
    /// Nobody: all of max_worker_processes are taken.
    Nobody,
}

/// Sees to it that somebody serves this database. `taken` says whether a place is taken already.
pub fn serve_database(taken: impl Fn(u16) -> bool) -> ServeOutcome {
    // SAFETY: reads the backend's own state.
    let database = unsafe { pg_sys::MyDatabaseId };
    if shared_memory::available() {
        shared_memory::request(database);
        return ServeOutcome::Launcher;
    }
    match taken(1) || launch_worker(database, 1, Some(RESTART)).is_some() {
        true => ServeOutcome::DynamicWorker,
        false => ServeOutcome::Nobody,
    }
}

/// Starts a worker for a database. `restart`: whether it comes back after an error of its own.
pub fn launch_worker(
    database: pg_sys::Oid,
    seat: u16,
    restart: Option<Duration>,
) -> Option<pgrx::bgworkers::DynamicBackgroundWorker> {
    let argument = (u64::from(seat) << 32) | u64::from(database.to_u32());
    // SAFETY: reads the backend's own state.
    let notify = unsafe { pg_sys::MyProcPid };
    BackgroundWorkerBuilder::new("coco worker")
        .set_type("coco worker")
        .set_library("coco")
        .set_function("coco_worker_main")
        .enable_spi_access()
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(restart)
        .set_argument(Some(pg_sys::Datum::from(argument)))
        .set_notify_pid(if restart.is_none() { notify } else { 0 })
        .load_dynamic()
        .ok()
}

unsafe extern "C-unwind" {
    // As they are: through pgrx's bindings they would be guarded, which a signal handler must not be.
    fn die(signal: std::ffi::c_int);
    fn SignalHandlerForConfigReload(signal: std::ffi::c_int);
}

/// Signals as every background process of a database takes them: SIGTERM ends also a running query.
pub fn handle_signals() {
    // SAFETY: at the start of the process, before signals are let in.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        use pg_sys::pqsignal;
        #[cfg(feature = "pg18")]
        use pg_sys::pqsignal_be as pqsignal;
        pqsignal(pg_sys::SIGHUP as i32, Some(SignalHandlerForConfigReload));
        pqsignal(pg_sys::SIGTERM as i32, Some(die));
        // Until here SIGHUP was ignored: a reload since the process was forked has not been heard.
        (&raw mut pg_sys::ConfigReloadPending).write_volatile(1);
        pg_sys::BackgroundWorkerUnblockSignals();
    }
}

/// What the worker runs under, whatever the server's or the database's defaults. A commit that is
/// lost in a crash is done again, since its cursor is lost with it: so none is waited for.
const SETTINGS: [(&std::ffi::CStr, &std::ffi::CStr); 10] = [
    // As coco's functions have it: what Postgres shows of views and functions depends on it, and is
    // part of a flow's logic.
    (c"search_path", c"pg_catalog, pg_temp"),
    (c"synchronous_commit", c"off"),
    (c"default_transaction_isolation", c"read committed"),
    (c"default_transaction_read_only", c"off"),
    (c"statement_timeout", c"0"),
    // Who follows live flows waits for a moment: see `wait_shortly`.
    (c"lock_timeout", c"0"),
    // Of a deadlock with a session the worker is to be the one that is ended: it tries again.
    (c"deadlock_timeout", c"100ms"),
    (c"idle_in_transaction_session_timeout", c"0"),
    (c"idle_session_timeout", c"0"),
    (c"row_security", c"on"),
];

/// What servers have since 17.
#[cfg(any(feature = "pg17", feature = "pg18"))]
const SETTINGS_17: [(&std::ffi::CStr, &std::ffi::CStr); 1] = [(c"transaction_timeout", c"0")];

#[cfg(not(any(feature = "pg17", feature = "pg18")))]
const SETTINGS_17: [(&std::ffi::CStr, &std::ffi::CStr); 0] = [];

/// Makes this process one of a database's, of this name.
pub fn attach_to_database(database: pg_sys::Oid, name: &std::ffi::CStr) {
    handle_signals();
    // SAFETY: once, at the start; as the bootstrap superuser, whose rights a flow never has.
    unsafe {
        pg_sys::BackgroundWorkerInitializeConnectionByOid(database, pg_sys::InvalidOid, 0);
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

/// Lets this process wait for no lock for longer than a moment: what is locked is one flow's, and others wait for
/// the process.
pub fn wait_shortly() {
    const LONGEST: &std::ffi::CStr = c"300ms";
    // SAFETY: a setting of the process's own, outside of a transaction.
    unsafe {
        pg_sys::SetConfigOption(
            c"lock_timeout".as_ptr(),
            LONGEST.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_OVERRIDE,
        );
    }
}

/// Waits until the latch is set or the time is over; ends the process where that was asked for.
pub fn wait(timeout: Duration, waiting: WaitEvent) {
    pause(timeout, waiting);
    process_interrupts();
}

/// The same for a session, whose settings do not change in the middle of a statement; returns whether the latch
/// was set.
pub fn pause(timeout: Duration, waiting: WaitEvent) -> bool {
    let event = wait_event::event(waiting);
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    let socket = async_runtime::socket();
    let events = events | socket.map_or(0, |_| pg_sys::WL_SOCKET_READABLE);
    // SAFETY: the process's own latch, and a socket of its own.
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

/// Does what signals have asked for.
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

/// Has pg_stat_activity show what this process works on.
pub fn set_activity(what: &str) {
    let text = std::ffi::CString::new(what).unwrap_or_default();
    // SAFETY: the text outlives the call, which copies it.
    unsafe {
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, text.as_ptr());
    }
}

/// Has what was paid for in a transaction that failed not be paid for again.
pub fn salvage_rolled_back_results() {
    if let Err(failed) = transaction(memo_salvage::salvage_rolled_back) {
        log_failure("what was computed cannot be kept", &failed);
    }
}
