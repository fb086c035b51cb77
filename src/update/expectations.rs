//! Checks the output of a batch against the expectations of its target, before coco writes it.
//!
//! The statement that evaluates the items also evaluates the conditions. Each output row then lists
//! the expectations that it does not satisfy, and this module decides what becomes of such rows.

use std::collections::BTreeMap;

use crate::catalog::expectation_rows;
use crate::catalog::item_failure::{BatchError, ItemFailure, RejectedRow};
use crate::catalog::model::{Expectation, Source, Target};
use crate::pg::columns::all_equal;
use crate::pg::error::{Error, Result};
use crate::pg::spi::literal;
use crate::pg::tuplestore::named_row::named_row;
use crate::pg::tuplestore::rows::{self, RowColumn, TupleStore};
use crate::pg::tuplestore::statements::SpiSession;
use crate::query::batch::Batch;
use crate::query::expected_rows::UNMET;
use crate::query::names::{KeyExprs, key_text};
use coco_core::expectation::{CheckedRows, RowTally, UnmetAction};
use pgrx::pg_sys;

/// The output of a batch at one target, after the check.
pub struct CheckedOutput {
    /// The rows to write.
    pub output: TupleStore,
    /// The rows that coco parks: the items' keys `i1…`, and `parked`, a JSON list of the item's
    /// rows. `None` if there are none.
    pub parked: Option<TupleStore>,
    pub tally: RowTally,
}

named_row! {
    /// An output row and an expectation that it does not satisfy.
    struct UnmetRow, UnmetExprs {
        item: i32,
        expectation: i32,
        key: String,
    }
}

/// Checks the output of a batch at one target. Refuses the items with a row that an expectation
/// lets fail. The caller acts as the flow's owner.
pub fn check_output(
    source: &Source,
    target: &Target,
    names: &KeyExprs,
    batch: &Batch,
    columns: &[RowColumn],
    output: TupleStore,
) -> std::result::Result<CheckedOutput, BatchError> {
    let mut tally = RowTally::new();
    if target.expectations.is_empty() || output.len() == 0 {
        return Ok(CheckedOutput { output, parked: None, tally });
    }
    let unmet = unmet_rows(source, names, batch, &output)?;
    let refused = refused_items(target, &unmet);
    if !refused.is_empty() {
        return Err(BatchError::Refused(refused));
    }
    for expectation in &target.expectations {
        let failed = unmet.iter().filter(|row| row.expectation == Some(expectation.id)).count();
        let rows = CheckedRows { checked: output.len() as i64, failed: failed as i64 };
        tally.insert(expectation.id, rows);
    }
    let parks: Vec<String> = target
        .expectations
        .iter()
        .filter(|e| e.action == UnmetAction::Park && tally.get(&e.id).is_some_and(|t| t.failed > 0))
        .map(|e| e.id.to_string())
        .collect();
    if parks.is_empty() {
        return Ok(CheckedOutput { output, parked: None, tally });
    }
    let is_parked =
        format!("n.{UNMET} operator(pg_catalog.&&) array[{}]::pg_catalog.int4[]", parks.join(", "));
    let statements = SpiSession::connect()?;
    statements.name("coco_output", &output)?;
    let mut kept = TupleStore::new(columns)?;
    let all: Vec<String> = columns.iter().map(|c| format!("n.{}", c.name)).collect();
    let sql = format!(
        "select {} from coco_output as n where n.{UNMET} is null or not {is_parked}",
        all.join(", ")
    );
    statements.query_into(&sql, &[], &mut kept)?;
    let mut parked_columns = rows::typed("i", &source.key);
    parked_columns.push(RowColumn::new("parked", pg_sys::JSONBOID));
    let mut parked = TupleStore::new(&parked_columns)?;
    statements.query_into(&parked_sql(target, names, &is_parked), &[], &mut parked)?;
    drop(statements);
    Ok(CheckedOutput { output: kept, parked: Some(parked), tally })
}

