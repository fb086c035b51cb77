//! What a user sees of flows: status, errors, lineage, explain, preview, verify, metrics, report.
//!
//! Nothing here changes the state of a flow, except `verify` where it is told to repair. Caller: `sql_api`.

pub mod explain;
pub mod flow_graph;
pub mod lineage;
pub mod metrics;
pub mod pending;
pub mod preview;
pub mod report_data;
pub mod verify;
pub mod views;
