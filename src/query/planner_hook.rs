//! The planner hook, which changes a statement before the server plans it. Caller: `flows`.

use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::c_char;

thread_local! {
    /// The planner hook that was installed before this one; `None` until this one is installed.
    static NEXT: Cell<Option<pg_sys::planner_hook_type>> = const { Cell::new(None) };
    /// The function that changes a query before the server plans it.
    static REWRITE: Cell<Option<Rewrite>> = const { Cell::new(None) };
}

/// A function that changes an analyzed query in place.
pub type Rewrite = unsafe fn(*mut pg_sys::Query) -> bool;

/// Installs the hook in this process, unless it is already installed. Only processes that evaluate
/// flows' queries need it.
pub fn install(rewrite: Rewrite) {
    REWRITE.set(Some(rewrite));
    if NEXT.get().is_none() {
        // SAFETY: the hook is a variable of this process, which runs PostgreSQL in one thread.
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
    // SAFETY: PostgreSQL calls the hook with valid arguments. The planner may change the query, and
    // so may the hook.
    unsafe {
        if let Some(rewrite) = REWRITE.get() {
            rewrite(query);
        }
        match NEXT.get().flatten() {
            Some(next) => {
                pg_sys::ffi::pg_guard_ffi_boundary(|| next(query, text, options, parameters))
            }
            // `standard_planner` has a guard of its own: an error must not pass two guards.
            None => pg_sys::standard_planner(query, text, options, parameters),
        }
    }
}
