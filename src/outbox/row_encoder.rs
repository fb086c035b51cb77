//! Rows of a target in the form that its connector wants.

use pgrx::pg_sys;

use crate::catalog::model::Target;
use crate::pg::columns::{Column, stored};
use crate::pg::error::{Error, Result};
use crate::pg::tuplestore::row::Row;
use crate::pg::tuplestore::row_types::check_types;
use crate::pg::tuplestore::rows::TupleStore;
use coco_core::delivery::{Encoding, Values};

/// The types of an entry's columns before its values: position, version, whether it is an upsert, and
/// whether it was refused.
const HEAD_TYPES: [pg_sys::Oid; 4] =
    [pg_sys::INT8OID, pg_sys::INT8OID, pg_sys::BOOLOID, pg_sys::BOOLOID];

/// Columns of an entry before its values.
const HEAD: usize = HEAD_TYPES.len();

/// Of these, how many rows that are kept have in the same form.
const SAME_HEAD: usize = 3;

/// Writes the rows of a target in its connector's form.
pub struct Encoder {
    encoding: Encoding,
    /// Each column's function to its binary form.
    send: Vec<pg_sys::FmgrInfo>,
    /// The types of an entry's columns, as they are read.
    types: Vec<pg_sys::Oid>,
    /// The places of the key columns.
    key: Vec<usize>,
    /// Where a value is put together, to be copied once its length is known.
    buffer: Vec<u8>,
    /// What the functions keep between two values, and, below that, the values of a row.
    functions: pg_sys::MemoryContext,
    values: pg_sys::MemoryContext,
}

impl Encoder {
    pub fn new(target: &Target, encoding: Encoding) -> Result<Encoder> {
        // SAFETY: children of the transaction's context, deleted in drop or with it.
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
                // SAFETY: look-ups of the type's functions; an error is raised where it has none.
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

    /// The types that the columns of an entry have to have: of what [`crate::outbox::change_batch::select_sql`] returns.
    pub fn types(&self) -> &[pg_sys::Oid] {
        &self.types
    }

    /// Checks that rows that are kept have the types of entries.
    pub fn check(&self, rows: &TupleStore) -> Result<()> {
        // SAFETY: the shape lives as long as the rows.
        unsafe {
            let _ = check_types(rows.shape(), 0, &self.types[..SAME_HEAD])?;
            check_types(rows.shape(), HEAD, &self.types[HEAD..])?.check_count(self.types.len())
        }
    }

    /// Key and row of an entry that has the columns of [`crate::outbox::change_batch::select_sql`].
    pub fn encode(&mut self, entry: Row, upsert: bool) -> Result<(Values, Option<Values>)> {
        if self.encoding == Encoding::Json {
            let text = |column| entry.get::<String>(column);
            let key = text(HEAD).ok_or_else(|| Error::internal("an entry has no key"))?;
            return Ok((Values::Json(key), text(HEAD + 1).map(Values::Json)));
        }
        let key = self.fields(entry, self.key.clone())?;
        let row = match upsert {
            true => Some(self.row(entry)?),
            false => None,
        };
        Ok((key, row))
    }

    /// The whole row of an entry that has its values, in binary form.
    pub fn row(&mut self, entry: Row) -> Result<Values> {
        self.fields(entry, 0..self.send.len())
    }

    fn fields(&mut self, entry: Row, places: impl IntoIterator<Item = usize>) -> Result<Values> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        for place in places {
            self.field(&mut buffer, place, entry.datum(HEAD + place))?;
        }
        // SAFETY: nothing of it is used any more.
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
        // SAFETY: the function is the one of the column's type, which was compared with the row's before the
        // first row was read; its result is a bytea that is not
        // toasted, and lives in the context until the row is done.
        unsafe {
            let before = pg_sys::MemoryContextSwitchTo(self.values);
            let bytes = pg_sys::SendFunctionCall(&mut self.send[place], datum);
            pg_sys::MemoryContextSwitchTo(before);
            let value = pgrx::varlena::varlena_to_byte_slice(bytes.cast());
            let length = i32::try_from(value.len())
                .map_err(|_| Error::internal("a value is larger than Postgres can hold"))?;
            to.extend(length.to_be_bytes());
            to.extend(value);
        }
        Ok(())
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: made in `new`.
            unsafe { pg_sys::MemoryContextDelete(self.functions) };
        }
    }
}
