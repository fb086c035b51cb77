//! Inserting many rows as COPY does: a page at a time, with one WAL record a page, where INSERT writes
//! one a row. Indexes and constraints are those of the table, and so are the errors.

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::error::Result;
use super::sql::{self, Arg, arg, ident, literal};
use super::tuples::{Rows, Statements, attribute};

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

/// Writes `select <expressions> from …` into these columns of a table; returns how many rows. Few rows, or
/// a table that is more than a plain one, are left to INSERT.
pub fn insert(
    statements: &Statements,
    table: &str,
    columns: &[(String, String)],
    from: &str,
    args: &[Arg],
) -> Result<i64> {
    let filling = Filling { table, columns, entries: Entries::AtOnce, counted: None };
    if statements.reads_many_rows()
        && let Some(written) = as_copy(statements, &[filling], None, from, args, false)?
    {
        return Ok(written);
    }
    let (names, expressions): (Vec<_>, Vec<_>) =
        columns.iter().map(|(name, e)| (ident(name), e.as_str())).unzip();
    let insert = format!(
        "insert into {table} ({}) select {} from {from}",
        names.join(", "),
        expressions.join(", ")
    );
    statements.execute(&insert, args)
}

/// When the entries of the table's indexes are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Entries {
    AtOnce,
    /// By [`super::indexes::add_entries`].
    Later,
}

/// Rows that are kept, and which columns of a SELECT they are made of.
pub struct Keeping<'a> {
    pub rows: &'a mut Rows,
    /// An expression for each column but the first, which counts.
    pub expressions: Vec<String>,
    /// The number of the first row.
    pub first: i64,
}

/// A table, and which columns of a SELECT go there.
#[derive(Clone, Copy)]
pub struct Filling<'a> {
    pub table: &'a str,
    /// Names, and expressions.
    pub columns: &'a [(String, String)],
    pub entries: Entries,
    /// A column of type bigint that counts the rows, and the number of the first.
    pub counted: Option<(&'a str, i64)>,
}

impl<'a> Filling<'a> {
    /// A table that gets its index entries later.
    pub fn new(table: &'a str, columns: &'a [(String, String)]) -> Filling<'a> {
        Filling { table, columns, entries: Entries::Later, counted: None }
    }
}

/// As [`insert()`], of a SELECT under the snapshot that is active, whose rows go to several tables at once, and
/// are kept. `None` where this is left to INSERT: then some of the rows may be written.
pub fn fill(
    statements: &Statements,
    tables: &[Filling],
    keeping: Option<Keeping>,
    from: &str,
    args: &[Arg],
) -> Result<Option<i64>> {
    as_copy(statements, tables, keeping, from, args, true)
}

fn as_copy(
    statements: &Statements,
    tables: &[Filling],
    keeping: Option<Keeping>,
    from: &str,
    args: &[Arg],
    as_active: bool,
) -> Result<Option<i64>> {
    let mut oids = Vec::new();
    for filling in tables {
        match oid_of(filling.table)? {
            Some(oid) => oids.push(oid),
            None => return Ok(None),
        }
    }
    // SAFETY: closed below; an error closes them with the transaction. The locks stay, as after INSERT.
    unsafe {
        let open = |oid: &pg_sys::Oid| pg_sys::table_open(*oid, pg_sys::RowExclusiveLock as i32);
        let relations: Vec<pg_sys::Relation> = oids.iter().map(open).collect();
        let mut list = Some(Vec::new());
        for (relation, filling) in relations.iter().zip(tables) {
            let more = selected(*relation, filling.table, filling.columns)?;
            list = list.zip(more).map(|(list, more)| [list, more].concat());
        }
        if relations.iter().zip(tables).any(|(r, filling)| runs_functions(*r, filling.entries)) {
            statements.by_one_process();
        }
        let mut written = None;
        if let Some(mut list) = list {
            if let Some(keeping) = &keeping {
                list.push("null::pg_catalog.int8".to_owned());
                list.extend_from_slice(&keeping.expressions);
            }
            // Once several processes are at work none is given out.
            pg_sys::GetCurrentTransactionId();
            let select = format!("select {} from {from}", list.join(", "));
            let mut receiver = Receiver::new(&relations, tables, keeping);
            let rows = statements.send(&select, args, receiver.destination(), as_active)?;
            written = receiver.fits.then_some(rows);
            receiver.end();
        }
        for relation in relations {
            pg_sys::table_close(relation, pg_sys::NoLock as i32);
        }
        Ok(written)
    }
}

/// Whether functions of constraints or indexes run for each row that is written: they need not be fit to run
/// while several processes read.
unsafe fn runs_functions(relation: pg_sys::Relation, entries: Entries) -> bool {
    // SAFETY: an open relation.
    unsafe {
        let constraints = (*(*relation).rd_att).constr;
        entries == Entries::AtOnce || !constraints.is_null() && (*constraints).num_check > 0
    }
}

/// Whether rows of these columns can be written so, as far as is known without them.
pub fn is_fit(table: &str, columns: &[(String, String)]) -> Result<bool> {
    let Some(oid) = oid_of(table)? else {
        return Ok(false);
    };
    // SAFETY: as above.
    unsafe {
        let relation = pg_sys::table_open(oid, pg_sys::RowExclusiveLock as i32);
        let list = selected(relation, table, columns)?;
        pg_sys::table_close(relation, pg_sys::NoLock as i32);
        Ok(list.is_some())
    }
}

/// A table by its quoted name.
pub fn oid_of(table: &str) -> Result<Option<pg_sys::Oid>> {
    sql::one("select $1::text::regclass::oid", &[arg(table)])
}

