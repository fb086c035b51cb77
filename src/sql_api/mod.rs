//! The SQL functions. They parse arguments, call the modules below, and convert results to rows.
//! They contain no logic and no SQL text.

// pgrx requires ErrorReport as the error type, and the columns of a result in the signature.
#![allow(clippy::result_large_err, clippy::type_complexity)]

pub mod arguments;
pub mod capture;
pub mod create_flow;
pub mod declare;
pub mod definition;
pub mod estimate;
pub mod expectations;
pub mod explain;
pub mod extract;
pub mod fdw_options;
pub mod files;
pub mod gapless;
pub mod gucs;
pub mod history;
pub mod inspect;
pub mod installation;
pub mod lineage;
pub mod live;
pub mod memo;
pub mod metrics;
pub mod providers;
pub mod report;
pub mod search;
pub mod split_file;
pub mod text;
pub mod update;
