//! Compares new output rows with the rows of a target, and updates the rows that differ.

use crate::catalog::model::Target;
use crate::outbox::ledger;
use crate::pg::columns::{Column, all_equal, numbered};
use crate::query::names::KeyExprs;
use coco_core::decision::Mode;

/// Returns an UPDATE of the target rows `x` that differ from the rows of `coco_output`.
pub fn update_differing(target: &Target, names: &KeyExprs, mode: Mode) -> String {
    let differs = match mode.carries_over() {
        true => format!(" and {}", differs(target)),
        false => String::new(),
    };
    let values = numbered("n.c", target.columns.len());
    let sets: Vec<String> =
        target.columns.iter().zip(&values).map(|(c, v)| format!("{} = {v}", c.quoted())).collect();
    format!(
        "update {} as x set {} from coco_output as n where {}{differs}",
        target.relation_name(),
        sets.join(", "),
        all_equal(&target.key, &names.target_key, &names.new_key),
    )
}

/// Returns an SQL condition: `x` and `n` differ, byte for byte. This works for a type without
/// equality (json), and it distinguishes equal values with different text (1.0 and 1.00).
pub fn differs(target: &Target) -> String {
    if target.external.is_some() {
        return ledger::ledger_differs(&ledger::fingerprint(target, "n.c"));
    }
    differs_in(target, |_| true)
}

/// Returns the same condition for some of the target's columns.
pub fn differs_in(target: &Target, takes: impl Fn(&Column) -> bool) -> String {
    let (old, new): (Vec<String>, Vec<String>) = target
        .columns
        .iter()
        .zip(numbered("n.c", target.columns.len()))
        .filter(|(column, _)| takes(column))
        .map(|(column, new)| (format!("x.{}", column.quoted()), new))
        .unzip();
    format!(
        "row({})::record operator(pg_catalog.*<>) row({})::record",
        old.join(", "),
        new.join(", ")
    )
}
