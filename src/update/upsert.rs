//! Writes the output of a batch to a target table, in place: rows that differ, then rows that do
//! not exist.

use crate::catalog::model::Target;
use crate::pg::bulk_insert;
use crate::pg::columns::{all_equal, numbered};
use crate::pg::error::Result;
use crate::pg::tuplestore::rows::{self, TupleStore};
use crate::pg::tuplestore::statements::SpiSession;
use crate::query::names::KeyExprs;
use crate::update::differences::update_differing;
use coco_core::decision::Mode;

/// The statements that write the rows of `coco_output` to a table.
pub struct TableUpsert<'a> {
    target: &'a Target,
    names: &'a KeyExprs,
    relation: String,
    /// The table's columns, and the expressions of their values.
    insert: Vec<(String, String)>,
}

impl<'a> TableUpsert<'a> {
    pub fn new(target: &'a Target, names: &'a KeyExprs) -> TableUpsert<'a> {
        let values = numbered("n.c", target.columns.len());
        let insert = target.columns.iter().map(|c| c.name.clone()).zip(values).collect();
        TableUpsert { target, names, relation: target.relation_name(), insert }
    }

    /// Inserts all rows. Returns the number of rows written, like the other methods.
    pub fn insert_all(&self, statements: &SpiSession) -> Result<i64> {
        self.insert_from(statements, "coco_output as n")
    }

    /// Updates rows that differ, and inserts rows that do not exist.
    pub fn update_then_insert(
        &self,
        statements: &SpiSession,
        output: &TupleStore,
        mode: Mode,
    ) -> Result<i64> {
        let mut updated = TupleStore::new(&rows::typed("t", &self.target.key))?;
        let update = update_differing(self.target, self.names, mode);
        let returning = format!("{update} returning {}", self.names.new_key.join(", "));
        let written = statements.query_into(&returning, &[], &mut updated)?;
        if updated.len() == output.len() {
            return Ok(written);
        }
        let inner = SpiSession::connect()?;
        inner.name("coco_output", output)?;
        inner.name("coco_updated", &updated)?;
        let keys = numbered("w.t", self.target.key.len());
        let known = all_equal(&self.target.key, &keys, &self.names.new_key);
        let from = format!(
            "coco_output as n
              where not exists (select from coco_updated as w where {known}) and {}",
            self.is_missing_sql()
        );
        Ok(written + self.insert_from(&inner, &from)?)
    }

    /// Does the same for a table with rules, from which RETURNING may return nothing.
    pub fn update_then_insert_through_rules(
        &self,
        statements: &SpiSession,
        mode: Mode,
    ) -> Result<i64> {
        let update = update_differing(self.target, self.names, mode);
        let written = statements.execute(&update, &[])?;
        let from = format!("coco_output as n where {}", self.is_missing_sql());
        Ok(written + self.insert_from(statements, &from)?)
    }

    fn insert_from(&self, statements: &SpiSession, from: &str) -> Result<i64> {
        bulk_insert::insert(statements, &self.relation, &self.insert, from, &[])
    }

    /// Returns an SQL condition: the table has no row with the key of `n`.
    fn is_missing_sql(&self) -> String {
        let same = all_equal(&self.target.key, &self.names.target_key, &self.names.new_key);
        format!("not exists (select from {} as x where {same})", self.relation)
    }
}
