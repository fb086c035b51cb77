//! A jsonb as the text that Postgres gives of it.
//!
//! pgrx's own `JsonB` becomes a tree of `serde_json` as soon as there is a datum, and panics on what Postgres
//! allows there: a number that no `f64` holds (`1e400`), and more than 128 levels. A tree also loses the digits
//! of a numeric, so that a key would be another one. Here it stays a text, which is parsed where somebody looks
//! into it, and what cannot be parsed is an error.

use pgrx::callconv::{Arg, ArgAbi, BoxRet, FcInfo};
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::{FromDatum, IntoDatum, pg_sys};
use serde::de::IgnoredAny;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};

use crate::pg::error::{Error, Result};

#[derive(Debug, Clone)]
pub struct Json(String);

impl Json {
    /// The tree of it. `what` names it in the error.
    ///
    /// # Errors
    /// 22023 where it holds a number beyond double precision or more than 128 levels.
    pub fn value(&self, what: &str) -> Result<Value> {
        serde_json::from_str(&self.0).map_err(|e| {
            Error::invalid(format!("{what} holds JSON that coco cannot read"))
                .detail(format!("It says: {e}."))
                .hint("Keep its numbers within double precision, and its values within 127 levels.")
        })
    }

    /// Its members' names, and which of them are not null; `None` where it is no object.
    pub fn members(&self) -> Option<BTreeMap<String, bool>> {
        let members: BTreeMap<String, Option<IgnoredAny>> = serde_json::from_str(&self.0).ok()?;
        Some(members.into_iter().map(|(name, value)| (name, value.is_some())).collect())
    }
}

impl From<Value> for Json {
    fn from(value: Value) -> Json {
        Json(value.to_string())
    }
}

impl FromDatum for Json {
    unsafe fn from_polymorphic_datum(
        datum: pg_sys::Datum,
        is_null: bool,
        _: pg_sys::Oid,
    ) -> Option<Json> {
        // SAFETY: the caller says that it is a jsonb.
        (!is_null).then(|| Json(unsafe { jsonb_text(datum) }))
    }
}

impl IntoDatum for Json {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        // JSON writes a NUL as an escape, which jsonb refuses with an error of its own.
        let text = CString::new(self.0).ok()?;
        Some(jsonb(&text))
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::JSONBOID
    }
}

// SAFETY: it is read by FromDatum, from an argument that is declared as a jsonb (see below).
unsafe impl<'fcx> ArgAbi<'fcx> for Json {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: as above. Postgres does not call a strict function with a NULL.
        unsafe { arg.unbox_arg_using_from_datum() }.unwrap_or_else(|| Json("null".to_owned()))
    }
}

// SAFETY: what is returned is a jsonb, as it is declared.
unsafe impl BoxRet for Json {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> pgrx::datum::Datum<'fcx> {
        match self.into_datum() {
            // SAFETY: as above.
            Some(datum) => unsafe { fcinfo.return_raw_datum(datum) },
            None => fcinfo.return_null(),
        }
    }
}

// SAFETY: the SQL type is the one that FromDatum and IntoDatum are of.
unsafe impl SqlTranslatable for Json {
    const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!(Json);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: std::result::Result<SqlMappingRef, ArgumentError> =
        Ok(SqlMappingRef::literal("jsonb"));
    const RETURN_SQL: std::result::Result<ReturnsRef, ReturnsError> =
        Ok(ReturnsRef::One(SqlMappingRef::literal("jsonb")));
}

/// A jsonb as text, with all digits of its numbers.
///
/// # Safety
/// `datum` is a jsonb.
pub unsafe fn jsonb_text(datum: pg_sys::Datum) -> String {
    // SAFETY: the text is palloc'd, and ends with a NUL.
    unsafe {
        let text = pg_sys::OidOutputFunctionCall(pg_sys::Oid::from(pg_sys::F_JSONB_OUT), datum);
        CStr::from_ptr(text).to_string_lossy().into_owned()
    }
}

/// A jsonb of a text. Postgres raises an error where it is none.
pub fn jsonb(text: &CStr) -> pg_sys::Datum {
    // SAFETY: the function of that type, which takes a text that ends with a NUL.
    unsafe {
        let input = pg_sys::Oid::from(pg_sys::F_JSONB_IN);
        pg_sys::OidInputFunctionCall(input, text.as_ptr().cast_mut(), pg_sys::JSONBOID, -1)
    }
}