/// Returns the output rows that do not satisfy an expectation, once for each expectation.
fn unmet_rows(
    source: &Source,
    names: &KeyExprs,
    batch: &Batch,
    output: &TupleStore,
) -> Result<Vec<UnmetRow>> {
    let statements = SpiSession::connect()?;
    statements.name("coco_batch", batch.rows())?;
    statements.name("coco_output", output)?;
    let key = format!("{}::pg_catalog.text", key_text(&names.new_key));
    let sql = format!(
        "select {unmet}
           from coco_output as n join coco_batch as b on {item}
          cross join lateral pg_catalog.unnest(n.{UNMET}) as u(expectation)
          where n.{UNMET} is not null",
        unmet = UnmetExprs { item: "b.no", expectation: "u.expectation", key: &key }.select_list(),
        item = all_equal(&source.key, &names.batch, &names.item),
    );
    let mut found = TupleStore::new(&UnmetRow::columns())?;
    statements.query_into(&sql, &[], &mut found)?;
    let mut rows = Vec::new();
    while found.advance() {
        rows.push(UnmetRow::read(found.row(), 0));
    }
    Ok(rows)
}

/// Returns the items that fail, each with its first failing row. Of such an item, only failing rows
/// count as checked, because coco writes none of its rows.
fn refused_items(target: &Target, unmet: &[UnmetRow]) -> Vec<RejectedRow> {
    let find = |id: Option<i32>| target.expectations.iter().find(|e| Some(e.id) == id);
    let mut refused: BTreeMap<usize, RejectedRow> = BTreeMap::new();
    for row in unmet {
        let Some(expectation) = find(row.expectation) else { continue };
        let Some(item) = row.item.and_then(|n| usize::try_from(n).ok()) else { continue };
        if expectation.action != UnmetAction::Fail {
            continue;
        }
        let rejected = refused.entry(item).or_insert_with(|| RejectedRow {
            item,
            failure: ItemFailure::unmet(target, expectation, row.key.as_deref().unwrap_or("")),
            tally: RowTally::new(),
        });
        let rows = rejected.tally.entry(expectation.id).or_default();
        rows.checked += 1;
        rows.failed += 1;
    }
    refused.into_values().collect()
}

/// Returns a SELECT of the parked rows of each item.
fn parked_sql(target: &Target, names: &KeyExprs, is_parked: &str) -> String {
    format!(
        "select {item}, pg_catalog.jsonb_agg({row})
           from coco_output as n where {is_parked} group by {item}",
        item = names.item.join(", "),
        row = parked_row_sql(target, names),
    )
}

/// Returns an expression for an output row `n` as a tracking row lists it if it is parked.
pub fn parked_row_sql(target: &Target, names: &KeyExprs) -> String {
    let key = target.key.iter().zip(&names.new_key);
    let key: Vec<String> = key.map(|(k, n)| format!("{}, {n}", literal(&k.name))).collect();
    format!(
        "pg_catalog.jsonb_build_object(
           'target', {target}, 'unmet', pg_catalog.to_jsonb(n.{UNMET}),
           'key', pg_catalog.jsonb_build_object({key}))",
        target = target.id,
        key = key.join(", "),
    )
}

/// Adds the rows that an update has checked to the counts of the expectations. Fails if more rows
/// than an expectation allows do not satisfy it.
pub fn settle(targets: &[Target], tally: &RowTally) -> Result<()> {
    for target in targets {
        for expectation in &target.expectations {
            let rows = tally.get(&expectation.id).copied().unwrap_or_default();
            if expectation.max_share.is_some_and(|share| rows.exceeds(share)) {
                return Err(too_many(target, expectation, rows));
            }
        }
    }
    expectation_rows::count_rows(tally)
}

/// Returns the error of an update in which too many rows do not satisfy an expectation.
fn too_many(target: &Target, expectation: &Expectation, rows: CheckedRows) -> Error {
    let allowed = rows.allowed(expectation.max_share.unwrap_or(1.0));
    Error::new(
        pgrx::PgSqlErrorCode::ERRCODE_CHECK_VIOLATION,
        format!(
            "too many rows of target {} do not satisfy expectation \"{}\"",
            target.shown(),
            expectation.name
        ),
    )
    .detail(format!(
        "{} of {} rows of this update do not satisfy it, and max_share allows {allowed}. The condition is {}.",
        rows.failed, rows.checked, expectation.condition
    ))
    .hint("Correct the rows in the source, or allow more of them with coco.expect.")
}
