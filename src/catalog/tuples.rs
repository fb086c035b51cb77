//! Rows that pass between two statements without leaving Postgres: tuplestores, which spill to
//! disk at `work_mem`, and which a statement reads by name like a trigger's transition table.

use std::cell::{Cell, RefCell};
use std::ffi::CString;
use std::ptr;

use pgrx::pg_sys;

use super::error::{Error, Result};
use super::model::{Column, numbered};
use super::plans;
use super::sql::Arg;
use super::stream::Row;

/// A column of a [`Rows`].
#[derive(Clone, Debug)]
pub struct RowColumn {
    pub name: String,
    pub type_oid: pg_sys::Oid,
    pub typmod: i32,
    pub collation: pg_sys::Oid,
}

impl RowColumn {
    pub fn new(name: impl Into<String>, type_oid: pg_sys::Oid) -> RowColumn {
        // The type's own collation: what TupleDescInitEntry puts in.
        RowColumn { name: name.into(), type_oid, typmod: -1, collation: pg_sys::InvalidOid }
    }
}

/// Columns of these types, named `prefix1`, `prefix2`, …
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

/// Rows of one shape, kept in a tuplestore of the (sub)transaction it was made in.
pub struct Rows {
    store: *mut pg_sys::Tuplestorestate,
    shape: pg_sys::TupleDesc,
    slot: *mut pg_sys::TupleTableSlot,
    /// Holds all of it, below the (sub)transaction's own, which stays empty and goes at its end.
    context: pg_sys::MemoryContext,
    len: usize,
    /// The types of its columns.
    types: String,
    /// The places of columns whose values may be elsewhere.
    variable: Vec<usize>,
    /// It outlives the transaction that it was made in, and is filled there.
    held: bool,
}

unsafe extern "C-unwind" {
    // executor/tstoreReceiver.h; the same from 14 to 18, and not among pgrx's bindings.
    fn SetTuplestoreDestReceiverParams(
        receiver: *mut pg_sys::DestReceiver,
        store: *mut pg_sys::Tuplestorestate,
        context: pg_sys::MemoryContext,
        detoast: bool,
        target: pg_sys::TupleDesc,
        map_failure: *const std::ffi::c_char,
    );
}

impl Rows {
    pub fn new(columns: &[RowColumn]) -> Result<Rows> {
        Rows::make(columns, false, work_mem())
    }

    /// The same; it goes to disk only beyond so many kilobytes.
    pub fn within(columns: &[RowColumn], kilobytes: i32) -> Result<Rows> {
        Rows::make(columns, false, kilobytes)
    }

    /// Rows that are kept for later transactions; to be filled in this one.
    pub fn held(columns: &[RowColumn], kilobytes: i32) -> Result<Rows> {
        Rows::make(columns, true, kilobytes)
    }

