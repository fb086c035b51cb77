//! Flows as a picture, in SQL.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::catalog::graph;
use crate::engine::mermaid;

#[pg_extern(sql = false)]
fn diagram(flow: Option<&str>) -> Result<String, ErrorReport> {
    Ok(mermaid::flowchart(&graph::graph(flow)?))
}
