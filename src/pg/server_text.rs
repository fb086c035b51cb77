//! Converts texts to the encoding of the database.

use pgrx::pg_sys;
use std::ffi::CStr;

/// Returns the bytes of a text in the database's encoding, as the value of a `text`. Raises
/// Postgres' error (22P05) if the encoding lacks a character. The text must not contain a zero
/// character.
pub fn to_server_encoding(text: String) -> Vec<u8> {
    const UTF8: i32 = pg_sys::pg_enc::PG_UTF8 as i32;
    // SAFETY: reads a setting of this process.
    if unsafe { pg_sys::GetDatabaseEncoding() } == UTF8 {
        return text.into_bytes();
    }
    // SAFETY: the function reads `text.len()` bytes. It returns the same pointer, or a string that
    // it has allocated and terminated.
    unsafe {
        let given = text.as_ptr().cast();
        let converted = pg_sys::pg_any_to_server(given, text.len() as i32, UTF8);
        if converted.cast_const() == given {
            return text.into_bytes();
        }
        let bytes = CStr::from_ptr(converted).to_bytes().to_vec();
        pg_sys::pfree(converted.cast());
        bytes
    }
}
