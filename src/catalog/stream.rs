//! Rows of a SELECT that are looked at one by one as they come, and kept nowhere.

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::error::{Error, Result};
use super::sql::Arg;
use super::tuples::Statements;

/// A row, until the next one comes.
#[derive(Clone, Copy)]
pub struct Row(*mut pg_sys::TupleTableSlot);

impl Row {
    /// # Safety
    /// As long as it is used the slot is there, and holds a row.
    pub unsafe fn of(slot: *mut pg_sys::TupleTableSlot) -> Row {
        Row(slot)
    }

    /// A column, from 0.
    pub fn datum(&self, column: usize) -> Option<pg_sys::Datum> {
        // SAFETY: the slot holds a row; slot_getsomeattrs fills the arrays up to the column.
        unsafe {
            let slot = &mut *self.0;
            if (slot.tts_nvalid as usize) <= column {
                pg_sys::slot_getsomeattrs_int(slot, column as i32 + 1);
            }
            match *slot.tts_isnull.add(column) {
                true => None,
                false => Some(*slot.tts_values.add(column)),
            }
        }
    }

    pub fn get<T: pgrx::FromDatum>(&self, column: usize) -> Option<T> {
        let datum = self.datum(column)?;
        // SAFETY: the caller names the column's type.
        unsafe { T::from_datum(datum, false) }
    }
}

type Look<'a> = &'a mut dyn FnMut(Row) -> Result<bool>;

#[repr(C)]
struct Receiver<'a> {
    /// What Postgres knows of it; the first field.
    public: pg_sys::DestReceiver,
    look: Look<'a>,
    failed: Option<Error>,
}

/// Looks at what a SELECT returns under the snapshot that is active, until it is said to be enough (`false`).
pub fn each(statements: &Statements, sql: &str, args: &[Arg], look: Look) -> Result<()> {
    let mut receiver = Receiver {
        public: pg_sys::DestReceiver {
            receiveSlot: Some(receive),
            rStartup: Some(start),
            rShutdown: Some(nothing),
            rDestroy: Some(nothing),
            mydest: pg_sys::CommandDest::DestNone,
        },
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
    // SAFETY: the receiver was made in `each`, and is of this type.
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
    _receiver: *mut pg_sys::DestReceiver,
    _operation: i32,
    _rows: pg_sys::TupleDesc,
) {
}

#[pg_guard]
unsafe extern "C-unwind" fn nothing(_receiver: *mut pg_sys::DestReceiver) {}
