//! A batch of changes: read row by row, and written in the form that a connector wants.

use std::collections::HashMap;
use std::collections::hash_map::{DefaultHasher, Entry as Slot};
use std::hash::{Hash, Hasher};

use pgrx::pg_sys;

use super::tables::outbox_key;
use crate::catalog::error::{Error, Result};
use crate::catalog::model::{Column, Target, numbered};
use crate::catalog::sql::Arg;
use crate::catalog::stream::{self, Row};
use crate::catalog::tuples::{Rows, Statements};
use crate::engine::delivery::{Change, Encoding, Values};

/// What is sent at once.
pub struct Batch {
    pub changes: Vec<Change>,
    /// The entry of each change.
    pub positions: Vec<i64>,
    /// Up to where the outbox is sent with it.
    pub upto: i64,
}

/// How much is read at once.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub changes: usize,
    pub bytes: usize,
}

/// A SELECT of entries, out of an outbox or what has its columns, for [`Reading::add`].
pub fn select(target: &Target, encoding: Encoding, from: &str) -> String {
    let (values, also) = match encoding {
        Encoding::Binary => (numbered("o.c", target.columns.len()).join(", "), String::new()),
        Encoding::Json => json(target),
    };
    format!(
        "select o.position, o.version, o.upsert, o.refused is not null, {values} from {from} as o{also}"
    )
}

/// A batch that is being read.
pub struct Reading {
    encoder: Encoder,
    batch: Batch,
    /// Where the change of a key is, by the key's hash.
    places: HashMap<u64, usize>,
    /// What may be added still.
    entries: usize,
    bytes: usize,
}

impl Reading {
    /// Of what comes after a position.
    pub fn new(target: &Target, encoding: Encoding, size: Size, after: i64) -> Result<Reading> {
        Ok(Reading {
            encoder: Encoder::new(target, encoding)?,
            batch: Batch { changes: vec![], positions: vec![], upto: after },
            places: HashMap::new(),
            entries: size.changes,
            bytes: size.bytes,
        })
    }

    /// Adds what a SELECT returns, while there is room.
    pub fn add_all(&mut self, statements: &Statements, select: &str, args: &[Arg]) -> Result<()> {
        match self.has_room() {
            true => stream::each(statements, select, args, &mut |row| self.add(row)),
            false => Ok(()),
        }
    }

    /// Adds the next ones of rows that have the columns of [`select`], none of which was refused, while there is
    /// room. Returns how many were read: the last of them may not have been added.
    pub fn add_rows(&mut self, rows: &mut Rows) -> Result<usize> {
        let mut read = 0;
        let mut more = self.has_room();
        while more && rows.advance() {
            read += 1;
            more = self.add(rows.row())?;
        }
        Ok(read)
    }

    /// The batch; `None` where there is nothing.
    pub fn done(self) -> Option<Batch> {
        (!self.batch.changes.is_empty()).then_some(self.batch)
    }

    fn has_room(&self) -> bool {
        self.entries > 0 && self.bytes > 0
    }

