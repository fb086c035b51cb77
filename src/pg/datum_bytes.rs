//! Fingerprints of values of any type.
//!
//! For types of PostgreSQL itself, whose stored bytes mean the same in every database, the
//! fingerprint covers these bytes. For enums, types of extensions and values that contain an OID,
//! it covers the text form.

use pgrx::pg_sys;
use std::ffi::CStr;

use crate::pg::acting_role::RoleGuard;
use crate::pg::error::Result;
use crate::pg::tuplestore::row_types::attribute;
use coco_core::fingerprint::Hasher;

/// The way to read values of one type.
#[derive(Clone, Copy)]
pub enum DatumEncoding {
    /// The bytes of a fixed-length value passed by value.
    Value(usize),
    /// The bytes of a fixed-length value passed by reference.
    Reference(usize),
    /// A varlena's bytes, without its header, detoasted.
    Varlena,
    /// A composite value, column by column.
    Record,
    /// The text that the type's output function returns.
    Text(pg_sys::Oid),
}

/// A consumer of the bytes of values, in parts whose boundaries are unambiguous.
pub trait ByteSink: Default {
    fn part(&mut self, bytes: &[u8]);
    fn null(&mut self);
    /// Adds a composite value, whose parts another sink has taken.
    fn record(&mut self, parts: Self);
}

impl ByteSink for Hasher {
    fn part(&mut self, bytes: &[u8]) {
        Hasher::part(self, bytes);
    }

    fn null(&mut self) {
        Hasher::null(self);
    }

    fn record(&mut self, parts: Hasher) {
        Hasher::part(self, &parts.finish().0);
    }
}

/// Stores the parts themselves, each after its length.
impl ByteSink for Vec<u8> {
    fn part(&mut self, bytes: &[u8]) {
        self.extend((bytes.len() as u64).to_le_bytes());
        self.extend(bytes);
    }

    fn null(&mut self) {
        self.extend(u64::MAX.to_le_bytes());
    }

    fn record(&mut self, parts: Vec<u8>) {
        self.part(&parts);
    }
}

/// The way to hash the arguments of one call site, looked up once.
pub struct EncodingPlan {
    /// The encoding of each argument, and a text to hash before it.
    arguments: Vec<(DatumEncoding, Option<String>)>,
    /// Whether functions of types run, which may look up names or write.
    by_name: bool,
}

impl EncodingPlan {
    fn new(arguments: Vec<(DatumEncoding, Option<String>)>) -> EncodingPlan {
        let by_name = arguments
            .iter()
            .any(|(by, _)| matches!(by, DatumEncoding::Text(_) | DatumEncoding::Record));
        EncodingPlan { arguments, by_name }
    }
}

/// Hashes the arguments of a call to `coco.fingerprint(VARIADIC "any")`.
///
/// This function sets the search path itself if the types need it, because few types do. A
/// function's SET clause would set it for each call, at a sixth of the cost of a scan.
///
/// # Safety
/// `fcinfo` belongs to a call in progress.
pub unsafe fn fingerprint(fcinfo: pg_sys::FunctionCallInfo) -> Result<[u8; 16]> {
    // SAFETY: the caller upholds the same contract.
    unsafe { hashed(fcinfo, |_| None) }
}

/// Hashes the arguments of a call to `coco.stable_uuid(VARIADIC "any")`, with the names of their
/// types, to a UUID of version 8 (RFC 9562).
///
/// # Safety
/// `fcinfo` belongs to a call in progress.
pub unsafe fn stable_uuid(fcinfo: pg_sys::FunctionCallInfo) -> Result<[u8; 16]> {
    // SAFETY: the caller upholds the same contract.
    let mut bytes = unsafe { hashed(fcinfo, |type_oid| Some(type_name(type_oid)))? };
    bytes[6] = (bytes[6] & 0x0F) | 0x80;
    bytes[8] = (bytes[8] & 0x3F) | 0x80;
    Ok(bytes)
}

