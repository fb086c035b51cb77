//! A user's query as a tree and as text: bound at declaration, analyzed, composed with items,
//! planned and fingerprinted.
//!
//! Callers: `memo`, `outbox`, `flows`, `update`, `declare`, `inspect`.

pub mod analyze;
pub mod batch;
pub mod bound_query;
pub mod compose;
pub mod condition;
pub mod declared_text;
pub mod dependency_walk;
pub mod expected_rows;
pub mod expression_type;
pub mod group_parts;
pub mod group_rules;
pub mod item_names;
pub mod join_paths;
pub mod joins;
pub mod kept_columns;
pub mod key_rows;
pub mod key_rules;
pub mod logic_description;
pub mod logic_fingerprint;
pub mod named_source;
pub mod names;
pub mod never_null;
pub mod one_row_per_item;
pub mod parse_analysis;
pub mod place_items;
pub mod planner_hook;
pub mod query_shape;
pub mod row_local;
pub mod same_query;
pub mod syntax;
pub mod trace_column;
pub mod union_all;
pub mod used_columns;
pub mod view_tree;
pub mod walker;
