//! Passes rows between two statements without leaving PostgreSQL. Tuplestores spill to disk at
//! `work_mem`, and a statement reads them by name, like a trigger's transition table.

pub mod named_row;
pub mod passed_rows;
pub mod receiver;
pub mod row;
pub mod row_stream;
pub mod row_types;
pub mod rows;
pub mod statements;
