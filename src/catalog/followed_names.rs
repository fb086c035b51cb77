//! Names in coco's catalog follow the objects that users rename: coco shows the names that they have
//! now, and recreates a dropped table under its last name.
//!
//! Callers: `flows`.

use crate::pg::acting_role::RoleGuard;
use crate::pg::error::Result;
use crate::pg::spi::{self, arg};

/// Returns the ids of a flow's targets whose tables have other names than the catalog has stored.
/// Leaves out tables whose names the catalog reserves for a table that was dropped.
pub fn renamed_targets(flow: &str) -> Result<Vec<i32>> {
    let _as = RoleGuard::extension_owner()?;
    spi::select(
        "select t.id
           from coco_internal.target t
           join pg_catalog.pg_class c on c.oid = t.relation
           join pg_catalog.pg_namespace n on n.oid = c.relnamespace
          where t.flow = $1 and t.server is null
            and (t.schema <> n.nspname::text or t.name <> c.relname::text)
            and not exists (select from coco_internal.target o
                             where o.id <> t.id and o.schema = n.nspname::text and o.name = c.relname::text
                               and not exists (select from pg_catalog.pg_class x where x.oid = o.relation))",
        &[arg(flow)],
        |r| spi::required::<i32>(r, 1),
    )
}

/// Enters the current names of a flow's target tables. The caller holds the flow's lock.
pub fn store_table_names(flow: &str) -> Result<()> {
    let renamed = renamed_targets(flow)?;
    let _as = RoleGuard::extension_owner()?;
    for target in renamed {
        spi::execute(
            "update coco_internal.target t set schema = n.nspname::text, name = c.relname::text
               from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
              where c.oid = t.relation and t.id = $1",
            &[arg(target)],
        )?;
    }
    Ok(())
}

/// Enters the current names of the columns that queries use of a source or lookup. The caller holds
/// the flow's lock.
pub fn store_used_columns(source: i32, used: &[String]) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    spi::execute(
        "update coco_internal.source set used = $2 where id = $1 and used is distinct from $2",
        &[arg(source), arg(used.to_vec())],
    )?;
    Ok(())
}
