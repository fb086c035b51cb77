//! The SQL functions that declare, alter and drop flows. Their signatures, defaults and comments
//! are in `sql/functions.sql` and `sql/comments/`.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::catalog::flow_rows;
use crate::declare::add_lookup::{self, LookupOptions};
use crate::declare::add_source::{self, SourceOptions};
use crate::declare::add_target::{self, ExternalLocation};
use crate::declare::alter_flow::{self, Changes};
use crate::declare::gapless::copy_flow::{self, VersionOptions};
use crate::declare::labelled_logic::record_labelled_logic;
use crate::declare::when_exists::WhenExists;
use crate::declare::{self, rename_flow};
use crate::pg::checked_version::CheckedVersion;
use crate::pg::error::Error;
use crate::pg::json::Json;
use crate::pg::notice::notice;
use crate::sql_api::arguments::{array_elements, required_argument};
use crate::sql_api::fdw_options;
use crate::sql_api::live::serve;
use crate::update::limits;
use crate::workers::{commit_wakeup, shared_memory, update_client};
use coco_core::worker_request::WorkerCommand;

/// Returns the location of an external target, or `None` for a target in this database.
pub fn elsewhere(
    server: Option<String>,
    options: Option<Json>,
) -> Result<Option<ExternalLocation<'static>>, Error> {
    match (server, options) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(Error::invalid("argument \"options\" requires argument \"server\"")
            .hint("Omit \"options\": only external targets have options.")),
        (Some(server), options) => {
            let options = fdw_options::options(options)?;
            Ok(Some(ExternalLocation { server, options, check: &fdw_options::check }))
        }
    }
}

#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments)]
fn add_source(
    _version: CheckedVersion,
    flow: Option<&str>,
    source: Option<pg_sys::Oid>,
    name: Option<String>,
    key: Option<Vec<Option<String>>>,
    ordinal: Option<String>,
    fingerprint: Option<String>,
    capture: Option<String>,
    refresh_interval: Option<Interval>,
    if_not_exists: Option<bool>,
) -> Result<(), ErrorReport> {
    let flow = required_argument(flow, "flow")?;
    let source = required_argument(source, "source")?;
    let key = array_elements(key, "key")?;
    let options = SourceOptions { name, key, ordinal, fingerprint, capture, refresh_interval };
    let when_exists = WhenExists::from_arguments(if_not_exists, None)?;
    add_source::add_source(flow, source, options, when_exists)?;
    Ok(record_labelled_logic(flow)?)
}

#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments)]
fn add_lookup(
    _version: CheckedVersion,
    flow: Option<&str>,
    lookup: Option<pg_sys::Oid>,
    name: Option<String>,
    affects: Option<String>,
    source: Option<String>,
    key: Option<Vec<Option<String>>>,
    capture: Option<String>,
    refresh_interval: Option<Interval>,
    if_not_exists: Option<bool>,
) -> Result<(), ErrorReport> {
    let flow = required_argument(flow, "flow")?;
    let lookup = required_argument(lookup, "lookup")?;
    let key = array_elements(key, "key")?;
    let options = LookupOptions { name, affects, source, key, capture, refresh_interval };
    let when_exists = WhenExists::from_arguments(if_not_exists, None)?;
    add_lookup::add_lookup(flow, lookup, options, when_exists)?;
    Ok(record_labelled_logic(flow)?)
}

#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments)]
fn add_target(
    _version: CheckedVersion,
    flow: Option<&str>,
    target: Option<&str>,
    query: Option<&str>,
    key: Option<Vec<Option<String>>>,
    server: Option<String>,
    options: Option<Json>,
    item: Option<&str>,
    if_not_exists: Option<bool>,
) -> Result<(), ErrorReport> {
    let flow = required_argument(flow, "flow")?;
    let target = required_argument(target, "target")?;
    let query = required_argument(query, "query")?;
    let key = required_argument(array_elements(key, "key")?, "key")?;
    let when_exists = WhenExists::from_arguments(if_not_exists, None)?;
    let elsewhere = elsewhere(server, options)?;
    add_target::add_target(flow, target, query, &key, item, elsewhere, when_exists)?;
    Ok(record_labelled_logic(flow)?)
}

