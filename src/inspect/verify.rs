//! `coco.verify`: compares a target with its query, and repairs differences.

use pgrx::datum::TimestampWithTimeZone;

use crate::catalog::model::{Flow, Target};
use crate::catalog::relation_locks;
use crate::flows::{load, verification};
use crate::inspect::views;
use crate::memo;
use crate::outbox::tables;
use crate::pg::acting_role::RoleGuard;
use crate::pg::columns::all_equal;
use crate::pg::error::Result;
use crate::pg::json::Json;
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::spi::{self, literal};
use crate::query::names::KeyExprs;
use crate::update::limits::Limits;
use crate::update::orphans::{
    delete_extra_of, dropped_rows_sql, expected_rows_sql, failing_sources, not_of_failing,
    refuses_copies,
};
use crate::update::{self, differences};
use coco_core::decision::Mode;

/// A target row that differs from the query's result, or an item that fails.
pub struct Difference {
    /// `None` for a failed item: none of the targets is compared for it.
    pub target: Option<String>,
    /// `missing`, `extra`, `different` or `failing`.
    pub difference: String,
    /// The target key. For a failed item: its source key.
    pub key: Json,
    /// For a failed item: its source, and the time since which it fails.
    pub source: Option<String>,
    pub since: Option<TimestampWithTimeZone>,
}

/// The targets that [`verify`] compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComparedTargets {
    /// Tables of this database, and the ledgers of external targets.
    All,
    /// Only tables of this database.
    Tables,
}

impl ComparedTargets {
    fn has(self, target: &Target) -> bool {
        self == ComparedTargets::All || target.external.is_none()
    }
}

/// Compares targets of a flow with the query's result over all items, row by row and byte by byte.
/// Excludes items whose last evaluation failed, with their rows, and returns them after the
/// differences. With `repair`, coco also repairs the differences; it returns those found before the
/// repair.
pub fn verify(
    name: &str,
    repair: bool,
    targets: ComparedTargets,
    limits: Limits,
) -> Result<Vec<Difference>> {
    if repair {
        load::lock_and_load(name)?;
    }
    let flow = load::load_to_read(name)?;
    let mut found = differences(&flow, targets, None)?;
    if repair && !found.is_empty() {
        mend(name, targets, limits)?;
    }
    if repair {
        verification::verify_again(flow.id)?;
    }
    found.extend(failing_items(&flow)?);
    Ok(found)
}

/// Compares targets of a flow as [`verify`] does, without failing items. Returns at most `most`
/// differences. The caller is a worker.
pub fn find_differences(
    name: &str,
    targets: ComparedTargets,
    most: usize,
) -> Result<Vec<Difference>> {
    differences(&load::load_to_read(name)?, targets, Some(most))
}

/// Repairs the targets of a flow, so that they match its query.
fn mend(name: &str, targets: ComparedTargets, limits: Limits) -> Result<()> {
    // An update repairs rows that differ only because the source changed since the last update.
    // Differences that remain were not made by coco.
    update::update(name, Mode::Normal, limits)?;
    let flow = load::load_flow(name)?;
    let left = differences(&flow, targets, None)?;
    if left.iter().any(|d| d.difference != "extra") {
        update::update(name, Mode::FullReprocess, limits)?;
    }
    if left.iter().any(|d| d.difference == "extra") {
        delete_extra(&flow, targets)?;
        update::update(name, Mode::Normal, limits)?;
    }
    Ok(())
}

fn failing_items(flow: &Flow) -> Result<Vec<Difference>> {
    let failing = views::failing(flow)?.into_iter().map(|item| Difference {
        target: None,
        difference: "failing".to_owned(),
        key: item.source_key,
        source: Some(item.source),
        since: item.since,
    });
    Ok(failing.collect())
}

/// Returns the differences, at most `most` if there is a limit.
fn differences(
    flow: &Flow,
    targets: ComparedTargets,
    most: Option<usize>,
) -> Result<Vec<Difference>> {
    let _as = RoleGuard::flow_owner(flow.owner, &flow.settings)?;
    let recalling = memo::session_of_look(flow)?;
    let _running = recalling.as_ref().map(|r| r.begin());
    let _now = PinnedSnapshot::take();
    relation_locks::check_not_rewritten(flow)?;
    let mut found = Vec::new();
    let failing = failing_sources(flow)?;
    for target in flow.targets.iter().filter(|t| targets.has(t)) {
        if target.relation.is_none() {
            return Err(dropped_rows_sql(flow, target));
        }
        let mut sql = compared(flow, target, &failing)?;
        if let Some(most) = most {
            sql.push_str(&format!(" limit {}", most.saturating_sub(found.len())));
        }
        let shown = target.shown();
        found.extend(spi::select(&sql, &[], |r| {
            Ok(Difference {
                target: Some(shown.clone()),
                difference: spi::required(r, 1)?,
                key: spi::required(r, 2)?,
                source: None,
                since: None,
            })
        })?);
    }
    Ok(found)
}

/// Returns the SELECT of a target's differences and their keys.
fn compared(flow: &Flow, target: &Target, failing: &[bool]) -> Result<String> {
    let mut names: Vec<String> =
        target.columns.iter().map(|c| format!("x.{}", c.quoted())).collect();
    if target.external.is_some() {
        names = target.key.iter().map(|k| format!("x.{}", k.quoted())).collect();
        names.push(format!("x.{}", tables::FINGERPRINT));
    }
    // Chosen so that no column of the target has this name.
    let mut copy = "coco_copy".to_owned();
    while target.columns.iter().any(|c| c.name == copy) {
        copy.push('_');
    }
    let keys =
        target.key.iter().map(|k| format!("x.{}", k.quoted())).collect::<Vec<_>>().join(", ");
    // If no unique index prevents it, a row may exist more than once.
    let copies = match refuses_copies(target)? {
        true => "1::pg_catalog.int8".to_owned(),
        false => format!("pg_catalog.row_number() over (partition by {keys})"),
    };
    let at = KeyExprs::new(&flow.sources[0], target);
    let key: Vec<String> = target
        .key
        .iter()
        .zip(at.new_key.iter().zip(&at.target_key))
        .map(|(k, (n, x))| format!("{}, coalesce({n}, {x})", literal(&k.name)))
        .collect();
    Ok(format!(
        "select case when n.copy is null then 'extra' when x.{copy} is null then 'missing'
                     else 'different' end,
                pg_catalog.jsonb_build_object({key})
           from (select n.*, 1::pg_catalog.int8 as copy from ({query}) as n) as n
           full join (select {names}, {copies} as {copy} from {relation} as x where {healthy}) as x
             on {on} and x.{copy} operator(pg_catalog.=) n.copy
          where n.copy is null or x.{copy} is null or {differs}",
        key = key.join(", "),
        query = expected_rows_sql(flow, target, failing)?,
        names = names.join(", "),
        relation = target.relation_name(),
        healthy = not_of_failing(flow, target, failing),
        on = all_equal(&target.key, &at.new_key, &at.target_key),
        differs = differences::differs(target),
    ))
}

/// Deletes rows that no item produces, except rows that a failed item may still own.
fn delete_extra(flow: &Flow, targets: ComparedTargets) -> Result<()> {
    let _as = RoleGuard::flow_owner(flow.owner, &flow.settings)?;
    let recalling = memo::session_of_look(flow)?;
    let _running = recalling.as_ref().map(|r| r.begin());
    let failing = failing_sources(flow)?;
    for target in flow.targets.iter().filter(|t| targets.has(t)) {
        delete_extra_of(flow, target, &failing)?;
    }
    Ok(())
}
