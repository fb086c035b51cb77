//! The SQL function `coco.create_flow`, and the declaration that its arguments and those of
//! `coco.plan` stand for.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::declare::add_source::SourceOptions;
use crate::declare::add_target::ExternalLocation;
use crate::declare::create_flow;
use crate::declare::declaration::{Declaration, FlowParts};
use crate::declare::derive_lookups::LookupMode;
use crate::declare::find_source::{self, PartialParts};
use crate::declare::keep_groups::AggregateMode;
use crate::declare::labelled_logic::record_labelled_logic;
use crate::declare::when_exists::WhenExists;
use crate::pg::checked_version::CheckedVersion;
use crate::pg::error::Error;
use crate::pg::json::Json;
use crate::pg::{relations, spi};
use crate::sql_api::arguments::{array_elements, required_argument};
use crate::sql_api::declare::elsewhere;
use crate::sql_api::fdw_options;
use crate::sql_api::live::serve;
use crate::workers::shared_memory;

/// Declares a flow in one call with its source, query, target and key, or with its query alone. With
/// only the name, creates an empty flow; `add_source` and `add_target` then complete it.
#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments)]
fn create_flow(
    _version: CheckedVersion,
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
    if_not_exists: Option<bool>,
    or_replace: Option<bool>,
    settings: Option<Json>,
    lookups: Option<String>,
    refresh: Option<String>,
    fill_order: Option<String>,
    aggregate: Option<String>,
) -> Result<(), ErrorReport> {
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
    declare(given, WhenExists::from_arguments(if_not_exists, or_replace)?)
}

/// The same, for a source of type regclass.
#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments)]
fn create_flow_over(
    _version: CheckedVersion,
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
    if_not_exists: Option<bool>,
    or_replace: Option<bool>,
    settings: Option<Json>,
    lookups: Option<String>,
    refresh: Option<String>,
    fill_order: Option<String>,
    aggregate: Option<String>,
) -> Result<(), ErrorReport> {
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
    declare(given, WhenExists::from_arguments(if_not_exists, or_replace)?)
}

fn declare(given: GivenFlow, when_exists: WhenExists) -> Result<(), ErrorReport> {
    let declaration = declaration(given)?;
    let announce = shared_memory::announce_cancel;
    if create_flow::create_flow(&declaration, when_exists, announce)?.wants_worker {
        serve(&declaration.flow);
    }
    Ok(record_labelled_logic(&declaration.flow)?)
}

/// The argument `source`.
pub enum GivenSource {
    Relation(pg_sys::Oid),
    /// The name of a relation.
    Name(String),
    /// A query, in the place of the source: `coco.create_flow('flow', 'SELECT …')`.
    Query(String),
}

impl GivenSource {
    /// Returns what a text stands for.
    pub fn from_text(text: Option<String>) -> Option<GivenSource> {
        text.map(|text| match is_query(&text) {
            true => GivenSource::Query(text),
            false => GivenSource::Name(text),
        })
    }
}

/// Reports whether a text is a query, and not the name of a relation: it begins with a word with
/// which queries begin, and with a character that cannot follow in a name without quotes.
fn is_query(text: &str) -> bool {
    let text = text.trim_start();
    let begins_with = |word: &str| {
        let begins = text.get(..word.len()).is_some_and(|t| t.eq_ignore_ascii_case(word));
        let rest = text.get(word.len()..).unwrap_or_default();
        let next = rest.chars().next();
        let ends_word = next.is_some_and(|c| !c.is_alphanumeric() && !matches!(c, '_' | '$' | '.'));
        begins && ends_word && !rest.trim_start().is_empty()
    };
    ["select", "with", "values", "table"].into_iter().any(begins_with)
        || ["(", "--", "/*"].into_iter().any(|start| text.starts_with(start))
}

/// The arguments of `create_flow` and `plan`.
pub struct GivenFlow<'a> {
    pub flow: Option<&'a str>,
    pub search_path: Option<&'a str>,
    pub settings: Option<Json>,
    pub lookups: Option<String>,
    pub refresh: Option<String>,
    pub fill_order: Option<String>,
    pub aggregate: Option<String>,
    pub parts: GivenParts,
    pub source: SourceOptions,
}

/// The arguments that declare a source and a target together.
pub struct GivenParts {
    pub source: Option<GivenSource>,
    pub query: Option<String>,
    pub target: Option<String>,
    pub key: Option<Vec<String>>,
    pub server: Option<String>,
    pub options: Option<Json>,
    pub item: Option<String>,
}

