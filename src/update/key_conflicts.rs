//! Finds target keys that an item of a batch produces twice, or that belong to another item.
//!
//! coco looks for them after the deletions of the batch, so that a key that an item gave up is
//! free. In the common case there is no conflict. The check then costs one grouping and, if the
//! target is owned by list, one join.

use pgrx::pg_sys;
use std::collections::{BTreeMap, BTreeSet};

use crate::catalog::item_failure::{ItemFailure, RejectedRow};
use crate::catalog::model::{Flow, Source, Target};
use crate::pg::columns::{all_equal, numbered};
use crate::pg::error::Result;
use crate::pg::tuplestore::rows::{RowColumn, TupleStore};
use crate::pg::tuplestore::statements::SpiSession;
use crate::query::names::{KeyExprs, key_text};
use crate::update::target_writer::UnownedRows;
use coco_core::claims;
use coco_core::claims::Claim;

/// Returns the items of the batch that cannot get a key of this target.
pub fn conflicting_rows(
    statements: &SpiSession,
    flow: &Flow,
    source: &Source,
    target: &Target,
    names: &KeyExprs,
    unowned: UnownedRows,
) -> Result<Vec<RejectedRow>> {
    let twice = format!(
        "select true from coco_output as n group by {}
         having pg_catalog.count(*) operator(pg_catalog.>) 1 limit 1",
        names.new_key.join(", ")
    );
    let taken = || {
        format!(
            "select true from coco_output as n join {} as x on {} where not {} limit 1",
            target.relation_name(),
            all_equal(&target.key, &names.target_key, &names.new_key),
            own(source, target, names),
        )
    };
    if statements.first_text(&twice, &[])?.is_some()
        || (target.covered.is_none() && statements.first_text(&taken(), &[])?.is_some())
    {
        return find(statements, flow, source, target, names, unowned);
    }
    Ok(vec![])
}

/// Returns an SQL condition: the item of output row `n` already had the row's key.
fn own(source: &Source, target: &Target, names: &KeyExprs) -> String {
    if target.covered.is_some() {
        return "true".to_owned();
    }
    format!(
        "exists (select from coco_old as o where {} and {})",
        all_equal(&target.key, &names.old_key, &names.new_key),
        all_equal(&source.key, &numbered("o.i", source.key.len()), &names.item),
    )
}

/// Returns a SELECT of the target keys, as texts, that items list for a target.
fn listed(flow: &Flow, target: &Target) -> String {
    let each = flow.sources.iter().map(|source| {
        format!(
            "select e.key from {} as t cross join lateral
                    pg_catalog.jsonb_object_keys(t.target_keys operator(pg_catalog.->) '{}'::pg_catalog.text) as e(key)",
            source.tracking_view, target.id
        )
    });
    each.collect::<Vec<_>>().join(" union all ")
}

/// Determines the conflicting items. If several items produce a key, the one that had the key keeps
/// it; otherwise the first item gets it.
fn find(
    statements: &SpiSession,
    flow: &Flow,
    source: &Source,
    target: &Target,
    names: &KeyExprs,
    unowned: UnownedRows,
) -> Result<Vec<RejectedRow>> {
    let columns = [
        ("item", pg_sys::INT4OID),
        ("holder", pg_sys::INT4OID),
        ("key", pg_sys::TEXTOID),
        ("twice", pg_sys::BOOLOID),
    ]
    .map(|(name, oid)| RowColumn::new(name, oid));
    let mut rows = TupleStore::new(&columns)?;
    let key = format!("{}::pg_catalog.text", key_text(&names.new_key));
    let item = all_equal(&source.key, &names.batch, &names.item);
    let by = names.new_key.join(", ");
    let mut sql = format!(
        "select s.no, null::pg_catalog.int4, s.key, s.twice
           from (select b.no, {key} as key,
                        pg_catalog.row_number() over (partition by {by} order by {own} desc, b.no) as place,
                        pg_catalog.count(*) over (partition by {by}, b.no) operator(pg_catalog.>) 1 as twice
                   from coco_output as n join coco_batch as b on {item}) as s
          where s.place operator(pg_catalog.>) 1",
        own = own(source, target, names),
    );
    if target.covered.is_none() {
        let old_item = numbered("o.i", source.key.len());
        let had = all_equal(&target.key, &names.old_key, &names.new_key);
        let owned = match unowned {
            UnownedRows::Refused => String::new(),
            UnownedRows::TakenOver => {
                format!(
                    " and exists (select from ({}) as l where l.key operator(pg_catalog.=) {key})",
                    listed(flow, target)
                )
            }
        };
        sql.push_str(&format!(
            " union all
             select b.no, null, {key}, false
               from coco_output as n join coco_batch as b on {item} join {relation} as x on {same}
              where not exists (select from coco_old as o where {had}){owned}
             union all
             select b.no, h.no, {key}, false
               from coco_output as n join coco_batch as b on {item} join coco_old as o on {had}
               join coco_batch as h on {holder}
              where h.no operator(pg_catalog.<>) b.no",
            relation = target.relation_name(),
            same = all_equal(&target.key, &names.target_key, &names.new_key),
            holder = all_equal(&source.key, &numbered("h.k", source.key.len()), &old_item),
        ));
    }
    statements.query_into(&sql, &[], &mut rows)?;

    let mut own = BTreeMap::new();
    let mut claims = Vec::new();
    let mut keys = Vec::new();
    while rows.advance() {
        let item = rows.get::<i32>(0).unwrap_or(0) as usize;
        let key = rows.get::<String>(2).unwrap_or_default();
        match rows.get::<i32>(1) {
            Some(holder) => {
                claims.push(Claim { claimant: item, holder: holder as usize });
                keys.push(key);
            }
            None => {
                let failure = match rows.get::<bool>(3).unwrap_or(false) {
                    true => ItemFailure::twice(target, key),
                    false => ItemFailure::claimed(target, key),
                };
                own.entry(item).or_insert(failure);
            }
        }
    }
    let direct: BTreeSet<usize> = own.keys().copied().collect();
    let all = claims::refused(&direct, &claims);
    Ok(all
        .into_iter()
        .filter_map(|(item, in_the_way)| {
            let failure = match in_the_way {
                Some(claim) => ItemFailure::claimed(target, keys[claim].clone()),
                None => own.remove(&item)?,
            };
            Some(RejectedRow { item, failure })
        })
        .collect())
}