#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments)]
fn set_query(
    _version: CheckedVersion,
    flow: Option<&str>,
    target: Option<&str>,
    query: Option<&str>,
    item: Option<&str>,
    gapless: Option<bool>,
    swap: Option<String>,
    keep_old: Option<Interval>,
    key: Option<Vec<Option<String>>>,
) -> Result<(), ErrorReport> {
    let flow = required_argument(flow, "flow")?;
    let query = required_argument(query, "query")?;
    let options = VersionOptions {
        key: array_elements(key, "key")?,
        swap: swap.unwrap_or_else(|| "auto".to_owned()),
        keep_old: keep_old.unwrap_or_else(|| Interval::from_micros(0)),
    };
    if gapless == Some(true) {
        return Ok(copy_flow::declare_version(flow, target, query, item, &options)?);
    }
    options.check_unused()?;
    add_target::set_query(flow, target, query, item, &fdw_options::check)?;
    Ok(record_labelled_logic(flow)?)
}

#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments)]
fn alter_flow(
    _version: CheckedVersion,
    flow: Option<&str>,
    owner: Option<pg_sys::Oid>,
    label: Option<String>,
    batch_size: Option<i32>,
    paused: Option<bool>,
    lineage_index: Option<bool>,
    source: Option<String>,
    ordinal: Option<String>,
    fingerprint: Option<String>,
    capture: Option<String>,
    refresh_interval: Option<Interval>,
    search_path: Option<String>,
    settings: Option<Json>,
    target: Option<String>,
    options: Option<Json>,
    verify_interval: Option<Interval>,
    max_rows: Option<i64>,
    max_cost: Option<f64>,
    refresh: Option<String>,
    fill_order: Option<String>,
) -> Result<(), ErrorReport> {
    let flow = required_argument(flow, "flow")?;
    let changes = Changes {
        owner,
        label,
        batch_size,
        paused,
        lineage_index,
        source,
        ordinal,
        fingerprint,
        capture,
        refresh_interval,
        search_path,
        settings: settings.map(|json| json.value("argument \"settings\"")).transpose()?,
        target,
        options: options.map(|json| fdw_options::options(Some(json))).transpose()?,
        verify_interval,
        max_rows,
        max_cost,
        refresh,
        fill_order,
    };
    if alter_flow::alter_flow(flow, changes, &fdw_options::check_altered)?.wants_worker {
        serve(flow);
        commit_wakeup::at_commit();
    }
    Ok(record_labelled_logic(flow)?)
}

#[pg_extern(sql = false)]
fn rename_flow(flow: Option<&str>, new_name: Option<&str>) -> Result<(), ErrorReport> {
    let flow = required_argument(flow, "flow")?;
    let new_name = required_argument(new_name, "new_name")?;
    rename_flow::rename_flow(flow, new_name)?;
    commit_wakeup::at_commit();
    Ok(())
}

#[pg_extern(sql = false)]
fn drop_flow(
    _version: CheckedVersion,
    flow: Option<&str>,
    keep_targets: Option<bool>,
    if_exists: Option<bool>,
) -> Result<(), ErrorReport> {
    let flow = required_argument(flow, "flow")?;
    let keep_targets = required_argument(keep_targets, "keep_targets")?;
    if if_exists == Some(true) && !flow_rows::is_flow(flow)? {
        notice(format!("flow \"{flow}\" does not exist, skipping"));
        return Ok(());
    }
    if !keep_targets && flow_rows::has_made_external(flow)? {
        // Deletions on another server cannot be rolled back with this transaction, so a worker
        // drops the flow and its external objects in a transaction of its own.
        update_client::run_in_worker(flow, WorkerCommand::Drop, limits::configured_limits())?;
        return Ok(());
    }
    Ok(declare::drop_flow(flow, keep_targets, shared_memory::announce_cancel)?)
}
