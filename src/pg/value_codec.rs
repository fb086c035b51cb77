//! Converts values to bytes that outlive their statement. The send function of a type writes them,
//! and its receive function reads them. A type without these uses its output and input functions.
//!
//! No bytes become a value unchecked: the type's own function either makes a value of them or
//! raises an error. The functions of a user's type (a domain's constraints) run with the rights of
//! the current role. Never call this module as the extension's owner for a user's type.

use pgrx::{PgSqlErrorCode, pg_sys};

use crate::pg::error::{Error, Result};
use crate::pg::type_definition::{self, TypeFingerprint};
use coco_core::memo_batch::ComputedResult;

/// The way to write and read values of one type, created for one statement or one batch.
pub struct Codec {
    kind: TypeFingerprint,
    form: WireForm,
    write: pg_sys::FmgrInfo,
    read: pg_sys::FmgrInfo,
    /// The type parameter of the reading function.
    parameter: pg_sys::Oid,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WireForm {
    /// The type's send and receive functions.
    Sent,
    /// The type's output and input functions.
    Text,
    /// As [`WireForm::Sent`], except that a plain list of `real`s, as a model returns it, uses four
    /// bytes per element.
    Reals,
}

/// The first byte of [`WireForm::Reals`].
const LIST: u8 = 0;

const SENT: u8 = 1;

const REAL: usize = size_of::<f32>();

impl Codec {
    /// Creates a codec, which caches the lookups of the type's functions in `context`.
    ///
    /// # Safety
    /// Called within a transaction. The context lives as long as the codec.
    pub unsafe fn of(type_oid: pg_sys::Oid, context: pg_sys::MemoryContext) -> Result<Codec> {
        let known = type_definition::type_fingerprint(type_oid)?;
        let form = match (known.is_sent, type_oid) {
            (_, pg_sys::FLOAT4ARRAYOID) => WireForm::Reals,
            (true, _) => WireForm::Sent,
            (false, _) => WireForm::Text,
        };
        let none = pg_sys::InvalidOid;
        let (mut out, mut into, mut parameter) = (none, none, none);
        let mut is_varlena = false;
        let (mut write, mut read) = (pg_sys::FmgrInfo::default(), pg_sys::FmgrInfo::default());
        // SAFETY: lookups in the system catalogs, which raise an error if the object does not
        // exist.
        unsafe {
            if form == WireForm::Text {
                pg_sys::getTypeOutputInfo(type_oid, &mut out, &mut is_varlena);
                pg_sys::getTypeInputInfo(type_oid, &mut into, &mut parameter);
            } else {
                pg_sys::getTypeBinaryOutputInfo(type_oid, &mut out, &mut is_varlena);
                pg_sys::getTypeBinaryInputInfo(type_oid, &mut into, &mut parameter);
            }
            pg_sys::fmgr_info_cxt(out, &mut write, context);
            pg_sys::fmgr_info_cxt(into, &mut read, context);
        }
        Ok(Codec { kind: known.kind, form, write, read, parameter })
    }

    /// Returns the fingerprint of the type, which is stored with its values.
    pub fn kind(&self) -> TypeFingerprint {
        self.kind
    }

    /// Converts a value to a result that can be stored.
    ///
    /// # Safety
    /// The datum is of the codec's type.
    pub unsafe fn keep(&mut self, datum: Option<pg_sys::Datum>) -> ComputedResult {
        // SAFETY: the caller upholds the same contract.
        let result = datum.map(|datum| unsafe { self.write(datum) }.into());
        ComputedResult { result, of: self.kind.0 }
    }

    /// Returns the bytes of a value.
    ///
    /// # Safety
    /// The datum is of the codec's type.
    pub unsafe fn write(&mut self, datum: pg_sys::Datum) -> Vec<u8> {
        let _as_stored = DatabaseEncoding::begin();
        // SAFETY: the functions belong to the type; their results are palloc'd.
        unsafe {
            match self.form {
                WireForm::Text => {
                    let text = pg_sys::OutputFunctionCall(&mut self.write, datum);
                    let bytes = std::ffi::CStr::from_ptr(text).to_bytes().to_vec();
                    pg_sys::pfree(text.cast());
                    bytes
                }
                WireForm::Sent => self.sent(vec![], datum),
                WireForm::Reals => match list_of_reals(datum) {
                    Some(list) => list,
                    None => self.sent(vec![SENT], datum),
                },
            }
        }
    }

    unsafe fn sent(&mut self, mut to: Vec<u8>, datum: pg_sys::Datum) -> Vec<u8> {
        // SAFETY: as in `write`; the result is a bytea that is not toasted.
        unsafe {
            let bytes = pg_sys::SendFunctionCall(&mut self.write, datum).cast();
            to.extend(pgrx::varlena::varlena_to_byte_slice(bytes));
            pg_sys::pfree(bytes.cast());
        }
        to
    }

