//! Checks that rows have the types that their reader expects.
//!
//! The type of a value gives its bytes their meaning. Every receiver of rows therefore compares the
//! types that the executor announces with those it was created for, before it reads the first
//! value.

use pgrx::{PgSqlErrorCode, pg_sys};
use std::cell::Cell;
use std::ffi::CString;

use crate::pg::error::{Error, Result};
use crate::pg::spi;

/// Reports whether values of two types are stored alike: a domain counts as its base type.
pub fn is_same_type(one: pg_sys::Oid, other: pg_sys::Oid) -> bool {
    // SAFETY: lookups in the system catalogs, within a transaction.
    one == other || unsafe { pg_sys::getBaseType(one) == pg_sys::getBaseType(other) }
}

/// Checks that rows with the descriptor `found` have columns of the types of `expected`, and no
/// others.
///
/// # Safety
/// Both descriptors exist, and a transaction is in progress.
pub unsafe fn check_shape(found: pg_sys::TupleDesc, expected: pg_sys::TupleDesc) -> Result<()> {
    // SAFETY: attribute numbers stay below the descriptor's count.
    let types: Vec<pg_sys::Oid> = unsafe {
        (0..(*expected).natts.max(0) as usize).map(|n| (*attribute(expected, n)).atttypid).collect()
    };
    // SAFETY: the caller upholds the same contract.
    unsafe { check_types(found, 0, &types)?.check_count(types.len()) }
}

/// Checks that the columns of a descriptor, from `first` on, have these types.
///
/// # Safety
/// The descriptor exists, and a transaction is in progress.
pub unsafe fn check_types(
    found: pg_sys::TupleDesc,
    first: usize,
    types: &[pg_sys::Oid],
) -> Result<Checked> {
    // SAFETY: the caller passes an existing descriptor.
    let count = unsafe { (*found).natts.max(0) as usize };
    for (place, expected) in types.iter().enumerate().map(|(n, t)| (first + n, *t)) {
        if place >= count {
            return Err(wrong_count(count, first + types.len()));
        }
        // SAFETY: `place` is below the number of attributes.
        let column = unsafe { &*attribute(found, place) };
        if column.attisdropped || !is_same_type(column.atttypid, expected) {
            let name = pgrx::name_data_to_str(&column.attname);
            return Err(wrong_type(name, column.atttypid, expected));
        }
    }
    Ok(Checked(count))
}

/// Columns whose types were checked. The descriptor may have more columns.
#[must_use]
pub struct Checked(usize);

impl Checked {
    /// Checks that the descriptor has no other columns.
    pub fn check_count(self, expected: usize) -> Result<()> {
        match self.0 == expected {
            true => Ok(()),
            false => Err(wrong_count(self.0, expected)),
        }
    }
}

/// Returns the error for a column whose type differs from the one that its reader expects.
pub fn wrong_type(column: &str, found: pg_sys::Oid, expected: pg_sys::Oid) -> Error {
    let name = |oid| spi::type_name(oid, -1).unwrap_or_else(|_| oid.to_u32().to_string());
    mismatch(format!(
        "column \"{column}\" is of type {} but type {} is expected",
        name(found),
        name(expected)
    ))
}

fn wrong_count(found: usize, expected: usize) -> Error {
    mismatch(format!("rows have {found} columns but {expected} are expected"))
}

fn mismatch(message: String) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH, message)
        .detail("coco reads a value only as its declared type.")
        .hint("If one of coco's tables was altered, undo the change, or drop the flow and declare it again.")
}

pub fn c_string(s: &str) -> Result<CString> {
    CString::new(s).map_err(|_| Error::invalid("text contains a NUL byte"))
}

/// Returns a column of a descriptor, by its position from 0.
pub unsafe fn attribute(
    shape: pg_sys::TupleDesc,
    place: usize,
) -> *const pg_sys::FormData_pg_attribute {
    // SAFETY: the caller passes an existing descriptor, and a position below its number of
    // attributes.
    unsafe {
        #[cfg(feature = "pg18")]
        return pg_sys::TupleDescAttr(shape, place as i32);
        #[cfg(not(feature = "pg18"))]
        return (*shape).attrs.as_ptr().add(place);
    }
}

thread_local! {
    pub static PREPARING: Cell<bool> = const { Cell::new(false) };
}

/// Reports whether the error being handled was raised while a statement was analyzed, and clears
/// the mark. Such an error means that a name or a type does not match, and no item's data caused
/// it.
pub fn failed_in_analysis() -> bool {
    PREPARING.replace(false)
}

/// Marks the error about to be raised as caused by a statement whose rows have unexpected types.
pub fn type_mismatch() {
    PREPARING.set(true);
}
