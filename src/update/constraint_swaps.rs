//! Writes rows that swap a value of a unique or exclusion constraint of their target, other than
//! the target key.
//!
//! Postgres checks such a constraint row by row: an UPDATE of two rows that swap a value fails at
//! the first row. coco therefore deletes rows that change a value of such a constraint before it
//! writes any row, and inserts them after all others. coco writes a batch in this way only after
//! the batch met a conflict.

use pgrx::pg_sys;
use std::collections::BTreeSet;

use crate::catalog::model::{Source, Target};
use crate::catalog::target_table;
use crate::pg::columns::{Column, all_equal, numbered};
use crate::pg::error::Result;
use crate::pg::tuplestore::rows::{self, RowColumn, TupleStore};
use crate::pg::tuplestore::statements::SpiSession;
use crate::query::names::KeyExprs;
use crate::update::differences;
use coco_core::decision::Mode;

/// The result of writing a batch in this way.
#[derive(Default)]
pub struct Displaced {
    pub written: i64,
    /// The numbers of the items, in the batch, of which a row could not be inserted. If there are
    /// any, the caller must roll the batch back.
    pub conflicting: BTreeSet<usize>,
}

/// Writes the rows of `coco_output`. Deletes rows that change a constrained value first, and
/// inserts them last.
pub fn upsert_displacing(
    statements: &SpiSession,
    source: &Source,
    target: &Target,
    names: &KeyExprs,
    output: &TupleStore,
    mode: Mode,
) -> Result<Displaced> {
    let relation = target.relation_name();
    let same = all_equal(&target.key, &names.target_key, &names.new_key);
    let constrained = target_table::constrained_columns(target)?;
    let moves = |c: &Column| constrained.contains(&c.name);
    if target.columns.iter().any(moves) {
        let differs = differences::differs_in(target, moves);
        let delete = format!(
            "delete from {relation} as x using coco_output as n where {same} and {differs}"
        );
        statements.execute(&delete, &[])?;
    }
    let mut updated = TupleStore::new(&rows::typed("t", &target.key))?;
    let update = differences::update_differing(target, names, mode);
    let returning = format!("{update} returning {}", names.new_key.join(", "));
    let mut written = statements.query_into(&returning, &[], &mut updated)?;
    let columns: Vec<String> = target.columns.iter().map(Column::quoted).collect();
    let missing = format!("not exists (select from {relation} as x where {same})");
    let values = numbered("n.c", columns.len()).join(", ");
    // A table with rules does not support ON CONFLICT. If rows conflict in it, Postgres raises an
    // error.
    let on_conflict = match target_table::has_rules(target) {
        true => "",
        false => "on conflict do nothing",
    };
    written += statements.execute(
        &format!(
            "insert into {relation} ({columns}) select {values} from coco_output as n where {missing} {on_conflict}",
            columns = columns.join(", ")
        ),
        &[],
    )?;
    let mut left = TupleStore::new(&[RowColumn::new("no", pg_sys::INT4OID)])?;
    if output.len() > 0 {
        let item = all_equal(&source.key, &names.batch, &names.item);
        let sql = format!(
            "select distinct b.no from coco_output as n join coco_batch as b on {item} where {missing}"
        );
        statements.query_into(&sql, &[], &mut left)?;
    }
    let mut conflicting = BTreeSet::new();
    while left.advance() {
        conflicting.extend(left.get::<i32>(0).map(|n| n as usize));
    }
    Ok(Displaced { written, conflicting })
}
