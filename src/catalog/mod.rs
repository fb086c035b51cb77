//! The only place with SQL: typed reads and writes, query composition, names quoted.

pub mod analysis;
pub mod apply;
pub mod batch;
pub mod columns;
pub mod compose;
pub mod contested;
pub mod datum;
pub mod declare;
pub mod derived;
pub mod detect;
pub mod error;
pub mod failure;
pub mod inspect;
pub mod logic;
pub mod model;
pub mod ownership;
pub mod preview;
pub mod registry;
pub mod role;
pub mod sql;
pub mod subtransaction;
pub mod target_table;
pub mod tuples;
pub mod update;
pub mod verify;
