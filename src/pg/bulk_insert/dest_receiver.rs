//! Receives the rows of a SELECT, collects them, and passes them to the heap a page at a time.

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::pg::bulk_insert::spec::{BulkTarget, IndexMaintenance, RowBuffer, RowsAside, TakenRows};
use crate::pg::tuplestore::row_types::attribute;

unsafe extern "C-unwind" {
    // Declared in executor/tuptable.h and access/htup_details.h, the same from 15 to 18. pgrx's
    // bindings would put a guard around each call, which costs as much as the call. Here one guard
    // covers all calls for a row.
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

/// The largest number of rows, and approximately of bytes, written at once. These are COPY's
/// limits.
const ROWS: usize = 1000;

const BYTES: usize = 65535;

/// The value of a table's column.
pub enum ColumnValue {
    /// The value of this expression, which is a column of the SELECT.
    Selected(String),
    /// The same value, passed by value, or NULL, in all rows. The SELECT does not carry it along.
    Same(Option<pg_sys::Datum>),
}

impl ColumnValue {
    /// Returns the expression of a column of the SELECT.
    pub fn selected(&self) -> Option<String> {
        match self {
            ColumnValue::Selected(expression) => Some(expression.clone()),
            ColumnValue::Same(_) => None,
        }
    }
}

/// The destination of the rows of a SELECT.
#[repr(C)]
pub struct Receiver<'a> {
    /// The part that PostgreSQL uses; must be the first field.
    public: pg_sys::DestReceiver,
    /// Whether the rows have the tables' types including modifiers, so that no cast is needed.
    pub fits: bool,
    /// How many rows were withheld from tables that do not take all rows.
    pub withheld: i64,
    tables: Vec<Table>,
    keeping: Option<RowBuffer<'a>>,
    aside: Option<RowsAside<'a>>,
    /// The position of the first column of the rows set aside.
    aside_at: usize,
}

/// A table that receives rows.
struct Table {
    relation: pg_sys::Relation,
    state: *mut pg_sys::EState,
    result: *mut pg_sys::ResultRelInfo,
    entries: IndexMaintenance,
    takes: TakenRows,
    /// The current row.
    values: Vec<pg_sys::Datum>,
    nulls: Vec<bool>,
    /// The columns that come from the SELECT, in their order there, and the position of the first.
    selected: Vec<usize>,
    first: usize,
    /// The not-null columns. `checks` says whether the table has check constraints.
    required: Vec<usize>,
    checks: bool,
    /// The column that counts, and the next number.
    counted: Option<(usize, i64)>,
    /// Whether that column exists with type bigint.
    counts: bool,
    /// The memory of the rows that are not written yet.
    context: pg_sys::MemoryContext,
    slots: Vec<*mut pg_sys::TupleTableSlot>,
    rows: usize,
    bytes: usize,
}

