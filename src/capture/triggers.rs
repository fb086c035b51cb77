//! Starts and ends the capture of a table: its triggers and its change log.
//!
//! Callers: `declare`, `update`, `workers`.

use pgrx::pg_sys;

use crate::capture::captured_columns::captured_columns;
use crate::capture::{Capture, SEGMENTS, find_capture, segment_name};
use crate::catalog::locks;
use crate::pg::acting_role::RoleGuard;
use crate::pg::columns::{self, Column};
use crate::pg::error::{Error, Result};
use crate::pg::internal_objects;
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::spi::{self, arg, literal};
use crate::pg::tuplestore::statements::SpiSession;

/// Selects every table whose rows belong to this one: its partitions and its children, at all
/// levels.
const MEMBERS: &str = "
with recursive tree as (
  select $1::oid as relid
   union
  select i.inhrelid from tree t join pg_catalog.pg_inherits i on i.inhparent = t.relid
)
select c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname)
  from tree t join pg_catalog.pg_class c on c.oid = t.relid
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where c.oid <> $1
 order by c.oid";

fn members(relation: pg_sys::Oid) -> Result<Vec<(pg_sys::Oid, String)>> {
    spi::select(MEMBERS, &[arg(relation)], |r| Ok((spi::required(r, 1)?, spi::required(r, 2)?)))
}

/// Ensures that triggers record changes of a table, with this key of each row.
///
/// If an object must be created, blocks writers of the table until the transaction ends, so that
/// every change is either visible or recorded. Without `wait`, returns `false` if that would have
/// to wait for writers.
pub fn ensure(relation: pg_sys::Oid, key: &[Column], always: bool, wait: bool) -> Result<bool> {
    let key = captured_columns(relation, key)?;
    let key = key.as_slice();
    if let Some(capture) = find_capture(relation)?
        && !locks::lock_capture(capture.id, wait)?
    {
        return Ok(false);
    }
    // Look again: the capture may have ended during the wait.
    let _now = PinnedSnapshot::take();
    if let Some(capture) = find_capture(relation)? {
        let known = key.iter().all(|k| capture.has(k));
        if known && capture.is_whole() && triggers_will_do(relation, &capture, always)? {
            return Ok(true);
        }
    }
    if has_foreign_part(relation)? {
        // No trigger records changes on another server.
        return Ok(true);
    }
    let _as = RoleGuard::extension_owner()?;
    // Lock the parts before anything else, because statements may also write to them by their own
    // names.
    let parts = members(relation)?;
    for table in std::iter::once(relation).chain(parts.into_iter().map(|(oid, _)| oid)) {
        if !lock_out_writers(table, wait) {
            return Ok(false);
        }
    }
    // DROP TRIGGER also blocks readers, so adequate triggers stay as they are.
    let will_do = match find_capture(relation)? {
        Some(capture) => triggers_will_do(relation, &capture, always)?,
        None => false,
    };
    let (id, always) = match find_capture(relation)? {
        Some(capture) => (extend(&capture, key, always)?, always || capture.always),
        None => {
            let names: Vec<String> = key.iter().map(|k| k.name.clone()).collect();
            let id = spi::returning(
                "insert into coco_internal.capture (relation, columns, always, complete_from_xid)
                 values ($1::oid::regclass, $2, $3, '0') returning id",
                &[arg(relation), arg(names), arg(always)],
                |r| spi::required::<i32>(r, 1),
            )?
            .pop()
            .ok_or_else(|| Error::internal("INSERT INTO coco_internal.capture returned no id"))?;
            (id, always)
        }
    };
    let capture =
        find_capture(relation)?.ok_or_else(|| Error::internal("could not find the new capture"))?;
    make_segments(relation, &capture)?;
    if !will_do {
        make_triggers(relation, id, always)?;
    }
    // Cached routes do not know the new log.
    // SAFETY: the table is locked.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(relation) };
    Ok(true)
}

