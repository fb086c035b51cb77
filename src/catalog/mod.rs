//! The rows of coco's own tables, the objects that coco creates, and the locks on them.
//!
//! Nothing in this module evaluates a user's query. Callers: every room except `pg`.

pub mod expectation_rows;
pub mod flow_rows;
pub mod followed_names;
pub mod group_state;
pub mod group_tables;
pub mod installed;
pub mod internal_tables;
pub mod item_failure;
pub mod locks;
pub mod logic_rows;
pub mod made_targets;
pub mod memo_function;
pub mod model;
pub mod object_comments;
pub mod object_names;
pub mod objects;
pub mod relation_locks;
pub mod restored;
pub mod run_history;
pub mod run_label;
pub mod search_rows;
pub mod target_table;
pub mod version_rows;
