//! Heavyweight locks: who may work on a flow. In pg_locks they are objects of class coco.flow.

use pgrx::pg_sys;

use super::error::{Error, Result};
use super::sql;

/// As for VACUUM: against others of its kind, and against nothing else.
const MODE: i32 = pg_sys::ShareUpdateExclusiveLock as i32;

/// Against [`MODE`], and not against others of its kind.
const HELPING: i32 = pg_sys::ShareLock as i32;

fn class() -> Result<pg_sys::Oid> {
    sql::one::<pg_sys::Oid>("select 'coco.flow'::pg_catalog.regclass::pg_catalog.oid", &[])?
        .ok_or_else(|| Error::internal("table coco.flow does not exist"))
}

fn object(database: pg_sys::Oid, class: pg_sys::Oid, object: u32, part: u16) -> pg_sys::LOCKTAG {
    pg_sys::LOCKTAG {
        locktag_field1: database.to_u32(),
        locktag_field2: class.to_u32(),
        locktag_field3: object,
        locktag_field4: part,
        locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
        locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
    }
}

fn of_flow(flow: i32) -> Result<pg_sys::LOCKTAG> {
    // SAFETY: reads the backend's own state.
    Ok(object(unsafe { pg_sys::MyDatabaseId }, class()?, flow as u32, 0))
}

/// A place for a worker. Of the method of advisory locks: of the other, an error or the end of the
/// process would release, or leave behind, what is held for longer than a transaction.
fn of_seat(number: u16) -> Result<pg_sys::LOCKTAG> {
    // SAFETY: reads the backend's own state.
    let tag = object(unsafe { pg_sys::MyDatabaseId }, class()?, 0, number);
    Ok(pg_sys::LOCKTAG { locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8, ..tag })
}

fn acquire(tag: &pg_sys::LOCKTAG, mode: i32, session: bool, wait: bool) -> bool {
    // SAFETY: the lock manager copies the tag.
    let got = unsafe {
        let got = pg_sys::LockAcquire(tag, mode, session, !wait);
        // What others have changed while they had it is heard of.
        pg_sys::AcceptInvalidationMessages();
        got
    };
    got != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
}

/// Holds off other updates and changes of a flow until the transaction ends.
pub fn flow(flow: i32) -> Result<()> {
    acquire(&of_flow(flow)?, MODE, false, true);
    no_helpers(flow, true)?;
    Ok(())
}

/// As [`flow()`], but does not wait: `false` where somebody else works on it.
pub fn flow_if_free(flow: i32) -> Result<bool> {
    let tag = of_flow(flow)?;
    if !acquire(&tag, MODE, false, false) {
        return Ok(false);
    }
    if !no_helpers(flow, false)? {
        // SAFETY: the lock just taken.
        unsafe { pg_sys::LockRelease(&tag, MODE, false) };
        return Ok(false);
    }
    Ok(true)
}

/// Holds off, until the transaction ends, others who would take the flow's lock: for who has it and is helped,
/// and for who helps, and may be at it for longer.
pub fn helping(flow: i32) -> Result<()> {
    acquire(&of_helpers(flow)?, HELPING, false, true);
    Ok(())
}

/// Whether nobody helps any more whom somebody else has asked, that had the flow's lock before.
fn no_helpers(flow: i32, wait: bool) -> Result<bool> {
    let tag = of_helpers(flow)?;
    if !acquire(&tag, MODE, false, wait) {
        return Ok(false);
    }
    // SAFETY: the lock just taken.
    unsafe { pg_sys::LockRelease(&tag, MODE, false) };
    Ok(true)
}

fn of_helpers(flow: i32) -> Result<pg_sys::LOCKTAG> {
    // SAFETY: reads the backend's own state.
    Ok(object(unsafe { pg_sys::MyDatabaseId }, class()?, flow as u32, 1))
}

/// Holds off others who would begin or end the capture of a table, until the transaction ends.
/// `false` where somebody else does, and it is not to be waited for.
pub fn capture(id: i32, wait: bool) -> Result<bool> {
    let class = sql::one::<pg_sys::Oid>("select 'coco.capture'::pg_catalog.regclass::oid", &[])?
        .ok_or_else(|| Error::internal("table coco.capture does not exist"))?;
    // SAFETY: reads the backend's own state.
    let tag = object(unsafe { pg_sys::MyDatabaseId }, class, id as u32, 0);
    Ok(acquire(&tag, MODE, false, wait))
}

