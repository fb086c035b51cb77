//! Heavyweight locks that decide which session may work on a flow. In pg_locks they are objects of
//! class coco_internal.flow.

use pgrx::pg_sys;
use std::cell::RefCell;

use crate::pg::acting_role::RoleGuard;
use crate::pg::backend;
use crate::pg::error::{Error, Result};
use crate::pg::internal_objects;
use crate::pg::spi::{self, arg};

/// The lock mode of VACUUM: it conflicts with itself, and with no mode that queries take.
const MODE: i32 = pg_sys::ShareUpdateExclusiveLock as i32;

/// The lock mode of helpers: it conflicts with [`MODE`], and not with itself.
const HELPING: i32 = pg_sys::ShareLock as i32;

fn class() -> Result<pg_sys::Oid> {
    internal_objects::relation(c"flow")
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
    Ok(object(backend::database(), class()?, flow as u32, 0))
}

/// Returns the tag of a worker number. It uses the lock method of advisory locks. A lock of the
/// default method that outlives a transaction would be released by an error, or left behind by the
/// end of the process.
fn worker_slot_tag(number: u16) -> Result<pg_sys::LOCKTAG> {
    let tag = object(backend::database(), class()?, 0, number);
    Ok(pg_sys::LOCKTAG { locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8, ..tag })
}

fn acquire(tag: &pg_sys::LOCKTAG, mode: i32, session: bool, wait: bool) -> bool {
    // SAFETY: the lock manager copies the tag.
    let got = unsafe {
        let got = pg_sys::LockAcquire(tag, mode, session, !wait);
        // Receive the changes that other sessions made while they held the lock.
        pg_sys::AcceptInvalidationMessages();
        got
    };
    got != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
}

/// Locks a flow against other updates and changes until the transaction ends.
pub fn lock_flow(flow: i32) -> Result<()> {
    not_during_recovery()?;
    acquire(&flow_tag(flow)?, MODE, false, true);
    no_helpers(flow, true)?;
    Ok(())
}

/// Reports whether this transaction holds the lock of [`lock_flow()`].
pub fn is_flow_locked_here(flow: i32) -> Result<bool> {
    let tag = flow_tag(flow)?;
    // SAFETY: reads the process's own lock table.
    Ok(unsafe { is_held_here(&tag) })
}

/// Raises an error on a standby, where nothing can be changed.
pub fn not_during_recovery() -> Result<()> {
    // SAFETY: reads shared state.
    match unsafe { pg_sys::RecoveryInProgress() } {
        false => Ok(()),
        true => Err(Error::new(
            pgrx::PgSqlErrorCode::ERRCODE_READ_ONLY_SQL_TRANSACTION,
            "cannot update a flow during recovery",
        )
        .hint("Call the function on the primary server.")),
    }
}

/// Locks a flow as [`lock_flow()`] does, but does not wait: `false` if another session works on the
/// flow.
pub fn lock_flow_if_free(flow: i32) -> Result<bool> {
    let tag = flow_tag(flow)?;
    if !acquire(&tag, MODE, false, false) {
        return Ok(false);
    }
    if !no_helpers(flow, false)? {
        // SAFETY: releases the lock just taken.
        unsafe { pg_sys::LockRelease(&tag, MODE, false) };
        return Ok(false);
    }
    Ok(true)
}

/// Locks a flow as [`lock_flow()`] does, but cancels the transaction of a worker that works on the
/// flow.
///
/// The cancel can reach the worker after that transaction, and then ends its next one, perhaps for
/// another flow. `announce` is called before each cancel, so that workers do not regard it as a
/// failure.
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
                and l.classid = 'coco_internal.flow'::pg_catalog.regclass and l.objid = $1::int::oid
                and l.objsubid in (0, 1) and a.backend_type in ('coco worker', 'coco helper')",
            &[arg(id)],
            |_| Ok(()),
        )?;
        if canceled.is_empty() {
            // A session holds the lock, or one of these processes has just ended.
            return lock_flow(id);
        }
        spi::select("select pg_catalog.pg_sleep(0.05)", &[], |_| Ok(()))?;
    }
    Ok(())
}

/// Waits until no other session is requesting an update of the flow from a worker. Blocks further
/// requests until [`unlock_update_request`], or until the transaction ends.
pub fn lock_update_request(flow: i32) -> Result<()> {
    acquire(&update_request_tag(flow)?, MODE, false, true);
    Ok(())
}

/// Blocks requests as [`lock_update_request`] does, but does not wait: `false` if a session is
/// requesting an update of the flow from a worker.
pub fn lock_update_request_if_free(flow: i32) -> Result<bool> {
    Ok(acquire(&update_request_tag(flow)?, MODE, false, false))
}

