//! Rows of coco's own tables, the objects that coco creates, and locks on them.
//!
//! Nothing here evaluates a user's query. Callers: every room but `pg`.

pub mod flow_rows;
pub mod internal_tables;
pub mod locks;
pub mod model;
pub mod objects;
pub mod relation_locks;
pub mod restored;
pub mod run_history;
pub mod target_table;
