//! The SQL function `coco.explain`.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::inspect::explain;
use crate::sql_api::arguments::required_argument;
use crate::update::limits;
use coco_core::text::wrap_lines;

/// Width of the column `detail` in characters, so that all columns fit side by side in psql.
const DETAIL: usize = 80;

/// Width of the column `hint` in characters.
const HINT: usize = 50;

#[pg_extern(sql = false)]
fn explain(
    flow: Option<&str>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(section, String),
            name!(name, String),
            name!(detail, String),
            name!(hint, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let flow = required_argument(flow, "flow")?;
    let found = explain::explain(flow, limits::configured_limits())?;
    let rows = found.into_iter().map(|f| {
        let detail = if f.prose { wrap_lines(&f.detail, DETAIL) } else { f.detail };
        // The user copies this statement, so it keeps its line breaks.
        let hint = match f.section {
            "index" => f.hint,
            _ => f.hint.map(|hint| wrap_lines(&hint, HINT)),
        };
        (f.section.to_owned(), f.name, detail, hint)
    });
    Ok(TableIterator::new(rows))
}