/// Returns the name of a type, with its schema. For a domain it is the name of its base type. For
/// an untyped literal it is `text`.
unsafe fn type_name(type_oid: pg_sys::Oid) -> String {
    // SAFETY: lookups in the system catalogs, within a transaction; their results are palloc'd.
    unsafe {
        let type_oid = match pg_sys::getBaseType(type_oid) {
            pg_sys::UNKNOWNOID => pg_sys::TEXTOID,
            base => base,
        };
        let name = pg_sys::format_type_be_qualified(type_oid);
        let owned = CStr::from_ptr(name).to_string_lossy().into_owned();
        pg_sys::pfree(name.cast());
        owned
    }
}

/// Hashes the arguments of a call. `before` returns a text to hash before each value of a type.
unsafe fn hashed(
    fcinfo: pg_sys::FunctionCallInfo,
    before: unsafe fn(pg_sys::Oid) -> Option<String>,
) -> Result<[u8; 16]> {
    // SAFETY: the server passes the `fcinfo` of a call in progress. `fn_extra` is null or the plan
    // that this function stored; no other code sets it.
    unsafe {
        let info = (*fcinfo).flinfo;
        let count = (*fcinfo).nargs as usize;
        let plan: &EncodingPlan = if (*info).fn_extra.is_null() {
            let plan = (0..count).map(|i| {
                let type_oid = pg_sys::get_fn_expr_argtype(info, i as i32);
                (by(type_oid), before(type_oid))
            });
            let plan = EncodingPlan::new(plan.collect());
            // Freed with the call site's memory.
            (*info).fn_extra =
                pgrx::PgMemoryContexts::For((*info).fn_mcxt).leak_and_drop_on_delete(plan).cast();
            &*(*info).fn_extra.cast::<EncodingPlan>()
        } else {
            &*(*info).fn_extra.cast::<EncodingPlan>()
        };
        let _pinned = if plan.by_name { Some(RoleGuard::qualifying_names()?) } else { None };
        let args = (*fcinfo).args.as_slice(count);
        let mut hasher = Hasher::new();
        for ((by, before), arg) in plan.arguments.iter().zip(args) {
            if let Some(before) = before {
                hasher.part(before.as_bytes());
            }
            read(&mut hasher, *by, (!arg.isnull).then_some(arg.value));
        }
        Ok(hasher.finish().0)
    }
}

/// Returns the way to read values of a type.
///
/// # Safety
/// Called within a transaction, because it looks up the system catalogs.
pub unsafe fn by(type_oid: pg_sys::Oid) -> DatumEncoding {
    // SAFETY: lookups by OID in the caches of the caller's transaction.
    unsafe {
        let base = pg_sys::getBaseType(type_oid);
        let kind = pg_sys::get_typtype(base) as u8;
        if base == pg_sys::RECORDOID || kind == b'c' {
            return DatumEncoding::Record;
        }
        let own = |oid: pg_sys::Oid| {
            oid.to_u32() < pg_sys::FirstNormalObjectId
                && !holds_oid(oid)
                && oid != pg_sys::RECORDOID
        };
        let element = pg_sys::get_element_type(base);
        let stable = match element {
            pg_sys::InvalidOid => matches!(kind, b'b' | b'r' | b'm') && own(base),
            element => own(element),
        };
        if !stable || base == pg_sys::RECORDARRAYOID {
            let mut output = pg_sys::InvalidOid;
            let mut varlena = false;
            pg_sys::getTypeOutputInfo(base, &mut output, &mut varlena);
            return DatumEncoding::Text(output);
        }
        let mut length = 0i16;
        let mut by_value = false;
        pg_sys::get_typlenbyval(base, &mut length, &mut by_value);
        match (length, by_value) {
            (-1, _) => DatumEncoding::Varlena,
            (n, true) if n > 0 => DatumEncoding::Value(n as usize),
            (n, false) if n > 0 => DatumEncoding::Reference(n as usize),
            _ => {
                let mut output = pg_sys::InvalidOid;
                let mut varlena = false;
                pg_sys::getTypeOutputInfo(base, &mut output, &mut varlena);
                DatumEncoding::Text(output)
            }
        }
    }
}