    fn make(columns: &[RowColumn], held: bool, kilobytes: i32) -> Result<Rows> {
        // SAFETY: everything is allocated below the (sub)transaction's context, not in that of an
        // SPI connection, which may end sooner; it is freed in `drop`, or by an abort.
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
            Ok(Rows { store, shape, slot, context, len: 0, types, variable, held })
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// The types of its columns, as Postgres has them.
    pub fn shape(&self) -> pg_sys::TupleDesc {
        self.shape
    }

    /// Reads the next row; `false` at the end. Its columns are read with [`Rows::datum`].
    pub fn advance(&mut self) -> bool {
        // SAFETY: store and slot live as long as self; and so does the row, which the slot frees at the
        // next call: what is read from disk is allocated where we are.
        unsafe {
            let before = pg_sys::MemoryContextSwitchTo(self.context);
            let there = pg_sys::tuplestore_gettupleslot(self.store, true, false, self.slot);
            pg_sys::MemoryContextSwitchTo(before);
            there
        }
    }

    /// Whether none of them is on disk.
    pub fn is_in_memory(&self) -> bool {
        // SAFETY: the store lives as long as self.
        unsafe { pg_sys::tuplestore_in_memory(self.store) }
    }

    /// Goes back to before the first row.
    pub fn rewind(&mut self) {
        // SAFETY: as above.
        unsafe { pg_sys::tuplestore_rescan(self.store) }
    }

    /// The row just read, valid until the next is read.
    pub fn row(&self) -> Row {
        // SAFETY: the slot holds the row just read.
        unsafe { Row::of(self.slot) }
    }

    /// A column (from 0) of it.
    pub fn datum(&self, column: usize) -> Option<pg_sys::Datum> {
        self.row().datum(column)
    }

    /// The same; its type is the one that this was declared with.
    pub fn get<T: pgrx::FromDatum>(&self, column: usize) -> Option<T> {
        self.row().get(column)
    }

    /// Adds the rows of another of the same shape.
    pub fn append(&mut self, other: &mut Rows) {
        other.rewind();
        while other.advance() {
            // SAFETY: both slots are of the shape the store was made with.
            unsafe { pg_sys::tuplestore_puttupleslot(self.store, other.slot) };
            self.len += 1;
        }
    }

    /// Adds the rows of another of the same shape which `takes` takes.
    pub fn append_where(&mut self, other: &mut Rows, takes: impl Fn(&Rows) -> bool) {
        other.rewind();
        while other.advance() {
            if takes(other) {
                // SAFETY: as above.
                unsafe { pg_sys::tuplestore_puttupleslot(self.store, other.slot) };
                self.len += 1;
            }
        }
    }

    /// The rows that come next, `most` of them; the columns are those it was made with.
    pub fn take(&mut self, columns: &[RowColumn], most: usize) -> Result<Rows> {
        let mut some = Rows::new(columns)?;
        self.move_into(&mut some, most, usize::MAX);
        Ok(some)
    }

    /// The same, but no more than have so many bytes together, and one; they stay in memory.
    pub fn take_some(&mut self, columns: &[RowColumn], most: usize, bytes: usize) -> Result<Rows> {
        // What a row needs beside its bytes is less than these, but for the shortest.
        let kilobytes = i32::try_from(bytes / 1024).unwrap_or(i32::MAX).saturating_mul(2);
        let mut some = Rows::within(columns, kilobytes.max(work_mem()))?;
        self.move_into(&mut some, most, bytes);
        Ok(some)
    }

    fn move_into(&mut self, some: &mut Rows, most: usize, bytes: usize) {
        let mut taken = 0;
        while some.len < most && taken < bytes && self.advance() {
            // SAFETY: both slots are of one shape. A slot for minimal tuples holds one that was read.
            unsafe {
                pg_sys::tuplestore_puttupleslot(some.store, self.slot);
                let slot = &*self.slot.cast::<pg_sys::MinimalTupleTableSlot>();
                taken += (*slot.mintuple).t_len as usize;
            }
            some.len += 1;
        }
    }

    /// Goes to where the first `read` rows were read.
    pub fn seek(&mut self, read: usize) {
        self.rewind();
        // SAFETY: the store lives as long as self.
        unsafe { pg_sys::tuplestore_skiptuples(self.store, read as i64, true) };
    }

    /// Writes all rows as bytes, for another process of this server: each after its length. Values are
    /// whole: what they may refer to is not for others to find.
    pub fn write_to(&mut self, bytes: &mut Vec<u8>) {
        self.rewind();
        while self.advance() {
            // SAFETY: the slot holds a row of the shape; all of its columns are filled in first. The row made
            // of them is copied, and goes with the context.
            unsafe {
                let before = pg_sys::MemoryContextSwitchTo(self.context);
                let count = (*self.shape).natts as usize;
                pg_sys::slot_getsomeattrs_int(self.slot, count as i32);
                let mut values = Vec::with_capacity(count);
                for place in 0..count {
                    let value = *(*self.slot).tts_values.add(place);
                    let null = *(*self.slot).tts_isnull.add(place);
                    let inline = (*attribute(self.shape, place)).attlen != -1;
                    values.push(match null || inline {
                        true => value,
                        false => {
                            pg_sys::Datum::from(pg_sys::pg_detoast_datum(value.cast_mut_ptr()))
                        }
                    });
                }
                let row = pg_sys::heap_form_tuple(
                    self.shape,
                    values.as_mut_ptr(),
                    (*self.slot).tts_isnull,
                );
                let data =
                    std::slice::from_raw_parts((*row).t_data.cast::<u8>(), (*row).t_len as usize);
                bytes.extend((*row).t_len.to_ne_bytes());
                bytes.extend(data);
                pg_sys::heap_freetuple(row);
                pg_sys::MemoryContextSwitchTo(before);
            }
        }
    }

    /// Rows of these columns that another process has written so.
    pub fn read_from(columns: &[RowColumn], mut bytes: &[u8]) -> Result<Rows> {
        let cut = || Error::internal("rows end within one");
        let mut rows = Rows::new(columns)?;
        let mut aligned: Vec<u64> = Vec::new();
        while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
            let length = u32::from_ne_bytes(*length);
            let (data, rest) = rest.split_at_checked(length as usize).ok_or_else(cut)?;
            bytes = rest;
            aligned.clear();
            aligned.resize(data.len().div_ceil(size_of::<u64>()), 0);
            // SAFETY: there is room for the row, which is one of this shape; the store copies it.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    data.as_ptr(),
                    aligned.as_mut_ptr().cast(),
                    data.len(),
                );
                let mut row = pg_sys::HeapTupleData {
                    t_len: length,
                    t_data: aligned.as_mut_ptr().cast(),
                    ..Default::default()
                };
                pg_sys::tuplestore_puttuple(rows.store, &raw mut row);
            }
            rows.len += 1;
        }
        Ok(rows)
    }

    /// Adds a row of values of a statement's; what they refer to elsewhere is fetched, so that nothing of it is
    /// needed later.
    ///
    /// # Safety
    /// There are as many values as columns, of their types.
    pub unsafe fn push_whole(&mut self, values: *mut pg_sys::Datum, nulls: *mut bool) {
        // SAFETY: as above; the store copies the row.
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
        // SAFETY: as many values as the shape has columns, by construction of the callers.
        unsafe {
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

impl Drop for Rows {
    fn drop(&mut self) {
        // SAFETY: called once. A panic is only passing when a transaction is about to abort, which
        // frees all three; touching a store whose temporary file is closed would not be safe.
        if self.held || !std::thread::panicking() {
            unsafe {
                pg_sys::ExecDropSingleTupleTableSlot(self.slot);
                pg_sys::tuplestore_end(self.store);
                pg_sys::MemoryContextDelete(self.context);
            }
        }
    }
}

/// One snapshot for all that is read with [`Statements::select_into`] until it is dropped: an item
/// is evaluated as it was when it was found changed, whatever commits in between.
pub struct OneSnapshot(());

impl OneSnapshot {
    pub fn take() -> OneSnapshot {
        // SAFETY: popped in drop; an abort pops it by itself. The counter makes what this
        // transaction has written visible.
        unsafe {
            pg_sys::CommandCounterIncrement();
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
            pg_sys::UpdateActiveSnapshotCommandId();
        }
        OneSnapshot(())
    }

    /// Of what is committed at this moment, also in a transaction that reads as of earlier.
    pub fn latest() -> OneSnapshot {
        // SAFETY: as above.
        unsafe {
            pg_sys::CommandCounterIncrement();
            pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
        }
        OneSnapshot(())
    }
}

impl Drop for OneSnapshot {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: the snapshot pushed in `take`; statements in between pop their own.
            unsafe { pg_sys::PopActiveSnapshot() };
        }
    }
}