/// Blocks requests as [`lock_update_request`] does, and fails if a session is requesting an update
/// of the flow. A worker that updates a flow for a session knows the flow by its name.
pub fn block_update_requests(flow: i32, name: &str) -> Result<()> {
    match lock_update_request_if_free(flow)? {
        true => Ok(()),
        false => Err(Error::new(
            pgrx::PgSqlErrorCode::ERRCODE_OBJECT_IN_USE,
            format!("flow \"{name}\" is being updated by another session"),
        )
        .hint("Wait until the other session's coco.update has ended, and try again.")),
    }
}

pub fn unlock_update_request(flow: i32) -> Result<()> {
    // SAFETY: releases the lock that `lock_update_request` took.
    unsafe { pg_sys::LockRelease(&update_request_tag(flow)?, MODE, false) };
    Ok(())
}

fn update_request_tag(flow: i32) -> Result<pg_sys::LOCKTAG> {
    Ok(object(backend::database(), class()?, flow as u32, 2))
}

/// Blocks other sessions that want the flow's lock, until the transaction ends. Both the holder of
/// the flow's lock and its helpers take this lock, because a helper may run longer than the holder.
pub fn helper_lock(flow: i32) -> Result<()> {
    acquire(&helpers_tag(flow)?, HELPING, false, true);
    Ok(())
}

/// Reports whether no helper of an earlier holder of the flow's lock is still working.
fn no_helpers(flow: i32, wait: bool) -> Result<bool> {
    let tag = helpers_tag(flow)?;
    if !acquire(&tag, MODE, false, wait) {
        return Ok(false);
    }
    // SAFETY: releases the lock just taken.
    unsafe { pg_sys::LockRelease(&tag, MODE, false) };
    Ok(true)
}

fn helpers_tag(flow: i32) -> Result<pg_sys::LOCKTAG> {
    Ok(object(backend::database(), class()?, flow as u32, 1))
}

/// Blocks other sessions that want to start or end the capture of a table, until the transaction
/// ends. Without `wait`, returns `false` if another session does so.
pub fn lock_capture(id: i32, wait: bool) -> Result<bool> {
    let class = internal_objects::relation(c"capture")?;
    let tag = object(backend::database(), class, id as u32, 0);
    Ok(acquire(&tag, MODE, false, wait))
}

fn segment_tag(capture: i32, segment: i32) -> Result<pg_sys::LOCKTAG> {
    let class = internal_objects::relation(c"capture")?;
    Ok(object(backend::database(), class, capture as u32, segment as u16 + 1))
}

/// Marks a segment of a log as emptied by this transaction, until it ends. Other sessions can then
/// distinguish it from a segment that a transaction has only locked to examine it.
pub fn segment_truncated(capture: i32, segment: i32) -> Result<()> {
    acquire(&segment_tag(capture, segment)?, MODE, false, true);
    Ok(())
}

/// Reports whether a transaction that is still open has emptied a segment.
pub fn is_segment_truncated(capture: i32, segment: i32) -> Result<bool> {
    let tag = segment_tag(capture, segment)?;
    if !acquire(&tag, MODE, false, false) {
        return Ok(true);
    }
    // SAFETY: releases the lock just taken.
    unsafe { pg_sys::LockRelease(&tag, MODE, false) };
    Ok(false)
}

thread_local! {
    /// The locks that this process holds for longer than a transaction: an entry for each call of
    /// [`hold`] that was not followed by [`release`].
    static HELD: RefCell<Vec<pg_sys::LOCKTAG>> = const { RefCell::new(Vec::new()) };
}

/// Returns a lock on the same object that lasts for one transaction. A user's query can release all
/// advisory locks of its process, but not this lock.
fn guard_of(tag: &pg_sys::LOCKTAG) -> pg_sys::LOCKTAG {
    pg_sys::LOCKTAG { locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8, ..*tag }
}

fn is_same(a: &pg_sys::LOCKTAG, b: &pg_sys::LOCKTAG) -> bool {
    let fields = |t: &pg_sys::LOCKTAG| {
        (t.locktag_field1, t.locktag_field2, t.locktag_field3, t.locktag_field4)
    };
    fields(a) == fields(b)
}

/// Takes a lock for longer than the transaction; `false` if another process holds it. If this
/// process holds it already, the lock stays until [`release`] was called once for each call.
fn hold(tag: pg_sys::LOCKTAG) -> bool {
    let is_ours = HELD.with_borrow(|held| held.iter().any(|other| is_same(&tag, other)));
    // A second lock in the lock manager would not come back after a query has released both.
    if !is_ours
        && (!acquire(&guard_of(&tag), MODE, false, false) || !acquire(&tag, MODE, true, false))
    {
        return false;
    }
    HELD.with_borrow_mut(|held| held.push(tag));
    true
}

