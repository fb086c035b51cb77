//! Running coco's own statements and quoting the names in them.

use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::spi::{OwnedPreparedStatement, SpiHeapTupleData, SpiTupleTable};
use pgrx::{FromDatum, IntoDatum, pg_sys};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::thread::LocalKey;

use crate::pg::error::{Error, Result};

/// An argument of a statement, `$1` and so on.
pub type Arg<'a> = DatumWithOid<'a>;

pub fn arg<'a, T: IntoDatum>(value: T) -> Arg<'a> {
    value.into()
}

/// Quotes an identifier, as the server does.
pub fn ident(name: &str) -> String {
    pgrx::spi::quote_identifier(name)
}

pub fn qualified(schema: &str, name: &str) -> String {
    pgrx::spi::quote_qualified_identifier(schema, name)
}

/// Quotes a literal, as the server does.
pub fn literal(text: &str) -> String {
    pgrx::spi::quote_literal(text)
}

/// Statements of coco's own that are prepared once a backend.
const KEPT: usize = 300;

thread_local! {
    static SELECTS: RefCell<HashMap<String, Rc<OwnedPreparedStatement>>> = RefCell::default();
    static CHANGES: RefCell<HashMap<String, Rc<OwnedPreparedStatement>>> = RefCell::default();
}

type StatementCache = LocalKey<RefCell<HashMap<String, Rc<OwnedPreparedStatement>>>>;

fn prepared(
    kept: &'static StatementCache,
    query: &str,
    prepare: impl FnOnce() -> Result<OwnedPreparedStatement>,
) -> Result<Rc<OwnedPreparedStatement>> {
    if let Some(known) = kept.with(|k| k.borrow().get(query).cloned()) {
        return Ok(known);
    }
    let new = Rc::new(prepare()?);
    let old = kept.with(|k| {
        let mut kept = k.borrow_mut();
        let old = match kept.len() >= KEPT {
            true => std::mem::take(&mut *kept),
            false => HashMap::new(),
        };
        kept.insert(query.to_owned(), new.clone());
        old
    });
    drop(old);
    Ok(new)
}

fn types(args: &[Arg]) -> Vec<PgOid> {
    args.iter().map(|a| PgOid::from(a.oid())).collect()
}

/// Whether a statement is one to be prepared, and not one that defines something, once.
fn reads_or_writes(query: &str) -> bool {
    ["select", "insert", "update", "delete", "with"]
        .iter()
        .any(|verb| query.trim_start().starts_with(verb))
}

/// Reads rows, without taking a transaction id.
pub fn select<T>(
    query: &str,
    args: &[Arg],
    row: impl Fn(&SpiHeapTupleData) -> Result<T>,
) -> Result<Vec<T>> {
    Spi::connect(|client| {
        let statement =
            prepared(&SELECTS, query, || Ok(client.prepare(query, &types(args))?.keep()))?;
        collect(client.select(&*statement, None, args)?, row)
    })
}

/// Writes, and reads the rows the statement returns.
pub fn returning<T>(
    query: &str,
    args: &[Arg],
    row: impl Fn(&SpiHeapTupleData) -> Result<T>,
) -> Result<Vec<T>> {
    Spi::connect_mut(|client| {
        let statement =
            prepared(&CHANGES, query, || Ok(client.prepare_mut(query, &types(args))?.keep()))?;
        collect(client.update(&*statement, None, args)?, row)
    })
}

fn collect<T>(
    table: SpiTupleTable,
    row: impl Fn(&SpiHeapTupleData) -> Result<T>,
) -> Result<Vec<T>> {
    let mut rows = Vec::with_capacity(table.len());
    for tuple in table {
        rows.push(row(&tuple)?);
    }
    Ok(rows)
}

/// Reads the first column of the first row. `None` where there is no row, or NULL in it.
pub fn scalar<T: FromDatum + IntoDatum>(query: &str, args: &[Arg]) -> Result<Option<T>> {
    Ok(select(query, args, |r| Ok(r.get::<T>(1)?))?.pop().flatten())
}

/// Writes; returns the number of rows.
pub fn execute(query: &str, args: &[Arg]) -> Result<i64> {
    Spi::connect_mut(|client| {
        if !reads_or_writes(query) {
            return with_hint(|| Ok(client.update(query, None, args)?.len() as i64));
        }
        let statement =
            prepared(&CHANGES, query, || Ok(client.prepare_mut(query, &types(args))?.keep()))?;
        Ok(client.update(&*statement, None, args)?.len() as i64)
    })
}

unsafe extern "C-unwind" {
    // utils/elog.h; variadic, and so not among pgrx's bindings.
    fn errhint(format: *const std::ffi::c_char, ...) -> std::ffi::c_int;
}

