//! The planner hook: what changes a statement before the server plans it.

use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::c_char;

thread_local! {
    /// The planner that was there before, once this stands before it.
    static NEXT: Cell<Option<pg_sys::planner_hook_type>> = const { Cell::new(None) };
    /// What changes a query before it is planned.
    static REWRITE: Cell<Option<Rewrite>> = const { Cell::new(None) };
}

/// Changes an analyzed query, which is the function's to change.
pub type Rewrite = unsafe fn(*mut pg_sys::Query) -> bool;

/// Installs the hook in this process, unless it is installed: only processes that evaluate queries of flows need it.
pub fn install(rewrite: Rewrite) {
    REWRITE.set(Some(rewrite));
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
        if let Some(rewrite) = REWRITE.get() {
            rewrite(query);
        }
        match NEXT.get().flatten() {
            Some(next) => {
                pg_sys::ffi::pg_guard_ffi_boundary(|| next(query, text, options, parameters))
            }
            // Guarded by itself: nothing may be raised through two guards.
            None => pg_sys::standard_planner(query, text, options, parameters),
        }
    }
}
