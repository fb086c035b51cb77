//! The partitions of a version's table. They are created as the partitions of the main flow's table
//! are: when the version is declared, and whenever the main flow's table has more of them.

use pgrx::{PgSqlErrorCode, pg_sys};

use crate::catalog::locks;
use crate::catalog::model::Target;
use crate::catalog::version_rows::{self, FlowVersion, VersionRole};
use crate::declare::gapless::partition_tree::{TreeTable, read_tree};
use crate::declare::gapless::version_table::{self, Identity};
use crate::declare::names;
use crate::flows::load;
use crate::pg::acting_role::{RoleGuard, SavedGucs};
use crate::pg::error::{Error, Result};
use crate::pg::relations::find_relation;
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::spi::{self, arg};
use crate::pg::subtransaction::{self, subtransaction};

/// How long an update waits for other sessions before it adds a partition.
const PATIENCE_MS: u32 = 1000;

/// A table of a version, and the table of the main flow whose partitions it gets.
pub struct PartitionCopy<'a> {
    pub owner: pg_sys::Oid,
    pub main: &'a Target,
    pub version: &'a Target,
    pub main_table: pg_sys::Oid,
    pub version_table: pg_sys::Oid,
    pub role: VersionRole,
}

/// Creates the partitions that a version's table lacks.
pub fn copy_missing(copy: &PartitionCopy) -> Result<()> {
    let _as = RoleGuard::flow_owner(copy.owner, &SavedGucs::qualifying())?;
    let present = read_tree(copy.main_table)?;
    let mut copies = read_tree(copy.version_table)?;
    let partitioned_by = |tree: &[TreeTable]| tree.first().and_then(|t| t.partitioned_by.clone());
    if partitioned_by(&present) != partitioned_by(&copies) {
        // The exchange reports it.
        return Ok(());
    }
    for partition in present {
        if copies.iter().any(|c| c.bounds == partition.bounds) {
            continue;
        }
        let Some((bound, above)) = partition.bounds.split_last() else { continue };
        let Some(parent) = copies.iter().find(|c| c.bounds == above) else { continue };
        let made = copy_partition(copy, &partition, parent, bound)?;
        copies.push(made);
    }
    Ok(())
}

/// Creates the partner of a partition, and attaches it to a table of the version.
fn copy_partition(
    copy: &PartitionCopy,
    partition: &TreeTable,
    parent: &TreeTable,
    bound: &str,
) -> Result<TreeTable> {
    check_may_create(copy.owner, &partition.schema)?;
    let name = names::version_partition_name(&partition.name, partition.relation, copy.role);
    let shown = spi::qualified(&partition.schema, &name);
    let create = version_table::create_sql(
        partition.relation,
        &shown,
        &partition.qualified(),
        Identity::Inherited,
    )?;
    version_table::run_all(&[create])?;
    let relation = find_relation(&partition.schema, &name)?
        .ok_or_else(|| Error::internal(format!("table {shown} was not created")))?;
    version_table::name_after_partners(partition.relation, relation)?;
    if !version_table::same_names(&copy.main.key, &copy.version.key) {
        version_table::drop_uniqueness(relation, &shown, &copy.main.key)?;
    }
    version_table::fit_columns(copy.main, copy.version, relation, &shown)?;
    set_not_null(parent.relation, relation, &shown)?;
    version_table::copy_foreign_keys(partition.relation, relation, &shown)?;
    version_table::run_all(&[format!(
        "alter table {} attach partition {shown} {bound}",
        parent.qualified()
    )])?;
    Ok(TreeTable { relation, name, ..partition.clone() })
}

