//! Rows that pass between two statements without leaving Postgres: tuplestores, which spill to
//! disk at `work_mem`, and which a statement reads by name like a trigger's transition table.

pub mod passed_rows;
pub mod receiver;
pub mod row;
pub mod row_stream;
pub mod row_types;
pub mod rows;
pub mod statements;
