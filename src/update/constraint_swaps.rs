//! Writing rows that swap a value under another unique or exclusion constraint of their target.
//!
//! Postgres checks such a constraint row by row: an UPDATE of two rows that swap a value fails at the first, whatever
//! becomes of the second. So rows that change a value of such a constraint are deleted before any row is written, and
//! are inserted after all others. Only a batch that met a conflict is written in this way.

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
use coco_core::decide::Mode;

/// What came of it.
#[derive(Default)]
pub struct Displaced {
    pub written: i64,
    /// Items, by their number in the batch, of which a row could not be inserted: then nothing may be kept.
    pub conflicting: BTreeSet<usize>,
}

/// Writes the rows of `coco_output`: those that change a constrained value are deleted first, and inserted last.
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
    // A table with rules takes no ON CONFLICT: there an error says that rows conflict.
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
