//! The SQL for target rows that items of a batch had: their keys, and the rows that no item of the
//! batch produces any more. `apply_batch` deletes these rows; `coco.preview` shows them.

use crate::catalog::model::{Source, Target};
use crate::pg::columns::all_equal;
use crate::pg::spi::ident;
use crate::query::batch::Action;
use crate::query::names::{KeyExprs, key_values, keys_are_valid};

/// The rows `x` of a target that a statement deletes: `from {from} where {condition}`.
pub struct StaleRows {
    pub from: String,
    pub condition: String,
}

/// Returns a SELECT of the target keys that the items of the batch have according to their tracking
/// rows.
pub fn old_keys_sql(source: &Source, target: &Target, names: &KeyExprs) -> String {
    let typed = key_values(target, "e.key");
    format!(
        "select {keys}, {typed}
           from coco_batch as b join {tracking} as t on {on}
          cross join lateral pg_catalog.jsonb_object_keys(t.target_keys operator(pg_catalog.->) '{id}'::pg_catalog.text) as e(key)
          where {is_not_advance}",
        keys = names.batch.join(", "),
        typed = typed.join(", "),
        tracking = source.tracking_view,
        on = all_equal(&source.key, &names.tracking, &names.batch),
        id = target.id,
        is_not_advance = Action::Advance.is_not_sql(),
    )
}

/// Returns the same, without the keys whose texts no longer name values.
pub fn valid_old_keys_sql(source: &Source, target: &Target, names: &KeyExprs) -> String {
    let all = old_keys_sql(source, target, names);
    format!("{all} and {}true", keys_are_valid(target, "e.key"))
}

/// Returns the rows that belong to items of the batch and that no item of the batch produces any
/// more. A row that passes to another item of the batch is not among them. coco updates such a row,
/// so that rows of the user's that refer to it stay.
pub fn stale_rows_sql(source: &Source, target: &Target, names: &KeyExprs) -> StaleRows {
    let kept = all_equal(&target.key, &names.new_key, &names.target_key);
    let not_produced = format!("not exists (select from coco_output as n where {kept})");
    match &target.covered {
        Some(covered) => {
            let StaleRows { from, condition } = owned_rows_sql(source, covered, names);
            let is_not_advance = Action::Advance.is_not_sql();
            StaleRows {
                from,
                condition: format!("{condition} and {is_not_advance} and {not_produced}"),
            }
        }
        None => {
            let on = all_equal(&target.key, &names.target_key, &names.old_key);
            StaleRows {
                from: "coco_old as o".to_owned(),
                condition: format!("{on} and {not_produced}"),
            }
        }
    }
}

/// Returns the rows that belong to items of the batch that no longer exist.
pub fn removed_item_rows_sql(source: &Source, covered: &[String], names: &KeyExprs) -> StaleRows {
    let StaleRows { from, condition } = owned_rows_sql(source, covered, names);
    StaleRows { from, condition: format!("{condition} and {}", Action::Remove.is_sql()) }
}

/// Returns the rows that belong to items of the batch, in a target that is owned by key.
fn owned_rows_sql(source: &Source, covered: &[String], names: &KeyExprs) -> StaleRows {
    let columns: Vec<String> = covered.iter().map(|c| format!("x.{}", ident(c))).collect();
    StaleRows {
        from: "coco_batch as b".to_owned(),
        condition: all_equal(&source.key, &columns, &names.batch),
    }
}
