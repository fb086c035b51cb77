//! Decides whether workers may start: whether the restore of a dump, if there was one, is complete.
//!
//! A dump contains the rows of `coco_internal.flow` before the rows, indexes and triggers of most tables. A
//! flow that is live at that point would find its source empty, and write to a target that the
//! restore still fills. The first flow of a database therefore creates a materialized view. A dump
//! creates the view without rows, and fills it with REFRESH MATERIALIZED VIEW. This is the last
//! command of every dump, after data, indexes, constraints, triggers and privileges.
//!
//! The view then records whether flows exist. If only the schema was restored and the data come
//! later, no flow exists.
//!
//! `coco.start` creates the view again: its caller knows that the database is complete.

use pgrx::pg_sys;

use crate::catalog::internal_tables;
use crate::pg::acting_role::RoleGuard;
use crate::pg::error::Result;
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::spi::{self, arg};
use crate::pg::tuplestore::statements::SpiSession;

pub const VIEW: &str = "coco_internal.restored";

/// Reports whether the last command of a dump has run.
pub fn is_complete() -> Result<bool> {
    let _as = RoleGuard::extension_owner()?;
    let Some(view) =
        internal_tables::find(VIEW)?.filter(|view| internal_tables::lock_to_read(*view))
    else {
        return Ok(false);
    };
    // A materialized view without rows cannot be read.
    let populated = spi::scalar::<bool>(
        "select c.relispopulated from pg_catalog.pg_class c where c.oid = $1",
        &[arg(view)],
    )?;
    Ok(populated == Some(true)
        && spi::scalar::<bool>(&format!("select complete from {VIEW}"), &[])? == Some(true))
}

/// Prepares the insertion of a row into `coco_internal.flow`. If the row may be the first flow, blocks other
/// sessions that want to add a flow.
pub fn prepare() -> Result<()> {
    match is_complete()? {
        true => Ok(()),
        false => hold_off(),
    }
}

fn hold_off() -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    spi::execute("lock table coco_internal.flow in share row exclusive mode", &[])?;
    Ok(())
}

/// Creates the view for the first flow of a database, which does not come from a dump. First drops
/// the objects that the restore of a schema alone has left, because no flow owns them, and they are
/// not kept of a dropped flow.
pub fn begin_with(flow: i32) -> Result<()> {
    if is_complete()? {
        return Ok(());
    }
    hold_off()?;
    let acting = RoleGuard::extension_owner()?;
    let alone = "select not exists (select from coco_internal.flow where id <> $1)";
    if spi::scalar::<bool>(alone, &[arg(flow)])? != Some(true) {
        return Ok(());
    }
    let left = spi::select(
        "select c.relkind::text, pg_catalog.format('%I.%I', n.nspname, c.relname)
           from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
          where n.nspname in ('coco', 'coco_internal') and c.relkind in ('r', 'v')
            and not exists (select from pg_catalog.pg_depend d
                             where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                               and d.objid = c.oid and d.deptype = 'e')
            and not exists (select from coco_internal.kept_memo m where m.memo_table = c.oid)
          order by c.relkind = 'r', c.oid desc",
        &[],
        |r| Ok((spi::required::<String>(r, 1)?, spi::required::<String>(r, 2)?)),
    )?;
    for (kind, name) in left {
        let kind = if kind == "v" { "view" } else { "table" };
        spi::execute(&format!("drop {kind} {name}"), &[])?;
    }
    drop(acting);
    make()
}

/// Allows workers to start.
pub fn complete() -> Result<()> {
    if is_complete()? {
        return Ok(());
    }
    hold_off()?;
    match is_complete()? {
        true => Ok(()),
        false => make(),
    }
}

fn make() -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    if internal_tables::find(VIEW)?.is_some() {
        spi::execute(&format!("drop materialized view {VIEW}"), &[])?;
    }
    for statement in [
        &format!(
            "create materialized view {VIEW} as select exists (select from coco_internal.flow) as complete"
        ),
        &format!(
            "comment on materialized view {VIEW} is 'Whether the last command of a dump has run. Workers start only then.'"
        ),
        // DROP EXTENSION drops the view, also where it has outlived the last flow.
        &format!("alter materialized view {VIEW} depends on extension coco"),
    ] {
        spi::execute(statement, &[])?;
    }
    Ok(())
}

/// Drops the view with the last flow, after a flow was dropped. The view stays if another session
/// is adding a flow or reading the view; nothing waits for that session. A view without flows does
/// no harm: the next flow replaces it after a restore, and DROP EXTENSION drops it.
pub fn end_with_last() -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    let (Some(view), Some(flows)) =
        (internal_tables::find(VIEW)?, internal_tables::find("coco_internal.flow")?)
    else {
        return Ok(());
    };
    let is_last = || -> Result<bool> {
        let _now = PinnedSnapshot::latest();
        let found = SpiSession::connect()?
            .read_text("select 'flow' from coco_internal.flow limit 1", &[])?;
        Ok(found.is_none())
    };
    let is_free = |relation, mode: u32| {
        // SAFETY: takes a heavyweight lock, which the transaction's end releases.
        unsafe { pg_sys::ConditionalLockRelationOid(relation, mode as i32) }
    };
    if is_last()?
        && is_free(flows, pg_sys::ShareRowExclusiveLock)
        && is_last()?
        && is_free(view, pg_sys::AccessExclusiveLock)
    {
        spi::execute(&format!("drop materialized view if exists {VIEW}"), &[])?;
    }
    Ok(())
}
