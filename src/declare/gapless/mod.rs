//! Changes of a flow without a gap: a new version of the flow is built beside it, and then takes
//! over its name and the names of its tables. See docs/internals/gapless.md.
//!
//! Callers: `sql_api`; `workers` for swaps of live flows and for the drop of old versions.

pub mod copy_flow;
pub mod dependents;
pub mod diff;
pub mod exchange;
pub mod exchange_rows;
pub mod partition_tree;
pub mod partitions;
pub mod parts;
pub mod swap;
pub mod table_pair;
pub mod version_table;
