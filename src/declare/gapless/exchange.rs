//! Exchanges the tables of a flow and of a version of it, in one transaction. Readers wait only for
//! this.

use pgrx::{PgSqlErrorCode, pg_sys};
use std::time::Duration;

use crate::catalog::model::Flow;
use crate::catalog::relation_locks;
use crate::catalog::version_rows::FlowVersion;
use crate::declare::gapless::dependents;
use crate::declare::gapless::exchange_rows::exchange_rows;
use crate::declare::gapless::partition_tree;
use crate::declare::gapless::parts::{self, MovedParts};
use crate::declare::gapless::table_pair::TablePair;
use crate::pg::acting_role::{RoleGuard, SavedGucs};
use crate::pg::error::{Error, Result};
use crate::pg::spi::{self, arg};
use crate::pg::subtransaction;

/// Gives the names of a flow and its tables to a version of it. The caller holds the locks of both
/// flows, and has brought the version up to date. `patience` limits the wait for readers.
pub fn exchange(main: &Flow, version: &Flow, link: &FlowVersion, patience: Duration) -> Result<()> {
    if main.owner != version.owner {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("flows \"{}\" and \"{}\" have different owners", main.name, version.name),
        )
        .hint("Give both to the same role with coco.alter_flow."));
    }
    let pairs = TablePair::of_flows(main, version)?;
    let (mut relations, mut tables) = (Vec::new(), Vec::new());
    for pair in &pairs {
        let parts = checked_parts(main, pair)?;
        relations.extend(parts.views);
        tables.extend(parts.tables);
        analyze(main, pair)?;
    }
    // Renames views of coco's own, which a user may be reading.
    let exchanged = subtransaction::locks_in_time(|| {
        let _waiting = RoleGuard::waiting_at_most(patience.as_millis().min(1000) as u32)?;
        exchange_rows(main, version, &pairs, link)
    })?;
    if !exchanged {
        return Err(is_read(&pairs));
    }
    // A table comes before its partitions: once it is locked, no reader of it locks a partition.
    relations.extend(tables);
    if !relation_locks::lock_exclusively(&relations, patience)? {
        return Err(is_read(&pairs));
    }
    for pair in &pairs {
        move_table(main, pair, &relations)?;
    }
    Ok(())
}

fn is_read(pairs: &[TablePair]) -> Error {
    let name = pairs.first().map(TablePair::name).unwrap_or_default();
    Error::new(
        PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE,
        format!("could not obtain lock on relation {name}"),
    )
    .detail("A transaction that has read the target, or a view over it, is still open.")
    .hint("Look for the transaction in pg_locks, or wait for it to end.")
}

/// Checks that a table can be replaced by its version, and describes what moves.
fn checked_parts(main: &Flow, pair: &TablePair) -> Result<MovedParts> {
    dependents::check_replaceable_by(main, &pair.main, pair.version_table)?;
    let acting = RoleGuard::flow_owner(main.owner, &SavedGucs::qualifying())?;
    let partners = partition_tree::partners(pair)?;
    let parts = parts::describe(pair, &partners)?;
    drop(acting);
    match parts.missing.is_empty() {
        true => Ok(parts),
        false => Err(Error::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!(
                "table {} lacks indexes or constraints of its target",
                pair.version.relation_name()
            ),
        )
        .detail(format!("The target has: {}.", parts.missing.join(", ")))
        .hint("Create them on the table of the new version, too, or drop them from the target.")),
    }
}

/// Collects statistics of a version's table that has none, so that readers get good plans from the
/// first moment. Autovacuum may not have seen the table yet.
fn analyze(main: &Flow, pair: &TablePair) -> Result<()> {
    let has_none = spi::scalar::<bool>(
        "select c.reltuples < 0 from pg_catalog.pg_class as c where c.oid = $1",
        &[arg(pair.version_table)],
    )?;
    if has_none == Some(true) {
        let _as = RoleGuard::flow_owner(main.owner, &SavedGucs::qualifying())?;
        let table = pair.version.relation_name();
        spi::execute(&format!("analyze (skip_locked) {table}"), &[])?;
    }
    Ok(())
}

/// Exchanges the names of two locked tables, and moves what belongs to the name.
fn move_table(main: &Flow, pair: &TablePair, locked: &[pg_sys::Oid]) -> Result<()> {
    // Somebody may have created or dropped an object before the tables were locked.
    let parts = checked_parts(main, pair)?;
    if parts.views.iter().any(|view| !locked.contains(view)) {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
            format!("the views over target {} changed during the swap", pair.name()),
        )
        .hint("Try again."));
    }
    if parts.tables.iter().any(|table| !locked.contains(table)) {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
            format!("the partitions of target {} changed during the swap", pair.name()),
        )
        .hint("Try again."));
    }
    let _as = RoleGuard::flow_owner(main.owner, &SavedGucs::qualifying())?;
    for statement in parts.before.iter().chain(&parts.renames).chain(&parts.after) {
        spi::execute(statement, &[])?;
    }
    Ok(())
}
