//! What a process works on, noted where a crash does not reach.
//!
//! A process that dies by a signal makes the server begin anew, with new shared memory. If what it worked on is tried
//! again at once, and kills the next process, nobody can use the server any more. So each process of a live flow has a
//! file in `pg_stat`, named by its database and its own number, with the number of the flow. A process removes its
//! file when it ends in order, also when the server ends it because another one has died: what is left behind names
//! the flows whose processes died. The next worker of the database reads it.

use pgrx::prelude::*;
use std::ffi::{CString, c_int};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use crate::workers::turn_limit;

/// The file of this process, and its path for the signal handler.
static NOTE: OnceLock<(File, CString)> = OnceLock::new();

/// The server's own directory for what is to outlive it; relative to that of its data, where its processes are.
pub const DIRECTORY: &str = "pg_stat";

fn prefix(database: pg_sys::Oid) -> String {
    format!("coco.{}.", database.to_u32())
}

/// Makes the file of this process. Without one (the disk is full) the process works all the same.
pub fn enter(database: pg_sys::Oid) {
    let path = format!("{DIRECTORY}/{}{}", prefix(database), std::process::id());
    let (Ok(name), Ok(file)) = (CString::new(path.as_str()), File::create(&path)) else {
        return tracing::warn!("file \"{path}\" could not be made");
    };
    if NOTE.set((file, name)).is_err() {
        return;
    }
    // SAFETY: plain functions; the handler only makes calls that a signal handler may make.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        use pg_sys::pqsignal;
        #[cfg(feature = "pg18")]
        use pg_sys::pqsignal_be as pqsignal;
        pqsignal(libc::SIGQUIT, Some(killed_with_others));
        pg_sys::before_shmem_exit(Some(leave), pg_sys::Datum::from(0usize));
    }
}

/// The server ends its processes since one has died: this one has done no harm.
unsafe extern "C-unwind" fn killed_with_others(_signal: c_int) {
    // SAFETY: what is read was written before the handler was set; both calls may be made in a signal handler.
    unsafe {
        if let Some((_, path)) = NOTE.get() {
            libc::unlink(path.as_ptr());
        }
        libc::_exit(2);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn leave(_code: c_int, _arg: pg_sys::Datum) {
    // One that had to end itself, because a turn did not end, counts as dead.
    if let Some((_, path)) = NOTE.get()
        && !turn_limit::is_beyond()
    {
        // SAFETY: the path ends with a NUL.
        unsafe { libc::unlink(path.as_ptr()) };
    }
}

/// Notes that this process works on a flow from now on, or with 0 on none. It is not waited for the disk: what is
/// written outlives the process.
pub fn note(flow: i32) {
    if let Some((file, _)) = NOTE.get()
        && let Err(error) = file.write_all_at(&flow.to_ne_bytes(), 0)
    {
        tracing::warn!("the flow that is worked on could not be noted: {error}");
    }
}

/// The flows that processes of a database worked on when they died, each once for each death. Removes their files.
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
        // Another worker may be reading them too.
        if fs::remove_file(entry.path()).is_err() {
            continue;
        }
        let flow = noted.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
        flows.extend((flow != 0).then_some(flow));
    }
    flows
}