    /// Returns the value of these bytes, in the current memory context. Raises or returns an error
    /// if the bytes are not a value of the type.
    ///
    /// # Safety
    /// Called within a transaction.
    pub unsafe fn read(&mut self, bytes: &[u8]) -> Result<pg_sys::Datum> {
        let _as_stored = DatabaseEncoding::begin();
        match self.form {
            WireForm::Text => {
                let mut text = bytes.to_vec();
                text.push(0);
                let text = std::ffi::CStr::from_bytes_with_nul(&text).map_err(|_| malformed())?;
                // SAFETY: calls the type's input function with a text that ends with a NUL.
                Ok(unsafe {
                    pg_sys::InputFunctionCall(
                        &mut self.read,
                        text.as_ptr().cast_mut(),
                        self.parameter,
                        -1,
                    )
                })
            }
            WireForm::Sent => self.received(bytes),
            WireForm::Reals => match bytes.split_first() {
                Some((&LIST, reals)) if reals.len().is_multiple_of(REAL) => Ok(reals_of(reals)),
                Some((&SENT, rest)) => self.received(rest),
                _ => Err(malformed()),
            },
        }
    }

    fn received(&mut self, bytes: &[u8]) -> Result<pg_sys::Datum> {
        let length = i32::try_from(bytes.len()).map_err(|_| malformed())?;
        // SAFETY: calls the type's receive function with a private copy that ends with a NUL, as a
        // message from a client does.
        unsafe {
            let data = pg_sys::palloc(bytes.len() + 1).cast::<u8>();
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), data, bytes.len());
            *data.add(bytes.len()) = 0;
            let mut message = pg_sys::StringInfoData {
                data: data.cast(),
                len: length,
                maxlen: length.saturating_add(1),
                cursor: 0,
            };
            let value =
                pg_sys::ReceiveFunctionCall(&mut self.read, &mut message, self.parameter, -1);
            pg_sys::pfree(data.cast());
            match message.cursor == length {
                true => Ok(value),
                false => Err(malformed()),
            }
        }
    }
}

fn malformed() -> Error {
    Error::new(
        PgSqlErrorCode::ERRCODE_INVALID_BINARY_REPRESENTATION,
        "incorrect binary format of a stored value",
    )
}

/// Returns the bytes of an array that is a plain list without NULLs; `None` for any other array.
unsafe fn list_of_reals(datum: pg_sys::Datum) -> Option<Vec<u8>> {
    // SAFETY: the datum is a real[], whose header gives the number of elements, all of them not
    // NULL.
    unsafe {
        let given = datum.cast_mut_ptr::<pg_sys::varlena>();
        let array = pg_sys::pg_detoast_datum(given).cast::<pg_sys::ArrayType>();
        let dimensions = array.cast::<i32>().add(size_of::<pg_sys::ArrayType>() / size_of::<i32>());
        let is_list = (*array).ndim == 1
            && (*array).dataoffset == 0
            && (*array).elemtype == pg_sys::FLOAT4OID
            && *dimensions.add(1) == 1;
        let list = is_list.then(|| {
            let count = (*dimensions).max(0) as usize;
            let reals = std::slice::from_raw_parts(dimensions.add(2).cast::<f32>(), count);
            let mut list = Vec::with_capacity(1 + count * REAL);
            list.push(LIST);
            reals.iter().for_each(|real| list.extend(real.to_le_bytes()));
            list
        });
        if array.cast() != given {
            pg_sys::pfree(array.cast());
        }
        list
    }
}

/// Returns the array of a list of reals. Any bytes of suitable length are valid.
fn reals_of(bytes: &[u8]) -> pg_sys::Datum {
    let mut reals: Vec<pg_sys::Datum> = bytes
        .chunks_exact(REAL)
        .map(|real| {
            let real: [u8; REAL] = real.try_into().unwrap_or_default();
            pg_sys::Datum::from(u32::from_le_bytes(real))
        })
        .collect();
    // SAFETY: the array of values has the given length, and the values have the element's type.
    unsafe {
        pg_sys::Datum::from(pg_sys::construct_array(
            reals.as_mut_ptr(),
            reals.len() as i32,
            pg_sys::FLOAT4OID,
            REAL as i32,
            true,
            pg_sys::TYPALIGN_INT as std::ffi::c_char,
        ))
    }
}

/// While it exists, texts are sent and received in the database's encoding, whatever the client's
/// encoding is.
struct DatabaseEncoding {
    client: Option<i32>,
}

impl DatabaseEncoding {
    fn begin() -> DatabaseEncoding {
        // SAFETY: reads and sets the backend's own state. Changing to the database's own encoding
        // needs no conversion, so it cannot fail or raise an error.
        unsafe {
            let (client, database) =
                (pg_sys::pg_get_client_encoding(), pg_sys::GetDatabaseEncoding());
            if client == database {
                return DatabaseEncoding { client: None };
            }
            let changed = pg_sys::SetClientEncoding(database) >= 0;
            DatabaseEncoding { client: changed.then_some(client) }
        }
    }
}

impl Drop for DatabaseEncoding {
    fn drop(&mut self) {
        if let Some(client) = self.client {
            // SAFETY: the encoding was in use before, so its conversions are loaded.
            unsafe { pg_sys::SetClientEncoding(client) };
        }
    }
}
