//! What a user sees of flows: status, errors, lineage, explain, preview, evaluate, verify, estimates, metrics,
//! report, definitions and plans.
//!
//! Nothing in this module changes the state of a flow, except `verify` when it repairs. Caller:
//! `sql_api`.

pub mod declaration_sql;
pub mod definition;
pub mod estimate;
pub mod evaluate;
pub mod expectations;
pub mod explain;
pub mod failures;
pub mod flow_graph;
pub mod lineage;
pub mod mend_outside;
pub mod metrics;
pub mod outside_rows;
pub mod pending;
pub mod plan;
pub mod preview;
pub mod report_data;
pub mod schedules;
pub mod search;
pub mod verify;
pub mod views;