/// One SPI connection whose statements may read named [`Rows`].
pub struct Statements {
    /// The names, shapes and sizes of the rows that statements may read, which their plans are for.
    named: RefCell<String>,
    /// Rows that they read, at most; what reads many is planned each time.
    most: Cell<usize>,
    /// How they are planned: `CURSOR_OPT_…`.
    options: Cell<u32>,
}

/// Up to so many rows a plan is kept. To plan costs less than to read more; and a plan that was made
/// for a table that has grown since may take time without end.
const FEW: usize = 1000;

impl Statements {
    /// Connects, and disconnects when dropped.
    pub fn connect() -> Result<Statements> {
        // SAFETY: paired with SPI_finish in drop; an abort pops the connection by itself.
        match unsafe { pg_sys::SPI_connect() } {
            code if code == pg_sys::SPI_OK_CONNECT as i32 => {
                let options = Cell::new(pg_sys::CURSOR_OPT_PARALLEL_OK);
                Ok(Statements { named: RefCell::default(), most: Cell::new(0), options })
            }
            code => Err(Error::internal(format!("SPI_connect returned {code}"))),
        }
    }

    /// Lets the statements that follow read `rows` under this name. `rows` must outlive self.
    pub fn name(&self, name: &str, rows: &Rows) -> Result<()> {
        self.name_as_of(name, rows, rows.len)
    }

