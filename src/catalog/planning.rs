//! What a statement becomes before it is planned where calls of memoised functions are to recall their results.

use std::cell::Cell;
use std::ffi::c_char;

use pgrx::pg_sys;

use super::memo::rewrite;

thread_local! {
    /// The planner that was there before, once this stands before it.
    static NEXT: Cell<Option<pg_sys::planner_hook_type>> = const { Cell::new(None) };
}

/// Puts it before the planner of this process, if it is not there yet: only processes that evaluate flows' queries
/// have it.
pub fn install() {
    if NEXT.get().is_none() {
        // SAFETY: the hook is a variable of this process, which has one thread for Postgres.
        unsafe {
            NEXT.set(Some(pg_sys::planner_hook));
            pg_sys::planner_hook = Some(plan);
        }
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn plan(
    query: *mut pg_sys::Query,
    text: *const c_char,
    options: i32,
    parameters: pg_sys::ParamListInfo,
) -> *mut pg_sys::PlannedStmt {
    // SAFETY: as the planner is called. The query is the caller's to change, as it is the planner's.
    unsafe {
        rewrite::recall(query);
        match NEXT.get().flatten() {
            Some(next) => {
                pg_sys::ffi::pg_guard_ffi_boundary(|| next(query, text, options, parameters))
            }
            // Guarded by itself: nothing may be raised through two guards.
            None => pg_sys::standard_planner(query, text, options, parameters),
        }
    }
}
