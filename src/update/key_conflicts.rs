//! Finds target keys that an item of a batch produces twice, or that belong to another item.
//!
//! coco looks for them after the deletions of the batch, so that a key that an item gave up is
//! free. In the common case there is no conflict. The check then costs one grouping and, if the
//! target is owned by list, one join.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalog::item_failure::{ItemFailure, RejectedRow};
use crate::catalog::model::{Flow, Source, Target};
use crate::pg::columns::{all_equal, numbered};
use crate::pg::error::Result;
use crate::pg::tuplestore::named_row::named_row;
use crate::pg::tuplestore::rows::TupleStore;
use crate::pg::tuplestore::statements::SpiSession;
use crate::query::names::{KeyExprs, key_text};
use crate::update::target_writer::UnownedRows;
use coco_core::expectation::RowTally;
use coco_core::key_handover;
use coco_core::key_handover::Claim;

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

named_row! {
    /// An item of the batch that conflicts over a target key.
    struct ConflictRow, ConflictExprs {
        item: i32,
        /// The item of the batch that has the key; NULL if it is not in the batch.
        holder: i32,
        key: String,
        /// Whether the item itself produces the key twice.
        twice: bool,
    }
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
    let mut rows = TupleStore::new(&ConflictRow::columns())?;
    let key = format!("{}::pg_catalog.text", key_text(&names.new_key));
    let item = all_equal(&source.key, &names.batch, &names.item);
    let by = names.new_key.join(", ");
    let mut sql = format!(
        "select {conflict}
           from (select b.no, {key} as key,
                        pg_catalog.row_number() over (partition by {by} order by {own} desc, b.no) as place,
                        pg_catalog.count(*) over (partition by {by}, b.no) operator(pg_catalog.>) 1 as twice
                   from coco_output as n join coco_batch as b on {item}) as s
          where s.place operator(pg_catalog.>) 1",
        conflict = ConflictExprs {
            item: "s.no",
            holder: "null::pg_catalog.int4",
            key: "s.key",
            twice: "s.twice",
        }
        .select_list(),
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
             select {unowned}
               from coco_output as n join coco_batch as b on {item} join {relation} as x on {same}
              where not exists (select from coco_old as o where {had}){owned}
             union all
             select {owned_by_other}
               from coco_output as n join coco_batch as b on {item} join coco_old as o on {had}
               join coco_batch as h on {holder}
              where h.no operator(pg_catalog.<>) b.no",
            unowned = ConflictExprs { item: "b.no", holder: "null", key: &key, twice: "false" }
                .select_list(),
            owned_by_other =
                ConflictExprs { item: "b.no", holder: "h.no", key: &key, twice: "false" }
                    .select_list(),
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
        let row = ConflictRow::read(rows.row(), 0);
        let item = row.item.unwrap_or(0) as usize;
        let key = row.key.unwrap_or_default();
        match row.holder {
            Some(holder) => {
                claims.push(Claim { claimant: item, holder: holder as usize });
                keys.push(key);
            }
            None => {
                let failure = match row.twice.unwrap_or(false) {
                    true => ItemFailure::twice(target, key),
                    false => ItemFailure::claimed(target, key),
                };
                own.entry(item).or_insert(failure);
            }
        }
    }
    let direct: BTreeSet<usize> = own.keys().copied().collect();
    let all = key_handover::find_rejected(&direct, &claims);
    Ok(all
        .into_iter()
        .filter_map(|(item, in_the_way)| {
            let failure = match in_the_way {
                Some(claim) => ItemFailure::claimed(target, keys[claim].clone()),
                None => own.remove(&item)?,
            };
            Some(RejectedRow { item, failure, tally: RowTally::new() })
        })
        .collect())
}