fn has_foreign_part(relation: pg_sys::Oid) -> Result<bool> {
    let found = spi::scalar::<bool>(
        "with recursive tree as (
           select $1::oid as relid
            union
           select i.inhrelid from tree t join pg_catalog.pg_inherits i on i.inhparent = t.relid
         )
         select coalesce(pg_catalog.bool_or(c.relkind operator(pg_catalog.=) 'f'), false)
           from tree t join pg_catalog.pg_class c on c.oid = t.relid",
        &[arg(relation)],
    )?;
    Ok(found.unwrap_or(false))
}

fn triggers_will_do(relation: pg_sys::Oid, capture: &Capture, always: bool) -> Result<bool> {
    let _now = PinnedSnapshot::latest();
    let (_, adequate) =
        crate::capture::cursor::signature(&SpiSession::connect()?, relation, capture)?;
    Ok(adequate && (capture.always || !always))
}

/// Locks a table against writers; `false` if the lock is not free and the caller does not want to
/// wait.
fn lock_out_writers(relation: pg_sys::Oid, wait: bool) -> bool {
    let lock = pg_sys::ShareRowExclusiveLock as i32;
    // SAFETY: takes a heavyweight lock, which the transaction's end releases.
    unsafe {
        if wait {
            pg_sys::LockRelationOid(relation, lock);
        }
        wait || pg_sys::ConditionalLockRelationOid(relation, lock)
    }
}

/// Returns the definition of the log column that stores values of a column. Its type runs no user's
/// code when rows get the column or are compared.
fn in_log(column: &Column, number: usize) -> Result<String> {
    let column = column.stored();
    // Without type modifiers: the column may be made wider.
    let type_name = spi::type_name(column.type_oid, -1)?;
    Ok(format!("k{number} {type_name}{}", columns::collate(column.collation)?))
}

/// Adds columns to a log. No session writes to the log, because its table is locked.
fn extend(capture: &Capture, key: &[Column], always: bool) -> Result<i32> {
    let mut names = capture.columns.clone();
    for k in key {
        if capture.has(k) {
            continue;
        }
        let known = names.iter().position(|name| *name == k.name);
        let place = known.unwrap_or(names.len());
        let column = in_log(k, place + 1)?;
        let change = match known {
            // The table's column has got another type. NULL in earlier entries means that any row
            // may have changed.
            Some(_) => {
                let named = format!("k{}", place + 1);
                let (_, definition) = column.split_once(' ').unwrap_or_default();
                format!("alter column {named} type {definition} using null")
            }
            None => {
                names.push(k.name.clone());
                format!("add column {column}")
            }
        };
        for (n, _) in &capture.segments {
            spi::execute(&format!("alter table {} {change}", segment_name(capture.id, *n)), &[])?;
        }
    }
    spi::execute(
        "update coco_internal.capture set columns = $2, always = always or $3, complete_from_xid = '0' where id = $1",
        &[arg(capture.id), arg(names), arg(always)],
    )?;
    Ok(capture.id)
}

/// Creates the missing segments. They are members of the extension, so that no dump contains them:
/// their entries are only valid in this cluster.
pub fn make_segments(relation: pg_sys::Oid, capture: &Capture) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    let attributes = columns::of_relation(relation)?;
    let mut keys = String::new();
    for (n, name) in capture.columns.iter().enumerate() {
        let Some(a) = attributes.iter().find(|a| a.column.name == *name) else {
            // The column was renamed or dropped. The log keeps its place, and triggers record
            // changes without a key.
            keys.push_str(&format!(", k{} int", n + 1));
            continue;
        };
        keys.push_str(&format!(", {}", in_log(&a.column, n + 1)?));
    }
    for n in 0..SEGMENTS {
        if capture.segments.iter().any(|(there, _)| *there == n) {
            continue;
        }
        let name = segment_name(capture.id, n);
        // coco empties a segment as a whole, so vacuum has no space to reclaim.
        spi::execute(
            &format!(
                "create table {name} (xid xid8 not null{keys}) using heap
                   with (autovacuum_enabled = false)"
            ),
            &[],
        )?;
        spi::execute(&format!("create index on {name} using btree (xid)"), &[])?;
        spi::execute(&format!("revoke all on {name} from public"), &[])?;
        let comment =
            format!("Change log of a captured table, see coco_internal.capture, id {}", capture.id);
        spi::execute(&format!("comment on table {name} is {}", literal(&comment)), &[])?;
        spi::execute(&format!("alter extension coco add table {name}"), &[])?;
    }
    Ok(())
}

