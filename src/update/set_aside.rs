//! The rows that an initial load sets aside because they do not satisfy an expectation: those that
//! coco parks, and those that it only counts.

use pgrx::pg_sys;

use crate::catalog::model::{Expectation, Source, Target};
use crate::pg::bulk_insert::spec::RowsAside;
use crate::pg::columns::{all_equal, numbered, stored};
use crate::pg::error::Result;
use crate::pg::tuplestore::named_row::named_row;
use crate::pg::tuplestore::rows::{self, RowColumn, TupleStore};
use crate::pg::tuplestore::statements::SpiSession;
use crate::query::expected_rows::UNMET;
use crate::query::names::KeyExprs;
use crate::update::expectations::parked_row_sql;
use coco_core::expectation::{CheckedRows, RowTally, UnmetAction};

/// The rows of one target that were set aside: whether coco parks the row, the expectations that
/// it does not satisfy, and for a parked row the item's key `i1…` and the row as a tracking row
/// lists it (`parked`).
pub struct SetAside {
    target: i32,
    rows: TupleStore,
    expressions: Vec<String>,
}

named_row! {
    /// An expectation, and how many rows do not satisfy it.
    struct UnmetCount, UnmetCountExprs {
        expectation: i32,
        failed: i64,
    }
}

impl SetAside {
    /// Returns an empty set for the rows of a target; `None` if no expectation parks rows or warns.
    /// `item` has the expressions for the key of a row's item.
    pub fn new(source: &Source, target: &Target, item: &[String]) -> Result<Option<SetAside>> {
        if target.expectations.iter().all(|e| e.action == UnmetAction::Fail) {
            return Ok(None);
        }
        let mut columns = vec![
            RowColumn::new("parks", pg_sys::BOOLOID),
            RowColumn::new(UNMET, pg_sys::INT4ARRAYOID),
        ];
        // The expressions may have other type modifiers than the source key.
        let keys = rows::typed("i", &stored(&source.key));
        columns.extend(keys.into_iter().map(|key| RowColumn { typmod: -1, ..key }));
        columns.push(RowColumn::new("parked", pg_sys::JSONBOID));
        let parks = parks_sql(target);
        let of_parked = |value: &str| format!("case when {parks} then {value} end");
        let mut expressions = vec![parks.clone(), format!("n.{UNMET}")];
        expressions.extend(item.iter().map(|key| of_parked(key)));
        expressions.push(of_parked(&parked_row_sql(target, &KeyExprs::new(source, target))));
        Ok(Some(SetAside { target: target.id, rows: TupleStore::new(&columns)?, expressions }))
    }

    /// Returns the receiver of the rows.
    pub fn receiver(&mut self) -> RowsAside<'_> {
        RowsAside { rows: &mut self.rows, expressions: &self.expressions }
    }

    /// Adds the rows of a target to a tally. `checked` is the number of rows, set aside or not.
    pub fn count(&mut self, checked: i64, tally: &mut RowTally) -> Result<()> {
        if self.rows.len() == 0 {
            return Ok(());
        }
        let statements = SpiSession::connect()?;
        statements.name("coco_aside", &self.rows)?;
        let count = UnmetCountExprs { expectation: "u.expectation", failed: "pg_catalog.count(*)" };
        let sql = format!(
            "select {} from coco_aside as n
              cross join lateral pg_catalog.unnest(n.{UNMET}) as u(expectation)
              group by u.expectation",
            count.select_list()
        );
        let mut found = TupleStore::new(&UnmetCount::columns())?;
        statements.query_into(&sql, &[], &mut found)?;
        while found.advance() {
            let UnmetCount { expectation, failed } = UnmetCount::read(found.row(), 0);
            if let (Some(expectation), Some(failed)) = (expectation, failed) {
                tally.insert(expectation, CheckedRows { checked, failed });
            }
        }
        Ok(())
    }

    /// Reports whether there is a row.
    pub fn has_rows(&self) -> bool {
        self.rows.len() > 0
    }

    /// Lets statements read the rows.
    fn name_in(&self, statements: &SpiSession) -> Result<()> {
        statements.name(&format!("coco_aside_{}", self.target), &self.rows)
    }
}

/// Reports whether an expectation parks rows of a target.
pub fn parks_rows(target: &Target) -> bool {
    target.expectations.iter().any(is_parking)
}

/// Returns an expression for the column `parked` of the tracking row of an output row `n`, if each
/// item has one row; `None` if no expectation parks rows.
pub fn parked_of_row_sql(source: &Source, target: &Target) -> Option<String> {
    let row = parked_row_sql(target, &KeyExprs::new(source, target));
    parks_rows(target).then(|| {
        format!("case when {} then pg_catalog.jsonb_build_array({row}) end", parks_sql(target))
    })
}

/// What tracking rows list of parked rows.
pub struct ParkedLists {
    /// Joins to items `s`, whose keys are `k1…`.
    pub joins: String,
    /// An expression for the column `parked`.
    pub parked: String,
}

/// Lets statements read the rows that were set aside. Returns how to add them to the tracking rows
/// of their items; `None` if there are none.
pub fn join_parked(
    statements: &SpiSession,
    source: &Source,
    aside: &[SetAside],
) -> Result<Option<ParkedLists>> {
    let (mut joins, mut parts) = (String::new(), Vec::new());
    let keys = |prefix: &str| numbered(prefix, source.key.len());
    for set in aside.iter().filter(|set| set.has_rows()) {
        set.name_in(statements)?;
        let (id, item) = (set.target, keys("a.i").join(", "));
        joins.push_str(&format!(
            " left join (select {item}, pg_catalog.jsonb_agg(a.parked) as parked
                           from coco_aside_{id} as a where a.parks group by {item}) as p{id} on {}",
            all_equal(&source.key, &keys(&format!("p{id}.i")), &keys("s.k")),
        ));
        parts.push(format!("coalesce(p{id}.parked, '[]'::pg_catalog.jsonb)"));
    }
    Ok((!parts.is_empty()).then(|| {
        let all = parts.join(" operator(pg_catalog.||) ");
        ParkedLists { joins, parked: format!("nullif({all}, '[]'::pg_catalog.jsonb)") }
    }))
}

fn is_parking(expectation: &Expectation) -> bool {
    expectation.action == UnmetAction::Park
}

/// Returns an expression: whether coco parks an output row `n`; NULL if the row satisfies all
/// expectations.
fn parks_sql(target: &Target) -> String {
    let parking = target.expectations.iter().filter(|e| is_parking(e));
    let ids: Vec<String> = parking.map(|e| e.id.to_string()).collect();
    format!("n.{UNMET} operator(pg_catalog.&&) array[{}]::pg_catalog.int4[]", ids.join(", "))
}
