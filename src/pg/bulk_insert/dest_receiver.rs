//! Where the rows of a SELECT go: collected, and handed to the heap a page at a time.

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::pg::bulk_insert::spec::{BulkTarget, IndexMaintenance, RowBuffer};
use crate::pg::tuplestore::row_types::attribute;

unsafe extern "C-unwind" {
    // executor/tuptable.h, access/htup_details.h; the same from 14 to 18. As they are: pgrx's bindings have a guard
    // around each call, which takes as long as the call does. Here there is one around all of a row's.
    fn ExecStoreHeapTuple(
        row: pg_sys::HeapTuple,
        slot: *mut pg_sys::TupleTableSlot,
        free: bool,
    ) -> *mut pg_sys::TupleTableSlot;
    fn heap_form_tuple(
        shape: pg_sys::TupleDesc,
        values: *const pg_sys::Datum,
        nulls: *const bool,
    ) -> pg_sys::HeapTuple;
}

/// Rows, and about so many bytes of them, that are written at once: as COPY has it.
const ROWS: usize = 1000;

const BYTES: usize = 65535;

/// Where the rows of a SELECT go.
#[repr(C)]
pub struct Receiver<'a> {
    /// What Postgres knows of it; the first field.
    public: pg_sys::DestReceiver,
    /// The rows are of the tables' types, modifiers included: none is to be cast.
    pub fits: bool,
    tables: Vec<Table>,
    keeping: Option<RowBuffer<'a>>,
}

/// One of the tables that they go to.
struct Table {
    relation: pg_sys::Relation,
    state: *mut pg_sys::EState,
    result: *mut pg_sys::ResultRelInfo,
    entries: IndexMaintenance,
    /// Where its columns are among those of the SELECT.
    columns: std::ops::Range<usize>,
    /// Those of them that are not to be NULL; whether more is to be checked.
    required: Vec<usize>,
    checks: bool,
    /// The place of the column that counts, and the next number.
    counted: Option<(usize, i64)>,
    /// That column is there, of type bigint.
    counts: bool,
    /// Holds the rows that are not written yet.
    context: pg_sys::MemoryContext,
    slots: Vec<*mut pg_sys::TupleTableSlot>,
    rows: usize,
    bytes: usize,
}

impl<'a> Receiver<'a> {
    /// # Safety
    /// The relations stay open until `end`.
    pub unsafe fn new(
        relations: &[pg_sys::Relation],
        tables: &[BulkTarget],
        keeping: Option<RowBuffer<'a>>,
    ) -> Receiver<'a> {
        let mut first = 0;
        // SAFETY: as above.
        let table = |(relation, filling): (&_, &_)| unsafe {
            let table = Table::new(*relation, filling, first);
            first = table.columns.end;
            table
        };
        Receiver {
            public: pg_sys::DestReceiver {
                receiveSlot: Some(receive),
                rStartup: Some(start),
                rShutdown: Some(nothing),
                rDestroy: Some(nothing),
                mydest: pg_sys::CommandDest::DestIntoRel,
            },
            fits: false,
            tables: relations.iter().zip(tables).map(table).collect(),
            keeping,
        }
    }

    /// Valid as long as it stays where it is.
    pub fn destination(&mut self) -> *mut pg_sys::DestReceiver {
        std::ptr::from_mut(self).cast()
    }

    /// # Safety
    /// The row has the columns of all tables, one after the other, and of what is kept.
    unsafe fn add(&mut self, row: *mut pg_sys::TupleTableSlot) {
        // SAFETY: as above.
        unsafe {
            pg_sys::slot_getallattrs(row);
            let (values, nulls) = ((*row).tts_values, (*row).tts_isnull);
            self.tables.iter_mut().for_each(|table| table.prepare(values, nulls));
            let tables = &self.tables;
            // Where an error is raised nothing is dropped that is made in there.
            pg_sys::ffi::pg_guard_ffi_boundary(|| {
                tables.iter().for_each(|table| table.form(values, nulls));
            });
            self.tables.iter_mut().for_each(|table| table.formed(nulls));
            let first = self.tables.last().map_or(0, |table| table.columns.end);
            if let Some(RowBuffer { rows, first: number, then, .. }) = &mut self.keeping {
                let (values, nulls) = (values.add(first), nulls.add(first));
                *values = pg_sys::Datum::from(*number + rows.len() as i64);
                *nulls = false;
                rows.push_whole(values, nulls);
                if let Some(then) = then {
                    then(rows);
                }
            }
        }
    }

    /// Writes what is left.
    ///
    /// # Safety
    /// The relations are open.
    pub unsafe fn end(self) {
        // SAFETY: made in `new`.
        self.tables.into_iter().for_each(|table| unsafe { table.end() });
    }
}

