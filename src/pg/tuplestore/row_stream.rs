//! Rows of a SELECT that are looked at one by one as they come, and kept nowhere.

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::pg::error::{Error, Result};
use crate::pg::spi::Arg;
use crate::pg::tuplestore::row_types::{check_types, is_same_type, wrong_type};
use crate::pg::tuplestore::rows::attribute;
use crate::pg::tuplestore::statements::Statements;

/// A row, until the next one comes.
#[derive(Clone, Copy)]
pub struct Row(pub *mut pg_sys::TupleTableSlot);

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
            if column >= (*slot.tts_tupleDescriptor).natts.max(0) as usize {
                Error::internal(format!("a row has no column {}", column + 1)).raise();
            }
            if (slot.tts_nvalid as usize) <= column {
                pg_sys::slot_getsomeattrs_int(slot, column as i32 + 1);
            }
            match *slot.tts_isnull.add(column) {
                true => None,
                false => Some(*slot.tts_values.add(column)),
            }
        }
    }

    /// A column, from 0, as a value of Rust's. Raises 42804 where its type is another.
    pub fn get<T: FromDatum + IntoDatum>(&self, column: usize) -> Option<T> {
        let datum = self.datum(column)?;
        // SAFETY: `datum` has checked that the shape has the column; its type is compared with that of `T`
        // before the value is read.
        unsafe {
            let column = &*attribute((*self.0).tts_tupleDescriptor, column);
            let fits = T::is_compatible_with(column.atttypid)
                || is_same_type(column.atttypid, T::type_oid());
            if !fits {
                let name = pgrx::name_data_to_str(&column.attname);
                wrong_type(name, column.atttypid, T::type_oid()).raise();
            }
            T::from_datum(datum, false)
        }
    }
}

type Look<'a> = &'a mut dyn FnMut(Row) -> Result<bool>;

#[repr(C)]
struct Receiver<'a> {
    /// What Postgres knows of it; the first field.
    public: pg_sys::DestReceiver,
    types: &'a [pg_sys::Oid],
    look: Look<'a>,
    failed: Option<Error>,
}

/// Looks at what a SELECT returns under the snapshot that is active, until it is said to be enough (`false`).
/// Its columns have to be of these types.
pub fn each(
    statements: &Statements,
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
    receiver: *mut pg_sys::DestReceiver,
    _operation: i32,
    rows: pg_sys::TupleDesc,
) {
    // SAFETY: the receiver was made in `each`, and is of this type; the shape outlives the statement.
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