/// Reports whether a type's values are, or contain, OIDs, which have another meaning after a
/// restore.
fn holds_oid(type_oid: pg_sys::Oid) -> bool {
    const OIDS: [pg_sys::Oid; 14] = [
        pg_sys::OIDOID,
        pg_sys::REGPROCOID,
        pg_sys::REGPROCEDUREOID,
        pg_sys::REGOPEROID,
        pg_sys::REGOPERATOROID,
        pg_sys::REGCLASSOID,
        pg_sys::REGTYPEOID,
        pg_sys::REGCONFIGOID,
        pg_sys::REGDICTIONARYOID,
        pg_sys::REGNAMESPACEOID,
        pg_sys::REGROLEOID,
        pg_sys::REGCOLLATIONOID,
        pg_sys::OIDVECTOROID,
        pg_sys::ACLITEMOID,
    ];
    OIDS.contains(&type_oid)
}

/// Reads a value of the type that `by` belongs to.
///
/// # Safety
/// The datum is of that type.
pub unsafe fn read<S: ByteSink>(sink: &mut S, by: DatumEncoding, datum: Option<pg_sys::Datum>) {
    let Some(datum) = datum else {
        return sink.null();
    };
    // SAFETY: the caller passes a datum of the type that `by` belongs to, so the type's length and
    // storage apply.
    unsafe {
        match by {
            DatumEncoding::Value(length) => {
                sink.part(&datum.value().to_le_bytes()[..length.min(8)]);
            }
            DatumEncoding::Reference(length) => {
                sink.part(std::slice::from_raw_parts(datum.cast_mut_ptr::<u8>(), length));
            }
            DatumEncoding::Varlena => {
                let stored = datum.cast_mut_ptr::<pg_sys::varlena>();
                let plain = pg_sys::pg_detoast_datum_packed(stored);
                let bytes = std::slice::from_raw_parts(
                    pgrx::varlena::vardata_any(plain).cast::<u8>(),
                    pgrx::varlena::varsize_any_exhdr(plain),
                );
                sink.part(bytes);
                if plain != stored {
                    pg_sys::pfree(plain.cast());
                }
            }
            DatumEncoding::Text(output) => {
                let text = pg_sys::OidOutputFunctionCall(output, datum);
                sink.part(CStr::from_ptr(text).to_bytes());
                pg_sys::pfree(text.cast());
            }
            DatumEncoding::Record => record(sink, datum),
        }
    }
}

/// Reads a composite value, column by column. Like the server, uses the type that the value itself
/// names.
unsafe fn record<S: ByteSink>(sink: &mut S, datum: pg_sys::Datum) {
    // SAFETY: the caller passes a datum of a composite type. It names its own row type, which gives
    // the number of columns.
    unsafe {
        // A user decides how deeply values are nested.
        pg_sys::check_stack_depth();
        let header = pg_sys::pg_detoast_datum(datum.cast_mut_ptr::<pg_sys::varlena>())
            .cast::<pg_sys::HeapTupleHeaderData>();
        let shape = pg_sys::lookup_rowtype_tupdesc(
            (*header).t_choice.t_datum.datum_typeid,
            (*header).t_choice.t_datum.datum_typmod,
        );
        let count = (*shape).natts as usize;
        let mut tuple = pg_sys::HeapTupleData {
            t_len: pgrx::varlena::varsize_any(header.cast()) as u32,
            t_data: header,
            ..Default::default()
        };
        let mut values = vec![pg_sys::Datum::from(0usize); count];
        let mut nulls = vec![true; count];
        pg_sys::heap_deform_tuple(&mut tuple, shape, values.as_mut_ptr(), nulls.as_mut_ptr());
        let mut inner = S::default();
        for i in 0..count {
            let attribute = attribute(shape, i);
            if (*attribute).attisdropped {
                continue;
            }
            read(&mut inner, self::by((*attribute).atttypid), (!nulls[i]).then_some(values[i]));
        }
        sink.record(inner);
        if (*shape).tdrefcount >= 0 {
            pg_sys::DecrTupleDescRefCount(shape);
        }
    }
}
