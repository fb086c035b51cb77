//! Locks captured tables before DROP EXTENSION coco locks the change logs.
//!
//! PostgreSQL locks the members of an extension first, including the change logs. It locks a table
//! only when it drops the table's triggers. A writer locks its table first, and then the log. The
//! two orders can deadlock, and the writer could be the victim.

use pgrx::{PgList, pg_sys};
use std::ffi::CStr;

use crate::catalog::installed;
use crate::pg::error::Result;
use crate::pg::internal_objects;
use crate::pg::spi::{self, arg};

const MODE: i32 = pg_sys::AccessExclusiveLock as i32;

/// Locks all captured tables until the transaction ends, if the command that is about to start
/// drops coco and the caller may drop it. Returns whether this is so.
///
/// # Safety
/// `fcinfo` belongs to a call in progress.
pub unsafe fn before(fcinfo: pg_sys::FunctionCallInfo) -> Result<bool> {
    // SAFETY: the caller passes the `fcinfo` of a call in progress.
    if !unsafe { drops_coco(fcinfo) } {
        return Ok(false);
    }
    match installed::installed_extension()? {
        // SAFETY: a lookup within a transaction.
        Some(installed) if unsafe { owns(installed.extension) } => {
            lock(&captured()?)?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// Reports whether the command that fires an event trigger names coco among the extensions to drop.
unsafe fn drops_coco(fcinfo: pg_sys::FunctionCallInfo) -> bool {
    // SAFETY: the code reads each node as the type that its tag names.
    unsafe {
        let context = (*fcinfo).context;
        if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_EventTriggerData {
            return false;
        }
        let command = (*context.cast::<pg_sys::EventTriggerData>()).parsetree;
        if command.is_null() || (*command).type_ != pg_sys::NodeTag::T_DropStmt {
            return false;
        }
        let command = &*command.cast::<pg_sys::DropStmt>();
        command.removeType == pg_sys::ObjectType::OBJECT_EXTENSION
            && PgList::<pg_sys::Node>::from_pg(command.objects).iter_ptr().any(|name| is_coco(name))
    }
}

unsafe fn is_coco(name: *mut pg_sys::Node) -> bool {
    // SAFETY: the code reads the node as the type that its tag names.
    unsafe {
        if name.is_null() || (*name).type_ != pg_sys::NodeTag::T_String {
            return false;
        }
        let name = (*name.cast::<pg_sys::String>()).sval;
        CStr::from_ptr(name) == c"coco"
    }
}

unsafe fn owns(extension: pg_sys::Oid) -> bool {
    // SAFETY: a lookup within a transaction.
    unsafe {
        #[cfg(feature = "pg15")]
        return pg_sys::pg_extension_ownercheck(extension, pg_sys::GetUserId());
        #[cfg(not(feature = "pg15"))]
        return pg_sys::object_ownercheck(
            pg_sys::ExtensionRelationId,
            extension,
            pg_sys::GetUserId(),
        );
    }
}

/// Returns the tables with capture triggers.
fn captured() -> Result<Vec<pg_sys::Oid>> {
    spi::select(
        "select distinct t.tgrelid from pg_catalog.pg_trigger t
          where t.tgfoid operator(pg_catalog.=) $1 order by 1",
        &[arg(internal_objects::function(c"capture")?)],
        |r| spi::required(r, 1),
    )
}

/// Locks all tables. While it waits for one table, it holds no lock on the others, so it takes part
/// in no deadlock.
fn lock(tables: &[pg_sys::Oid]) -> Result<()> {
    let mut busy = None;
    loop {
        let mut locked = vec![];
        if let Some(table) = busy {
            // SAFETY: takes a heavyweight lock.
            unsafe { pg_sys::LockRelationOid(table, MODE) };
            locked.push(table);
        }
        let others = tables.iter().copied().filter(|table| Some(*table) != busy);
        let mut next = None;
        for table in others {
            // SAFETY: takes a heavyweight lock if it is free.
            if !unsafe { pg_sys::ConditionalLockRelationOid(table, MODE) } {
                next = Some(table);
                break;
            }
            locked.push(table);
        }
        if next.is_none() {
            return Ok(());
        }
        for table in locked {
            // SAFETY: releases the locks just taken.
            unsafe { pg_sys::UnlockRelationOid(table, MODE) };
        }
        busy = next;
        pgrx::check_for_interrupts!();
    }
}
