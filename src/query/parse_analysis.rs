//! Parse analysis of a user's text by the server.

use pgrx::pg_sys;
use std::ffi::CStr;

/// The analysed tree of a parsed statement without parameters.
///
/// # Safety
/// A raw statement, which is changed, and the text it was parsed from.
pub unsafe fn parse_analyzed(raw: *mut pg_sys::RawStmt, text: &CStr) -> *mut pg_sys::Query {
    // SAFETY: as above.
    unsafe {
        #[cfg(feature = "pg14")]
        return pg_sys::parse_analyze(
            raw,
            text.as_ptr(),
            std::ptr::null_mut(),
            0,
            std::ptr::null_mut(),
        );
        #[cfg(not(feature = "pg14"))]
        return pg_sys::parse_analyze_fixedparams(
            raw,
            text.as_ptr(),
            std::ptr::null(),
            0,
            std::ptr::null_mut(),
        );
    }
}
