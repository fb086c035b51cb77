//! The SQL functions `coco.create_search` and `coco.search`.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::declare::create_search::{self, NewSearch};
use crate::inspect::search::{self, FoundChunk, SearchMode};
use crate::pg::checked_version::CheckedVersion;
use crate::pg::error::Error;
use crate::pg::json::Json;
use crate::sql_api::arguments::required_argument;
use crate::sql_api::fdw_options;
use crate::sql_api::split_file::language_named;
use crate::sql_api::text::check_sizes;
use crate::workers::shared_memory;

#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments)]
fn create_search(
    _version: CheckedVersion,
    search: Option<&str>,
    source: Option<pg_sys::Oid>,
    text: Option<String>,
    server: Option<String>,
    model: Option<String>,
    dimensions: Option<i32>,
    size: Option<i32>,
    overlap: Option<i32>,
    language: Option<String>,
    configuration: Option<pg_sys::Oid>,
    text_prefix: Option<String>,
    query_prefix: Option<String>,
    if_not_exists: Option<bool>,
    search_path: Option<String>,
) -> Result<(), ErrorReport> {
    let model = match (server, model) {
        (Some(server), Some(model)) => Some((server, model)),
        (None, None) if dimensions.is_some() => return Err(needs_both("dimensions").into()),
        (None, None) if text_prefix.is_some() => return Err(needs_both("text_prefix").into()),
        (None, None) if query_prefix.is_some() => return Err(needs_both("query_prefix").into()),
        (None, None) => None,
        (Some(_), None) => return Err(needs_both("server").into()),
        (None, Some(_)) => return Err(needs_both("model").into()),
    };
    let (size, overlap) =
        (required_argument(size, "size")?, required_argument(overlap, "overlap")?);
    check_sizes(size, overlap)?;
    language.as_deref().map(language_named).transpose()?;
    let new = NewSearch {
        name: required_argument(search, "search")?.to_owned(),
        source: required_argument(source, "source")?,
        text: required_argument(text, "text")?,
        model,
        dimensions,
        text_prefix,
        query_prefix,
        size,
        overlap,
        language,
        configuration: required_argument(configuration, "configuration")?,
        search_path: required_argument(search_path, "search_path")?,
        if_not_exists: if_not_exists.unwrap_or(false),
    };
    let announce = shared_memory::announce_cancel;
    Ok(create_search::create_search(
        &new,
        &fdw_options::check,
        &fdw_options::check_altered,
        announce,
    )?)
}

fn needs_both(given: &str) -> Error {
    Error::invalid(format!(
        "argument \"{given}\" is given without both of \"server\" and \"model\""
    ))
    .hint("Give both for a search by vectors, or none of them for a search by words alone.")
}

#[pg_extern(sql = false)]
fn search(
    _version: CheckedVersion,
    search: Option<&str>,
    query: Option<&str>,
    max_results: Option<i32>,
    mode: Option<&str>,
) -> Result<
    TableIterator<
        'static,
        (name!(source_key, Json), name!(chunk_no, i32), name!(chunk, String), name!(score, f64)),
    >,
    ErrorReport,
> {
    let search = required_argument(search, "search")?;
    let query = required_argument(query, "query")?;
    let max_results = required_argument(max_results, "max_results")?;
    let mode = SearchMode::from_argument(required_argument(mode, "mode")?)?;
    let found = search::search(search, query, max_results, mode)?;
    Ok(TableIterator::new(found.into_iter().map(|found| {
        let FoundChunk { source_key, chunk_no, chunk, score } = found;
        (source_key, chunk_no, chunk, score)
    })))
}
