//! The DestReceiver that collects the rows of a statement in a [`TupleStore`].

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::pg::tuplestore::row_types;
use crate::pg::tuplestore::rows::TupleStore;

unsafe extern "C-unwind" {
    // utils/tuplestore.h; the same from 15 to 18. As it is: pgrx's binding has a guard around each
    // call, which takes as long as the call does.
    fn tuplestore_puttupleslot(
        store: *mut pg_sys::Tuplestorestate,
        row: *mut pg_sys::TupleTableSlot,
    );
}

/// Puts the rows of a statement into a tuplestore, if they have its shape.
#[repr(C)]
pub struct IntoRows {
    /// What Postgres knows of the receiver; the first field.
    public: pg_sys::DestReceiver,
    store: *mut pg_sys::Tuplestorestate,
    shape: pg_sys::TupleDesc,
}

impl IntoRows {
    /// A receiver for as long as `rows` exist and stay where they are.
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

    /// Valid as long as the receiver stays where it is.
    pub fn destination(&mut self) -> *mut pg_sys::DestReceiver {
        std::ptr::from_mut(self).cast()
    }
}

/// Without a guard: there is nothing to drop here when an error passes through.
unsafe extern "C-unwind" fn receive(
    row: *mut pg_sys::TupleTableSlot,
    receiver: *mut pg_sys::DestReceiver,
) -> bool {
    // SAFETY: the receiver was made in `new`; `start` has compared the shapes; the store copies the row.
    unsafe { tuplestore_puttupleslot((*receiver.cast::<IntoRows>()).store, row) };
    true
}

#[pg_guard]
unsafe extern "C-unwind" fn start(
    receiver: *mut pg_sys::DestReceiver,
    _operation: i32,
    rows: pg_sys::TupleDesc,
) {
    // SAFETY: the receiver was made in `new`; both shapes outlive the statement.
    let checked = unsafe { row_types::check_shape(rows, (*receiver.cast::<IntoRows>()).shape) };
    if let Err(error) = checked {
        row_types::type_mismatch();
        error.raise();
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn nothing(_receiver: *mut pg_sys::DestReceiver) {}
