//! Adds a line to the context of errors that PostgreSQL raises during a piece of work.

use pgrx::pg_sys;
use std::ffi::{CString, c_char, c_int, c_void};

unsafe extern "C-unwind" {
    // Declared in utils/elog.h, the same from 14 to 18, and missing from pgrx's bindings.
    fn errcontext_msg(format: *const c_char, ...) -> c_int;
}

/// A line of the context, until it is dropped.
struct ContextLine {
    callback: Box<pg_sys::ErrorContextCallback>,
    _text: CString,
}

impl ContextLine {
    fn new(text: &str) -> ContextLine {
        // A name of an object contains no NUL byte.
        let text = CString::new(text).unwrap_or_default();
        // SAFETY: the callback and the text live until `drop` removes the callback from the stack,
        // which also happens if an error unwinds this frame.
        unsafe {
            let mut callback = Box::new(pg_sys::ErrorContextCallback {
                previous: pg_sys::error_context_stack,
                callback: Some(add_line),
                arg: text.as_ptr().cast_mut().cast(),
            });
            pg_sys::error_context_stack = &raw mut *callback;
            ContextLine { callback, _text: text }
        }
    }
}

impl Drop for ContextLine {
    fn drop(&mut self) {
        // SAFETY: restores what `new` found. Lines are dropped in reverse order.
        unsafe { pg_sys::error_context_stack = self.callback.previous };
    }
}

/// Runs `work`. The context of each message that PostgreSQL raises meanwhile ends with this line.
pub fn with_context_line<T>(line: &str, work: impl FnOnce() -> T) -> T {
    let _line = ContextLine::new(line);
    work()
}

unsafe extern "C-unwind" fn add_line(text: *mut c_void) {
    // SAFETY: errfinish calls this while the `ContextLine` exists, which owns the text. The function
    // is given its format and one string.
    unsafe { errcontext_msg(c"%s".as_ptr(), text.cast::<c_char>()) };
}