    /// Adds an entry; returns whether there is room for another.
    fn add(&mut self, entry: Row) -> Result<bool> {
        let position = entry.get::<i64>(0).unwrap_or(0);
        let version = entry.get::<i64>(1).unwrap_or(0);
        let upsert = entry.get::<bool>(2).unwrap_or(false);
        let (key, row) = self.encoder.encode(entry, upsert)?;
        let bytes = key.bytes() + row.as_ref().map_or(0, Values::bytes);
        let batch = &mut self.batch;
        let change = Change { key, row, version };
        match self.places.entry(hash(&change.key)) {
            Slot::Vacant(slot) => {
                slot.insert(batch.changes.len());
                batch.changes.push(change);
                batch.positions.push(position);
            }
            Slot::Occupied(place) if batch.changes[*place.get()].key == change.key => {
                batch.changes[*place.get()] = change;
                batch.positions[*place.get()] = position;
            }
            // Of another key, by chance: it is in the next batch.
            Slot::Occupied(_) => {
                self.entries = 0;
                return Ok(false);
            }
        }
        if !entry.get::<bool>(3).unwrap_or(false) {
            batch.upto = position;
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        self.entries = self.entries.saturating_sub(1);
        Ok(self.has_room())
    }
}

fn hash(key: &Values) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

/// Key and row of entry `o` as JSON text, and the relations that they are taken from.
fn json(target: &Target) -> (String, String) {
    let named = |names: Vec<String>, columns: &[Column]| {
        let pairs: Vec<String> =
            names.iter().zip(columns).map(|(n, c)| format!("{n} as {}", c.quoted())).collect();
        pairs.join(", ")
    };
    let key: Vec<String> = outbox_key(target).iter().map(|k| format!("o.{k}")).collect();
    let values = "pg_catalog.row_to_json(k.*)::pg_catalog.text,
            case when o.upsert then pg_catalog.row_to_json(r.*)::pg_catalog.text end";
    let also = format!(
        " cross join lateral (select {}) as k cross join lateral (select {}) as r",
        named(key, &target.key),
        named(numbered("o.c", target.columns.len()), &target.columns)
    );
    (values.to_owned(), also)
}

/// Columns of an entry before its values.
const HEAD: usize = 4;

/// Writes rows in the form that a connector wants.
struct Encoder {
    encoding: Encoding,
    /// Each column's function to its binary form.
    send: Vec<pg_sys::FmgrInfo>,
    /// The places of the key columns.
    key: Vec<usize>,
    /// Where a value is put together, to be copied once its length is known.
    buffer: Vec<u8>,
    context: pg_sys::MemoryContext,
}

impl Encoder {
    fn new(target: &Target, encoding: Encoding) -> Result<Encoder> {
        let mut send = Vec::new();
        if encoding == Encoding::Binary {
            for column in &target.columns {
                // SAFETY: look-ups of the type's functions; an error is raised where it has none.
                unsafe {
                    let mut function = pg_sys::InvalidOid;
                    let mut variable = false;
                    pg_sys::getTypeBinaryOutputInfo(column.type_oid, &mut function, &mut variable);
                    let mut info = pg_sys::FmgrInfo::default();
                    pg_sys::fmgr_info(function, &mut info);
                    send.push(info);
                }
            }
        }
        let place = |k: &Column| target.columns.iter().position(|c| c.name == k.name).unwrap_or(0);
        // SAFETY: a child of the transaction's context, deleted in drop or with it.
        let context = unsafe {
            pg_sys::AllocSetContextCreateExtended(
                pg_sys::CurTransactionContext,
                c"coco outbox".as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            )
        };
        let key = target.key.iter().map(place).collect();
        Ok(Encoder { encoding, send, key, buffer: Vec::new(), context })
    }

    fn encode(&mut self, entry: Row, upsert: bool) -> Result<(Values, Option<Values>)> {
        if self.encoding == Encoding::Json {
            let text = |column| entry.get::<String>(column);
            let key = text(HEAD).ok_or_else(|| Error::internal("an entry has no key"))?;
            return Ok((Values::Json(key), text(HEAD + 1).map(Values::Json)));
        }
        let key = self.fields(entry, self.key.clone())?;
        let row = match upsert {
            true => Some(self.fields(entry, 0..self.send.len())?),
            false => None,
        };
        // SAFETY: nothing of it is used any more.
        unsafe { pg_sys::MemoryContextReset(self.context) };
        Ok((key, row))
    }

    fn fields(&mut self, entry: Row, places: impl IntoIterator<Item = usize>) -> Result<Values> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        for place in places {
            self.field(&mut buffer, place, entry.datum(HEAD + place))?;
        }
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
        // SAFETY: the function is the one of the column's type; its result is a bytea that is not
        // toasted, and lives in the context until the row is done.
        unsafe {
            let before = pg_sys::MemoryContextSwitchTo(self.context);
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
            unsafe { pg_sys::MemoryContextDelete(self.context) };
        }
    }
}