/// Creates the triggers of a capture.
///
/// A standalone table has statement triggers. If a table has partitions or children, or is itself a
/// part, statements that name another table also change it. Such a table has row triggers.
fn make_triggers(relation: pg_sys::Oid, id: i32, always: bool) -> Result<()> {
    let name = spi::relation_name(relation)?
        .ok_or_else(|| Error::internal("locked relation does not exist"))?;
    let part = spi::scalar::<bool>(
        "select exists (select from pg_catalog.pg_inherits where inhrelid = $1)",
        &[arg(relation)],
    )?
    .unwrap_or(false);
    let partitioned = spi::scalar::<String>(
        "select relkind::text from pg_catalog.pg_class where oid = $1",
        &[arg(relation)],
    )?
    .is_some_and(|kind| kind == "p");
    let members = members(relation)?;
    // The apply worker of logical replication fires only row triggers.
    let for_rows = part || partitioned || always || !members.is_empty();
    for (table, name) in std::iter::once(&(relation, name.clone())).chain(&members) {
        drop_left_behind(*table, name)?;
    }
    drop_triggers(&name, id)?;
    let call = format!("execute function coco_internal.capture('{id}')");
    let make = |sql: String| spi::execute(&sql, &[]);
    make(format!(
        "create trigger coco_capture_{id}_truncate after truncate on {name} for each statement {call}"
    ))?;
    if for_rows {
        let row = |on: &str| {
            format!(
                "create trigger coco_capture_{id}_row after insert or update or delete on {on}
                   for each row {call}"
            )
        };
        make(row(&name))?;
        // PostgreSQL creates the triggers of partitions.
        for (_, child) in members.iter().filter(|_| !partitioned) {
            drop_triggers(child, id)?;
            make(row(child))?;
        }
    } else {
        make(format!(
            "create trigger coco_capture_{id}_insert after insert on {name}
               referencing new table as coco_new for each statement {call}"
        ))?;
        make(format!(
            "create trigger coco_capture_{id}_update after update on {name}
               referencing old table as coco_old new table as coco_new for each statement {call}"
        ))?;
        make(format!(
            "create trigger coco_capture_{id}_delete after delete on {name}
               referencing old table as coco_old for each statement {call}"
        ))?;
    }
    if always {
        for table in std::iter::once(&name).chain(members.iter().map(|(_, name)| name)) {
            for trigger in triggers_of(table, id)? {
                make(format!("alter table {table} enable always trigger {trigger}"))?;
            }
        }
    }
    Ok(())
}

/// Returns the capture's triggers on a table, except those that it inherits from the table it is a
/// partition of.
fn own_triggers(table: &str, id: i32) -> Result<Vec<String>> {
    triggers(table, id, "and tgparentid = 0")
}

fn triggers_of(table: &str, id: i32) -> Result<Vec<String>> {
    triggers(table, id, "")
}

fn triggers(table: &str, id: i32, condition: &str) -> Result<Vec<String>> {
    spi::select(
        &format!(
            "select pg_catalog.quote_ident(tgname) from pg_catalog.pg_trigger
              where tgrelid = $1::text::regclass and tgfoid = $3
                and tgargs = pg_catalog.convert_to($2, 'SQL_ASCII') || '\\x00'::bytea {condition}"
        ),
        &[arg(table), arg(id.to_string()), arg(internal_objects::function(c"capture")?)],
        |r| spi::required::<String>(r, 1),
    )
}

