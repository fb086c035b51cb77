//! Rows of one row type, in a tuplestore.

use pgrx::pg_sys;
use std::ffi::CString;

use crate::pg::columns::{Column, numbered};
use crate::pg::error::{Error, Result};
use crate::pg::tuplestore::row::Row;
use crate::pg::tuplestore::row_types::{attribute, c_string, check_shape};

/// A column of a [`TupleStore`].
#[derive(Clone, Debug)]
pub struct RowColumn {
    pub name: String,
    pub type_oid: pg_sys::Oid,
    pub typmod: i32,
    pub collation: pg_sys::Oid,
}

impl RowColumn {
    pub fn new(name: impl Into<String>, type_oid: pg_sys::Oid) -> RowColumn {
        // TupleDescInitEntry sets the type's own collation.
        RowColumn { name: name.into(), type_oid, typmod: -1, collation: pg_sys::InvalidOid }
    }
}

/// Returns columns of these types, named `prefix1`, `prefix2`, …
pub fn typed(prefix: &str, columns: &[Column]) -> Vec<RowColumn> {
    let names = numbered(prefix, columns.len());
    let typed = |(c, name): (&Column, String)| RowColumn {
        name,
        type_oid: c.type_oid,
        typmod: c.typmod,
        collation: c.collation,
    };
    columns.iter().zip(names).map(typed).collect()
}

/// Rows of one row type, kept in a tuplestore of the (sub)transaction that created it.
pub struct TupleStore {
    pub store: *mut pg_sys::Tuplestorestate,
    pub shape: pg_sys::TupleDesc,
    slot: *mut pg_sys::TupleTableSlot,
    /// The memory of all parts, below the (sub)transaction's own context, which stays empty and is
    /// freed at its end.
    context: pg_sys::MemoryContext,
    pub len: usize,
    /// The types of the columns.
    pub types: String,
    /// The positions of columns whose values may be stored out of line.
    variable: Vec<usize>,
    /// Whether the rows outlive the transaction that created and filled them.
    held: bool,
}

impl TupleStore {
    pub fn new(columns: &[RowColumn]) -> Result<TupleStore> {
        TupleStore::make(columns, false, work_mem())
    }

    /// Creates rows that spill to disk only beyond this number of kilobytes.
    pub fn within(columns: &[RowColumn], kilobytes: i32) -> Result<TupleStore> {
        TupleStore::make(columns, false, kilobytes)
    }

    /// Creates rows that later transactions can read; only the current transaction may fill them.
    pub fn held(columns: &[RowColumn], kilobytes: i32) -> Result<TupleStore> {
        TupleStore::make(columns, true, kilobytes)
    }