/// Runs a statement that defines something. An event trigger fires inside it, and finds what it names without a schema on
/// coco's search path: an error about a missing name gets a hint that says so.
fn with_hint<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: the callback lives on this stack. The guard takes it off before this returns, and before an error that was
    // raised unwinds past this.
    unsafe {
        let _off = CallbacksGuard(pg_sys::error_context_stack);
        let mut hint = pg_sys::ErrorContextCallback {
            previous: pg_sys::error_context_stack,
            callback: Some(add_hint),
            arg: std::ptr::null_mut(),
        };
        pg_sys::error_context_stack = &raw mut hint;
        work()
    }
}

/// Puts the error context callbacks back.
struct CallbacksGuard(*mut pg_sys::ErrorContextCallback);

impl Drop for CallbacksGuard {
    fn drop(&mut self) {
        // SAFETY: those found before, which outlive the guard.
        unsafe { pg_sys::error_context_stack = self.0 };
    }
}

/// Adds the hint to a report in progress, if it is an error about a name that coco itself never leaves unqualified.
unsafe extern "C-unwind" fn add_hint(_arg: *mut std::ffi::c_void) {
    use pgrx::PgSqlErrorCode as Code;
    const NAMES: [Code; 5] = [
        Code::ERRCODE_UNDEFINED_TABLE,
        Code::ERRCODE_UNDEFINED_FUNCTION,
        Code::ERRCODE_UNDEFINED_OBJECT,
        Code::ERRCODE_INVALID_SCHEMA_NAME,
        Code::ERRCODE_UNDEFINED_COLUMN,
    ];
    // SAFETY: called by errfinish, whose report geterrcode and errhint look at and complete. The setting is a string.
    unsafe {
        let code = pg_sys::geterrcode();
        let path = pg_sys::namespace_search_path;
        if NAMES.iter().all(|name| *name as i32 != code)
            || path.is_null()
            || std::ffi::CStr::from_ptr(path) != PATH
        {
            return;
        }
        errhint(
            c"If the CONTEXT names a function of an event trigger: coco's own DDL runs with search_path pg_catalog, pg_temp. Name what the function uses with its schema, or set the function's path with ALTER FUNCTION ... SET search_path.".as_ptr(),
        );
    }
}

/// A column that the catalog declares not null.
pub fn required<T: FromDatum + IntoDatum>(row: &SpiHeapTupleData, column: usize) -> Result<T> {
    row.get::<T>(column)?
        .ok_or_else(|| Error::internal(format!("NULL in column {column} of coco's catalog")))
}

/// The schema-qualified, quoted name of a relation; `None` where it is gone.
pub fn relation_name(relation: pg_sys::Oid) -> Result<Option<String>> {
    scalar(
        "select pg_catalog.format('%I.%I', n.nspname, c.relname)
           from pg_catalog.pg_class c
           join pg_catalog.pg_namespace n on n.oid = c.relnamespace
          where c.oid = $1",
        &[arg(relation)],
    )
}

/// The schema and the name of a relation, not quoted.
pub fn relation_parts(relation: pg_sys::Oid) -> Result<(String, String)> {
    select(
        "select n.nspname::pg_catalog.text, c.relname::pg_catalog.text
           from pg_catalog.pg_class c
           join pg_catalog.pg_namespace n on n.oid operator(pg_catalog.=) c.relnamespace
          where c.oid operator(pg_catalog.=) $1",
        &[arg(relation)],
        |r| Ok((required(r, 1)?, required(r, 2)?)),
    )?
    .pop()
    .ok_or_else(|| Error::internal(format!("relation {} does not exist", relation.to_u32())))
}

/// A type's name as SQL, for casts and column definitions.
pub fn type_name(type_oid: pg_sys::Oid, typmod: i32) -> Result<String> {
    scalar("select pg_catalog.format_type($1, $2)", &[arg(type_oid), arg(typmod)])?
        .ok_or_else(|| Error::internal(format!("type {type_oid} does not exist")))
}

/// Whether a row version of this `xmin`, as text, is this transaction's own.
pub fn is_ours(xmin: &str) -> bool {
    let Ok(xid) = xmin.parse::<u32>() else { return false };
    // SAFETY: reads the backend's own state.
    unsafe { pg_sys::TransactionIdIsCurrentTransactionId(pg_sys::TransactionId::from_inner(xid)) }
}

/// Whether this transaction may not write.
pub fn is_read_only() -> bool {
    // SAFETY: reads the backend's own state.
    unsafe { pg_sys::XactReadOnly || pg_sys::RecoveryInProgress() }
}

/// Has this transaction be on disk, and with synchronous standbys, when its commit returns, whatever
/// `synchronous_commit` is: something outside will be done that cannot be undone with it.
pub fn commit_durably() {
    // SAFETY: sets what holds until the transaction ends; the strings are static. Inside a function that
    // sets anything itself the setting ends with the function: what is forced stays.
    unsafe {
        pg_sys::set_config_option(
            c"synchronous_commit".as_ptr(),
            c"on".as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_LOCAL,
            true,
            0,
            false,
        );
        pg_sys::ForceSyncCommit();
    }
}

/// The search path of coco's own statements.
pub const PATH: &std::ffi::CStr = c"pg_catalog, pg_temp";
