//! Heavyweight locks: who may work on a flow. In pg_locks they are objects of class coco.flow.

use pgrx::pg_sys;
use std::cell::RefCell;

use crate::pg::acting_role::RoleGuard;
use crate::pg::error::{Error, Result};
use crate::pg::spi::{self, arg};

/// As for VACUUM: against others of its kind, and against nothing else.
const MODE: i32 = pg_sys::ShareUpdateExclusiveLock as i32;

/// Against [`MODE`], and not against others of its kind.
const HELPING: i32 = pg_sys::ShareLock as i32;

fn class() -> Result<pg_sys::Oid> {
    spi::scalar::<pg_sys::Oid>("select 'coco.flow'::pg_catalog.regclass::pg_catalog.oid", &[])?
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

fn flow_tag(flow: i32) -> Result<pg_sys::LOCKTAG> {
    // SAFETY: reads the backend's own state.
    Ok(object(unsafe { pg_sys::MyDatabaseId }, class()?, flow as u32, 0))
}

/// A place for a worker. Of the method of advisory locks: of the other, an error or the end of the
/// process would release, or leave behind, what is held for longer than a transaction.
fn worker_slot_tag(number: u16) -> Result<pg_sys::LOCKTAG> {
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
pub fn lock_flow(flow: i32) -> Result<()> {
    not_during_recovery()?;
    acquire(&flow_tag(flow)?, MODE, false, true);
    no_helpers(flow, true)?;
    Ok(())
}

/// Refuses what changes anything on a standby.
pub fn not_during_recovery() -> Result<()> {
    // SAFETY: reads shared state.
    match unsafe { pg_sys::RecoveryInProgress() } {
        false => Ok(()),
        true => Err(Error::new(
            pgrx::PgSqlErrorCode::ERRCODE_READ_ONLY_SQL_TRANSACTION,
            "a flow cannot be updated during recovery",
        )
        .hint("Call this on the primary server.")),
    }
}

/// As [`lock_flow()`], but does not wait: `false` where somebody else works on it.
pub fn lock_flow_if_free(flow: i32) -> Result<bool> {
    let tag = flow_tag(flow)?;
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

/// As [`lock_flow()`], but a worker that works on the flow does not go on with it: its turn is canceled.
///
/// A cancel can reach the worker when its turn is over, and end the next one, which may be another flow's. `announce` is
/// called before each cancel, so that workers do not take it for a failure.
pub fn lock_flow_ending_transaction(id: i32, announce: fn()) -> Result<()> {
    not_during_recovery()?;
    while !lock_flow_if_free(id)? {
        announce();
        let _as = RoleGuard::extension_owner()?;
        let canceled = spi::select(
            "select pg_catalog.pg_cancel_backend(l.pid)
               from pg_catalog.pg_locks as l join pg_catalog.pg_stat_activity as a on a.pid = l.pid
              where l.locktype = 'object' and l.granted and l.pid <> pg_catalog.pg_backend_pid()
                and l.database = (select d.oid from pg_catalog.pg_database as d
                                   where d.datname = pg_catalog.current_database())
                and l.classid = 'coco.flow'::pg_catalog.regclass and l.objid = $1::int::oid
                and l.objsubid in (0, 1) and a.backend_type in ('coco worker', 'coco helper')",
            &[arg(id)],
            |_| Ok(()),
        )?;
        if canceled.is_empty() {
            // A session has it, or one of them has just ended.
            return lock_flow(id);
        }
        spi::select("select pg_catalog.pg_sleep(0.05)", &[], |_| Ok(()))?;
    }
    Ok(())
}

/// Waits until no other session has asked a worker for an update of the flow, and holds off further ones until
/// [`unlock_update_request`], or the end of the transaction.
pub fn lock_update_request(flow: i32) -> Result<()> {
    acquire(&update_request_tag(flow)?, MODE, false, true);
    Ok(())
}

pub fn unlock_update_request(flow: i32) -> Result<()> {
    // SAFETY: the lock taken by `asking`.
    unsafe { pg_sys::LockRelease(&update_request_tag(flow)?, MODE, false) };
    Ok(())
}

fn update_request_tag(flow: i32) -> Result<pg_sys::LOCKTAG> {
    // SAFETY: reads the backend's own state.
    Ok(object(unsafe { pg_sys::MyDatabaseId }, class()?, flow as u32, 2))
}

/// Holds off, until the transaction ends, others who would take the flow's lock: for who has it and is helped,
/// and for who helps, and may be at it for longer.
pub fn helper_lock(flow: i32) -> Result<()> {
    acquire(&helpers_tag(flow)?, HELPING, false, true);
    Ok(())
}

/// Whether nobody helps any more whom somebody else has asked, that had the flow's lock before.
fn no_helpers(flow: i32, wait: bool) -> Result<bool> {
    let tag = helpers_tag(flow)?;
    if !acquire(&tag, MODE, false, wait) {
        return Ok(false);
    }
    // SAFETY: the lock just taken.
    unsafe { pg_sys::LockRelease(&tag, MODE, false) };
    Ok(true)
}

fn helpers_tag(flow: i32) -> Result<pg_sys::LOCKTAG> {
    // SAFETY: reads the backend's own state.
    Ok(object(unsafe { pg_sys::MyDatabaseId }, class()?, flow as u32, 1))
}

/// Holds off others who would begin or end the capture of a table, until the transaction ends.
/// `false` where somebody else does, and it is not to be waited for.
pub fn lock_capture(id: i32, wait: bool) -> Result<bool> {
    let class = spi::scalar::<pg_sys::Oid>("select 'coco.capture'::pg_catalog.regclass::oid", &[])?
        .ok_or_else(|| Error::internal("table coco.capture does not exist"))?;
    // SAFETY: reads the backend's own state.
    let tag = object(unsafe { pg_sys::MyDatabaseId }, class, id as u32, 0);
    Ok(acquire(&tag, MODE, false, wait))
}

fn segment_tag(capture: i32, segment: i32) -> Result<pg_sys::LOCKTAG> {
    let class = spi::scalar::<pg_sys::Oid>("select 'coco.capture'::pg_catalog.regclass::oid", &[])?
        .ok_or_else(|| Error::internal("table coco.capture does not exist"))?;
    // SAFETY: reads the backend's own state.
    let database = unsafe { pg_sys::MyDatabaseId };
    Ok(object(database, class, capture as u32, segment as u16 + 1))
}

/// Tells others, until the transaction ends, that it has emptied a segment of a log: it is not only
/// looking at it under its lock.
pub fn segment_truncated(capture: i32, segment: i32) -> Result<()> {
    acquire(&segment_tag(capture, segment)?, MODE, false, true);
    Ok(())
}

/// Whether a transaction that is still open has emptied a segment.
pub fn is_segment_truncated(capture: i32, segment: i32) -> Result<bool> {
    let tag = segment_tag(capture, segment)?;
    if !acquire(&tag, MODE, false, false) {
        return Ok(true);
    }
    // SAFETY: the lock just taken.
    unsafe { pg_sys::LockRelease(&tag, MODE, false) };
    Ok(false)
}

thread_local! {
    /// What this process holds for longer than a transaction.
    static HELD: RefCell<Vec<pg_sys::LOCKTAG>> = const { RefCell::new(Vec::new()) };
}

/// The same object for the time of a transaction. A query of a user's can release all advisory locks of its process;
/// this one it cannot.
fn guard_of(tag: &pg_sys::LOCKTAG) -> pg_sys::LOCKTAG {
    pg_sys::LOCKTAG { locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8, ..*tag }
}

fn is_same(a: &pg_sys::LOCKTAG, b: &pg_sys::LOCKTAG) -> bool {
    let fields = |t: &pg_sys::LOCKTAG| {
        (t.locktag_field1, t.locktag_field2, t.locktag_field3, t.locktag_field4)
    };
    fields(a) == fields(b)
}

/// Takes a lock for longer than the transaction; `false` where another process has it.
fn hold(tag: pg_sys::LOCKTAG) -> bool {
    if !acquire(&guard_of(&tag), MODE, false, false) || !acquire(&tag, MODE, true, false) {
        return false;
    }
    HELD.with_borrow_mut(|held| held.push(tag));
    true
}

fn release(tag: &pg_sys::LOCKTAG) {
    HELD.with_borrow_mut(|held| held.retain(|other| !is_same(tag, other)));
    // SAFETY: the lock taken by `hold`.
    unsafe { pg_sys::LockRelease(tag, MODE, true) };
}

/// Whether another process has a lock for longer than a transaction.
fn is_held(tag: &pg_sys::LOCKTAG) -> bool {
    for tag in [guard_of(tag), *tag] {
        if !acquire(&tag, MODE, false, false) {
            return true;
        }
        // SAFETY: the lock just taken.
        unsafe { pg_sys::LockRelease(&tag, MODE, false) };
    }
    false
}

/// At the begin of a transaction: sees to it that no other process takes what this one holds, whatever the transaction
/// does.
pub fn guard_held() {
    let held = HELD.with_borrow(Vec::clone);
    for tag in &held {
        // Another process may be looking at it.
        // SAFETY: the lock manager copies the tag.
        unsafe { pg_sys::LockAcquire(&guard_of(tag), MODE, false, true) };
    }
}

/// Takes back what a query has released of what this process holds. `false` where another process has it by now.
pub fn regain_held() -> bool {
    let held = HELD.with_borrow(Vec::clone);
    held.iter().all(|tag| {
        // SAFETY: reads the process's own table of locks; the lock manager copies the tag.
        unsafe {
            is_held_here(tag)
                || pg_sys::LockAcquire(tag, MODE, true, true)
                    != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
        }
    })
}

#[cfg(any(feature = "pg17", feature = "pg18"))]
unsafe fn is_held_here(tag: &pg_sys::LOCKTAG) -> bool {
    // SAFETY: reads the process's own table of locks.
    unsafe { pg_sys::LockHeldByMe(tag, MODE, false) }
}

#[cfg(not(any(feature = "pg17", feature = "pg18")))]
unsafe fn is_held_here(tag: &pg_sys::LOCKTAG) -> bool {
    // SAFETY: as above.
    unsafe { pg_sys::LockHeldByMe(tag, MODE) }
}

/// Takes one of the places for workers in this database until the process ends; `false` where
/// another has it.
pub fn worker_slot(number: u16) -> Result<bool> {
    Ok(hold(worker_slot_tag(number)?))
}

/// Gives a place up before the process ends.
pub fn leave_worker_slot(number: u16) -> Result<()> {
    release(&worker_slot_tag(number)?);
    Ok(())
}

fn target_tag(target: i32) -> Result<pg_sys::LOCKTAG> {
    let class = spi::scalar::<pg_sys::Oid>("select 'coco.target'::pg_catalog.regclass::oid", &[])?
        .ok_or_else(|| Error::internal("table coco.target does not exist"))?;
    // SAFETY: reads the backend's own state.
    let tag = object(unsafe { pg_sys::MyDatabaseId }, class, target as u32, 0);
    Ok(pg_sys::LOCKTAG { locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8, ..tag })
}

/// Holds off others who would send to a target, until [`unlock_target`], or the end of the process:
/// for longer than a transaction. `false` where another does.
pub fn lock_target(target: i32) -> Result<bool> {
    Ok(hold(target_tag(target)?))
}

/// Lets others send to a target.
pub fn unlock_target(target: i32) -> Result<()> {
    release(&target_tag(target)?);
    Ok(())
}

/// Holds off changes of which flows there are, and which are live, until the transaction ends;
/// `false` where one is under way.
pub fn lock_flows_if_free() -> Result<bool> {
    let lock = pg_sys::ShareLock as i32;
    // SAFETY: a heavyweight lock of a relation.
    Ok(unsafe { pg_sys::ConditionalLockRelationOid(class()?, lock) })
}

/// Whether a process waits for a lock that this one has: itself, or behind others who wait for it.
pub fn is_blocked_by_us(pid: i32) -> Result<bool> {
    let waits = spi::scalar::<bool>(
        "with recursive ahead(pid) as (
           select pg_catalog.unnest(pg_catalog.pg_blocking_pids($1))
           union
           select pg_catalog.unnest(pg_catalog.pg_blocking_pids(a.pid)) from ahead as a)
         select exists (select from ahead as a where a.pid operator(pg_catalog.=) pg_catalog.pg_backend_pid())",
        &[spi::arg(pid)],
    )?;
    Ok(waits == Some(true))
}

/// Whether a worker has this place.
pub fn is_worker_slot_taken(number: u16) -> Result<bool> {
    Ok(is_held(&worker_slot_tag(number)?))
}

/// Whether somebody wants a database for themselves: to drop it, to rename it, or to copy it.
/// They wait some seconds for others to leave.
pub fn database_being_dropped(database: pg_sys::Oid) -> bool {
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
