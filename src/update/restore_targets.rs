//! Recreates targets that were dropped, or that the restore of a dump has left out.

use crate::catalog::model::{Flow, Target};
use crate::catalog::{locks, objects, target_table};
use crate::outbox::tables;
use crate::pg::acting_role::RoleGuard;
use crate::pg::error::{Error, Result};
use crate::pg::notice::notice;
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::spi::{self, arg};
use crate::pg::{invalidation, relations};

/// Recreates the ledger and the outbox of an external target. coco no longer knows which rows the
/// target has, so it sends all rows again.
fn restore_ledger(flow: &mut Flow, at: usize) -> Result<()> {
    let (name, owner) = (flow.name.clone(), flow.owner);
    let target = &mut flow.targets[at];
    let acting = RoleGuard::extension_owner()?;
    tables::drop_all(&name, target)?;
    tables::create_tables(&name, owner, target)?;
    target.epoch += 1;
    let external = target.external.as_ref();
    spi::execute(
        "update coco_internal.target
            set relation = $2::oid::regclass, outbox = $3::text::regclass, epoch = $4,
                columns = $5, ledger_view = $6::text::regclass, outbox_view = $7::text::regclass
          where id = $1",
        &[
            arg(target.id),
            arg(target.relation),
            arg(external.map(|e| e.outbox.as_str())),
            arg(target.epoch),
            arg(external.map(|e| e.columns.clone())),
            arg(external.map(|_| target.relation_name())),
            arg(external.map(|e| e.outbox_view.as_str())),
        ],
    )?;
    // Changes in flight have positions of the lost table. The new positions start far above them.
    spi::execute(
        "select setval(pg_get_serial_sequence($2, 'position'), sent + 4294967296)
           from coco_internal.delivery_state where target = $1",
        &[arg(target.id), arg(target.external.as_ref().map(|e| e.outbox.as_str()))],
    )?;
    invalidation::note_change()?;
    let (id, shown) = (target.id, target.shown());
    drop(acting);
    for source in &flow.sources {
        objects::forget_target_keys(source, id)?;
    }
    notice(format!(
        "ledger of target {shown} of flow \"{name}\" was dropped; coco sends all rows again, and rows that no item produces any more stay in the target"
    ));
    Ok(())
}

/// Fails if a table that has taken the name of a dropped target is itself a target.
fn check_not_taken(target: &Target, relation: pgrx::pg_sys::Oid) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    locks::lock_target_table(relation)?;
    let _now = PinnedSnapshot::take();
    let taken = spi::scalar::<bool>(
        "select true from coco_internal.target where relation = $1::oid::regclass and id <> $2",
        &[arg(relation), arg(target.id)],
    )?;
    match taken {
        None => Ok(()),
        Some(_) => Err(Error::new(
            pgrx::PgSqlErrorCode::ERRCODE_OBJECT_IN_USE,
            format!("table {} is already another target", target.relation_name()),
        )
        .detail("The target of this name was dropped, and coco would create it again.")
        .hint("Rename this table, or drop one of the flows with coco.drop_flow.")),
    }
}

/// Recreates each target table that was dropped, or adopts a table that has taken its name. coco
/// then writes all rows of that target again.
pub fn restore_targets(flow: &mut Flow) -> Result<()> {
    let owner = flow.owner;
    let settings = flow.settings.clone();
    for at in 0..flow.targets.len() {
        let target = &mut flow.targets[at];
        if target.relation.is_some() {
            continue;
        }
        if target.external.is_some() {
            restore_ledger(flow, at)?;
            continue;
        }
        let acting = RoleGuard::flow_owner(owner, &settings)?;
        let relation = match relations::find_relation(&target.schema, &target.name)? {
            Some(relation) => {
                check_not_taken(target, relation)?;
                target_table::check_adoptable(target, relation, owner)?;
                // The table belongs to somebody else, so coco must neither alter nor drop it.
                target.made = false;
                target.not_null = vec![];
                target.nullable_again = vec![];
                relation
            }
            None => {
                target.made = true;
                target_table::create_target_table(target)?
            }
        };
        drop(acting);
        target.relation = Some(relation);
        target.epoch += 1;
        let acting = RoleGuard::extension_owner()?;
        spi::execute(
            "update coco_internal.target
                set relation = $2::oid::regclass, epoch = $3, managed = $4, not_null = $5
              where id = $1",
            &[
                arg(target.id),
                arg(relation),
                arg(target.epoch),
                arg(target.made),
                arg(target.not_null.clone()),
            ],
        )?;
        invalidation::note_change()?;
        let (id, name) = (target.id, target.relation_name());
        drop(acting);
        for source in &flow.sources {
            objects::forget_target_keys(source, id)?;
        }
        notice(format!(
            "target {name} of flow \"{}\" was dropped; coco creates and fills it again",
            flow.name
        ));
    }
    Ok(())
}
