//! The DestReceiver that collects the rows of a statement in a [`TupleStore`].

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::pg::tuplestore::row_types;
use crate::pg::tuplestore::rows::TupleStore;

unsafe extern "C-unwind" {
    // Declared in utils/tuplestore.h, the same from 15 to 18. pgrx's binding would put a guard
    // around each call, which costs as much as the call.
    fn tuplestore_puttupleslot(
        store: *mut pg_sys::Tuplestorestate,
        row: *mut pg_sys::TupleTableSlot,
    );
}

/// Puts the rows of a statement into a tuplestore, if they have its row type.
#[repr(C)]
pub struct IntoRows {
    /// The part that PostgreSQL uses; must be the first field.
    public: pg_sys::DestReceiver,
    store: *mut pg_sys::Tuplestorestate,
    shape: pg_sys::TupleDesc,
}

impl IntoRows {
    /// Returns a receiver that is valid as long as `rows` exist and do not move.
    pub fn new(rows: &TupleStore) -> IntoRows {
        IntoRows {
            public: pg_sys::DestReceiver {
                receiveSlot: Some(receive),
                rStartup: Some(start),
                rShutdown: Some(nothing),
                rDestroy: Some(nothing),
                mydest: pg_sys::CommandDest::DestTuplestore,
            },
            store: rows.store,
            shape: rows.shape,
        }
    }

    /// Returns a pointer that is valid as long as the receiver does not move.
    pub fn destination(&mut self) -> *mut pg_sys::DestReceiver {
        std::ptr::from_mut(self).cast()
    }
}

/// Receives a row. Has no guard, because an error that passes through skips no destructor.
unsafe extern "C-unwind" fn receive(
    row: *mut pg_sys::TupleTableSlot,
    receiver: *mut pg_sys::DestReceiver,
) -> bool {
    // SAFETY: `new` created the receiver; `start` has compared the row types; the store copies the
    // row.
    unsafe { tuplestore_puttupleslot((*receiver.cast::<IntoRows>()).store, row) };
    true
}

#[pg_guard]
unsafe extern "C-unwind" fn start(
    receiver: *mut pg_sys::DestReceiver,
    _operation: i32,
    rows: pg_sys::TupleDesc,
) {
    // SAFETY: `new` created the receiver; both descriptors outlive the statement.
    let checked = unsafe { row_types::check_shape(rows, (*receiver.cast::<IntoRows>()).shape) };
    if let Err(error) = checked {
        row_types::type_mismatch();
        error.raise();
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn nothing(_receiver: *mut pg_sys::DestReceiver) {}
