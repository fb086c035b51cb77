//! Files that record which flow a process works on, and that survive a crash.
//!
//! If a process is killed by a signal, the server restarts with new shared memory. If the next
//! process worked on the same flow at once and was killed again, nobody could use the server any
//! more. Therefore each process of a live flow has a file in `pg_stat`, which is named by its
//! database and its process id, and contains the flow's id. A process removes its file when it ends
//! normally, and also when the server ends it because another process crashed. The remaining files
//! therefore name the flows whose processes crashed. The next worker of the database reads these
//! files.

use pgrx::prelude::*;
use std::ffi::{CString, c_int};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use crate::workers::turn_limit;

/// The file of this process, and its path for the signal handler.
static NOTE: OnceLock<(File, CString)> = OnceLock::new();

/// The server's directory for files that survive a restart. The path is relative to the data
/// directory, the working directory of all server processes.
pub const DIRECTORY: &str = "pg_stat";

fn prefix(database: pg_sys::Oid) -> String {
    format!("coco.{}.", database.to_u32())
}

/// Creates the file of this process. If that fails (the disk is full), the process works without
/// it.
pub fn enter(database: pg_sys::Oid) {
    let path = format!("{DIRECTORY}/{}{}", prefix(database), std::process::id());
    let (Ok(name), Ok(file)) = (CString::new(path.as_str()), File::create(&path)) else {
        return tracing::warn!("could not create file \"{path}\"");
    };
    if NOTE.set((file, name)).is_err() {
        return;
    }
    // SAFETY: plain functions; the handler makes only calls that are safe in a signal handler.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        use pg_sys::pqsignal;
        #[cfg(feature = "pg18")]
        use pg_sys::pqsignal_be as pqsignal;
        pqsignal(libc::SIGQUIT, Some(killed_with_others));
        pg_sys::before_shmem_exit(Some(leave), pg_sys::Datum::from(0usize));
    }
}

/// Removes the file: the server ends this process because another process crashed, so this flow is
/// not the cause.
unsafe extern "C-unwind" fn killed_with_others(_signal: c_int) {
    // SAFETY: the data was written before the handler was installed; both calls are safe in a
    // signal handler.
    unsafe {
        if let Some((_, path)) = NOTE.get() {
            libc::unlink(path.as_ptr());
        }
        libc::_exit(2);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn leave(_code: c_int, _arg: pg_sys::Datum) {
    // A process that ended itself because it could not cancel its transaction counts as crashed.
    if let Some((_, path)) = NOTE.get()
        && !turn_limit::is_beyond()
    {
        // SAFETY: the path ends with a NUL.
        unsafe { libc::unlink(path.as_ptr()) };
    }
}

/// Records that this process works on a flow from now on, or on none if `flow` is 0. It does not
/// sync the file: a crash of the process loses nothing that it has written.
pub fn note(flow: i32) {
    if let Some((file, _)) = NOTE.get()
        && let Err(error) = file.write_all_at(&flow.to_ne_bytes(), 0)
    {
        tracing::warn!("could not record the current flow: {error}");
    }
}

/// Returns the flows that processes of a database worked on when they crashed, once per process.
/// Removes their files.
pub fn died(database: pg_sys::Oid) -> Vec<i32> {
    let prefix = prefix(database);
    let mut flows = Vec::new();
    for entry in fs::read_dir(DIRECTORY).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(&prefix));
        let Some(pid) = number.and_then(|number| number.parse::<i32>().ok()) else { continue };
        // SAFETY: reads shared state.
        if !unsafe { pg_sys::BackendPidGetProc(pid) }.is_null() {
            continue;
        }
        let noted = fs::read(entry.path()).unwrap_or_default();
        // Another worker may be reading the files, too.
        if fs::remove_file(entry.path()).is_err() {
            continue;
        }
        let flow = noted.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
        flows.extend((flow != 0).then_some(flow));
    }
    flows
}