impl Table {
    /// # Safety
    /// The relation stays open until `end`.
    unsafe fn new(relation: pg_sys::Relation, filling: &BulkTarget, first: usize) -> Table {
        // SAFETY: all of it is freed in `end`, or with the transaction.
        unsafe {
            let state = pg_sys::CreateExecutorState();
            let result = result_of(relation);
            if filling.entries == IndexMaintenance::AtOnce {
                pg_sys::ExecOpenIndices(result, false);
            }
            let context = pg_sys::AllocSetContextCreateExtended(
                pg_sys::CurrentMemoryContext,
                c"coco bulk".as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            );
            let shape = (*relation).rd_att;
            let places = 0..(*shape).natts as usize;
            let columns = first..first + places.len();
            let at = |place: usize| &*attribute(shape, place);
            let required = |place: &usize| at(*place).attnotnull;
            let required = places.clone().filter(required).map(|place| first + place).collect();
            let constraints = (*shape).constr;
            let named = |name: &str| {
                places.clone().find(|place| {
                    at(*place).atttypid == pg_sys::INT8OID
                        && pgrx::name_data_to_str(&at(*place).attname) == name
                })
            };
            let counted = filling.counted.and_then(|(name, number)| Some((named(name)?, number)));
            Table {
                relation,
                state,
                result,
                entries: filling.entries,
                columns,
                required,
                checks: !constraints.is_null() && (*constraints).num_check > 0,
                counts: counted.is_some() == filling.counted.is_some(),
                counted,
                context,
                slots: Vec::new(),
                rows: 0,
                bytes: 0,
            }
        }
    }

    /// Makes room for a row, whose values are these.
    unsafe fn prepare(&mut self, values: *mut pg_sys::Datum, nulls: *mut bool) {
        // SAFETY: the values are those of a row of all tables.
        unsafe {
            if let Some((place, number)) = &mut self.counted {
                *values.add(self.columns.start + *place) = pg_sys::Datum::from(*number);
                *nulls.add(self.columns.start + *place) = false;
                *number += 1;
            }
            if self.rows == self.slots.len() {
                // Where we are is freed with the SELECT, before the last rows are written.
                let before = pg_sys::MemoryContextSwitchTo((*self.state).es_query_cxt);
                let kind = &raw const pg_sys::TTSOpsHeapTuple;
                let shape = (*self.relation).rd_att;
                self.slots.push(pg_sys::MakeSingleTupleTableSlot(shape, kind));
                pg_sys::MemoryContextSwitchTo(before);
            }
        }
    }

    /// Copies it. Without a guard.
    unsafe fn form(&self, values: *mut pg_sys::Datum, nulls: *mut bool) {
        // SAFETY: as above; there is a slot.
        unsafe {
            let (shape, first) = ((*self.relation).rd_att, self.columns.start);
            let before = pg_sys::CurrentMemoryContext;
            pg_sys::CurrentMemoryContext = self.context;
            let tuple = heap_form_tuple(shape, values.add(first), nulls.add(first));
            pg_sys::CurrentMemoryContext = before;
            ExecStoreHeapTuple(tuple, self.slots[self.rows], true);
        }
    }

    /// Checks it, and writes those that there are by now, if they are many.
    unsafe fn formed(&mut self, nulls: *mut bool) {
        // SAFETY: the slot holds the row.
        unsafe {
            let slot = self.slots[self.rows];
            if self.checks || self.required.iter().any(|place| *nulls.add(*place)) {
                pg_sys::ExecConstraints(self.result, slot, self.state);
            }
            self.rows += 1;
            self.bytes += (*(*slot.cast::<pg_sys::HeapTupleTableSlot>()).tuple).t_len as usize;
            if self.rows == ROWS || self.bytes >= BYTES {
                self.flush();
            }
        }
    }