/// Fails if the flow's owner may not create tables in the schema of a partition.
fn check_may_create(owner: pg_sys::Oid, schema: &str) -> Result<()> {
    let may = spi::scalar::<bool>(
        "select has_schema_privilege($1, n.oid, 'create') from pg_namespace as n where n.nspname = $2::text",
        &[arg(owner), arg(schema)],
    )?;
    match may {
        Some(true) => Ok(()),
        _ => Err(Error::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("permission denied for schema {}", spi::ident(schema)),
        )
        .detail("coco creates a partition of a new table in the schema of the present partition.")
        .hint(format!("Run GRANT CREATE ON SCHEMA {} TO the flow's owner.", spi::ident(schema)))),
    }
}

/// Declares NOT NULL the columns of a new partition that are NOT NULL in the table above.
fn set_not_null(parent: pg_sys::Oid, partition: pg_sys::Oid, shown: &str) -> Result<()> {
    let changes = spi::select(
        "select format('alter column %I set not null', a.attname)
           from pg_attribute as a
           join pg_attribute as b on b.attrelid = $2 and b.attname = a.attname and not b.attisdropped
          where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped
            and a.attnotnull and not b.attnotnull",
        &[arg(parent), arg(partition)],
        |r| spi::required::<String>(r, 1),
    )?;
    match changes.is_empty() {
        true => Ok(()),
        false => version_table::run_all(&[format!("alter table {shown} {}", changes.join(", "))]),
    }
}

/// Adds partitions that the tables of a flow have, and that those of its version lack. The caller
/// holds the lock of the main flow.
pub fn follow_partitions(version: &FlowVersion) -> Result<()> {
    if !version_rows::has_partitioned_target(version.of)? {
        return Ok(());
    }
    locks::lock_flow(version.id)?;
    let _now = PinnedSnapshot::take();
    let main = load::load_for_update(&version.of_name)?;
    let other = load::load_for_update(&version.name)?;
    for (old, new) in main.targets.iter().zip(&other.targets) {
        // The columns of a broken query are unknown.
        let (Some(main_table), Some(version_table), Some(_), Some(_)) =
            (old.relation, new.relation, &old.bound, &new.bound)
        else {
            continue;
        };
        add_missing(&PartitionCopy {
            owner: main.owner,
            main: old,
            version: new,
            main_table,
            version_table,
            role: version.role,
        })?;
    }
    Ok(())
}

/// Adds partitions in a subtransaction, and waits for other sessions only for a short time.
fn add_missing(copy: &PartitionCopy) -> Result<()> {
    let table = copy.version.relation_name();
    let in_time = subtransaction::locks_in_time(|| {
        let _waiting = RoleGuard::waiting_at_most(PATIENCE_MS)?;
        let shown = table.clone();
        subtransaction(
            || copy_missing(copy),
            move |raised| {
                let more = raised.detail.map(|detail| format!(" {detail}")).unwrap_or_default();
                Error::new(raised.code, format!("could not add a partition to table {shown}"))
                    .detail(format!("The server reports: {}.{more}", raised.message))
                    .hint("Attach a partition with the bounds of the target's partition to the table, or drop the version with coco.drop_flow.")
            },
        )
    })?;
    match in_time {
        true => Ok(()),
        false => Err(Error::new(
            PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE,
            format!("could not obtain lock on relation {table}"),
        )
        .detail("coco adds a partition to the table, and another transaction uses it.")
        .hint("Look for the transaction in pg_locks, or wait for it to end.")),
    }
}

/// Adds partitions as [`follow_partitions`] does, if no other session works on one of the flows.
pub fn follow_partitions_if_free(version: i32) -> Result<()> {
    let Some(found) = version_rows::as_version(version)? else { return Ok(()) };
    if !locks::lock_flow_if_free(found.of)? || !locks::lock_flow_if_free(version)? {
        return Ok(());
    }
    // Another session may have dropped or exchanged it before this one had the locks.
    let _now = PinnedSnapshot::take();
    let Some(found) = version_rows::as_version(version)? else { return Ok(()) };
    if !locks::is_flow_locked_here(found.of)? {
        return Ok(());
    }
    follow_partitions(&found)?;
    version_rows::note_reason(version, None)
}
