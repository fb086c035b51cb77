//! One row that the executor passes on, whose columns are read by number and checked against their
//! types.

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::pg::error::Error;
use crate::pg::tuplestore::row_types::{attribute, is_same_type, wrong_type};

/// A row, valid until the next row is read.
#[derive(Clone, Copy)]
pub struct Row(pub *mut pg_sys::TupleTableSlot);

impl Row {
    /// Wraps a slot.
    ///
    /// # Safety
    /// The slot exists, and contains a row, as long as the value is used.
    pub unsafe fn of(slot: *mut pg_sys::TupleTableSlot) -> Row {
        Row(slot)
    }

    /// Returns a column, counted from 0.
    pub fn datum(&self, column: usize) -> Option<pg_sys::Datum> {
        // SAFETY: the slot contains a row; slot_getsomeattrs fills the arrays up to the column.
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

    /// Returns a column, counted from 0, as a Rust value. Raises 42804 if its type differs.
    pub fn get<T: FromDatum + IntoDatum>(&self, column: usize) -> Option<T> {
        let datum = self.datum(column)?;
        // SAFETY: `datum` has checked that the descriptor has the column; its type is compared with
        // that of `T` before the value is read.
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
