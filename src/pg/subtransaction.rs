//! A real subtransaction around work that may fail.

use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, UnwindSafe};

use crate::pg::error::{Error, Result};

/// An error that PostgreSQL raised inside a subtransaction, which was rolled back.
#[derive(Clone, Debug)]
pub struct DataError {
    pub code: PgSqlErrorCode,
    pub sqlstate: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

impl DataError {
    /// Reports whether two conflicting rows can cause the error.
    pub fn is_conflict(&self) -> bool {
        is_conflict(&self.sqlstate)
    }
}

/// Reports whether two conflicting rows can cause an error of this SQLSTATE (unique_violation,
/// exclusion_violation).
pub fn is_conflict(sqlstate: &str) -> bool {
    matches!(sqlstate, "23505" | "23P01")
}

/// Runs `work` in a subtransaction.
///
/// Commits the subtransaction if `work` returns `Ok`, and rolls it back if `work` returns `Err`. If
/// PostgreSQL raises an error that the data can cause, rolls back and returns `raised(…)`. Any
/// other error (cancel, shutdown, out of memory, deadlock, missing privileges) is raised again
/// unchanged. So is an error that means that a statement does not match its tables.
pub fn subtransaction<T, E>(
    work: impl FnOnce() -> std::result::Result<T, E>,
    raised: impl Fn(DataError) -> E + UnwindSafe + std::panic::RefUnwindSafe,
) -> std::result::Result<T, E> {
    catching(is_data_error, work, raised)
}

/// Runs `work`, which takes locks, in a subtransaction. Returns `false`, and releases these locks,
/// if `lock_timeout` ended the wait for one of them. Raises any other error again.
pub fn locks_in_time(work: impl FnOnce() -> Result<()>) -> Result<bool> {
    let timed_out = |sqlstate: &str| sqlstate == "55P03";
    match catching(timed_out, || work().map_err(Some), |_| None) {
        Ok(()) => Ok(true),
        Err(None) => Ok(false),
        Err(Some(error)) => Err(error),
    }
}

/// Runs `work` in a subtransaction, and catches the errors whose SQLSTATE `catches` accepts.
fn catching<T, E>(
    catches: fn(&str) -> bool,
    work: impl FnOnce() -> std::result::Result<T, E>,
    raised: impl Fn(DataError) -> E + UnwindSafe + std::panic::RefUnwindSafe,
) -> std::result::Result<T, E> {
    // SAFETY: as in PL/pgSQL's exec_stmt_block, memory context and resource owner are restored
    // after each step. The callback lives on this stack, and is removed before this function
    // returns.
    unsafe {
        let context = pg_sys::CurrentMemoryContext;
        let owner = pg_sys::CurrentResourceOwner;
        let callbacks = pg_sys::error_context_stack;
        let mut code = 0i32;
        let mut watch = pg_sys::ErrorContextCallback {
            previous: callbacks,
            callback: Some(note_code),
            arg: (&raw mut code).cast(),
        };
        let restore = move || {
            pg_sys::MemoryContextSwitchTo(context);
            pg_sys::CurrentResourceOwner = owner;
            pg_sys::error_context_stack = callbacks;
        };
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::error_context_stack = &raw mut watch;
        let code = &raw const code;
        PgTryBuilder::new(AssertUnwindSafe(|| {
            let result = work();
            match &result {
                Ok(_) => pg_sys::ReleaseCurrentSubTransaction(),
                Err(_) => pg_sys::RollbackAndReleaseCurrentSubTransaction(),
            }
            restore();
            result
        }))
        .catch_others(move |error: CaughtError| {
            // Restore them also if the error continues: its handler must find the transaction as
            // the caller left it.
            pg_sys::MemoryContextSwitchTo(context);
            pg_sys::error_context_stack = callbacks;
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
            restore();
            let report = match &error {
                CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => report,
                CaughtError::RustPanic { .. } => error.rethrow(),
            };
            let sqlstate = match *code {
                0 => sqlstate(report.sql_error_code() as i32),
                packed => sqlstate(packed),
            };
            if crate::pg::tuplestore::row_types::failed_in_analysis() || !catches(&sqlstate) {
                error.rethrow()
            }
            Err(raised(DataError {
                code: report.sql_error_code(),
                sqlstate,
                message: report.message().to_owned(),
                detail: report.detail().map(str::to_owned),
                hint: report.hint().map(str::to_owned),
            }))
        })
        .execute()
    }
}

/// Runs `work`, which only reads, and rolls back its effects, so that its locks are released.
/// Otherwise a session that reads repeatedly, or stays in its transaction, would prevent change
/// logs and outboxes from being emptied.
pub fn look<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let looked = subtransaction(
        || Err::<Infallible, _>(work()),
        |raised| {
            let mut error = Error::new(raised.code, raised.message);
            (error.detail, error.hint) = (raised.detail, raised.hint);
            Err(error)
        },
    );
    match looked {
        Err(found) => found,
        Ok(never) => match never {},
    }
}

