//! The SQL functions: they parse arguments and call down.

// pgrx wants errors as its ErrorReport, and result tables spelled out in the signature.
#![allow(clippy::result_large_err, clippy::type_complexity)]

pub mod declare;
pub mod inspect;
pub mod run;
pub mod settings;
pub mod text;