    /// As [`Statements::name`], and has them planned as if there were so many.
    pub fn name_as_of(&self, name: &str, rows: &Rows, count: usize) -> Result<()> {
        let c_name = c_string(name)?;
        self.most.set(self.most.get().max(count));
        // A plan for a few rows is no good for many: one for each power of ten.
        let size = count.checked_ilog10().map_or(0, |n| n + 1);
        self.named.borrow_mut().push_str(&format!("{name}:{size}:{};", rows.types));
        // SAFETY: palloc'd in SPI's procedure context, which lives until SPI_finish.
        let code = unsafe {
            let relation = pg_sys::palloc0(size_of::<pg_sys::EphemeralNamedRelationData>())
                .cast::<pg_sys::EphemeralNamedRelationData>();
            (*relation).md.name = pg_sys::pstrdup(c_name.as_ptr());
            (*relation).md.reliddesc = pg_sys::InvalidOid;
            (*relation).md.tupdesc = rows.shape;
            (*relation).md.enrtype = pg_sys::EphemeralNameRelationType::ENR_NAMED_TUPLESTORE;
            (*relation).md.enrtuples = count as f64;
            (*relation).reldata = rows.store.cast();
            pg_sys::SPI_register_relation(relation)
        };
        match code {
            code if code == pg_sys::SPI_OK_REL_REGISTER as i32 => Ok(()),
            code => Err(Error::internal(format!("SPI_register_relation returned {code}"))),
        }
    }

    /// The statements that follow read whole tables.
    pub fn reads_many(&self) {
        self.most.set(usize::MAX);
    }

    /// The statements that follow are run by this process alone.
    pub fn by_one_process(&self) {
        self.options.set(0);
    }

    /// What they read by name is many rows.
    pub fn reads_many_rows(&self) -> bool {
        self.most.get() > FEW
    }

    /// Runs one SELECT whose rows go to a receiver; returns how many. It sees what the batch has written, or,
    /// `as_active`, what the active snapshot ([`OneSnapshot`]) does.
    pub fn send(
        &self,
        sql: &str,
        args: &[Arg],
        receiver: *mut pg_sys::DestReceiver,
        as_active: bool,
    ) -> Result<i64> {
        self.run(sql, args, receiver, as_active)
    }

    /// Runs one statement; returns how many rows it wrote or returned.
    pub fn execute(&self, sql: &str, args: &[Arg]) -> Result<i64> {
        self.run(sql, args, ptr::null_mut(), false)
    }

    /// Runs one SELECT under the snapshot that is active ([`OneSnapshot`]) and appends what it
    /// returns to `rows`.
    pub fn select_into(&self, sql: &str, args: &[Arg], rows: &mut Rows) -> Result<i64> {
        self.run_into(sql, args, rows, true)
    }

    /// As [`Statements::select_into`], but sees what the batch has written.
    pub fn query_into(&self, sql: &str, args: &[Arg], rows: &mut Rows) -> Result<i64> {
        self.run_into(sql, args, rows, false)
    }

    fn run_into(&self, sql: &str, args: &[Arg], rows: &mut Rows, read_only: bool) -> Result<i64> {
        // SAFETY: the receiver is freed with the context; the store lives in `rows`.
        let count = unsafe {
            let receiver = pg_sys::CreateDestReceiver(pg_sys::CommandDest::DestTuplestore);
            // Sets fields alone: it cannot raise an error, and needs no guard.
            SetTuplestoreDestReceiverParams(
                receiver,
                rows.store,
                pg_sys::CurrentMemoryContext,
                false,
                ptr::null_mut(),
                ptr::null(),
            );
            self.run(sql, args, receiver, read_only)?
        };
        rows.len += count as usize;
        Ok(count)
    }

    fn run(
        &self,
        sql: &str,
        args: &[Arg],
        dest: *mut pg_sys::DestReceiver,
        read_only: bool,
    ) -> Result<i64> {
        let sql = c_string(sql)?;
        let mut types: Vec<pg_sys::Oid> = args.iter().map(|a| a.oid()).collect();
        let name = (self.most.get() <= FEW)
            .then(|| format!("{}{}", self.named.borrow(), sql.to_string_lossy()));
        // SAFETY: the parameter list has room for `args`, whose data the caller keeps alive.
        let code = unsafe {
            let plan = plans::plan(name, || {
                preparing(|| {
                    pg_sys::SPI_prepare_cursor(
                        sql.as_ptr(),
                        types.len() as i32,
                        types.as_mut_ptr(),
                        self.options.get() as i32,
                    )
                })
            })?;
            let _running = plans::Running::begin();
            let params = pg_sys::makeParamList(args.len() as i32);
            for (i, a) in args.iter().enumerate() {
                let param = (*params).params.as_mut_ptr().add(i);
                (*param).ptype = a.oid();
                (*param).pflags = pg_sys::PARAM_FLAG_CONST as u16;
                // makeParamList leaves these as they are: both are always set.
                (*param).isnull = a.datum().is_none();
                (*param).value =
                    a.datum().map_or(pg_sys::Datum::from(0usize), |d| d.sans_lifetime());
            }
            let options =
                pg_sys::SPIExecuteOptions { params, read_only, dest, ..Default::default() };
            pg_sys::SPI_execute_plan_extended(plan, &options)
        };
        if code < 0 {
            return Err(Error::internal(format!("SPI_execute_plan_extended returned {code}")));
        }
        // SAFETY: set by the call above.
        Ok(unsafe { pg_sys::SPI_processed } as i64)
    }

