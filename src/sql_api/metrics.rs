//! The function behind the view `coco.metrics`.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::inspect::metrics;
use crate::sql_api::arguments::required_argument;

#[pg_extern(sql = false)]
fn metric_rows(
    scope: Option<&str>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(metric, String),
            name!(r#type, String),
            name!(flow, Option<String>),
            name!(name, Option<String>),
            name!(server, Option<String>),
            name!(value, f64),
            name!(help, String),
        ),
    >,
    ErrorReport,
> {
    let scope = required_argument(scope, "scope")?;
    let rows = metrics::metrics(scope)?.into_iter().map(|m| {
        let kind = if m.metric.ends_with("_total") { "counter" } else { "gauge" };
        (m.metric.to_owned(), kind.to_owned(), m.flow, m.name, m.server, m.value, m.help.to_owned())
    });
    Ok(TableIterator::new(rows.collect::<Vec<_>>()))
}
