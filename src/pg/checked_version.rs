//! An argument of SQL functions that is no argument in SQL: it raises an error before the others are
//! read, if the extension in the database is of another version than the library.
//!
//! Each function needs it whose arguments have changed since a release, because the older
//! extension calls the function with its own arguments. Callers: `sql_api`.

use pgrx::callconv::{Arg, ArgAbi};
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};

use crate::pg::acting_role;

/// The proof that extension and library have the same version. It comes first among the arguments.
pub struct CheckedVersion;

// SAFETY: the value is made without reading an argument.
unsafe impl<'fcx> ArgAbi<'fcx> for CheckedVersion {
    unsafe fn unbox_arg_unchecked(_: Arg<'_, 'fcx>) -> Self {
        if let Err(error) = acting_role::check_version() {
            error.raise();
        }
        CheckedVersion
    }

    fn is_virtual_arg() -> bool {
        true
    }
}

// SAFETY: SQL has no argument of this type: it is left out of signatures.
unsafe impl SqlTranslatable for CheckedVersion {
    const TYPE_IDENT: &'static str =
        pgrx::pgrx_sql_entity_graph::pgrx_resolved_type!(CheckedVersion);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::Skip);
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::Skip));
}