    unsafe fn flush(&mut self) {
        if self.rows == 0 {
            return;
        }
        // SAFETY: the slots hold rows of the table.
        unsafe {
            let before = pg_sys::MemoryContextSwitchTo(self.context);
            pg_sys::heap_multi_insert(
                self.relation,
                self.slots.as_mut_ptr(),
                self.rows as i32,
                pg_sys::GetCurrentCommandId(true),
                0,
                std::ptr::null_mut(),
            );
            let expressions = pg_sys::MakePerTupleExprContext(self.state);
            if self.entries == IndexMaintenance::AtOnce {
                for slot in &self.slots[..self.rows] {
                    add_entries_of(self.result, *slot, self.state);
                }
            }
            pg_sys::MemoryContextReset((*expressions).ecxt_per_tuple_memory);
            pg_sys::MemoryContextSwitchTo(before);
            for slot in &self.slots[..self.rows] {
                pg_sys::ExecClearTuple(*slot);
            }
            pg_sys::MemoryContextReset(self.context);
        }
        self.rows = 0;
        self.bytes = 0;
    }

    unsafe fn end(mut self) {
        // SAFETY: made in `new` and `add`.
        unsafe {
            self.flush();
            for slot in &self.slots {
                pg_sys::ExecDropSingleTupleTableSlot(*slot);
            }
            pg_sys::ExecCloseIndices(self.result);
            pg_sys::FreeExecutorState(self.state);
            pg_sys::MemoryContextDelete(self.context);
        }
    }
}

/// A table as the executor knows one that it writes to, without its indexes.
///
/// # Safety
/// The relation stays open as long as it is used.
pub unsafe fn result_of(relation: pg_sys::Relation) -> *mut pg_sys::ResultRelInfo {
    // SAFETY: as above.
    unsafe {
        let result =
            pg_sys::palloc0(size_of::<pg_sys::ResultRelInfo>()).cast::<pg_sys::ResultRelInfo>();
        pg_sys::InitResultRelInfo(result, relation, 0, std::ptr::null_mut(), 0);
        result
    }
}

/// Writes the index entries of a row.
///
/// # Safety
/// The row was written: the slot knows where. The indexes are open.
pub unsafe fn add_entries_of(
    result: *mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    state: *mut pg_sys::EState,
) {
    // SAFETY: as above.
    unsafe {
        pg_sys::ExecInsertIndexTuples(
            result,
            slot,
            state,
            false,
            false,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
            false,
        );
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn receive(
    row: *mut pg_sys::TupleTableSlot,
    receiver: *mut pg_sys::DestReceiver,
) -> bool {
    // SAFETY: the receiver was made in `as_copy`, and is of this type; the row was looked at in `start`.
    unsafe {
        let receiver = &mut *receiver.cast::<Receiver>();
        if receiver.fits {
            receiver.add(row);
        }
        receiver.fits
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn start(
    receiver: *mut pg_sys::DestReceiver,
    _operation: i32,
    rows: pg_sys::TupleDesc,
) {
    // SAFETY: as above; all shapes have as many attributes as they say.
    unsafe {
        let receiver = &mut *receiver.cast::<Receiver>();
        let kept = receiver.keeping.as_ref().map(|keeping| keeping.rows.shape());
        let shapes = receiver.tables.iter().map(|table| (*table.relation).rd_att).chain(kept);
        let columns: Vec<_> = shapes
            .flat_map(|shape| (0..(*shape).natts as usize).map(move |n| attribute(shape, n)))
            .collect();
        let fits = |(place, column): (usize, &*const pg_sys::FormData_pg_attribute)| {
            let (row, column) = (attribute(rows, place), *column);
            (*row).atttypid == (*column).atttypid
                && ((*column).atttypmod == -1 || (*row).atttypmod == (*column).atttypmod)
        };
        receiver.fits = (*rows).natts as usize == columns.len()
            && columns.iter().enumerate().all(fits)
            && receiver.tables.iter().all(|table| table.counts);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn nothing(_receiver: *mut pg_sys::DestReceiver) {}