fn of_segment(capture: i32, segment: i32) -> Result<pg_sys::LOCKTAG> {
    let class = sql::one::<pg_sys::Oid>("select 'coco.capture'::pg_catalog.regclass::oid", &[])?
        .ok_or_else(|| Error::internal("table coco.capture does not exist"))?;
    // SAFETY: reads the backend's own state.
    let database = unsafe { pg_sys::MyDatabaseId };
    Ok(object(database, class, capture as u32, segment as u16 + 1))
}

/// Tells others, until the transaction ends, that it has emptied a segment of a log: it is not only
/// looking at it under its lock.
pub fn emptied(capture: i32, segment: i32) -> Result<()> {
    acquire(&of_segment(capture, segment)?, MODE, false, true);
    Ok(())
}

/// Whether a transaction that is still open has emptied a segment.
pub fn is_emptied(capture: i32, segment: i32) -> Result<bool> {
    let tag = of_segment(capture, segment)?;
    if !acquire(&tag, MODE, false, false) {
        return Ok(true);
    }
    // SAFETY: the lock just taken.
    unsafe { pg_sys::LockRelease(&tag, MODE, false) };
    Ok(false)
}

/// Takes one of the places for workers in this database until the process ends; `false` where
/// another has it.
pub fn seat(number: u16) -> Result<bool> {
    Ok(acquire(&of_seat(number)?, MODE, true, false))
}

/// Gives a place up before the process ends.
pub fn leave_seat(number: u16) -> Result<()> {
    // SAFETY: the lock taken by `seat`.
    unsafe { pg_sys::LockRelease(&of_seat(number)?, MODE, true) };
    Ok(())
}

fn of_target(target: i32) -> Result<pg_sys::LOCKTAG> {
    let class = sql::one::<pg_sys::Oid>("select 'coco.target'::pg_catalog.regclass::oid", &[])?
        .ok_or_else(|| Error::internal("table coco.target does not exist"))?;
    // SAFETY: reads the backend's own state.
    let tag = object(unsafe { pg_sys::MyDatabaseId }, class, target as u32, 0);
    Ok(pg_sys::LOCKTAG { locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8, ..tag })
}

/// Holds off others who would send to a target, until [`leave_target`], or the end of the process:
/// for longer than a transaction. `false` where another does.
pub fn target(target: i32) -> Result<bool> {
    Ok(acquire(&of_target(target)?, MODE, true, false))
}

/// Lets others send to a target.
pub fn leave_target(target: i32) -> Result<()> {
    // SAFETY: the lock taken by `target`.
    unsafe { pg_sys::LockRelease(&of_target(target)?, MODE, true) };
    Ok(())
}

/// Holds off changes of which flows there are, and which are live, until the transaction ends;
/// `false` where one is under way.
pub fn flows_if_free() -> Result<bool> {
    let lock = pg_sys::ShareLock as i32;
    // SAFETY: a heavyweight lock of a relation.
    Ok(unsafe { pg_sys::ConditionalLockRelationOid(class()?, lock) })
}

/// Whether a process waits for a lock that this one has: itself, or behind others who wait for it.
pub fn waits_for_us(pid: i32) -> Result<bool> {
    let waits = sql::one::<bool>(
        "with recursive ahead(pid) as (
           select pg_catalog.unnest(pg_catalog.pg_blocking_pids($1))
           union
           select pg_catalog.unnest(pg_catalog.pg_blocking_pids(a.pid)) from ahead as a)
         select exists (select from ahead as a where a.pid operator(pg_catalog.=) pg_catalog.pg_backend_pid())",
        &[sql::arg(pid)],
    )?;
    Ok(waits == Some(true))
}

/// Whether a worker has this place.
pub fn seat_is_taken(number: u16) -> Result<bool> {
    let tag = of_seat(number)?;
    if !acquire(&tag, MODE, false, false) {
        return Ok(true);
    }
    // SAFETY: the lock just taken.
    unsafe { pg_sys::LockRelease(&tag, MODE, false) };
    Ok(false)
}

/// Whether somebody wants a database for themselves: to drop it, to rename it, or to copy it.
/// They wait some seconds for others to leave.
pub fn database_is_wanted(database: pg_sys::Oid) -> bool {
    // SAFETY: reads the backend's own state; releases what it takes.
    unsafe {
        let tag = object(pg_sys::InvalidOid, pg_sys::DatabaseRelationId, database.to_u32(), 0);
        let mode = pg_sys::RowExclusiveLock as i32;
        if !acquire(&tag, mode, false, false) {
            return true;
        }
        pg_sys::LockRelease(&tag, mode, false);
        false
    }
}
