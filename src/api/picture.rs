//! Flows as a picture, in SQL.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::catalog::{graph, report};
use crate::engine::mermaid;
use crate::engine::report::page;

#[pg_extern(sql = false)]
fn diagram(flow: Option<&str>) -> Result<String, ErrorReport> {
    Ok(mermaid::flowchart(&graph::graph(flow, false)?))
}

#[pg_extern(sql = false)]
fn report() -> Result<String, ErrorReport> {
    Ok(page::page(&report::report()?))
}