fn drop_triggers(table: &str, id: i32) -> Result<()> {
    for trigger in own_triggers(table, id)? {
        spi::execute(&format!("drop trigger {trigger} on {table}"), &[])?;
    }
    Ok(())
}

/// Drops triggers of ended captures, which were left behind because the table was in use.
fn drop_left_behind(relation: pg_sys::Oid, table: &str) -> Result<()> {
    let left = spi::select(
        "select pg_catalog.quote_ident(tgname) from pg_catalog.pg_trigger
          where tgrelid = $1 and tgparentid = 0 and tgfoid = 'coco_internal.capture()'::regprocedure
            and tgargs <> all (select pg_catalog.convert_to(id::text, 'SQL_ASCII') || '\\x00'::bytea
                                 from coco_internal.capture)",
        &[arg(relation)],
        |r| spi::required::<String>(r, 1),
    )?;
    if left.is_empty() || !lock_if_free(relation) {
        return Ok(());
    }
    for trigger in left {
        spi::execute(&format!("drop trigger {trigger} on {table}"), &[])?;
    }
    Ok(())
}

/// Reports whether coco may restore triggers on a table for a role. The role must have the
/// privilege now. If the table's owner has dropped all triggers, only an explicit request of the
/// flow's owner (`asked`) restores them, not a worker.
pub fn may_be_put_back(relation: pg_sys::Oid, role: pg_sys::Oid, asked: bool) -> Result<bool> {
    let _as = RoleGuard::extension_owner()?;
    let may = spi::scalar::<bool>(
        "with recursive tree as (
           select $1::oid as relid
            union
           select i.inhrelid from tree t join pg_catalog.pg_inherits i on i.inhparent = t.relid
         )
         select pg_catalog.has_table_privilege($2::oid, $1::oid, 'trigger')
                and ($3 or pg_catalog.pg_has_role($2::oid, c.relowner, 'usage')
                     or exists (select from pg_catalog.pg_trigger g join tree t on t.relid = g.tgrelid
                                 where g.tgfoid = 'coco_internal.capture()'::regprocedure))
           from pg_catalog.pg_class c where c.oid = $1::oid",
        &[arg(relation), arg(role), arg(asked)],
    )?;
    Ok(may == Some(true))
}

/// Returns the tables with triggers of ended captures.
pub fn left_behind() -> Result<Vec<pg_sys::Oid>> {
    let _as = RoleGuard::extension_owner()?;
    spi::select(
        "select distinct tgrelid from pg_catalog.pg_trigger
          where tgparentid = 0 and tgfoid = 'coco_internal.capture()'::regprocedure
            and tgargs <> all (select pg_catalog.convert_to(id::text, 'SQL_ASCII') || '\\x00'::bytea
                                 from coco_internal.capture)",
        &[],
        |r| spi::required(r, 1),
    )
}

/// Drops the triggers of ended captures from a table, if nobody uses the table. The table stays
/// locked until the transaction ends, which must be short.
pub fn drop_from(relation: pg_sys::Oid) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    match spi::relation_name(relation)? {
        Some(name) => drop_left_behind(relation, &name),
        None => Ok(()),
    }
}

/// Reports whether a role owns all these tables.
fn are_owned(tables: &[(pg_sys::Oid, String)], role: pg_sys::Oid) -> Result<bool> {
    let oids: Vec<pg_sys::Oid> = tables.iter().map(|(oid, _)| *oid).collect();
    let owned = spi::scalar::<bool>(
        "select pg_catalog.bool_and(pg_catalog.pg_has_role($2::oid, relowner, 'usage'))
           from pg_catalog.pg_class where oid = any ($1)",
        &[arg(oids), arg(role)],
    )?;
    Ok(owned == Some(true))
}