/// What is selected for a table; `None` where its rows are left to INSERT.
unsafe fn selected(
    relation: pg_sys::Relation,
    table: &str,
    columns: &[(String, String)],
) -> Result<Option<Vec<String>>> {
    // SAFETY: an open relation.
    unsafe {
        match is_plain(relation) {
            true => expressions(relation, table, columns),
            false => Ok(None),
        }
    }
}

/// Whether an INSERT of this user's would do no more than to check constraints, and to write heap and
/// indexes.
unsafe fn is_plain(relation: pg_sys::Relation) -> bool {
    // SAFETY: an open relation.
    unsafe {
        let class = &*(*relation).rd_rel;
        class.relkind == pg_sys::RELKIND_RELATION as std::ffi::c_char
            && class.relam == pg_sys::HEAP_TABLE_AM_OID
            && !class.relhastriggers
            && !class.relhasrules
            && !class.relrowsecurity
            && !class.relispartition
            && !pg_sys::XactReadOnly
            && pg_sys::pg_class_aclcheck(
                (*relation).rd_id,
                pg_sys::GetUserId(),
                pg_sys::ACL_INSERT as pg_sys::AclMode,
            ) == pg_sys::AclResult::ACLCHECK_OK
    }
}

/// An expression for each of the table's columns. `None` where one has a default that is not to be had here.
unsafe fn expressions(
    relation: pg_sys::Relation,
    table: &str,
    columns: &[(String, String)],
) -> Result<Option<Vec<String>>> {
    let mut list = Vec::new();
    // SAFETY: an open relation has as many attributes as it says.
    let shape = unsafe { (*relation).rd_att };
    for place in 0..unsafe { (*shape).natts } as usize {
        let attribute = unsafe { &*attribute(shape, place) };
        let name = pgrx::name_data_to_str(&attribute.attname);
        if attribute.attisdropped || attribute.attgenerated != 0 {
            return Ok(None);
        }
        let given = columns.iter().find(|(column, _)| column == name);
        list.push(match given {
            Some((_, expression)) => expression.clone(),
            None if attribute.attidentity != 0 => match next_of(table, name)? {
                Some(next) => next,
                None => return Ok(None),
            },
            None if attribute.atthasdef => return Ok(None),
            None => format!("null::{}", sql::type_name(attribute.atttypid, attribute.atttypmod)?),
        });
    }
    Ok(Some(list))
}

/// The next value of an identity column, where this user may take it.
fn next_of(table: &str, column: &str) -> Result<Option<String>> {
    let sequence = sql::one::<String>(
        "select s.name from pg_get_serial_sequence($1, $2) as s(name)
          where has_sequence_privilege(s.name, 'usage')",
        &[arg(table), arg(column)],
    )?;
    Ok(sequence.map(|s| format!("pg_catalog.nextval({}::pg_catalog.regclass)", literal(&s))))
}

/// Where the rows of a SELECT go.
#[repr(C)]
struct Receiver<'a> {
    /// What Postgres knows of it; the first field.
    public: pg_sys::DestReceiver,
    /// The rows are of the tables' types, modifiers included: none is to be cast.
    fits: bool,
    tables: Vec<Table>,
    keeping: Option<Keeping<'a>>,
}

/// One of the tables that they go to.
struct Table {
    relation: pg_sys::Relation,
    state: *mut pg_sys::EState,
    result: *mut pg_sys::ResultRelInfo,
    entries: Entries,
    /// Where its columns are among those of the SELECT.
    columns: std::ops::Range<usize>,
    /// Those of them that are not to be NULL; whether more is to be checked.
    required: Vec<usize>,
    checks: bool,
    /// The place of the column that counts, and the next number.
    counted: Option<(usize, i64)>,
    /// Holds the rows that are not written yet.
    context: pg_sys::MemoryContext,
    slots: Vec<*mut pg_sys::TupleTableSlot>,
    rows: usize,
    bytes: usize,
}

impl<'a> Receiver<'a> {
    /// # Safety
    /// The relations stay open until `end`.
    unsafe fn new(
        relations: &[pg_sys::Relation],
        tables: &[Filling],
        keeping: Option<Keeping<'a>>,
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
    fn destination(&mut self) -> *mut pg_sys::DestReceiver {
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
            if let Some(Keeping { rows, first: number, .. }) = &mut self.keeping {
                let (values, nulls) = (values.add(first), nulls.add(first));
                *values = pg_sys::Datum::from(*number + rows.len() as i64);
                *nulls = false;
                rows.push_whole(values, nulls);
            }
        }
    }

    unsafe fn end(self) {
        // SAFETY: made in `new`.
        self.tables.into_iter().for_each(|table| unsafe { table.end() });
    }
}

impl Table {
    /// # Safety
    /// The relation stays open until `end`.
    unsafe fn new(relation: pg_sys::Relation, filling: &Filling, first: usize) -> Table {
        // SAFETY: all of it is freed in `end`, or with the transaction.
        unsafe {
            let state = pg_sys::CreateExecutorState();
            let result = result_of(relation);
            if filling.entries == Entries::AtOnce {
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
                places.clone().find(|place| pgrx::name_data_to_str(&at(*place).attname) == name)
            };
            Table {
                relation,
                state,
                result,
                entries: filling.entries,
                columns,
                required,
                checks: !constraints.is_null() && (*constraints).num_check > 0,
                counted: filling.counted.and_then(|(name, number)| Some((named(name)?, number))),
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
            if self.entries == Entries::AtOnce {
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
        receiver.fits =
            (*rows).natts as usize == columns.len() && columns.iter().enumerate().all(fits);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn nothing(_receiver: *mut pg_sys::DestReceiver) {}
