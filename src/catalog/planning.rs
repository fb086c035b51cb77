//! What a statement that coco has composed becomes before it is planned.

use std::cell::Cell;
use std::ffi::{CStr, c_char};

use pgrx::pg_sys;

use super::compose;
use super::memo::rewrite;
use super::shadows;

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
        // Where calls recall, each is for the item that it stands beside: nothing is merged with it.
        if !rewrite::recall(query) && is_composed(text) {
            shadows::see_through(query);
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

/// Where a statement of coco's shows itself at the latest, in bytes. Others can be long, and are a user's.
const HEAD: usize = 16 << 10;

/// Whether a statement, or the one that it explains, is one of coco's.
unsafe fn is_composed(text: *const c_char) -> bool {
    // SAFETY: a text, or none.
    let text = (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_bytes());
    let mark = compose::MARK.as_bytes();
    let head = text.map(|text| &text[..text.len().min(HEAD)]);
    head.is_some_and(|head| head.windows(mark.len()).any(|part| part == mark))
}
