//! The SQL functions: they parse arguments and call down.

pub mod declare;
pub mod inspect;
pub mod run;
pub mod settings;
pub mod text;