/// Runs `work`, and rolls back everything that it writes. An error of PostgreSQL is raised again
/// unchanged.
pub fn undone<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let worked = catching(
        |_| false,
        || Err::<Infallible, _>(work()),
        |raised| Err(Error::new(raised.code, raised.message)),
    );
    match worked {
        Err(result) => result,
        Ok(never) => match never {},
    }
}

/// Records the SQLSTATE of each report when it is raised; the last one is the error's. pgrx knows
/// only PostgreSQL's SQLSTATEs, and would lose one that a user's function raises.
unsafe extern "C-unwind" fn note_code(code: *mut std::ffi::c_void) {
    // SAFETY: errfinish calls this function while `subtransaction` waits below; geterrcode reads
    // its data.
    unsafe { *code.cast::<i32>() = pg_sys::geterrcode() };
}

/// Reports whether an item can cause an error of this SQLSTATE. It cannot cause: 25 transaction
/// state, 40 rollback, 42501 privileges, 53 resources, 54001 stack depth, 55 object state, 57
/// operator intervention, 58 system errors, and corruption (XX001, XX002).
fn is_data_error(sqlstate: &str) -> bool {
    let class = &sqlstate[..2];
    !matches!(class, "25" | "40" | "53" | "55" | "57" | "58")
        && !matches!(sqlstate, "42501" | "54001" | "XX001" | "XX002")
}

/// Returns the five characters of an SQLSTATE, from PostgreSQL's packed form (MAKE_SQLSTATE in
/// elog.h).
pub fn sqlstate(packed: i32) -> String {
    (0..5).map(|i| (((packed >> (6 * i)) & 0x3F) as u8 + b'0') as char).collect()
}

/// Returns the code of an SQLSTATE's five characters. pgrx maps an unknown code to an internal
/// error.
pub fn sqlstate_code(sqlstate: &str) -> PgSqlErrorCode {
    let bits = |c: u8| isize::from(c.wrapping_sub(b'0') & 0x3F);
    let packed =
        sqlstate.bytes().take(5).enumerate().fold(0, |all, (n, c)| all + (bits(c) << (6 * n)));
    PgSqlErrorCode::from(packed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlstates_unpack() {
        assert_eq!(sqlstate(PgSqlErrorCode::ERRCODE_DIVISION_BY_ZERO as i32), "22012");
        assert_eq!(sqlstate(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR as i32), "XX000");
        for one in ["22012", "08P01", "HV024", "XX000"] {
            assert_eq!(sqlstate(sqlstate_code(one) as i32), one);
        }
    }

    #[test]
    fn cancel_deadlock_and_missing_rights_are_no_items_fault() {
        assert!(["22012", "23505", "P0001", "XX000", "42883"].iter().all(|s| is_data_error(s)));
        assert!(!["57014", "40P01", "40001", "42501", "53100"].iter().any(|s| is_data_error(s)));
    }
}
