//! Processes the rows of a SELECT one by one, without storing them.

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::pg::error::{Error, Result};
use crate::pg::spi::Arg;
use crate::pg::tuplestore::row::Row;
use crate::pg::tuplestore::row_types::check_types;
use crate::pg::tuplestore::statements::SpiSession;

type Look<'a> = &'a mut dyn FnMut(Row) -> Result<bool>;

#[repr(C)]
struct Receiver<'a> {
    /// The part that PostgreSQL uses; must be the first field.
    public: pg_sys::DestReceiver,
    types: &'a [pg_sys::Oid],
    look: Look<'a>,
    failed: Option<Error>,
}

/// Calls `look` for each row of a SELECT under the active snapshot, until `look` returns `false`.
/// The columns must have these types.
pub fn each(
    statements: &SpiSession,
    sql: &str,
    args: &[Arg],
    types: &[pg_sys::Oid],
    look: Look,
) -> Result<()> {
    let mut receiver = Receiver {
        public: pg_sys::DestReceiver {
            receiveSlot: Some(receive),
            rStartup: Some(start),
            rShutdown: Some(nothing),
            rDestroy: Some(nothing),
            mydest: pg_sys::CommandDest::DestNone,
        },
        types,
        look,
        failed: None,
    };
    statements.send(sql, args, std::ptr::from_mut(&mut receiver).cast(), true)?;
    receiver.failed.map_or(Ok(()), Err)
}

#[pg_guard]
unsafe extern "C-unwind" fn receive(
    row: *mut pg_sys::TupleTableSlot,
    receiver: *mut pg_sys::DestReceiver,
) -> bool {
    // SAFETY: `each` created the receiver, which has this type.
    let receiver = unsafe { &mut *receiver.cast::<Receiver>() };
    match (receiver.look)(Row(row)) {
        Ok(more) => more,
        Err(error) => {
            receiver.failed = Some(error);
            false
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn start(
    receiver: *mut pg_sys::DestReceiver,
    _operation: i32,
    rows: pg_sys::TupleDesc,
) {
    // SAFETY: `each` created the receiver, which has this type; the descriptor outlives the
    // statement.
    let checked = unsafe {
        let types = (*receiver.cast::<Receiver>()).types;
        check_types(rows, 0, types).and_then(|found| found.check_count(types.len()))
    };
    if let Err(error) = checked {
        error.raise();
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn nothing(_receiver: *mut pg_sys::DestReceiver) {}