/// Gives back a lock that [`hold`] took. The last call for a lock releases it.
fn release(tag: &pg_sys::LOCKTAG) {
    let is_last = HELD.with_borrow_mut(|held| {
        if let Some(n) = held.iter().position(|other| is_same(tag, other)) {
            held.swap_remove(n);
        }
        !held.iter().any(|other| is_same(tag, other))
    });
    if is_last {
        // SAFETY: releases the lock that `hold` took.
        unsafe { pg_sys::LockRelease(tag, MODE, true) };
    }
}

/// Reports whether another process holds a lock for longer than a transaction.
fn is_held(tag: &pg_sys::LOCKTAG) -> bool {
    for tag in [guard_of(tag), *tag] {
        if !acquire(&tag, MODE, false, false) {
            return true;
        }
        // SAFETY: releases the lock just taken.
        unsafe { pg_sys::LockRelease(&tag, MODE, false) };
    }
    false
}

/// Protects the locks of this process for one transaction: no other process can take them, whatever
/// the transaction does. Call it when a transaction begins.
pub fn guard_held() {
    let held = HELD.with_borrow(Vec::clone);
    for tag in &held {
        // The lock may be busy: another process may be checking it.
        // SAFETY: the lock manager copies the tag.
        unsafe { pg_sys::LockAcquire(&guard_of(tag), MODE, false, true) };
    }
}

/// Takes again the locks of this process that a query has released. `false` if another process
/// holds one of them now.
pub fn regain_held() -> bool {
    let held = HELD.with_borrow(Vec::clone);
    held.iter().all(|tag| {
        // SAFETY: reads the process's own lock table; the lock manager copies the tag.
        unsafe {
            is_held_here(tag)
                || pg_sys::LockAcquire(tag, MODE, true, true)
                    != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
        }
    })
}

#[cfg(any(feature = "pg17", feature = "pg18"))]
unsafe fn is_held_here(tag: &pg_sys::LOCKTAG) -> bool {
    // SAFETY: reads the process's own lock table.
    unsafe { pg_sys::LockHeldByMe(tag, MODE, false) }
}

#[cfg(not(any(feature = "pg17", feature = "pg18")))]
unsafe fn is_held_here(tag: &pg_sys::LOCKTAG) -> bool {
    // SAFETY: reads the process's own lock table.
    unsafe { pg_sys::LockHeldByMe(tag, MODE) }
}

/// Takes a worker number of this database until the process ends; `false` if another process has
/// it.
pub fn worker_slot(number: u16) -> Result<bool> {
    Ok(hold(worker_slot_tag(number)?))
}

/// Releases a worker number before the process ends.
pub fn leave_worker_slot(number: u16) -> Result<()> {
    release(&worker_slot_tag(number)?);
    Ok(())
}

/// Blocks other sessions that want to declare this table as a target, until the transaction ends.
pub fn lock_target_table(relation: pg_sys::Oid) -> Result<()> {
    let class = internal_objects::relation(c"target")?;
    acquire(&object(backend::database(), class, relation.to_u32(), 0), MODE, false, true);
    Ok(())
}

fn target_tag(target: i32) -> Result<pg_sys::LOCKTAG> {
    let class = internal_objects::relation(c"target")?;
    let tag = object(backend::database(), class, target as u32, 0);
    Ok(pg_sys::LOCKTAG { locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8, ..tag })
}

/// A lock on a target against other processes that want to deliver to it. It outlasts the
/// transaction, and is released when it is dropped, inside or outside a transaction.
#[must_use]
pub struct DeliveryLock(pg_sys::LOCKTAG);

impl DeliveryLock {
    /// Locks a target; `None` if another process holds the lock. If this process locks a target
    /// several times, the target is free after the last of these locks was dropped.
    pub fn acquire_if_free(target: i32) -> Result<Option<DeliveryLock>> {
        let tag = target_tag(target)?;
        Ok(hold(tag).then(|| DeliveryLock(tag)))
    }

    /// Keeps the lock until the process ends.
    pub fn keep_until_exit(self) {
        std::mem::forget(self);
    }
}

impl Drop for DeliveryLock {
    fn drop(&mut self) {
        release(&self.0);
    }
}

/// Blocks changes to the set of flows, and to which flows are live, until the transaction ends;
/// `false` if such a change is in progress.
pub fn lock_flows_if_free() -> Result<bool> {
    let lock = pg_sys::ShareLock as i32;
    // SAFETY: takes a heavyweight lock on a relation.
    Ok(unsafe { pg_sys::ConditionalLockRelationOid(class()?, lock) })
}

/// Reports whether a process waits for a lock of this process, directly or behind other waiting
/// processes.
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

/// Reports whether a worker has this number.
pub fn is_worker_slot_taken(number: u16) -> Result<bool> {
    Ok(is_held(&worker_slot_tag(number)?))
}

/// Reports whether a session wants exclusive use of a database, to drop, rename or copy it. Such a
/// session waits some seconds for others to leave.
pub fn database_being_dropped(database: pg_sys::Oid) -> bool {
    // SAFETY: reads the backend's own state, and releases the lock that it takes.
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
