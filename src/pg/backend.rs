//! What this process is for Postgres: its database, its process id, its transaction's isolation.

use pgrx::pg_sys;

use crate::pg::error::{Error, Result};

/// Returns the database that the process is connected to.
pub fn database() -> pg_sys::Oid {
    // SAFETY: reads the process's own state.
    unsafe { pg_sys::MyDatabaseId }
}

/// Returns the process id.
pub fn process_id() -> i32 {
    // SAFETY: reads the process's own state.
    unsafe { pg_sys::MyProcPid }
}

/// Reports whether the transaction keeps one snapshot for all of its statements.
pub fn keeps_its_snapshot() -> bool {
    // SAFETY: reads the process's own state.
    unsafe { pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as i32 }
}

/// Reports whether the current user is a superuser.
pub fn is_superuser() -> bool {
    // SAFETY: reads the process's own state and its catalog cache.
    unsafe { pg_sys::superuser() }
}

/// Returns a number that nobody can guess.
pub fn random_number() -> Result<i64> {
    let mut bytes = [0u8; 8];
    // SAFETY: the call fills the given bytes.
    match unsafe { pg_sys::pg_strong_random(bytes.as_mut_ptr().cast(), bytes.len()) } {
        true => Ok(i64::from_ne_bytes(bytes)),
        false => Err(Error::internal("could not generate random values")),
    }
}
