//! A real subtransaction around work that may fail.

use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, UnwindSafe};

use crate::pg::error::{Error, Result};

/// An error that Postgres raised inside the subtransaction, which was rolled back.
#[derive(Clone, Debug)]
pub struct DataError {
    pub code: PgSqlErrorCode,
    pub sqlstate: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

impl DataError {
    /// Whether it can come from two rows that may not be there together.
    pub fn is_conflict(&self) -> bool {
        is_conflict(&self.sqlstate)
    }
}

/// Whether an error of this SQLSTATE (unique_violation, exclusion_violation) can come from two rows that may not be
/// there together.
pub fn is_conflict(sqlstate: &str) -> bool {
    matches!(sqlstate, "23505" | "23P01")
}

/// Runs `work` in a subtransaction. Commits it where `work` returns `Ok`; rolls it back where it
/// returns `Err`, or where Postgres raises an error that is the data's: that comes back as
/// `raised(…)`. An error that is not (cancel, shutdown, out of memory, deadlock, missing rights)
/// goes on as it came, as does one that says that a statement does not fit its tables.
pub fn subtransaction<T, E>(
    work: impl FnOnce() -> std::result::Result<T, E>,
    raised: impl Fn(DataError) -> E + UnwindSafe + std::panic::RefUnwindSafe,
) -> std::result::Result<T, E> {
    // SAFETY: as in PL/pgSQL's exec_stmt_block: context and owner are put back after each step. The
    // callback lives on this stack and is taken off it before this returns.
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
            // Also where the error goes on: it must find the transaction as the caller left it.
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
            if crate::pg::tuplestore::row_types::failed_in_analysis() || !is_data_error(&sqlstate) {
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

/// Runs `work`, which only looks at something, and rolls back what it did. That gives its locks back: a session that
/// looks again and again, or that stays in its transaction, would keep change logs and outboxes from being emptied.
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

/// Notes the SQLSTATE of each report as it is raised; the last one is the error's. pgrx knows the
/// SQLSTATEs of Postgres alone: one that a user's function raises would be lost.
unsafe extern "C-unwind" fn note_code(code: *mut std::ffi::c_void) {
    // SAFETY: called by errfinish while `subtransaction` waits below; geterrcode reads its data.
    unsafe { *code.cast::<i32>() = pg_sys::geterrcode() };
}

/// Whether an error of this SQLSTATE can be an item's fault. Not its fault: 25 transaction state,
/// 40 rollback, 42501 rights, 53 resources, 54 limits of the server, 55 object state, 57
/// intervention, 58 system, and corruption (XX001, XX002).
fn is_data_error(sqlstate: &str) -> bool {
    let class = &sqlstate[..2];
    !matches!(class, "25" | "40" | "53" | "55" | "57" | "58")
        && !matches!(sqlstate, "42501" | "54001" | "XX001" | "XX002")
}

/// The five characters of an SQLSTATE, from Postgres' packed form (MAKE_SQLSTATE in elog.h).
pub fn sqlstate(packed: i32) -> String {
    (0..5).map(|i| (((packed >> (6 * i)) & 0x3F) as u8 + b'0') as char).collect()
}

/// The code of an SQLSTATE's five characters. pgrx takes what it does not know for an internal error.
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
