//! The SQL functions that show flows as code: `coco.flow_definition`, `coco.definitions` and
//! `coco.plan`.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::declare::add_source::SourceOptions;
use crate::inspect::{definition, plan};
use crate::pg::json::Json;
use crate::sql_api::arguments::{array_elements, required_argument};
use crate::sql_api::declare::{GivenParts, declaration};

#[pg_extern(sql = false)]
fn flow_definition(flow: Option<&str>) -> Result<String, ErrorReport> {
    let flow = required_argument(flow, "flow")?;
    Ok(definition::flow_definition(flow)?)
}

#[pg_extern(sql = false)]
fn definitions()
-> Result<TableIterator<'static, (name!(flow, String), name!(definition, String))>, ErrorReport> {
    let all = definition::definitions()?;
    Ok(TableIterator::new(all.into_iter().map(|d| (d.flow, d.definition))))
}

#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments)]
fn plan(
    flow: Option<&str>,
    source: Option<pg_sys::Oid>,
    query: Option<String>,
    target: Option<String>,
    key: Option<Vec<Option<String>>>,
    name: Option<String>,
    source_key: Option<Vec<Option<String>>>,
    ordinal: Option<String>,
    fingerprint: Option<String>,
    capture: Option<String>,
    refresh_interval: Option<Interval>,
    search_path: Option<&str>,
    server: Option<String>,
    options: Option<Json>,
    item: Option<String>,
    settings: Option<Json>,
) -> Result<
    TableIterator<
        'static,
        (name!(object, String), name!(name, String), name!(change, String), name!(effect, String)),
    >,
    ErrorReport,
> {
    let flow = required_argument(flow, "flow")?;
    let search_path = required_argument(search_path, "search_path")?;
    let key = array_elements(key, "key")?;
    let source_key = array_elements(source_key, "source_key")?;
    let options_of_source =
        SourceOptions { name, key: source_key, ordinal, fingerprint, capture, refresh_interval };
    let given = GivenParts { source, query, target, key, server, options, item };
    let declaration = declaration(flow, search_path, settings, given, options_of_source)?;
    let differences = plan::plan(&declaration)?;
    Ok(TableIterator::new(differences.into_iter().map(|d| {
        let effect = d.effect().to_owned();
        (d.object.to_owned(), d.name, d.change, effect)
    })))
}
