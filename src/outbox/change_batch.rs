//! A batch of changes: read row by row, and written in the form that a connector wants.

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
use coco_core::delivery::{Change, Encoding, Values};

/// What is sent at once.
pub struct ChangeBatch {
    pub changes: Vec<Change>,
    /// The entry of each change.
    pub positions: Vec<i64>,
    /// Up to where the outbox is sent with it.
    pub upto: i64,
    /// Of the values.
    pub bytes: usize,
}

impl ChangeBatch {
    /// Of what is on its way already, up to a position.
    pub fn sent(upto: i64) -> ChangeBatch {
        ChangeBatch { changes: vec![], positions: vec![], upto, bytes: 0 }
    }

    /// Adds what comes right after it, and has none of its keys.
    pub fn append(&mut self, mut more: ChangeBatch) {
        self.changes.append(&mut more.changes);
        self.positions.append(&mut more.positions);
        self.upto = more.upto;
        self.bytes += more.bytes;
    }
}

/// How much is read at once.
#[derive(Clone, Copy, Debug)]
pub struct BatchSize {
    pub changes: usize,
    pub bytes: usize,
}

impl BatchSize {
    /// What may be added to a batch; `None` where it is full.
    pub fn less(self, batch: &ChangeBatch) -> Option<BatchSize> {
        let changes = self.changes.checked_sub(batch.positions.len())?;
        let bytes = self.bytes.checked_sub(batch.bytes)?;
        (changes > 0 && bytes > 0).then_some(BatchSize { changes, bytes })
    }
}

/// A SELECT of entries, out of an outbox or what has its columns, for [`BatchReader::add`].
pub fn select_sql(target: &Target, encoding: Encoding, from: &str) -> String {
    let (values, also) = match encoding {
        Encoding::Binary => (numbered("o.c", target.columns.len()).join(", "), String::new()),
        Encoding::Json => json(target),
    };
    format!(
        "select o.position, o.version, o.upsert, o.refused is not null, {values} from {from} as o{also}"
    )
}

/// Encodes each entry that such a SELECT returns, and keeps none: an error is raised where one cannot be.
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
    /// Where the change of a key is, by the key's hash.
    places: HashMap<u64, usize>,
    /// What may be added still.
    entries: usize,
    bytes: usize,
}

impl BatchReader {
    /// Of what comes after a position.
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

    /// Adds what a SELECT returns, while there is room; counts what is `read`.
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

    /// Adds the next ones of rows that have the columns of [`select_sql`], none of which was refused, while there is
    /// room. Returns how many were read: the last of them may not have been added.
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

    /// The batch; `None` where there is nothing.
    pub fn done(self) -> Option<ChangeBatch> {
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
