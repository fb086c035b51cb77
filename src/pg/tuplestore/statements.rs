//! Statements that read rows by name, or write their results into rows.

use pgrx::pg_sys;
use std::cell::{Cell, RefCell};
use std::ptr;

use crate::pg::error::{Error, Result};
use crate::pg::plan_cache;
use crate::pg::spi::Arg;
use crate::pg::tuplestore::receiver::IntoRows;
use crate::pg::tuplestore::row_types::{PREPARING, c_string};
use crate::pg::tuplestore::rows::TupleStore;

/// One SPI connection whose statements may read named [`TupleStore`]s.
pub struct SpiSession {
    /// The names, types and sizes of the rows that statements may read. Cached plans depend on
    /// them.
    named: RefCell<String>,
    /// The largest number of rows that the statements read. Statements that read many rows are
    /// planned each time.
    most: Cell<usize>,
    /// The options for planning: `CURSOR_OPT_…`.
    options: Cell<u32>,
}

/// The largest number of rows for which a plan is cached. Beyond it, planning costs less than
/// reading. A plan for a table that has grown since could also take very long.
const FEW: usize = 1000;

impl SpiSession {
    /// Connects, and disconnects when dropped.
    pub fn connect() -> Result<SpiSession> {
        // SAFETY: paired with SPI_finish in `drop`; an abort also ends the connection.
        match unsafe { pg_sys::SPI_connect() } {
            code if code == pg_sys::SPI_OK_CONNECT as i32 => {
                let options = Cell::new(pg_sys::CURSOR_OPT_PARALLEL_OK);
                Ok(SpiSession { named: RefCell::default(), most: Cell::new(0), options })
            }
            code => Err(Error::internal(format!("SPI_connect returned {code}"))),
        }
    }

    /// Allows the statements that follow to read `rows` under this name. `rows` must outlive
    /// `self`.
    pub fn name(&self, name: &str, rows: &TupleStore) -> Result<()> {
        self.name_as_of(name, rows, rows.len)
    }

    /// Names rows as [`SpiSession::name`] does, and plans statements as if the store had `count`
    /// rows.
    pub fn name_as_of(&self, name: &str, rows: &TupleStore, count: usize) -> Result<()> {
        let c_name = c_string(name)?;
        self.most.set(self.most.get().max(count));
        // A plan for a few rows is unsuitable for many: use one plan per power of ten.
        let size = count.checked_ilog10().map_or(0, |n| n + 1);
        self.named.borrow_mut().push_str(&format!("{name}:{size}:{};", rows.types));
        // SAFETY: palloc'd in SPI's procedure context, which exists until SPI_finish.
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

    /// Declares that the statements that follow read whole tables.
    pub fn reads_many(&self) {
        self.most.set(usize::MAX);
    }

    /// Runs the statements that follow without parallel workers.
    pub fn by_one_process(&self) {
        self.options.set(0);
    }

    /// Reports whether the named rows are many.
    pub fn reads_many_rows(&self) -> bool {
        self.most.get() > FEW
    }

    /// Runs one SELECT whose rows go to a receiver, and returns their number. The SELECT sees what
    /// the batch has written, or, with `as_active`, what the active snapshot
    /// ([`PinnedSnapshot`](crate::pg::snapshot::PinnedSnapshot)) sees.
    pub fn send(
        &self,
        sql: &str,
        args: &[Arg],
        receiver: *mut pg_sys::DestReceiver,
        as_active: bool,
    ) -> Result<i64> {
        self.run(sql, args, receiver, as_active)
    }

    /// Runs one statement, and returns the number of rows that it wrote or returned.
    pub fn execute(&self, sql: &str, args: &[Arg]) -> Result<i64> {
        self.run(sql, args, ptr::null_mut(), false)
    }

    /// Runs one SELECT under the active snapshot
    /// ([`PinnedSnapshot`](crate::pg::snapshot::PinnedSnapshot)), and appends its result to `rows`.
    pub fn select_into(&self, sql: &str, args: &[Arg], rows: &mut TupleStore) -> Result<i64> {
        self.run_into(sql, args, rows, true)
    }

    /// Does the same, but sees what the batch has written.
    pub fn query_into(&self, sql: &str, args: &[Arg], rows: &mut TupleStore) -> Result<i64> {
        self.run_into(sql, args, rows, false)
    }

    fn run_into(
        &self,
        sql: &str,
        args: &[Arg],
        rows: &mut TupleStore,
        read_only: bool,
    ) -> Result<i64> {
        let mut receiver = IntoRows::new(rows);
        let count = self.run(sql, args, receiver.destination(), read_only)?;
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
        // SAFETY: the parameter list has space for `args`, whose data the caller keeps alive.
        let code = unsafe {
            let plan = plan_cache::plan(name, || {
                preparing(|| {
                    pg_sys::SPI_prepare_cursor(
                        sql.as_ptr(),
                        types.len() as i32,
                        types.as_mut_ptr(),
                        self.options.get() as i32,
                    )
                })
            })?;
            let _running = plan_cache::PlanInUse::begin();
            let params = pg_sys::makeParamList(args.len() as i32);
            for (i, a) in args.iter().enumerate() {
                let param = (*params).params.as_mut_ptr().add(i);
                (*param).ptype = a.oid();
                (*param).pflags = pg_sys::PARAM_FLAG_CONST as u16;
                // makeParamList does not initialize these fields.
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
        // SAFETY: the call above has set the variable.
        Ok(unsafe { pg_sys::SPI_processed } as i64)
    }

    /// Returns the first column of the first row that a statement returns, as text.
    pub fn first_text(&self, sql: &str, args: &[Arg]) -> Result<Option<String>> {
        self.text_of(sql, args, false)
    }

    /// Does the same under the active snapshot
    /// ([`PinnedSnapshot`](crate::pg::snapshot::PinnedSnapshot)).
    pub fn read_text(&self, sql: &str, args: &[Arg]) -> Result<Option<String>> {
        self.text_of(sql, args, true)
    }

    fn text_of(&self, sql: &str, args: &[Arg], read_only: bool) -> Result<Option<String>> {
        self.run(sql, args, ptr::null_mut(), read_only)?;
        // SAFETY: SPI_tuptable is the statement's result, or null if it has none.
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

    /// Returns the first column of all rows that a statement returns, as text.
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

impl Drop for SpiSession {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: ends the connection that `connect` opened.
            unsafe { pg_sys::SPI_finish() };
        }
    }
}

/// Runs `work`, which analyzes a statement. If an error ends it, the mark stays set.
fn preparing<T>(work: impl FnOnce() -> T) -> T {
    PREPARING.set(true);
    let result = work();
    PREPARING.set(false);
    result
}
