//! Parse analysis of a user's text by the server. Callers: `expression_type`, `item_names`.

use pgrx::pg_sys;
use std::ffi::{CStr, CString};

use crate::pg::error::{Error, Result};

/// Returns the analyzed tree of a parsed statement without parameters.
///
/// # Safety
/// `raw` is a raw statement, which this function modifies, and `text` is the text it was parsed
/// from.
pub unsafe fn parse_analyzed(raw: *mut pg_sys::RawStmt, text: &CStr) -> *mut pg_sys::Query {
    // SAFETY: the caller upholds the same contract.
    unsafe {
        pg_sys::parse_analyze_fixedparams(
            raw,
            text.as_ptr(),
            std::ptr::null(),
            0,
            std::ptr::null_mut(),
        )
    }
}

/// Returns a text as PostgreSQL's parser reads it.
pub fn c_string(s: &str) -> Result<CString> {
    CString::new(s).map_err(|_| Error::invalid("text contains a NUL byte"))
}
