//! Explaining flows in SQL.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::inspect::explain;
use crate::update::limits;
use coco_core::text::wrapped;

/// Characters of a line, so that the columns stand beside each other in psql.
const DETAIL: usize = 80;

const HINT: usize = 50;

#[pg_extern(sql = false)]
fn explain(
    flow: &str,
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
    let found = explain::explain(flow, limits::configured_limits())?;
    let rows = found.into_iter().map(|f| {
        let detail = if f.prose { wrapped(&f.detail, DETAIL) } else { f.detail };
        // A statement to be copied stays as it is.
        let hint = match f.section {
            "index" => f.hint,
            _ => f.hint.map(|hint| wrapped(&hint, HINT)),
        };
        (f.section.to_owned(), f.name, detail, hint)
    });
    Ok(TableIterator::new(rows))
}