impl GivenParts {
    fn is_empty(&self) -> bool {
        self.source.is_none()
            && self.query.is_none()
            && self.target.is_none()
            && self.key.is_none()
            && self.server.is_none()
            && self.options.is_none()
            && self.item.is_none()
    }
}

/// Returns the declaration that the arguments of `create_flow` or `plan` stand for. Finds a source
/// and keys that are not given.
pub fn declaration(given: GivenFlow) -> Result<Declaration<'static>, Error> {
    let flow = required_argument(given.flow, "flow")?;
    let search_path = required_argument(given.search_path, "search_path")?;
    let settings = given.settings.map(|json| json.value("argument \"settings\"")).transpose()?;
    let lookups = given.lookups.as_deref().map(LookupMode::from_argument).transpose()?;
    let aggregate = given.aggregate.as_deref().map(AggregateMode::from_argument).transpose()?;
    let mut new = Declaration {
        flow: flow.to_owned(),
        search_path: search_path.to_owned(),
        settings,
        lookups,
        refresh: given.refresh,
        fill_order: given.fill_order,
        aggregate,
        parts: None,
        check: &fdw_options::check,
        check_altered: &fdw_options::check_altered,
    };
    if given.parts.is_empty() && given.source.is_empty() {
        return Ok(new);
    }
    let GivenParts { source, query, target, key, server, options, item } = given.parts;
    let (source, query) = match (source, query) {
        (Some(GivenSource::Query(text)), None) => (None, Some(text)),
        (Some(GivenSource::Query(_)), Some(_)) => {
            return Err(Error::invalid(
                "argument \"source\" is a query, and so is argument \"query\"",
            )
            .hint("Name the relation whose rows are the items with the argument \"source\"."));
        }
        (Some(GivenSource::Name(name)), query) => {
            (Some(relations::resolve_relation(&name, search_path)?), query)
        }
        (Some(GivenSource::Relation(relation)), query) => (Some(relation), query),
        (None, query) => (None, query),
    };
    let Some(query) = query else {
        return Err(missing(if source.is_some() { "query" } else { "source" }));
    };
    let mut options_of_source = given.source;
    let elsewhere = elsewhere(server, options)?;
    let (relation, key, item) = match (source, target.is_some(), key) {
        (Some(relation), true, Some(key)) => (relation, key, item),
        (None, ..) if options_of_source.name.is_some() => return Err(missing("source")),
        (source, _, key) => {
            // A declaration that leaves something to coco leaves the lookups to it, too.
            new.lookups = new.lookups.or(Some(LookupMode::Derive));
            let found = find_source::find_parts(&PartialParts {
                flow,
                search_path,
                settings: new.settings.as_ref(),
                query: &query,
                source,
                name: options_of_source.name.as_deref(),
                source_key: options_of_source.key.as_deref(),
                key: key.as_deref(),
                item: item.as_deref(),
            })?;
            options_of_source.key = found.source_key;
            (found.relation, found.key, found.item)
        }
    };
    new.lookups = new.lookups.or(Some(LookupMode::None));
    new.parts = Some(FlowParts {
        relation,
        source: options_of_source,
        query,
        target: target.unwrap_or_else(|| target_name(flow, &elsewhere)),
        key,
        item,
        elsewhere,
    });
    Ok(new)
}

/// Returns the flow's name as the name of its target: a table, or an object on a server.
fn target_name(flow: &str, elsewhere: &Option<ExternalLocation>) -> String {
    match elsewhere {
        Some(_) => flow.to_owned(),
        None => spi::ident(flow),
    }
}

fn missing(argument: &str) -> Error {
    Error::invalid(format!("argument \"{argument}\" is missing"))
        .hint("Specify a query, or source, query, target and key; or specify only the name, and then call coco.add_source and coco.add_target.")
}

#[cfg(test)]
mod tests {
    use super::is_query;

    #[test]
    fn queries_are_told_from_names() {
        for query in [
            "select 1",
            "  SELECT id FROM d",
            "select(1)",
            "with a as (select 1) select * from a",
            "values (1)",
            "table d",
            "(select 1)",
            "-- a comment\nselect 1",
            "/* a */ select 1",
            "select\n1",
        ] {
            assert!(is_query(query), "{query}");
        }
        for name in [
            "documents",
            "public.d",
            "select",
            "selected",
            "select.d",
            "with_items",
            "\"select 1\"",
            "16384",
            "",
        ] {
            assert!(!is_query(name), "{name}");
        }
    }
}
