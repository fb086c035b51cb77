//! Runs coco's own statements, and quotes names in them.

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

/// The largest number of statements of coco's own that a backend keeps prepared.
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

/// Reports whether a statement is worth preparing. A statement that defines an object runs only
/// once.
fn reads_or_writes(query: &str) -> bool {
    ["select", "insert", "update", "delete", "with"]
        .iter()
        .any(|verb| query.trim_start().starts_with(verb))
}

/// Reads rows, without assigning a transaction id.
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

/// Runs a statement that writes, and reads the rows that it returns.
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

/// Reads the first column of the first row; `None` if no row exists or the value is NULL.
pub fn scalar<T: FromDatum + IntoDatum>(query: &str, args: &[Arg]) -> Result<Option<T>> {
    Ok(select(query, args, |r| Ok(r.get::<T>(1)?))?.pop().flatten())
}

/// Runs a statement that writes, and returns the number of rows.
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
    // Declared in utils/elog.h; variadic, and therefore missing from pgrx's bindings.
    fn errhint(format: *const std::ffi::c_char, ...) -> std::ffi::c_int;
}

/// Runs a statement that defines an object. An event trigger that fires inside it resolves
/// unqualified names on coco's search path. An error about a missing name therefore gets a hint
/// about this.
fn with_hint<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: the callback lives on this stack. The guard removes it before this function returns,
    // and before a raised error unwinds past this function.
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

/// Restores the error context callbacks.
struct CallbacksGuard(*mut pg_sys::ErrorContextCallback);

impl Drop for CallbacksGuard {
    fn drop(&mut self) {
        // SAFETY: restores the callbacks found before, which outlive the guard.
        unsafe { pg_sys::error_context_stack = self.0 };
    }
}

/// Adds the hint to a report in progress, if it is an error about a kind of name that coco itself
/// always qualifies.
unsafe extern "C-unwind" fn add_hint(_arg: *mut std::ffi::c_void) {
    use pgrx::PgSqlErrorCode as Code;
    const NAMES: [Code; 5] = [
        Code::ERRCODE_UNDEFINED_TABLE,
        Code::ERRCODE_UNDEFINED_FUNCTION,
        Code::ERRCODE_UNDEFINED_OBJECT,
        Code::ERRCODE_INVALID_SCHEMA_NAME,
        Code::ERRCODE_UNDEFINED_COLUMN,
    ];
    // SAFETY: errfinish calls this function; geterrcode and errhint work on its report. The setting
    // is a string.
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
            c"If the CONTEXT names a function of an event trigger, qualify the names in that function, or run ALTER FUNCTION ... SET search_path. coco's own DDL runs with search_path pg_catalog, pg_temp.".as_ptr(),
        );
    }
}

/// Returns the value of a column that the catalog declares as not null.
pub fn required<T: FromDatum + IntoDatum>(row: &SpiHeapTupleData, column: usize) -> Result<T> {
    row.get::<T>(column)?
        .ok_or_else(|| Error::internal(format!("NULL in column {column} of coco's catalog")))
}

/// Returns the schema-qualified, quoted name of a relation; `None` if the relation does not exist.
pub fn relation_name(relation: pg_sys::Oid) -> Result<Option<String>> {
    scalar(
        "select pg_catalog.format('%I.%I', n.nspname, c.relname)
           from pg_catalog.pg_class c
           join pg_catalog.pg_namespace n on n.oid = c.relnamespace
          where c.oid = $1",
        &[arg(relation)],
    )
}

/// Returns the schema and the name of a relation, unquoted.
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

/// Returns a type's name in SQL, for casts and column definitions.
pub fn type_name(type_oid: pg_sys::Oid, typmod: i32) -> Result<String> {
    scalar("select pg_catalog.format_type($1, $2)", &[arg(type_oid), arg(typmod)])?
        .ok_or_else(|| Error::internal(format!("type {type_oid} does not exist")))
}

/// Reports whether this transaction wrote the row version with this `xmin`, given as text.
pub fn is_ours(xmin: &str) -> bool {
    let Ok(xid) = xmin.parse::<u32>() else { return false };
    // SAFETY: reads the backend's own state.
    unsafe { pg_sys::TransactionIdIsCurrentTransactionId(pg_sys::TransactionId::from_inner(xid)) }
}

/// Reports whether this transaction may not write.
pub fn is_read_only() -> bool {
    // SAFETY: reads the backend's own state.
    unsafe { pg_sys::XactReadOnly || pg_sys::RecoveryInProgress() }
}

/// Ensures that this transaction is on disk, and on synchronous standbys, when its commit returns,
/// whatever `synchronous_commit` is. An external action will follow that cannot be undone together
/// with the transaction.
pub fn commit_durably() {
    // SAFETY: sets a setting until the transaction ends; the strings are static. In a function with
    // a SET clause the setting ends with the function, but the forced sync commit stays.
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
