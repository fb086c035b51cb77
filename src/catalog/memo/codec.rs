//! Results as bytes: as they are stored where that means the same in every database, else as their
//! type sends them.

use std::rc::Rc;

use pgrx::pg_sys;

use crate::catalog::datum::{self, By};
use crate::engine::memo::Bytes;

/// How results of one type are written and read.
#[derive(Clone, Copy, Debug)]
pub struct Codec {
    how: How,
    type_oid: pg_sys::Oid,
}

#[derive(Clone, Copy, Debug)]
enum How {
    Value,
    Reference(usize),
    Varlena,
    /// By the type's send and receive functions.
    Sent {
        send: pg_sys::Oid,
        receive: pg_sys::Oid,
        parameter: pg_sys::Oid,
    },
    /// By its output and input functions: it has no others.
    Text {
        output: pg_sys::Oid,
        input: pg_sys::Oid,
        parameter: pg_sys::Oid,
    },
}

impl Codec {
    /// # Safety
    /// In a transaction: it looks things up.
    pub unsafe fn of(type_oid: pg_sys::Oid) -> Codec {
        // SAFETY: look-ups in the system catalogs.
        let how = unsafe {
            match datum::by(type_oid) {
                By::Value(_) => How::Value,
                By::Reference(length) => How::Reference(length),
                By::Varlena => How::Varlena,
                By::Record | By::Text(_) => sent(type_oid),
            }
        };
        Codec { how, type_oid }
    }

    /// # Safety
    /// The datum is of the type.
    pub unsafe fn write(&self, datum: Option<pg_sys::Datum>) -> Bytes {
        let datum = datum?;
        // SAFETY: as the type is read everywhere.
        unsafe {
            Some(match self.how {
                How::Value => Rc::from(&datum.value().to_le_bytes()[..]),
                How::Reference(length) => {
                    Rc::from(std::slice::from_raw_parts(datum.cast_mut_ptr::<u8>(), length))
                }
                How::Varlena => {
                    let plain = pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr());
                    Rc::from(pgrx::varlena::varlena_to_byte_slice(plain))
                }
                How::Sent { send, .. } => {
                    let bytes = pg_sys::OidSendFunctionCall(send, datum);
                    Rc::from(pgrx::varlena::varlena_to_byte_slice(bytes.cast()))
                }
                How::Text { output, .. } => {
                    let text = pg_sys::OidOutputFunctionCall(output, datum);
                    Rc::from(std::ffi::CStr::from_ptr(text).to_bytes())
                }
            })
        }
    }

    /// The value, in the memory context that is current.
    ///
    /// # Safety
    /// The bytes were written for this type.
    pub unsafe fn read(&self, bytes: &[u8]) -> pg_sys::Datum {
        // SAFETY: each puts together what `write` has taken apart.
        unsafe {
            match self.how {
                How::Value => {
                    let mut value = [0; 8];
                    let length = bytes.len().min(8);
                    value[..length].copy_from_slice(&bytes[..length]);
                    pg_sys::Datum::from(u64::from_le_bytes(value))
                }
                How::Reference(length) => {
                    let to = pg_sys::palloc0(length).cast::<u8>();
                    std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, length.min(bytes.len()));
                    pg_sys::Datum::from(to)
                }
                How::Varlena => {
                    let length = bytes.len() + pg_sys::VARHDRSZ;
                    let to = pg_sys::palloc(length).cast::<pg_sys::varlena>();
                    pgrx::varlena::set_varsize_4b(to, length as i32);
                    let data = to.cast::<u8>().add(pg_sys::VARHDRSZ);
                    std::ptr::copy_nonoverlapping(bytes.as_ptr(), data, bytes.len());
                    pg_sys::Datum::from(to)
                }
                How::Sent { receive, parameter, .. } => {
                    let mut buffer = pg_sys::StringInfoData::default();
                    pg_sys::initStringInfo(&mut buffer);
                    pg_sys::appendBinaryStringInfo(
                        &mut buffer,
                        bytes.as_ptr().cast(),
                        bytes.len() as i32,
                    );
                    let value = pg_sys::OidReceiveFunctionCall(receive, &mut buffer, parameter, -1);
                    pg_sys::pfree(buffer.data.cast());
                    value
                }
                How::Text { input, parameter, .. } => {
                    let mut text = bytes.to_vec();
                    text.push(0);
                    pg_sys::OidInputFunctionCall(input, text.as_mut_ptr().cast(), parameter, -1)
                }
            }
        }
    }

    pub fn type_oid(&self) -> pg_sys::Oid {
        self.type_oid
    }
}

unsafe fn sent(type_oid: pg_sys::Oid) -> How {
    // SAFETY: rows of pg_type, released when they were read.
    unsafe {
        let base = pg_sys::getBaseType(type_oid);
        let row = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::TYPEOID as i32,
            pg_sys::Datum::from(base),
        );
        let mut both = false;
        if !row.is_null() {
            let form = pg_sys::GETSTRUCT(row).cast::<pg_sys::FormData_pg_type>();
            let none = pg_sys::InvalidOid;
            both = (*form).typsend != none && (*form).typreceive != none;
            pg_sys::ReleaseSysCache(row);
        }
        let (mut out, mut r#in, mut parameter) =
            (pg_sys::InvalidOid, pg_sys::InvalidOid, pg_sys::InvalidOid);
        let mut varlena = false;
        if both {
            pg_sys::getTypeBinaryOutputInfo(base, &mut out, &mut varlena);
            pg_sys::getTypeBinaryInputInfo(base, &mut r#in, &mut parameter);
            return How::Sent { send: out, receive: r#in, parameter };
        }
        pg_sys::getTypeOutputInfo(base, &mut out, &mut varlena);
        pg_sys::getTypeInputInfo(base, &mut r#in, &mut parameter);
        How::Text { output: out, input: r#in, parameter }
    }
}
