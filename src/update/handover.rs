//! Handover of target keys: failed items that wait for a target key which has become free.

use crate::pg::columns::all_equal;
use crate::query::names::{key_values, keys_are_valid};
use crate::update::target_writer::TargetWriter;

/// Returns an SQL condition on tracking rows `t`: the item waits for a target key that is free now.
/// Returns `None` if no target is owned by list.
pub fn has_free_claim_sql(writers: &[TargetWriter]) -> Option<String> {
    let conditions: Vec<String> = writers
        .iter()
        .filter(|w| w.target.covered.is_none())
        .map(|w| {
            let claims = "t.failure operator(pg_catalog.->>) 'claims'";
            let typed = key_values(w.target, claims);
            let keys: Vec<String> =
                w.target.key.iter().map(|k| format!("x.{}", k.quoted())).collect();
            format!(
                "((t.failure operator(pg_catalog.->>) 'target') operator(pg_catalog.=) '{}'
                  and {}not exists (select from {} as x where {}))",
                w.target.id,
                // If the text is no longer a key, coco does not know whether the key is free. The
                // item then waits for its retry.
                keys_are_valid(w.target, claims),
                w.target.relation_name(),
                all_equal(&w.target.key, &keys, &typed),
            )
        })
        .collect();
    (!conditions.is_empty()).then(|| {
        format!(
            "(t.failure operator(pg_catalog.->>) 'claims') is not null and ({})",
            conditions.join(" or ")
        )
    })
}
