//! `coco.outputs`: the target rows of a source item.

use pgrx::PgSqlErrorCode;

use crate::catalog::model::{Flow, Source};
use crate::flows::cache;
use crate::inspect::lineage::{by_indexes, check_key, object, of_typed, typed};
use crate::pg::acting_role::RoleGuard;
use crate::pg::columns::all_equal;
use crate::pg::error::{Error, Result};
use crate::pg::json::Json;
use crate::pg::spi::{self, arg, ident};
use crate::query::compose::tracking_keys;
use crate::query::names::key_values;

/// A target row of an item.
pub struct Output {
    pub source: String,
    pub target: String,
    pub key: Json,
    pub listed: bool,
}

/// Returns the target rows of the item with this key, for one source or for all sources with such a
/// key.
pub fn outputs(name: &str, key: Json, source: Option<&str>) -> Result<Vec<Output>> {
    let ready = cache::runnable_flow(name)?;
    let flow = &ready.flow;
    let mut found = Vec::new();
    for source in sources(flow, &key, source)? {
        of_source(flow, source, &key, &mut found)?;
    }
    Ok(found)
}

/// Returns the sources whose key columns match the given key.
fn sources<'a>(flow: &'a Flow, key: &Json, named: Option<&str>) -> Result<Vec<&'a Source>> {
    let asked: Vec<&Source> =
        flow.sources.iter().filter(|s| named.is_none_or(|n| n == s.name)).collect();
    if asked.is_empty() {
        let named = named.unwrap_or_default();
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("flow \"{}\" has no source \"{named}\"", flow.name),
        )
        .hint("See the view coco.sources for the flow's sources."));
    }
    let mut fitting = Vec::new();
    let mut wrong = None;
    for source in asked {
        let whose = format!("source \"{}\"", source.name);
        match check_key("source_key", key, &whose, &source.key) {
            Ok(()) => fitting.push(source),
            Err(error) => wrong = wrong.or(Some(error)),
        }
    }
    match wrong {
        Some(error) if fitting.is_empty() => Err(error),
        _ => Ok(fitting),
    }
}

fn of_source(flow: &Flow, source: &Source, key: &Json, found: &mut Vec<Output>) -> Result<()> {
    let given: Vec<String> = source.key.iter().map(of_typed).collect();
    let item = format!(
        "{} join {} as t on {}",
        typed(source.relation)?,
        source.tracking_view,
        all_equal(&source.key, &tracking_keys(source, "t"), &given),
    );
    let acting = RoleGuard::flow_owner(flow.owner, &flow.settings)?;
    by_indexes(&acting)?;
    for target in flow.targets.iter().filter(|t| t.relation.is_some()) {
        let sql = match &target.covered {
            Some(covered) => {
                let owned: Vec<String> =
                    covered.iter().map(|c| format!("x.{}", ident(c))).collect();
                let values: Vec<String> =
                    target.key.iter().map(|k| format!("x.{}", k.quoted())).collect();
                format!(
                    "select {} from {item} join {} as x on {}",
                    object(&target.key, &values),
                    target.relation_name(),
                    all_equal(&source.key, &owned, &given),
                )
            }
            None => {
                let values = key_values(target, "e.key");
                format!(
                    "select {} from {item} cross join lateral pg_catalog.jsonb_object_keys(
                       t.target_keys operator(pg_catalog.->) '{}'::pg_catalog.text) as e(key)",
                    object(&target.key, &values),
                    target.id,
                )
            }
        };
        let shown = match &target.external {
            Some(external) => external.name.clone(),
            None => target.relation_name(),
        };
        found.extend(spi::select(&sql, &[arg(key.clone())], |r| {
            Ok(Output {
                source: source.name.clone(),
                target: shown.clone(),
                key: spi::required(r, 1)?,
                listed: target.covered.is_none(),
            })
        })?);
    }
    Ok(())
}
