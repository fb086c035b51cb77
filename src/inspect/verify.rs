//! Comparing a target with its query, and mending what differs.

use pgrx::datum::TimestampWithTimeZone;

use crate::catalog::model::{Flow, Source, Target, all_equal, numbered};
use crate::catalog::{flow_rows, relation_locks, target_table};
use crate::inspect::views;
use crate::memo;
use crate::outbox::{ledger, tables};
use crate::pg::acting_role::ActingAs;
use crate::pg::error::{Error, Result};
use crate::pg::json::Json;
use crate::pg::spi::{self, ident, literal};
use crate::pg::tuplestore::OneSnapshot;
use crate::pg::tuplestore::statements::Statements;
use crate::query::compose::{self, Items};
use crate::update::apply_batch::{self, Names};
use crate::update::{self, Limits, untracked_items};
use coco_core::decide::Mode;

pub struct Difference {
    /// `None` of an item that is left out of all targets.
    pub target: Option<String>,
    /// `missing`, `extra`, `different` or `failing`.
    pub difference: String,
    /// Of an item that fails: its source key.
    pub key: Json,
    /// Of an item that fails: its source, and since when it does.
    pub source: Option<String>,
    pub since: Option<TimestampWithTimeZone>,
}

/// Compares every target of a flow with its query over everything, row by row and byte by byte.
/// Items whose last evaluation failed are left out with their rows, and are returned after the differences. With
/// `repair`, what differs is mended, and the differences found are returned.
pub fn verify(name: &str, repair: bool, limits: Limits) -> Result<Vec<Difference>> {
    if repair {
        flow_rows::locked(name)?;
    }
    let flow = flow_rows::to_read(name)?;
    let mut found = differences(&flow)?;
    if repair && !found.is_empty() {
        mend(name, limits)?;
    }
    found.extend(failing_items(&flow)?);
    Ok(found)
}