impl<'a> Receiver<'a> {
    /// Creates a receiver.
    ///
    /// # Safety
    /// The relations stay open until `end`, and `columns` has a value for each of their columns.
    pub unsafe fn new(
        relations: &[pg_sys::Relation],
        tables: &[BulkTarget],
        columns: &[Vec<ColumnValue>],
        keeping: Option<RowBuffer<'a>>,
        aside: Option<RowsAside<'a>>,
    ) -> Receiver<'a> {
        let mut first = 0;
        // SAFETY: the caller upholds the same contract.
        let table = |((relation, filling), columns): ((&_, &_), &Vec<ColumnValue>)| unsafe {
            let table = Table::new(*relation, filling, columns, first);
            first += table.selected.len();
            table
        };
        let tables = relations.iter().zip(tables).zip(columns).map(table).collect();
        // SAFETY: the shape of rows that live as long as the receiver.
        let buffered =
            keeping.as_ref().map_or(0, |keeping| unsafe { (*keeping.rows.shape()).natts as usize });
        Receiver {
            public: pg_sys::DestReceiver {
                receiveSlot: Some(receive),
                rStartup: Some(start),
                rShutdown: Some(nothing),
                rDestroy: Some(nothing),
                mydest: pg_sys::CommandDest::DestIntoRel,
            },
            fits: false,
            withheld: 0,
            tables,
            keeping,
            aside,
            aside_at: first + buffered,
        }
    }

    /// Returns a pointer that is valid as long as the receiver does not move.
    pub fn destination(&mut self) -> *mut pg_sys::DestReceiver {
        std::ptr::from_mut(self).cast()
    }

    /// Adds a row.
    ///
    /// # Safety
    /// The row has the selected columns of all tables, one after the other, then those of the row
    /// buffer, and then those of the rows set aside.
    unsafe fn add(&mut self, row: *mut pg_sys::TupleTableSlot) {
        // SAFETY: the caller upholds the same contract.
        unsafe {
            pg_sys::slot_getallattrs(row);
            let (values, nulls) = ((*row).tts_values, (*row).tts_isnull);
            let is_withheld = match &mut self.aside {
                Some(aside) => {
                    set_aside(aside, values.add(self.aside_at), nulls.add(self.aside_at))
                }
                None => false,
            };
            self.withheld += i64::from(is_withheld);
            let takes = |table: &Table| !is_withheld || table.takes == TakenRows::All;
            for table in self.tables.iter_mut().filter(|table| takes(table)) {
                table.prepare(values, nulls);
            }
            let tables = &self.tables;
            // An error that is raised in this closure skips no destructor.
            pg_sys::ffi::pg_guard_ffi_boundary(|| {
                for table in tables.iter().filter(|table| takes(table)) {
                    table.form();
                }
            });
            for table in self.tables.iter_mut().filter(|table| takes(table)) {
                table.formed();
            }
            if is_withheld {
                return;
            }
            let first = self.tables.last().map_or(0, |table| table.first + table.selected.len());
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

    /// Writes the remaining rows.
    ///
    /// # Safety
    /// The relations are open.
    pub unsafe fn end(self) {
        // SAFETY: `new` created the tables.
        self.tables.into_iter().for_each(|table| unsafe { table.end() });
    }
}

impl Table {
    /// Prepares writing to a table.
    ///
    /// # Safety
    /// The relation stays open until `end`, and `columns` has a value for each of its columns.
    unsafe fn new(
        relation: pg_sys::Relation,
        filling: &BulkTarget,
        columns: &[ColumnValue],
        first: usize,
    ) -> Table {
        // SAFETY: `end`, or the end of the transaction, frees everything.
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
            let same = |column: &ColumnValue| match column {
                ColumnValue::Selected(_) => None,
                ColumnValue::Same(value) => *value,
            };
            let values = columns.iter().map(|c| same(c).unwrap_or(pg_sys::Datum::null()));
            let nulls = columns.iter().map(|c| same(c).is_none());
            let is_selected = |place: &usize| matches!(columns[*place], ColumnValue::Selected(_));
            let at = |place: usize| &*attribute(shape, place);
            let required = |place: &usize| at(*place).attnotnull;
            let required = places.clone().filter(required).collect();
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
                takes: filling.takes,
                values: values.collect(),
                nulls: nulls.collect(),
                selected: places.clone().filter(is_selected).collect(),
                first,
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

    /// Makes space for a row, and takes its values from those of the SELECT.
    unsafe fn prepare(&mut self, values: *mut pg_sys::Datum, nulls: *mut bool) {
        // SAFETY: the values belong to a row of all tables; `new` has made the vectors as long as
        // the table has columns.
        unsafe {
            for (n, place) in self.selected.iter().enumerate() {
                self.values[*place] = *values.add(self.first + n);
                self.nulls[*place] = *nulls.add(self.first + n);
            }
            if let Some((place, number)) = &mut self.counted {
                self.values[*place] = pg_sys::Datum::from(*number);
                self.nulls[*place] = false;
                *number += 1;
            }
            if self.rows == self.slots.len() {
                // The current memory context is freed with the SELECT, before the last rows are
                // written.
                let before = pg_sys::MemoryContextSwitchTo((*self.state).es_query_cxt);
                let kind = &raw const pg_sys::TTSOpsHeapTuple;
                let shape = (*self.relation).rd_att;
                self.slots.push(pg_sys::MakeSingleTupleTableSlot(shape, kind));
                pg_sys::MemoryContextSwitchTo(before);
            }
        }
    }

    /// Copies the row. Runs without a guard.
    unsafe fn form(&self) {
        // SAFETY: `prepare` has made a slot, and has taken the values.
        unsafe {
            let shape = (*self.relation).rd_att;
            let before = pg_sys::CurrentMemoryContext;
            pg_sys::CurrentMemoryContext = self.context;
            let tuple = heap_form_tuple(shape, self.values.as_ptr(), self.nulls.as_ptr());
            pg_sys::CurrentMemoryContext = before;
            ExecStoreHeapTuple(tuple, self.slots[self.rows], true);
        }
    }

    /// Checks the row, and writes the collected rows if enough are there.
    unsafe fn formed(&mut self) {
        // SAFETY: the slot contains the row.
        unsafe {
            let slot = self.slots[self.rows];
            if self.checks || self.required.iter().any(|place| self.nulls[*place]) {
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
        // SAFETY: the slots contain rows of the table.
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
        // SAFETY: `new` and `prepare` created these objects.
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

/// Sets a row aside, unless its first column is NULL. Reports whether the row is withheld from
/// tables that do not take all rows.
///
/// # Safety
/// The values have the types of the rows set aside, the first of which is boolean.
unsafe fn set_aside(aside: &mut RowsAside, values: *mut pg_sys::Datum, nulls: *mut bool) -> bool {
    // SAFETY: the caller upholds the same contract.
    unsafe {
        if *nulls {
            return false;
        }
        let is_withheld = (*values).value() as u8 != 0;
        aside.rows.push_whole(values, nulls);
        is_withheld
    }
}

/// Returns a table in the form in which the executor writes to it, without open indexes.
///
/// # Safety
/// The relation stays open as long as the result is used.
pub unsafe fn result_of(relation: pg_sys::Relation) -> *mut pg_sys::ResultRelInfo {
    // SAFETY: the caller upholds the same contract.
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
/// The row was written, so that the slot contains its position. The indexes are open.
pub unsafe fn add_entries_of(
    result: *mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    state: *mut pg_sys::EState,
) {
    // SAFETY: the caller upholds the same contract.
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
    // SAFETY: `as_copy` created the receiver, which has this type; `start` has checked the row
    // type.
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
    // SAFETY: as above; attribute numbers stay below each descriptor's count.
    unsafe {
        let receiver = &mut *receiver.cast::<Receiver>();
        let kept = receiver.keeping.as_ref().map(|keeping| keeping.rows.shape());
        let aside = receiver.aside.as_ref().map(|aside| aside.rows.shape());
        let of_tables = receiver.tables.iter().flat_map(|table| {
            let shape = (*table.relation).rd_att;
            table.selected.iter().map(move |place| attribute(shape, *place))
        });
        let of_rows = kept.into_iter().chain(aside).flat_map(|shape| {
            (0..(*shape).natts as usize).map(move |place| attribute(shape, place))
        });
        let columns: Vec<_> = of_tables.chain(of_rows).collect();
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