    fn make(columns: &[RowColumn], held: bool, kilobytes: i32) -> Result<TupleStore> {
        // SAFETY: everything is allocated below the (sub)transaction's context, not in that of an
        // SPI connection, which may end sooner; `drop` or an abort frees it.
        unsafe {
            let names: Vec<CString> =
                columns.iter().map(|c| c_string(&c.name)).collect::<Result<_>>()?;
            let above = match held {
                true => pg_sys::TopMemoryContext,
                false => pg_sys::CurTransactionContext,
            };
            let context = pg_sys::AllocSetContextCreateExtended(
                above,
                c"coco rows".as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            );
            let before = pg_sys::MemoryContextSwitchTo(context);
            let shape = pg_sys::CreateTemplateTupleDesc(columns.len() as i32);
            for (i, column) in columns.iter().enumerate() {
                let name = &names[i];
                let number = i as pg_sys::AttrNumber + 1;
                pg_sys::TupleDescInitEntry(
                    shape,
                    number,
                    name.as_ptr(),
                    column.type_oid,
                    column.typmod,
                    0,
                );
                if column.collation != pg_sys::InvalidOid {
                    pg_sys::TupleDescInitEntryCollation(shape, number, column.collation);
                }
            }
            let store = pg_sys::tuplestore_begin_heap(false, held, kilobytes);
            let slot = pg_sys::MakeSingleTupleTableSlot(shape, &pg_sys::TTSOpsMinimalTuple);
            pg_sys::MemoryContextSwitchTo(before);
            let types: Vec<String> =
                columns.iter().map(|c| format!("{}.{}", c.type_oid.to_u32(), c.typmod)).collect();
            let types = types.join(",");
            let is_variable = |place: &usize| (*attribute(shape, *place)).attlen == -1;
            let variable = (0..columns.len()).filter(is_variable).collect();
            Ok(TupleStore { store, shape, slot, context, len: 0, types, variable, held })
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns the descriptor of the columns.
    pub fn shape(&self) -> pg_sys::TupleDesc {
        self.shape
    }

    /// Reads the next row; `false` at the end. [`TupleStore::datum`] returns its columns.
    pub fn advance(&mut self) -> bool {
        // SAFETY: store and slot live as long as `self`. So does the row, which the slot frees at
        // the next call: a row read from disk is allocated in the current context.
        unsafe {
            let before = pg_sys::MemoryContextSwitchTo(self.context);
            let there = pg_sys::tuplestore_gettupleslot(self.store, true, false, self.slot);
            pg_sys::MemoryContextSwitchTo(before);
            there
        }
    }

    /// Reports whether no row is on disk.
    pub fn is_in_memory(&self) -> bool {
        // SAFETY: the store lives as long as `self`.
        unsafe { pg_sys::tuplestore_in_memory(self.store) }
    }

    /// Rewinds to before the first row.
    pub fn rewind(&mut self) {
        // SAFETY: as above.
        unsafe { pg_sys::tuplestore_rescan(self.store) }
    }

    /// Returns the row just read, valid until the next row is read.
    pub fn row(&self) -> Row {
        // SAFETY: the slot contains the row just read.
        unsafe { Row::of(self.slot) }
    }

    /// Returns a column of the row just read, counted from 0.
    pub fn datum(&self, column: usize) -> Option<pg_sys::Datum> {
        self.row().datum(column)
    }

    /// Returns the uncompressed size in bytes of a column of the row just read if its length
    /// varies; otherwise 0.
    pub fn varying_bytes(&self, column: usize) -> usize {
        match self.datum(column).filter(|_| self.variable.contains(&column)) {
            // SAFETY: a value of a type of varying length, in the row just read.
            Some(value) => unsafe { pg_sys::toast_raw_datum_size(value) },
            None => 0,
        }
    }

    /// Returns a column of the row just read as a Rust value. Raises 42804 if its type differs.
    pub fn get<T: pgrx::FromDatum + pgrx::IntoDatum>(&self, column: usize) -> Option<T> {
        self.row().get(column)
    }

    /// Appends the rows of another store of the same row type.
    pub fn append(&mut self, other: &mut TupleStore) -> Result<()> {
        self.check_same(other)?;
        other.rewind();
        while other.advance() {
            // SAFETY: both slots have the row type of the store.
            unsafe { pg_sys::tuplestore_puttupleslot(self.store, other.slot) };
            self.len += 1;
        }
        Ok(())
    }

    /// Appends those rows of another store of the same row type for which `takes` returns true.
    pub fn append_where(
        &mut self,
        other: &mut TupleStore,
        takes: impl Fn(&TupleStore) -> bool,
    ) -> Result<()> {
        self.check_same(other)?;
        other.rewind();
        while other.advance() {
            if takes(other) {
                // SAFETY: as above.
                unsafe { pg_sys::tuplestore_puttupleslot(self.store, other.slot) };
                self.len += 1;
            }
        }
        Ok(())
    }

    /// Checks that another store has the same types.
    fn check_same(&self, other: &TupleStore) -> Result<()> {
        match self.types == other.types {
            true => Ok(()),
            // SAFETY: both descriptors live as long as their rows.
            false => unsafe { check_shape(other.shape, self.shape) },
        }
    }

    /// Returns the next rows, at most `most`. `columns` are those that the store was created with.
    pub fn take(&mut self, columns: &[RowColumn], most: usize) -> Result<TupleStore> {
        let mut some = TupleStore::new(columns)?;
        some.check_same(self)?;
        self.move_into(&mut some, most, usize::MAX);
        Ok(some)
    }

    /// Returns the next rows, at most `most`, up to the row that reaches this number of bytes. The
    /// rows stay in memory.
    pub fn take_some(
        &mut self,
        columns: &[RowColumn],
        most: usize,
        bytes: usize,
    ) -> Result<TupleStore> {
        // The overhead of a row is smaller than its bytes, except for the shortest rows.
        let kilobytes = i32::try_from(bytes / 1024).unwrap_or(i32::MAX).saturating_mul(2);
        let mut some = TupleStore::within(columns, kilobytes.max(work_mem()))?;
        some.check_same(self)?;
        self.move_into(&mut some, most, bytes);
        Ok(some)
    }

    fn move_into(&mut self, some: &mut TupleStore, most: usize, bytes: usize) {
        let mut taken = 0;
        while some.len < most && taken < bytes && self.advance() {
            // SAFETY: both slots have the same row type. A slot for minimal tuples contains the one
            // that was read.
            unsafe {
                pg_sys::tuplestore_puttupleslot(some.store, self.slot);
                let slot = &*self.slot.cast::<pg_sys::MinimalTupleTableSlot>();
                taken += (*slot.mintuple).t_len as usize;
            }
            some.len += 1;
        }
    }

    /// Moves to the position after the first `read` rows.
    pub fn seek(&mut self, read: usize) {
        self.rewind();
        // SAFETY: the store lives as long as `self`.
        unsafe { pg_sys::tuplestore_skiptuples(self.store, read as i64, true) };
    }

    /// Adds a row of values of a statement. Fetches values that are stored out of line, so that the
    /// row stays readable later.
    ///
    /// # Safety
    /// The number of values equals the number of columns, and each value has its column's type.
    pub unsafe fn push_whole(&mut self, values: *mut pg_sys::Datum, nulls: *mut bool) {
        // SAFETY: the caller upholds the same contract; the store copies the row.
        unsafe {
            let mut fetched = Vec::new();
            for place in &self.variable {
                if *nulls.add(*place) {
                    continue;
                }
                let value = &mut *values.add(*place);
                let varlena = value.cast_mut_ptr::<pg_sys::varlena>();
                if pgrx::varlena::varatt_is_1b_e(varlena) {
                    let whole = pg_sys::detoast_attr(varlena);
                    *value = pg_sys::Datum::from(whole);
                    fetched.push(whole);
                }
            }
            pg_sys::tuplestore_putvalues(self.store, self.shape, values, nulls);
            fetched.into_iter().for_each(|whole| pg_sys::pfree(whole.cast()));
        }
        self.len += 1;
    }

    /// Adds a row; the values are copied.
    pub fn push(&mut self, values: &[Option<pg_sys::Datum>]) {
        let mut datums: Vec<_> =
            values.iter().map(|v| v.unwrap_or(pg_sys::Datum::from(0usize))).collect();
        let mut nulls: Vec<bool> = values.iter().map(Option::is_none).collect();
        // SAFETY: the number of values is checked; the callers pass values of the columns' types.
        unsafe {
            let count = (*self.shape).natts.max(0) as usize;
            if values.len() != count {
                let given = values.len();
                Error::internal(format!("{given} values for a row of {count} columns")).raise();
            }
            pg_sys::tuplestore_putvalues(
                self.store,
                self.shape,
                datums.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
        }
        self.len += 1;
    }
}

impl Drop for TupleStore {
    fn drop(&mut self) {
        // During a panic the transaction is about to abort, which frees all three. Touching a store
        // whose temporary file is closed would not be safe.
        if self.held || !std::thread::panicking() {
            // SAFETY: created with this store, used by nothing else, and freed only here.
            unsafe {
                pg_sys::ExecDropSingleTupleTableSlot(self.slot);
                pg_sys::tuplestore_end(self.store);
                pg_sys::MemoryContextDelete(self.context);
            }
        }
    }
}

/// Returns `work_mem`, in kilobytes.
pub fn work_mem() -> i32 {
    // SAFETY: reads the backend's own state.
    unsafe { pg_sys::work_mem }
}

/// Returns `maintenance_work_mem`, in kilobytes, for work that one process does once.
pub fn maintenance_work_mem() -> i32 {
    // SAFETY: reads the backend's own state.
    unsafe { pg_sys::maintenance_work_mem }
}
