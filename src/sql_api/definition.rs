//! The SQL functions that show flows as code: `coco.flow_definition`, `coco.definitions` and
//! `coco.plan`.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::declare::add_source::SourceOptions;
use crate::declare::difference::FlowDifference;
use crate::inspect::{definition, plan};
use crate::pg::json::Json;
use crate::sql_api::arguments::{array_elements, required_argument};
use crate::sql_api::create_flow::{GivenFlow, GivenParts, GivenSource, declaration};

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
    source: Option<String>,
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
    lookups: Option<String>,
    refresh: Option<String>,
    fill_order: Option<String>,
    aggregate: Option<String>,
) -> Result<
    TableIterator<
        'static,
        (name!(object, String), name!(name, String), name!(change, String), name!(effect, String)),
    >,
    ErrorReport,
> {
    let source = GivenSource::from_text(source);
    let key = array_elements(key, "key")?;
    let source_key = array_elements(source_key, "source_key")?;
    let options_of_source =
        SourceOptions { name, key: source_key, ordinal, fingerprint, capture, refresh_interval };
    let parts = GivenParts { source, query, target, key, server, options, item };
    let given = GivenFlow {
        flow,
        search_path,
        settings,
        lookups,
        refresh,
        fill_order,
        aggregate,
        parts,
        source: options_of_source,
    };
    Ok(TableIterator::new(planned(given)?))
}

/// The same, for a source of type regclass.
#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments)]
fn plan_over(
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
    lookups: Option<String>,
    refresh: Option<String>,
    fill_order: Option<String>,
    aggregate: Option<String>,
) -> Result<
    TableIterator<
        'static,
        (name!(object, String), name!(name, String), name!(change, String), name!(effect, String)),
    >,
    ErrorReport,
> {
    let source = source.map(GivenSource::Relation);
    let key = array_elements(key, "key")?;
    let source_key = array_elements(source_key, "source_key")?;
    let options_of_source =
        SourceOptions { name, key: source_key, ordinal, fingerprint, capture, refresh_interval };
    let parts = GivenParts { source, query, target, key, server, options, item };
    let given = GivenFlow {
        flow,
        search_path,
        settings,
        lookups,
        refresh,
        fill_order,
        aggregate,
        parts,
        source: options_of_source,
    };
    Ok(TableIterator::new(planned(given)?))
}

/// The columns of a difference: object, name, change and effect.
type Difference = (String, String, String, String);

fn planned(given: GivenFlow) -> Result<Vec<Difference>, ErrorReport> {
    let differences = plan::plan(&declaration(given)?)?;
    let row = |d: FlowDifference| {
        let effect = d.effect().to_owned();
        (d.object.to_owned(), d.name, d.change, effect)
    };
    Ok(differences.into_iter().map(row).collect())
}
