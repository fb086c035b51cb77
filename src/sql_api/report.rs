//! The SQL functions `coco.diagram` and `coco.report`.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::inspect::{flow_graph, report_data};
use crate::pg::checked_version::CheckedVersion;
use coco_report::mermaid;
use coco_report::page;

#[pg_extern(sql = false)]
fn diagram(_version: CheckedVersion, flow: Option<&str>) -> Result<String, ErrorReport> {
    Ok(mermaid::flowchart(&flow_graph::graph(flow, false)?))
}

#[pg_extern(sql = false)]
fn report(_version: CheckedVersion) -> Result<String, ErrorReport> {
    Ok(page::render_page(&report_data::report()?))
}