    /// The first column of the row a statement returned, as text.
    pub fn first_text(&self, sql: &str, args: &[Arg]) -> Result<Option<String>> {
        self.text_of(sql, args, false)
    }

    /// As [`Statements::first_text`], under the snapshot that is active ([`OneSnapshot`]).
    pub fn read_text(&self, sql: &str, args: &[Arg]) -> Result<Option<String>> {
        self.text_of(sql, args, true)
    }

    fn text_of(&self, sql: &str, args: &[Arg], read_only: bool) -> Result<Option<String>> {
        self.run(sql, args, ptr::null_mut(), read_only)?;
        // SAFETY: SPI_tuptable is the statement's result, or null where it has none.
        unsafe {
            let table = pg_sys::SPI_tuptable;
            if table.is_null() || pg_sys::SPI_processed == 0 {
                return Ok(None);
            }
            let text = pg_sys::SPI_getvalue(*(*table).vals, (*table).tupdesc, 1);
            if text.is_null() {
                return Ok(None);
            }
            Ok(Some(std::ffi::CStr::from_ptr(text).to_string_lossy().into_owned()))
        }
    }

    /// The first column of all rows that a statement returned, as text.
    pub fn texts(&self, sql: &str) -> Result<Vec<String>> {
        self.run(sql, &[], ptr::null_mut(), false)?;
        // SAFETY: as above.
        unsafe {
            let table = pg_sys::SPI_tuptable;
            if table.is_null() {
                return Ok(vec![]);
            }
            let rows = 0..pg_sys::SPI_processed as usize;
            let text = |n| pg_sys::SPI_getvalue(*(*table).vals.add(n), (*table).tupdesc, 1);
            let texts = rows.map(text).filter(|text| !text.is_null());
            Ok(texts.map(|t| std::ffi::CStr::from_ptr(t).to_string_lossy().into_owned()).collect())
        }
    }
}

impl Drop for Statements {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: the connection opened in `connect`.
            unsafe { pg_sys::SPI_finish() };
        }
    }
}

/// A column of a row's shape, by its place from 0.
pub unsafe fn attribute(
    shape: pg_sys::TupleDesc,
    place: usize,
) -> *const pg_sys::FormData_pg_attribute {
    unsafe {
        #[cfg(feature = "pg18")]
        return pg_sys::TupleDescAttr(shape, place as i32);
        #[cfg(not(feature = "pg18"))]
        return (*shape).attrs.as_ptr().add(place);
    }
}

thread_local! {
    static PREPARING: Cell<bool> = const { Cell::new(false) };
}

/// Whether the error being handled was raised while a statement was analysed: then it says that a
/// name or a type does not fit, and no item's data is at fault. Clears the mark.
pub fn was_preparing() -> bool {
    PREPARING.replace(false)
}

/// Analyses a statement. The mark stays where an error ends it.
fn preparing<T>(work: impl FnOnce() -> T) -> T {
    PREPARING.set(true);
    let result = work();
    PREPARING.set(false);
    result
}

/// `work_mem`, in kilobytes.
pub fn work_mem() -> i32 {
    // SAFETY: reads the backend's own state.
    unsafe { pg_sys::work_mem }
}

/// `maintenance_work_mem`, in kilobytes: for what is done once, and by one process.
pub fn maintenance_work_mem() -> i32 {
    // SAFETY: as above.
    unsafe { pg_sys::maintenance_work_mem }
}

fn c_string(s: &str) -> Result<CString> {
    CString::new(s).map_err(|_| Error::invalid("text with a NUL byte"))
}