/// Brings the targets of a flow to what its query says.
fn mend(name: &str, limits: Limits) -> Result<()> {
    // What differs only because it changed since the last update is mended by an update; what is
    // left was changed behind coco's back.
    update::update(name, Mode::Normal, limits)?;
    let flow = flow_rows::load(name)?;
    let left = differences(&flow)?;
    if left.iter().any(|d| d.difference != "extra") {
        update::update(name, Mode::FullReprocess, limits)?;
    }
    if left.iter().any(|d| d.difference == "extra") {
        delete_extra(&flow)?;
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

fn differences(flow: &Flow) -> Result<Vec<Difference>> {
    let _as = ActingAs::flow_owner(flow.owner, &flow.settings)?;
    let recalling = memo::of_look(flow)?;
    let _running = recalling.as_ref().map(|r| r.begin());
    let _now = OneSnapshot::take();
    relation_locks::check_not_rewritten(flow)?;
    let mut found = Vec::new();
    let failing = failing_sources(flow)?;
    for target in &flow.targets {
        if target.relation.is_none() {
            return Err(dropped(flow, target));
        }
        let sql = compared(flow, target, &failing)?;
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

/// The SELECT of the differences of a target, and their keys.
fn compared(flow: &Flow, target: &Target, failing: &[bool]) -> Result<String> {
    let mut names: Vec<String> =
        target.columns.iter().map(|c| format!("x.{}", c.quoted())).collect();
    if target.external.is_some() {
        names = target.key.iter().map(|k| format!("x.{}", k.quoted())).collect();
        names.push(format!("x.{}", tables::FINGERPRINT));
    }
    // No column of the target has the name.
    let mut copy = "coco_copy".to_owned();
    while target.columns.iter().any(|c| c.name == copy) {
        copy.push('_');
    }
    let keys =
        target.key.iter().map(|k| format!("x.{}", k.quoted())).collect::<Vec<_>>().join(", ");
    // Where nothing refuses it, a row may be there more than once.
    let copies = match refuses_copies(target)? {
        true => "1::pg_catalog.int8".to_owned(),
        false => format!("pg_catalog.row_number() over (partition by {keys})"),
    };
    let at = Names::new(&flow.sources[0], target);
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
        query = expected(flow, target, failing)?,
        names = names.join(", "),
        relation = target.relation_name(),
        healthy = not_of_failing(flow, target, failing),
        on = all_equal(&target.key, &at.new_key, &at.target_key),
        differs = apply_batch::differs(target),
    ))
}

/// Whether a target cannot have two rows of one key.
fn refuses_copies(target: &Target) -> Result<bool> {
    match (target.relation, &target.external) {
        (Some(relation), None) => target_table::has_unique_index(relation, &target.key),
        _ => Ok(true),
    }
}

pub fn dropped(flow: &Flow, target: &Target) -> Error {
    Error::new(
        pgrx::PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
        format!("target {} of flow \"{}\" was dropped", target.shown(), flow.name),
    )
    .hint(format!("SELECT * FROM coco.update({}) makes and fills it again.", literal(&flow.name)))
}

fn failing_sources(flow: &Flow) -> Result<Vec<bool>> {
    flow.sources
        .iter()
        .map(|s| {
            let sql =
                format!("select true from {} where failure is not null limit 1", s.tracking_view);
            Ok(spi::one::<bool>(&sql, &[])?.is_some() || untracked_items::has_any(s)?)
        })
        .collect()
}

/// The rows the target must hold, as `c1…`.
fn expected(flow: &Flow, target: &Target, failing: &[bool]) -> Result<String> {
    let columns = numbered("e.c", target.columns.len()).join(", ");
    let each: Vec<String> = flow
        .sources
        .iter()
        .zip(failing)
        .map(|(s, failing)| {
            let items = if *failing { Items::Healthy } else { Items::All };
            let evaluated = compose::evaluate(flow, s, target, items)?;
            Ok(format!("select {columns} from ({evaluated}) as e"))
        })
        .collect::<Result<_>>()?;
    Ok(each.join(" union all "))
}

/// A condition on target rows `x`: no failing item has them.
fn not_of_failing(flow: &Flow, target: &Target, failing: &[bool]) -> String {
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
            let typed = apply_batch::key_values(target, "e.key");
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

/// Deletes rows that no item produces and that none which fails may still own.
fn delete_extra(flow: &Flow) -> Result<()> {
    let _as = ActingAs::flow_owner(flow.owner, &flow.settings)?;
    let recalling = memo::of_look(flow)?;
    let _running = recalling.as_ref().map(|r| r.begin());
    let failing = failing_sources(flow)?;
    for target in &flow.targets {
        delete_extra_of(flow, target, &failing)?;
    }
    Ok(())
}

/// Deletes rows of which it is not known any more whose they were, and which no item produces: of targets that coco made
/// and whose keys can be lost. The caller acts as the flow's owner.
pub fn delete_orphans(flow: &Flow) -> Result<i64> {
    let failing = failing_sources(flow)?;
    // Rows of an item that fails cannot be told from those of nobody.
    if failing.iter().any(|f| *f) {
        return Ok(0);
    }
    let recalling = memo::of_look(flow)?;
    let _running = recalling.as_ref().map(|r| r.begin());
    let mut deleted = 0;
    for target in flow.targets.iter().filter(|t| t.made && apply_batch::loses_keys(t)) {
        deleted += delete_extra_of(flow, target, &failing)?;
    }
    Ok(deleted)
}

fn delete_extra_of(flow: &Flow, target: &Target, failing: &[bool]) -> Result<i64> {
    let names = Names::new(&flow.sources[0], target);
    let healthy = not_of_failing(flow, target, failing);
    let extra = format!(
        "{healthy} and not exists (select from ({}) as n where {})",
        expected(flow, target, failing)?,
        all_equal(&target.key, &names.new_key, &names.target_key),
    );
    if let Some(external) = &target.external {
        let statements = Statements::connect()?;
        return ledger::delete(&statements, target, external, "", &extra, update::now_micros());
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
