//! Expectations of the caller's flows, and the rows that coco parks because of them: the view
//! `coco.expectations`, and a part of `coco.errors`.

use pgrx::datum::TimestampWithTimeZone;
use std::collections::BTreeMap;

use crate::catalog::expectation_rows;
use crate::catalog::item_failure::ItemFailure;
use crate::catalog::model::{Expectation, Flow, Source, Target};
use crate::inspect::views::{is_readable, key_object, of_each};
use crate::pg::acting_role::RoleGuard;
use crate::pg::error::Result;
use crate::pg::json::Json;
use crate::pg::spi;
use coco_core::expectation::UnmetAction;

/// An expectation, and how many rows coco has checked against it.
pub struct ShownExpectation {
    pub flow: String,
    pub target: String,
    pub name: String,
    pub condition: String,
    pub action: String,
    pub max_share: Option<f64>,
    pub checked: i64,
    pub failed: i64,
    /// The number of rows that are parked now; `None` if a tracking table cannot be read.
    pub parked: Option<i64>,
}

/// Returns the expectations of the caller's flows.
pub fn expectations() -> Result<Vec<ShownExpectation>> {
    of_each(|flow| {
        if flow.targets.iter().all(|t| t.expectations.is_empty()) {
            return Ok(vec![]);
        }
        let parked = parked_counts(flow)?;
        let counts = expectation_rows::row_counts(&flow.name)?;
        let mut shown = Vec::new();
        for target in &flow.targets {
            for expectation in &target.expectations {
                let rows = counts.iter().find(|c| c.id == expectation.id);
                shown.push(ShownExpectation {
                    flow: flow.name.clone(),
                    target: name_of(target),
                    name: expectation.name.clone(),
                    condition: expectation.condition.clone(),
                    action: expectation.action.name().to_owned(),
                    max_share: expectation.max_share,
                    checked: rows.map_or(0, |c| c.checked),
                    failed: rows.map_or(0, |c| c.failed),
                    parked: parked.as_ref().map(|parked| match expectation.action {
                        UnmetAction::Park => parked.get(&expectation.id).copied().unwrap_or(0),
                        UnmetAction::Warn | UnmetAction::Fail => 0,
                    }),
                });
            }
        }
        Ok(shown)
    })
}

/// Returns the name of a target as `coco.targets` shows it.
fn name_of(target: &Target) -> String {
    match &target.external {
        Some(external) => external.name.clone(),
        None => target.relation_name(),
    }
}

/// Counts the parked rows of a flow by the ids of expectations. Returns `None` if a tracking table
/// cannot be read.
fn parked_counts(flow: &Flow) -> Result<Option<BTreeMap<i32, i64>>> {
    let _as = RoleGuard::extension_owner()?;
    let mut counts = BTreeMap::new();
    for source in &flow.sources {
        if !is_readable(&source.tracking)? {
            return Ok(None);
        }
        let sql = format!(
            "select u.id::int, count(*)
               from {} as t
              cross join lateral jsonb_array_elements(t.parked) as e(parked)
              cross join lateral jsonb_array_elements_text(e.parked->'unmet') as u(id)
              where t.parked is not null group by u.id",
            source.tracking
        );
        let found = spi::select(&sql, &[], |r| {
            Ok((spi::required::<i32>(r, 1)?, spi::required::<i64>(r, 2)?))
        })?;
        for (id, rows) in found {
            *counts.entry(id).or_insert(0) += rows;
        }
    }
    Ok(Some(counts))
}

/// A row that coco does not write because of expectations.
pub struct ParkedRow {
    pub source_key: Json,
    pub target: Option<String>,
    pub target_key: Option<Json>,
    pub message: String,
    pub detail: Option<String>,
    pub hint: &'static str,
    pub parked_at: Option<TimestampWithTimeZone>,
}

const PARKED_HINT: &str = "Correct the row in its source, or the expectation with coco.expect; coco then checks the row again. To check it again unchanged, call coco.retry.";

const DROPPED_HINT: &str = "The next update of the flow writes the row.";

/// Returns the parked rows of a source's items. The caller acts as the extension's owner, and has
/// found the tracking table readable.
pub fn parked_rows(flow: &Flow, source: &Source) -> Result<Vec<ParkedRow>> {
    if flow.targets.is_empty() {
        return Ok(vec![]);
    }
    let sql = format!(
        "select {}, (e.parked->>'target')::int, e.parked->'key',
                array(select u.id::int from jsonb_array_elements_text(e.parked->'unmet') as u(id)),
                to_timestamp(t.process_ordinal / 1000000.0)
           from {} as t cross join lateral jsonb_array_elements(t.parked) as e(parked)
          where t.parked is not null order by {}",
        key_object(source),
        source.tracking,
        crate::query::compose::tracking_keys(source, "t").join(", ")
    );
    spi::select(&sql, &[], |r| {
        let target: Option<i32> = r.get(2)?;
        let target = flow.targets.iter().find(|t| Some(t.id) == target);
        let unmet = r.get::<Vec<i32>>(4)?.unwrap_or_default();
        let parks = |e: &&Expectation| e.action == UnmetAction::Park && unmet.contains(&e.id);
        let unmet: Vec<&Expectation> =
            target.into_iter().flat_map(|t| &t.expectations).filter(parks).collect();
        let conditions: Vec<&str> = unmet.iter().map(|e| e.condition.as_str()).collect();
        let (message, detail, hint) = match (target, unmet.first()) {
            (Some(target), Some(first)) => (
                ItemFailure::unmet_message(target, first),
                Some(match conditions.as_slice() {
                    [only] => format!("The condition is {only}."),
                    several => format!("The conditions are {}.", several.join("; ")),
                }),
                PARKED_HINT,
            ),
            _ => (
                "row was not written because of an expectation that has changed since".to_owned(),
                None,
                DROPPED_HINT,
            ),
        };
        Ok(ParkedRow {
            source_key: spi::required(r, 1)?,
            target: target.map(name_of),
            target_key: r.get(3)?,
            message,
            detail,
            hint,
            parked_at: r.get(5)?,
        })
    })
}
