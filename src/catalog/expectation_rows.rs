//! The rows of `coco_internal.expectation`: conditions that the rows of targets should satisfy.
//!
//! Callers: `flows`, `declare`, `update`, `inspect`.

use pgrx::pg_sys;

use crate::catalog::model::{BoundView, Expectation};
use crate::pg::acting_role::RoleGuard;
use crate::pg::error::{Error, Result};
use crate::pg::spi::{self, arg};
use coco_core::expectation::{RowTally, UnmetAction};

/// An expectation, with the id of its target.
pub struct TargetExpectation {
    pub target: i32,
    pub expectation: Expectation,
}

/// Returns the expectations of a flow's targets, in the order of declaration.
pub fn expectations_of(flow: &str) -> Result<Vec<TargetExpectation>> {
    let _as = RoleGuard::extension_owner()?;
    spi::select(
        "select x.id, x.name, x.condition, x.action, x.max_share, c.oid,
                case when c.oid is not null then pg_catalog.format('%I.%I', n.nspname, c.relname) end, x.target
           from coco_internal.expectation x
           join coco_internal.target t on t.id = x.target
           left join pg_catalog.pg_class c on c.oid = x.condition_view
           left join pg_catalog.pg_namespace n on n.oid = c.relnamespace
          where t.flow = $1 order by x.id",
        &[arg(flow)],
        |r| {
            let id: i32 = spi::required(r, 1)?;
            let view = r.get::<pg_sys::Oid>(6)?.zip(r.get::<String>(7)?);
            let expectation = Expectation {
                id,
                name: spi::required(r, 2)?,
                condition: spi::required(r, 3)?,
                action: UnmetAction::from_name(&spi::required::<String>(r, 4)?)
                    .unwrap_or(UnmetAction::Fail),
                max_share: r.get(5)?,
                // The condition reads the row at one place.
                bound: view.map(|(view, name)| BoundView { view, name, places: vec![id].into() }),
            };
            Ok(TargetExpectation { target: spi::required(r, 8)?, expectation })
        },
    )
}

/// An expectation to store.
pub struct NewExpectation<'a> {
    pub target: i32,
    pub name: &'a str,
    pub condition: &'a str,
    pub action: UnmetAction,
    pub max_share: Option<f64>,
}

/// Stores an expectation, and returns its id. Replaces the target's expectation of this name. The
/// counts begin again if the condition is another one.
pub fn store_expectation(new: &NewExpectation) -> Result<i32> {
    let _as = RoleGuard::extension_owner()?;
    let stored = spi::returning(
        "insert into coco_internal.expectation as x (target, name, condition, action, max_share)
         values ($1, $2, $3, $4, $5)
         on conflict (target, name) do update
            set condition = excluded.condition, action = excluded.action,
                max_share = excluded.max_share,
                checked = case when x.condition = excluded.condition then x.checked else 0 end,
                failed = case when x.condition = excluded.condition then x.failed else 0 end
         returning id",
        &[
            arg(new.target),
            arg(new.name),
            arg(new.condition),
            arg(new.action.name()),
            arg(new.max_share),
        ],
        |r| spi::required::<i32>(r, 1),
    )?;
    stored.first().copied().ok_or_else(|| Error::internal("INSERT returned no id"))
}

/// Stores the view that keeps the condition of an expectation.
pub fn store_condition_view(id: i32, view: pg_sys::Oid) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    spi::execute(
        "update coco_internal.expectation set condition_view = $2::oid::regclass where id = $1",
        &[arg(id), arg(view)],
    )?;
    Ok(())
}

pub fn delete_expectation(id: i32) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    spi::execute("delete from coco_internal.expectation where id = $1", &[arg(id)])?;
    Ok(())
}

/// Adds the rows that an update has checked to the counts of the expectations.
pub fn count_rows(tally: &RowTally) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    for (id, rows) in tally.iter().filter(|(_, rows)| rows.checked > 0) {
        spi::execute(
            "update coco_internal.expectation set checked = checked + $2, failed = failed + $3
              where id = $1",
            &[arg(*id), arg(rows.checked), arg(rows.failed)],
        )?;
    }
    Ok(())
}

/// The numbers of rows that coco has checked against an expectation, and that failed.
pub struct RowCounts {
    pub id: i32,
    pub checked: i64,
    pub failed: i64,
}

/// Returns the counts of the expectations of a flow's targets.
pub fn row_counts(flow: &str) -> Result<Vec<RowCounts>> {
    let _as = RoleGuard::extension_owner()?;
    spi::select(
        "select x.id, x.checked, x.failed
           from coco_internal.expectation x join coco_internal.target t on t.id = x.target where t.flow = $1",
        &[arg(flow)],
        |r| {
            Ok(RowCounts {
                id: spi::required(r, 1)?,
                checked: spi::required(r, 2)?,
                failed: spi::required(r, 3)?,
            })
        },
    )
}