/// Ends captures that no source needs any longer.
///
/// If a table is in use, it keeps its triggers, which then do nothing, and a warning tells the
/// caller how to drop them. A table of another role keeps them too, because DROP TRIGGER would
/// block its readers until the caller's transaction ends. A worker, or the next capture of the
/// table, drops these triggers.
pub fn end_unneeded(role: pg_sys::Oid) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    sweep()?;
    const UNNEEDED: &str = "not exists (select from coco_internal.source s
                             where s.relation = c.relation and s.capture <> 'scan')";
    let ids = spi::select(
        &format!("select c.id from coco_internal.capture c where {UNNEEDED}"),
        &[],
        |r| spi::required::<i32>(r, 1),
    )?;
    // A flow that is being declared on the table may need the capture when it commits: wait for it.
    for id in &ids {
        locks::lock_capture(*id, true)?;
    }
    let found = spi::returning(
        &format!(
            "delete from coco_internal.capture c where c.id = any ($1) and {UNNEEDED}
             returning c.id, c.relation::oid"
        ),
        &[arg(ids)],
        |r| Ok((spi::required::<i32>(r, 1)?, spi::required::<pg_sys::Oid>(r, 2)?)),
    )?;
    for (id, relation) in found {
        let Some(name) = spi::relation_name(relation)? else {
            sweep()?;
            continue;
        };
        // DROP TRIGGER also blocks readers, and every session that queues behind it, so do not wait
        // for the lock.
        let mut tables = vec![(relation, name)];
        tables.extend(members(relation)?);
        if !are_owned(&tables, role)? {
            continue;
        }
        if lock_all_if_free(&tables) {
            for (_, table) in &tables {
                drop_triggers(table, id)?;
            }
            sweep()?;
            // SAFETY: the table is locked.
            unsafe { pg_sys::CacheInvalidateRelcacheByRelid(relation) };
            continue;
        }
        for (_, table) in &tables {
            for trigger in own_triggers(table, id)? {
                pgrx::ereport!(
                    pgrx::PgLogLevel::WARNING,
                    pgrx::PgSqlErrorCode::ERRCODE_WARNING,
                    format!(
                        "could not drop trigger {trigger} on table {table}: the table is in use"
                    ),
                    format!(
                        "The trigger no longer has any effect. To remove it, run DROP TRIGGER {trigger} ON {table}."
                    )
                );
            }
        }
    }
    Ok(())
}

/// Locks all tables or none. A statement that names a part locks only that part.
fn lock_all_if_free(tables: &[(pg_sys::Oid, String)]) -> bool {
    for (n, (table, _)) in tables.iter().enumerate() {
        if lock_if_free(*table) {
            continue;
        }
        for (locked, _) in &tables[..n] {
            // SAFETY: releases the locks just taken.
            unsafe { pg_sys::UnlockRelationOid(*locked, pg_sys::AccessExclusiveLock as i32) };
        }
        return false;
    }
    true
}

fn lock_if_free(relation: pg_sys::Oid) -> bool {
    let lock = pg_sys::AccessExclusiveLock as i32;
    // SAFETY: takes a heavyweight lock, which the transaction's end releases.
    unsafe { pg_sys::ConditionalLockRelationOid(relation, lock) }
}

/// Drops segments of ended captures. Leaves a segment in use for the next call.
fn sweep() -> Result<()> {
    let left = spi::select(
        "select c.oid, pg_catalog.format('coco_internal.%I', c.relname)
           from pg_catalog.pg_class c
          where c.relnamespace = 'coco_internal'::regnamespace and c.relkind = 'r'
            and c.relname ~ '^log_[0-9]+_[0-9]+$'
            and pg_catalog.split_part(c.relname::text, '_', 2)::int not in (select id from coco_internal.capture)",
        &[],
        |r| Ok((spi::required::<pg_sys::Oid>(r, 1)?, spi::required::<String>(r, 2)?)),
    )?;
    for (segment, name) in left {
        if lock_if_free(segment) {
            spi::execute(&format!("alter extension coco drop table {name}"), &[])?;
            spi::execute(&format!("drop table {name}"), &[])?;
        }
    }
    Ok(())
}
