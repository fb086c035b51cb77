//! A jsonb as the text that PostgreSQL returns for it.
//!
//! pgrx's `JsonB` parses a datum into a `serde_json` tree at once, and panics on values that
//! PostgreSQL allows: a number beyond `f64` (`1e400`), and more than 128 levels. A tree also loses
//! digits of a numeric, which would change a key. [`Json`] keeps the text, and parses it only on
//! access. If the text cannot be parsed, the access returns an error.

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
use crate::pg::spi::literal;

/// Returns an SQL expression for a jsonb object with these names and values, which are SQL
/// expressions. A function takes 100 arguments, so an object of many values has several parts.
pub fn object_sql<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>) -> String {
    const PAIRS: usize = 50;
    let pairs: Vec<String> =
        pairs.into_iter().map(|(name, value)| format!("{}, {value}", literal(name))).collect();
    let part = |pairs: &[String]| format!("pg_catalog.jsonb_build_object({})", pairs.join(", "));
    match pairs.len() {
        0..=PAIRS => part(&pairs),
        _ => {
            let parts: Vec<String> = pairs.chunks(PAIRS).map(part).collect();
            format!("({})", parts.join(" operator(pg_catalog.||) "))
        }
    }
}

#[derive(Debug, Clone)]
pub struct Json(String);

impl Json {
    /// Returns the jsonb that a text stands for. PostgreSQL parses the text when it receives the
    /// value.
    pub fn of_text(text: String) -> Json {
        Json(text)
    }

    /// Returns the text.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Returns the parsed tree. `what` names the value in the error.
    ///
    /// # Errors
    /// 22023 if the value contains a number beyond double precision, or more than 128 levels.
    pub fn value(&self, what: &str) -> Result<Value> {
        serde_json::from_str(&self.0).map_err(|e| {
            Error::invalid(format!("{what} contains JSON that coco cannot read"))
                .detail(format!("The parser reports: {e}."))
                .hint("Keep numbers within double precision, and nested values within 127 levels.")
        })
    }

    /// Returns the names of the object's members, each with whether its value is not null; `None`
    /// if the value is not an object.
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
        // SAFETY: the caller passes a jsonb.
        (!is_null).then(|| Json(unsafe { jsonb_text(datum) }))
    }
}

impl IntoDatum for Json {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        // JSON writes a NUL as an escape, which jsonb rejects with its own error.
        let text = CString::new(self.0).ok()?;
        Some(jsonb(&text))
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::JSONBOID
    }
}

// SAFETY: FromDatum reads the value from an argument that is declared as jsonb (see below).
unsafe impl<'fcx> ArgAbi<'fcx> for Json {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: as above. PostgreSQL does not call a strict function with a NULL.
        unsafe { arg.unbox_arg_using_from_datum() }.unwrap_or_else(|| Json("null".to_owned()))
    }
}

// SAFETY: the returned datum is a jsonb, as declared.
unsafe impl BoxRet for Json {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> pgrx::datum::Datum<'fcx> {
        match self.into_datum() {
            // SAFETY: as above.
            Some(datum) => unsafe { fcinfo.return_raw_datum(datum) },
            None => fcinfo.return_null(),
        }
    }
}

// SAFETY: the SQL type is the type of FromDatum and IntoDatum.
unsafe impl SqlTranslatable for Json {
    const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!(Json);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: std::result::Result<SqlMappingRef, ArgumentError> =
        Ok(SqlMappingRef::literal("jsonb"));
    const RETURN_SQL: std::result::Result<ReturnsRef, ReturnsError> =
        Ok(ReturnsRef::One(SqlMappingRef::literal("jsonb")));
}

/// Returns a jsonb as text, with all digits of its numbers.
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

/// Returns the jsonb of a text. PostgreSQL raises an error if the text is not valid JSON.
pub fn jsonb(text: &CStr) -> pg_sys::Datum {
    // SAFETY: calls the type's input function with a text that ends with a NUL.
    unsafe {
        let input = pg_sys::Oid::from(pg_sys::F_JSONB_IN);
        pg_sys::OidInputFunctionCall(input, text.as_ptr().cast_mut(), pg_sys::JSONBOID, -1)
    }
}
