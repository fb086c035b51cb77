//! Ends a process whose database no longer exists, so that the server does not restart it.
//!
//! Without shared_preload_libraries, the server itself restarts a worker that ended by an error,
//! also the worker of a database that was dropped with FORCE. Postgres reports a missing database
//! as FATAL, which ends the process with an error and cannot be caught: the worker would be
//! restarted for ever, and would occupy one of max_worker_processes. The server forgets a process
//! that exits with code 0.

use pgrx::prelude::*;
use std::cell::Cell;

thread_local! {
    static PREVIOUS_HOOK: Cell<pg_sys::emit_log_hook_type> = const { Cell::new(None) };
    static IS_DROPPED: Cell<bool> = const { Cell::new(false) };
}

/// Connects this process to a database by `attach`. If the database does not exist, the process
/// exits with code 0.
pub fn end_without_restart_if_dropped(attach: impl FnOnce()) {
    // SAFETY: the hook and the callback are plain functions. The process has no other thread yet.
    // FATAL runs the callbacks, and `attach` returns in all other cases.
    unsafe {
        pg_sys::before_shmem_exit(Some(exit_if_dropped), pg_sys::Datum::from(0usize));
        PREVIOUS_HOOK.set(pg_sys::emit_log_hook);
        pg_sys::emit_log_hook = Some(note_dropped);
        attach();
        pg_sys::emit_log_hook = PREVIOUS_HOOK.get();
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn note_dropped(report: *mut pg_sys::ErrorData) {
    // SAFETY: the server passes a valid report, also to the previous hook.
    unsafe {
        let undefined = PgSqlErrorCode::ERRCODE_INVALID_CATALOG_NAME as i32;
        if (*report).elevel == pg_sys::FATAL as i32 && (*report).sqlerrcode == undefined {
            IS_DROPPED.set(true);
        }
        if let Some(previous) = PREVIOUS_HOOK.get() {
            previous(report);
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn exit_if_dropped(code: i32, _arg: pg_sys::Datum) {
    if code != 0 && IS_DROPPED.get() {
        // SAFETY: a callback may exit with another code; the remaining callbacks run then.
        unsafe { pg_sys::proc_exit(0) };
    }
}
