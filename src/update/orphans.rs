//! Orphans: target rows that no item produces. coco finds them by running the flow's query, and
//! deletes them.

use crate::catalog::model::{Flow, Source, Target};
use crate::catalog::target_table;
use crate::memo;
use crate::outbox::ledger;
use crate::pg::clock;
use crate::pg::columns::{all_equal, numbered};
use crate::pg::error::{Error, Result};
use crate::pg::spi::{self, ident, literal};
use crate::pg::tuplestore::statements::SpiSession;
use crate::query::compose::{self, Items};
use crate::query::expected_rows;
use crate::query::names::{self, KeyExprs};
use crate::update::untracked_items;

/// Reports whether a target cannot have two rows with one key.
pub fn refuses_copies(target: &Target) -> Result<bool> {
    match (target.relation, &target.external) {
        (Some(relation), None) => target_table::has_unique_index(relation, &target.key),
        _ => Ok(true),
    }
}

/// Returns the error for a target whose table was dropped.
pub fn dropped_rows_sql(flow: &Flow, target: &Target) -> Error {
    Error::new(
        pgrx::PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
        format!("target {} of flow \"{}\" was dropped", target.shown(), flow.name),
    )
    .hint(format!(
        "Run SELECT * FROM coco.update({}) to create and fill the target again.",
        literal(&flow.name)
    ))
}

/// Reports for each source of a flow whether it has failed items.
pub fn failing_sources(flow: &Flow) -> Result<Vec<bool>> {
    flow.sources
        .iter()
        .map(|s| {
            let sql =
                format!("select true from {} where failure is not null limit 1", s.tracking_view);
            Ok(spi::scalar::<bool>(&sql, &[])?.is_some() || untracked_items::has_any(s)?)
        })
        .collect()
}

/// Returns a SELECT of the rows that the target should hold, as `c1…`.
pub fn expected_rows_sql(flow: &Flow, target: &Target, failing: &[bool]) -> Result<String> {
    let columns = numbered("e.c", target.columns.len()).join(", ");
    let each: Vec<String> = flow
        .sources
        .iter()
        .zip(failing)
        .map(|(s, failing)| {
            let items = if *failing { Items::Healthy } else { Items::All };
            let evaluated = expected_rows::evaluate_unparked(flow, s, target, items)?;
            Ok(format!("select {columns} from ({evaluated}) as e"))
        })
        .collect::<Result<_>>()?;
    Ok(each.join(" union all "))
}

/// Returns an SQL condition on target rows `x`: no failed item owns the row.
pub fn not_of_failing(flow: &Flow, target: &Target, failing: &[bool]) -> String {
    let conditions: Vec<String> = flow
        .sources
        .iter()
        .zip(failing)
        .filter(|(_, failing)| **failing)
        .map(|(s, _)| format!("not exists ({})", rows_of_failing(s, target)))
        .collect();
    if conditions.is_empty() { "true".to_owned() } else { conditions.join(" and ") }
}

fn rows_of_failing(source: &Source, target: &Target) -> String {
    let tracking = &source.tracking_view;
    match &target.covered {
        Some(covered) => {
            let owned: Vec<String> = covered.iter().map(|c| format!("x.{}", ident(c))).collect();
            let on = all_equal(&source.key, &compose::tracking_keys(source, "f"), &owned);
            format!("select from {tracking} as f where f.failure is not null and {on}")
        }
        None => {
            let typed = names::key_values(target, "e.key");
            let keys: Vec<String> =
                target.key.iter().map(|k| format!("x.{}", k.quoted())).collect();
            format!(
                "select from {tracking} as f cross join lateral
                        pg_catalog.jsonb_object_keys(f.target_keys operator(pg_catalog.->) '{}'::pg_catalog.text) as e(key)
                  where f.failure is not null and {}",
                target.id,
                all_equal(&target.key, &keys, &typed)
            )
        }
    }
}

/// Deletes rows that no item produces and whose former item coco no longer knows. Only managed
/// targets whose listed keys can lose their values can have such rows. The caller acts as the
/// flow's owner.
pub fn delete_orphans(flow: &Flow) -> Result<i64> {
    let failing = failing_sources(flow)?;
    // coco cannot distinguish rows of a failed item from rows without an item.
    if failing.iter().any(|f| *f) {
        return Ok(0);
    }
    let recalling = memo::session_of_look(flow)?;
    let _running = recalling.as_ref().map(|r| r.begin());
    let mut deleted = 0;
    for target in flow.targets.iter().filter(|t| t.made && names::loses_keys(t)) {
        deleted += delete_extra_of(flow, target, &failing)?;
    }
    Ok(deleted)
}

/// Deletes the rows of a target that no item produces, and further rows with the same key. Keeps the
/// rows of failed items. Returns how many rows it deleted.
pub fn delete_extra_of(flow: &Flow, target: &Target, failing: &[bool]) -> Result<i64> {
    let names = KeyExprs::new(&flow.sources[0], target);
    let healthy = not_of_failing(flow, target, failing);
    let extra = format!(
        "{healthy} and not exists (select from ({}) as n where {})",
        expected_rows_sql(flow, target, failing)?,
        all_equal(&target.key, &names.new_key, &names.target_key),
    );
    if let Some(external) = &target.external {
        let statements = SpiSession::connect()?;
        return ledger::delete_ledger(
            &statements,
            target,
            external,
            "",
            &extra,
            clock::now_micros(),
        );
    }
    let relation = target.relation_name();
    let mut extra = format!("({extra})");
    if !refuses_copies(target)? {
        let other: Vec<String> = target.key.iter().map(|k| format!("y.{}", k.quoted())).collect();
        extra = format!(
            "{extra} or {healthy} and exists (select from {relation} as y where {same}
               and y.tableoid operator(pg_catalog.=) x.tableoid and y.ctid operator(pg_catalog.<) x.ctid)",
            same = all_equal(&target.key, &other, &names.target_key),
        );
    }
    spi::execute(&format!("delete from {relation} as x where {extra}"), &[])
}
