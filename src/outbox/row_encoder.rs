//! Encodes rows of a target in the form that its connector requires.

use pgrx::pg_sys;

use crate::catalog::model::Target;
use crate::pg::columns::{Column, stored};
use crate::pg::error::{Error, Result};
use crate::pg::tuplestore::row::Row;
use crate::pg::tuplestore::row_types::check_types;
use crate::pg::tuplestore::rows::TupleStore;
use coco_core::change::{Encoding, Values};

/// The types of an entry's columns before its values: position, version, whether it is an upsert,
/// and whether it was rejected.
const HEAD_TYPES: [pg_sys::Oid; 4] =
    [pg_sys::INT8OID, pg_sys::INT8OID, pg_sys::BOOLOID, pg_sys::BOOLOID];

/// The number of an entry's columns before its values.
const HEAD: usize = HEAD_TYPES.len();

/// How many of these columns have the same type in a row of the initial-load buffer.
const SAME_HEAD: usize = 3;

/// An encoder of a target's rows in its connector's form.
pub struct Encoder {
    encoding: Encoding,
    /// The send function of each column's type.
    send: Vec<pg_sys::FmgrInfo>,
    /// The types of an entry's columns, as the caller reads them.
    types: Vec<pg_sys::Oid>,
    /// The indexes of the key columns.
    key: Vec<usize>,
    /// A buffer in which a value is assembled, to be copied once its length is known.
    buffer: Vec<u8>,
    /// The memory context of what the send functions keep between two values, and its child for the
    /// values of one row.
    functions: pg_sys::MemoryContext,
    values: pg_sys::MemoryContext,
}

impl Encoder {
    pub fn new(target: &Target, encoding: Encoding) -> Result<Encoder> {
        // SAFETY: children of the transaction's context, deleted in `drop` or with that context.
        let (functions, values) = unsafe {
            let below = |above| {
                pg_sys::AllocSetContextCreateExtended(
                    above,
                    c"coco encoder".as_ptr(),
                    pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                    pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                    pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
                )
            };
            let functions = below(pg_sys::CurTransactionContext);
            (functions, below(functions))
        };
        let mut send = Vec::new();
        let mut types = HEAD_TYPES.to_vec();
        if encoding == Encoding::Json {
            types.extend([pg_sys::TEXTOID; 2]);
        } else {
            for column in stored(&target.columns) {
                types.push(column.type_oid);
                // SAFETY: lookups of the type's functions. Postgres raises an error if the type has
                // no send function.
                unsafe {
                    let mut function = pg_sys::InvalidOid;
                    let mut variable = false;
                    pg_sys::getTypeBinaryOutputInfo(column.type_oid, &mut function, &mut variable);
                    let mut info = pg_sys::FmgrInfo::default();
                    pg_sys::fmgr_info_cxt(function, &mut info, functions);
                    send.push(info);
                }
            }
        }
        let place = |k: &Column| target.columns.iter().position(|c| c.name == k.name).unwrap_or(0);
        let key = target.key.iter().map(place).collect();
        Ok(Encoder { encoding, send, types, key, buffer: Vec::new(), functions, values })
    }

    /// Returns the types that an entry's columns must have, as
    /// [`crate::outbox::change_batch::select_sql`] returns them.
    pub fn types(&self) -> &[pg_sys::Oid] {
        &self.types
    }

    /// Checks that buffered rows have the types of entries.
    pub fn check(&self, rows: &TupleStore) -> Result<()> {
        // SAFETY: the row descriptor lives as long as the rows.
        unsafe {
            let _ = check_types(rows.shape(), 0, &self.types[..SAME_HEAD])?;
            check_types(rows.shape(), HEAD, &self.types[HEAD..])?.check_count(self.types.len())
        }
    }

    /// Returns the key and the row of an entry with the columns of
    /// [`crate::outbox::change_batch::select_sql`].
    pub fn encode(&mut self, entry: Row, upsert: bool) -> Result<(Values, Option<Values>)> {
        if self.encoding == Encoding::Json {
            let text = |column| entry.get::<String>(column);
            let key = text(HEAD).ok_or_else(|| Error::internal("outbox entry has no key"))?;
            return Ok((Values::Json(key), text(HEAD + 1).map(Values::Json)));
        }
        let key = self.fields(entry, self.key.clone())?;
        let row = match upsert {
            true => Some(self.row(entry)?),
            false => None,
        };
        Ok((key, row))
    }

    /// Returns the whole row of an upsert in binary form.
    pub fn row(&mut self, entry: Row) -> Result<Values> {
        self.fields(entry, 0..self.send.len())
    }

    fn fields(&mut self, entry: Row, places: impl IntoIterator<Item = usize>) -> Result<Values> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        for place in places {
            self.field(&mut buffer, place, entry.datum(HEAD + place))?;
        }
        // SAFETY: no value in the context is used any more.
        unsafe { pg_sys::MemoryContextReset(self.values) };
        let values = Values::Binary(buffer.clone());
        self.buffer = buffer;
        Ok(values)
    }

    fn field(
        &mut self,
        to: &mut Vec<u8>,
        place: usize,
        datum: Option<pg_sys::Datum>,
    ) -> Result<()> {
        let Some(datum) = datum else {
            to.extend((-1i32).to_be_bytes());
            return Ok(());
        };
        // SAFETY: the function is the send function of the column's type. `check` or the reader
        // compared this type with the row's before the first row was read. The function's result is
        // a bytea that is not toasted, and lives in the context until the row is encoded.
        unsafe {
            let before = pg_sys::MemoryContextSwitchTo(self.values);
            let bytes = pg_sys::SendFunctionCall(&mut self.send[place], datum);
            pg_sys::MemoryContextSwitchTo(before);
            let value = pgrx::varlena::varlena_to_byte_slice(bytes.cast());
            let length = i32::try_from(value.len())
                .map_err(|_| Error::internal("value is larger than PostgreSQL can store"))?;
            to.extend(length.to_be_bytes());
            to.extend(value);
        }
        Ok(())
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: the context was created in `new`.
            unsafe { pg_sys::MemoryContextDelete(self.functions) };
        }
    }
}
