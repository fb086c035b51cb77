//! Exchanges a flow and a version of it in coco's catalog: their names, the names of their targets,
//! and their history.

use crate::catalog::model::Flow;
use crate::catalog::version_rows::{self, FlowVersion, VersionRole};
use crate::declare::gapless::table_pair::TablePair;
use crate::declare::names;
use crate::declare::rename_flow::rename_rows;
use crate::flows::verification;
use crate::pg::acting_role::RoleGuard;
use crate::pg::error::Result;
use crate::pg::invalidation;
use crate::pg::spi::{self, arg};

/// Makes a version the main flow, and the main flow its old version. The caller holds the locks of
/// both flows.
pub fn exchange_rows(
    main: &Flow,
    version: &Flow,
    pairs: &[TablePair],
    link: &FlowVersion,
) -> Result<()> {
    let acting = RoleGuard::extension_owner()?;
    for pair in pairs {
        let main = &pair.main;
        name_target(pair.version.id, &main.schema, &pair.temporary(), pair.version.made)?;
        name_target(main.id, &main.schema, &pair.retired, main.made)?;
        name_target(pair.version.id, &main.schema, &main.name, main.made)?;
    }
    let temporary = format!("coco_swap_{}", version.id);
    rename_rows(&version.name, &temporary)?;
    rename_rows(&main.name, &names::version_name(&main.name, VersionRole::Old)?)?;
    rename_rows(&temporary, &main.name)?;
    spi::execute(
        "update coco_internal.flow as v
            set label = m.label, batch_size = m.batch_size, max_rows = m.max_rows,
                max_cost = m.max_cost, live = m.live, paused = m.paused, refresh = m.refresh,
                fill_order = m.fill_order,
                created = m.created
           from coco_internal.flow as m where v.id = $1 and m.id = $2",
        &[arg(version.id), arg(main.id)],
    )?;
    // The history of the name stays with the name, and so do its schedule and its search.
    for table in ["run_history", "run_total", "flow_label", "scheduled_run", "search"] {
        exchange_ids(table, main.id, version.id)?;
    }
    verification::copy_interval(main.id, version.id)?;
    drop(acting);
    version_rows::exchange(main.id, link)?;
    invalidation::note_change()
}

fn name_target(id: i32, schema: &str, name: &str, managed: bool) -> Result<()> {
    spi::execute(
        "update coco_internal.target set schema = $2, name = $3, managed = $4 where id = $1",
        &[arg(id), arg(schema), arg(name), arg(managed)],
    )?;
    Ok(())
}

/// Exchanges the flows of rows. The negative ids in between keep keys unique.
fn exchange_ids(table: &str, one: i32, other: i32) -> Result<()> {
    let flows = [arg(one), arg(other)];
    spi::execute(
        &format!("update coco_internal.{table} set flow = -flow where flow in ($1, $2)"),
        &flows,
    )?;
    spi::execute(
        &format!(
            "update coco_internal.{table} set flow = case flow when -$1 then $2 else $1 end
              where flow in (-$1, -$2)"
        ),
        &flows,
    )?;
    Ok(())
}
