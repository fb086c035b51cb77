//! The lookups that feed an item, with the keys of their rows where indexes find them, for
//! `coco.lineage`.
//!
//! A lookup's `affects` leads from the lookup's rows to items. The statement here leads back: it
//! asks which rows have the item among the items that they affect. PostgreSQL answers this by
//! indexes if `affects` is a join. Otherwise it would read whole tables, and coco names only the
//! lookup.

use crate::catalog::model::{BoundView, Flow, Lookup, Source};
use crate::inspect::explain::plans;
use crate::inspect::lineage::{by_indexes, object, typed_key_sql};
use crate::pg::acting_role::RoleGuard;
use crate::pg::columns::{all_equal, numbered};
use crate::pg::error::{Error, Result};
use crate::pg::json::Json;
use crate::pg::spi::{self, arg};
use crate::pg::subtransaction;
use crate::pg::tuplestore::rows::{self, RowColumn, TupleStore};
use crate::pg::tuplestore::statements::SpiSession;
use crate::query::place_items;

/// The number of rows of a lookup that coco names, at most.
const NAMED: usize = 100;

/// The number of rows, with duplicates, that coco reads for this, at most.
const READ: usize = 1000;

/// Returns the lookups of an item's source as a list of objects. The caller need not act as the
/// flow's owner.
pub fn lookups_of(flow: &Flow, source: &Source, source_key: &Json) -> Result<Json> {
    let mut all = Json::from(serde_json::json!([]));
    for lookup in flow.lookups.iter().filter(|lookup| lookup.of == source.id) {
        pgrx::check_for_interrupts!();
        // An error in the user's query leaves the rows unknown.
        let rows = match &lookup.affects {
            Some(affects) => {
                let find = || rows_of(flow, lookup, affects, source, source_key);
                subtransaction::look(find).ok().flatten()
            }
            None => None,
        };
        let _names = RoleGuard::qualifying_names()?;
        let longer = spi::scalar::<Json>(
            "select $1 || jsonb_build_array(jsonb_build_object(
                      'lookup', $2::text, 'relation', $3::text, 'rows', $4::jsonb))",
            &[
                arg(all),
                arg(lookup.relation.name.as_str()),
                arg(lookup.relation.relation_name.as_str()),
                arg(rows),
            ],
        )?;
        all = longer.ok_or_else(|| Error::internal("a list of lookups is NULL"))?;
    }
    Ok(all)
}

/// Returns the keys of a lookup's rows that affect an item, as a list; `None` if this would read a
/// whole table.
fn rows_of(
    flow: &Flow,
    lookup: &Lookup,
    affects: &BoundView,
    source: &Source,
    source_key: &Json,
) -> Result<Option<Json>> {
    let acting = RoleGuard::flow_owner(flow.owner, &flow.settings)?;
    by_indexes(&acting)?;
    let mut item = TupleStore::new(&rows::typed("k", &source.key))?;
    let statements = SpiSession::connect()?;
    statements.select_into(&typed_key_sql(source)?, &[arg(source_key.clone())], &mut item)?;
    drop(statements);
    let sql = rows_sql(lookup, affects, source);
    let statements = SpiSession::connect()?;
    statements.name("coco_item", &item)?;
    statements.reads_many();
    if plans::reads_large_table(&plans::full_reads(&statements, &sql)?)? {
        return Ok(None);
    }
    let mut found = TupleStore::new(&[RowColumn::new("rows", pgrx::pg_sys::JSONBOID)])?;
    statements.select_into(&sql, &[], &mut found)?;
    drop(statements);
    Ok(if found.advance() { found.get(0) } else { None })
}

/// Returns the SELECT of the keys, as one list, of the lookup's rows that affect the item in
/// `coco_item`.
fn rows_sql(lookup: &Lookup, affects: &BoundView, source: &Source) -> String {
    let relation = &lookup.relation;
    place_items::know_shadows(affects.view, vec![relation.relation], affects.places.clone());
    let numbers = numbered("k", relation.key.len());
    let keys = relation.key_of("l").into_iter().zip(&numbers);
    let keys: Vec<String> = keys.map(|(key, number)| format!("{key} as {number}")).collect();
    let own = numbered("b.k", relation.key.len());
    let shadow = relation.key.iter().zip(&own);
    let shadow: Vec<String> = shadow.map(|(k, b)| format!("{b} as {}", k.quoted())).collect();
    let names = numbered("k", source.key.len());
    let affected: Vec<String> =
        source.key.iter().zip(&names).map(|(k, n)| k.as_stored(&format!("t.{n}"))).collect();
    format!(
        "/* coco lookup rows {id} {view} */
         select coalesce(pg_catalog.jsonb_agg(r.key order by r.key), '[]'::pg_catalog.jsonb)
           from (select distinct f.key
                   from (select {key} as key
                           from coco_item as i
                          cross join (select {keys} from {relation} as l) as b
                          cross join lateral (
                            with {name} as (select {shadow})
                            select q.* from {affects} as q) as t ({names})
                          where {same}
                          limit {READ}) as f
                  order by 1 limit {NAMED}) as r",
        id = relation.id,
        view = affects.view.to_u32(),
        key = object(&relation.key, &own),
        keys = keys.join(", "),
        relation = relation.relation_name,
        name = place_items::shadow_name(relation.id),
        shadow = shadow.join(", "),
        affects = affects.name,
        names = names.join(", "),
        same = all_equal(&source.key, &affected, &numbered("i.k", source.key.len())),
    )
}
