//! Indexes on the target keys in tracking tables. With them, coco finds the items of a target row
//! without reading all tracking rows.

use crate::catalog::internal_tables::SCHEMA;
use crate::catalog::model::Source;
use crate::pg::acting_role::RoleGuard;
use crate::pg::error::Result;
use crate::pg::spi::{self, arg};

/// Creates the missing indexes of a flow that is declared with `lineage_index`.
pub fn index_as_declared(flow: &str) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    let wanted = spi::scalar::<bool>(
        "select lineage_index from coco_internal.flow where flow = $1",
        &[arg(flow)],
    )?;
    match wanted {
        Some(true) => index(flow, true),
        _ => Ok(()),
    }
}

/// Creates or drops the indexes that find items by listed target keys. The caller must act as the
/// extension's owner.
pub fn index(flow: &str, wanted: bool) -> Result<()> {
    let tracked = spi::select(
        "select s.id, c.oid::regclass::text from coco_internal.source s join pg_class c on c.oid = s.tracking
          where s.flow = $1 and s.lookup_of is null",
        &[arg(flow)],
        |r| Ok((spi::required::<i32>(r, 1)?, spi::required::<String>(r, 2)?)),
    )?;
    for (id, table) in tracked {
        index_one(id, &table, wanted)?;
    }
    Ok(())
}

/// Returns the name of the index on a source's tracking table, without its schema.
fn index_name(source: i32) -> String {
    format!("lineage_{source}")
}

fn index_one(source: i32, table: &str, wanted: bool) -> Result<()> {
    let name = index_name(source);
    let statement = match wanted {
        // Each lookup reads the whole pending list of the index, so the list is kept small.
        true => format!(
            "create index if not exists {name} on {table} using gin (target_keys jsonb_path_ops)
               with (gin_pending_list_limit = 256) where target_keys is not null"
        ),
        false => format!("drop index if exists {SCHEMA}.{name}"),
    };
    spi::execute(&statement, &[])?;
    Ok(())
}

/// Reports whether an index finds the items of a source by listed target keys.
pub fn is_indexed(source: &Source) -> Result<bool> {
    let _as = RoleGuard::extension_owner()?;
    let found = spi::scalar::<bool>(
        "select true from pg_class c join pg_namespace n on n.oid = c.relnamespace
          where n.nspname = $1::text and c.relname = $2::text and c.relkind = 'i'",
        &[arg(SCHEMA), arg(index_name(source.id))],
    )?;
    Ok(found == Some(true))
}
