//! `coco.outputs`: the target rows of a source item.

use crate::catalog::model::{Flow, Source};
use crate::flows::cache;
use crate::inspect::lineage::{by_indexes, fitting_sources, object, typed_key_sql};
use crate::pg::acting_role::RoleGuard;
use crate::pg::columns::{all_equal, numbered};
use crate::pg::error::Result;
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
    for source in fitting_sources(flow, &key, source)? {
        of_source(flow, source, &key, &mut found)?;
    }
    Ok(found)
}

fn of_source(flow: &Flow, source: &Source, key: &Json, found: &mut Vec<Output>) -> Result<()> {
    let given = numbered("q.k", source.key.len());
    let item = format!(
        "({}) as q ({}) join {} as t on {}",
        typed_key_sql(source)?,
        numbered("k", source.key.len()).join(", "),
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
