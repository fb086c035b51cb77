//! A batch of changes for an external target. coco reads it row by row, in the form that the
//! connector requires.

use std::cell::Cell;
use std::collections::HashMap;
use std::collections::hash_map::{DefaultHasher, Entry as Slot};
use std::hash::{Hash, Hasher};

use crate::catalog::model::Target;
use crate::outbox::row_encoder::Encoder;
use crate::outbox::tables::outbox_key;
use crate::pg::columns::{Column, numbered};
use crate::pg::error::Result;
use crate::pg::spi::Arg;
use crate::pg::tuplestore::row::Row;
use crate::pg::tuplestore::row_stream;
use crate::pg::tuplestore::rows::TupleStore;
use crate::pg::tuplestore::statements::SpiSession;
use coco_core::change::{Change, Encoding, Values};

/// The changes that a worker sends to a target together.
pub struct ChangeBatch {
    pub changes: Vec<Change>,
    /// The position of the outbox entry of each change.
    pub positions: Vec<i64>,
    /// The position up to which the outbox is delivered once the target has acknowledged the batch.
    pub upto: i64,
    /// The size of the keys and rows.
    pub bytes: usize,
}

impl ChangeBatch {
    /// Returns an empty batch that ends at `upto`: the entries up to this position are already in
    /// flight.
    pub fn sent(upto: i64) -> ChangeBatch {
        ChangeBatch { changes: vec![], positions: vec![], upto, bytes: 0 }
    }

    /// Appends the batch that follows directly. The two batches must not share a key.
    pub fn append(&mut self, mut more: ChangeBatch) {
        self.changes.append(&mut more.changes);
        self.positions.append(&mut more.positions);
        self.upto = more.upto;
        self.bytes += more.bytes;
    }
}

/// The limits on one read of an outbox.
#[derive(Clone, Copy, Debug)]
pub struct BatchSize {
    pub changes: usize,
    pub bytes: usize,
}

impl BatchSize {
    /// Returns how much fits into a batch in addition to its content; `None` if the batch is full.
    pub fn less(self, batch: &ChangeBatch) -> Option<BatchSize> {
        let changes = self.changes.checked_sub(batch.positions.len())?;
        let bytes = self.bytes.checked_sub(batch.bytes)?;
        (changes > 0 && bytes > 0).then_some(BatchSize { changes, bytes })
    }
}

/// Returns a SELECT of entries for [`BatchReader::add_all`]. `from` is an outbox, or a relation
/// with its columns.
pub fn select_sql(target: &Target, encoding: Encoding, from: &str) -> String {
    let EntryValues { values, also } = EntryValues::new(target, encoding);
    format!(
        "select o.position, o.version, o.upsert, o.refused is not null, {values} from {from} as o{also}"
    )
}

/// SQL expressions for the values of an entry `o`, in the form that [`Encoder::encode`] reads.
pub struct EntryValues {
    pub values: String,
    /// The relations that the expressions read in addition to `o`.
    pub also: String,
}

impl EntryValues {
    pub fn new(target: &Target, encoding: Encoding) -> EntryValues {
        match encoding {
            Encoding::Binary => EntryValues {
                values: numbered("o.c", target.columns.len()).join(", "),
                also: String::new(),
            },
            Encoding::Json => json(target),
        }
    }
}

/// Encodes each entry that such a SELECT returns, and discards the result. Raises an error if an
/// entry cannot be encoded.
pub fn encode_each(
    target: &Target,
    encoding: Encoding,
    statements: &SpiSession,
    select: &str,
    args: &[Arg],
) -> Result<()> {
    let mut encoder = Encoder::new(target, encoding)?;
    let types = encoder.types().to_vec();
    row_stream::each(statements, select, args, &types, &mut |row| {
        encoder.encode(row, row.get::<bool>(2).unwrap_or(false))?;
        Ok(true)
    })
}

/// A batch that is being read.
pub struct BatchReader {
    encoder: Encoder,
    batch: ChangeBatch,
    /// The index of each key's change in the batch, by the hash of the key.
    places: HashMap<u64, usize>,
    /// How many entries and bytes can still be added.
    entries: usize,
    bytes: usize,
}

impl BatchReader {
    /// Returns a reader of the entries after the position `after`.
    pub fn new(
        target: &Target,
        encoding: Encoding,
        size: BatchSize,
        after: i64,
    ) -> Result<BatchReader> {
        Ok(BatchReader {
            encoder: Encoder::new(target, encoding)?,
            batch: ChangeBatch::sent(after),
            places: HashMap::new(),
            entries: size.changes,
            bytes: size.bytes,
        })
    }

    /// Adds the entries that a SELECT returns, until the batch is full. Adds the number of entries
    /// that it reads to `read`.
    pub fn add_all(
        &mut self,
        statements: &SpiSession,
        select: &str,
        args: &[Arg],
        read: &Cell<usize>,
    ) -> Result<()> {
        match self.has_room() {
            true => {
                let types = self.encoder.types().to_vec();
                row_stream::each(statements, select, args, &types, &mut |row| {
                    let more = self.add(row)?;
                    read.set(read.get() + 1);
                    Ok(more)
                })
            }
            false => Ok(()),
        }
    }

    /// Adds the next of these rows, until the batch is full. The rows must have the columns of
    /// [`select_sql`], and none of them may be rejected. Returns how many rows it read; the last of
    /// these may not have been added.
    pub fn add_rows(&mut self, rows: &mut TupleStore) -> Result<usize> {
        self.encoder.check(rows)?;
        let mut read = 0;
        let mut more = self.has_room();
        while more && rows.advance() {
            read += 1;
            more = self.add(rows.row())?;
        }
        Ok(read)
    }

    /// Returns the batch; `None` if it has no changes.
    pub fn done(self) -> Option<ChangeBatch> {
        (!self.batch.changes.is_empty()).then_some(self.batch)
    }

    fn has_room(&self) -> bool {
        self.entries > 0 && self.bytes > 0
    }

    /// Adds an entry. Returns whether another entry fits.
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
            // Two keys have the same hash by chance. The second key belongs to the next batch.
            Slot::Occupied(_) => {
                self.entries = 0;
                return Ok(false);
            }
        }
        if !entry.get::<bool>(3).unwrap_or(false) {
            batch.upto = position;
        }
        batch.bytes += bytes;
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

/// Returns SQL expressions for the key and the row of entry `o` as JSON text.
fn json(target: &Target) -> EntryValues {
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
    EntryValues { values: values.to_owned(), also }
}
