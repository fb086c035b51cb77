//! Keeps Rust's backtraces out of the errors that clients see, whatever the server's environment.

use std::backtrace::Backtrace;
use std::env;

/// The variables that turn backtraces on. The first one that is set counts.
const VARIABLES: [&str; 2] = ["RUST_LIB_BACKTRACE", "RUST_BACKTRACE"];

/// Turns backtraces off in this library, for as long as the process exists.
///
/// pgrx captures a backtrace for each error, and appends it to the error's DETAIL. The standard
/// library decides at the first capture whether it captures backtraces at all, and then keeps that
/// decision. The first capture therefore happens here, while the environment forbids it. The
/// environment is then as before, for other extensions and for the server's children.
pub fn disable() {
    let asked = VARIABLES.iter().any(|name| env::var_os(name).is_some_and(|value| value != "0"));
    if !asked {
        drop(Backtrace::capture());
        return;
    }
    let [first, _] = VARIABLES;
    let before = env::var_os(first);
    // SAFETY: called once, when Postgres loads the library. Server processes have one thread; the
    // threads of coco do not exist yet.
    unsafe { env::set_var(first, "0") };
    drop(Backtrace::capture());
    // SAFETY: as above.
    unsafe {
        match before {
            Some(value) => env::set_var(first, value),
            None => env::remove_var(first),
        }
    }
}
