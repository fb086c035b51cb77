//! A batch of items on its way to its targets: the relation `coco_batch`.

use pgrx::{IntoDatum, pg_sys};
use std::collections::BTreeSet;

use crate::catalog::model::Source;
use crate::pg::error::Result;
use crate::pg::tuplestore::rows::{self, RowColumn, TupleStore};
use crate::query::compose;
use coco_core::version::{Incoming, ProcessOrdinal};

/// A value, or NULL.
type Value = Option<pg_sys::Datum>;

/// What is done with an item of a batch; in SQL the letter it stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Evaluate,
    Advance,
    Remove,
}

impl Action {
    fn letter(self) -> i8 {
        (match self {
            Action::Evaluate => b'e',
            Action::Advance => b'a',
            Action::Remove => b'r',
        }) as i8
    }
}

/// What a batch knows of an item besides its key.
#[derive(Clone, Copy)]
pub struct Item {
    pub action: Action,
    /// It has a tracking row.
    pub tracked: bool,
    pub incoming: Option<Incoming>,
    pub process_ordinal: ProcessOrdinal,
    /// How often it has failed before.
    pub attempts: i32,
    /// It failed before, and is in the batch since others may need what it has: it stays as it is where it does not
    /// go through.
    pub along: bool,
}

impl Item {
    /// An item that the source has no more, and that is not tracked.
    pub fn gone() -> Item {
        Item {
            action: Action::Remove,
            tracked: false,
            incoming: None,
            process_ordinal: ProcessOrdinal(0),
            attempts: 0,
            along: false,
        }
    }
}

/// The items of a batch, numbered from 0, with their keys and, for SQL, as `coco_batch`.
pub struct Batch {
    columns: Vec<RowColumn>,
    keys: usize,
    /// Where what the items carry begins.
    head: usize,
    /// The items have with them what is used of them: [`compose::carried`].
    pub carries: bool,
    rows: TupleStore,
    pub items: Vec<Item>,
}

impl Batch {
    pub fn new(source: &Source, carries: bool) -> Result<Batch> {
        let mut columns = rows::typed("k", &source.key);
        let rest = [
            ("no", pg_sys::INT4OID),
            ("action", pg_sys::CHAROID),
            ("tracked", pg_sys::BOOLOID),
            ("ordinal", pg_sys::INT8OID),
            ("fingerprint", pg_sys::UUIDOID),
            ("process_ordinal", pg_sys::INT8OID),
        ];
        columns.extend(rest.map(|(name, oid)| RowColumn::new(name, oid)));
        let head = columns.len();
        if carries {
            columns.extend(compose::carried(source).into_iter().map(|(column, _)| column));
        }
        let rows = TupleStore::new(&columns)?;
        Ok(Batch { columns, keys: source.key.len(), head, carries, rows, items: vec![] })
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn rows(&self) -> &TupleStore {
        &self.rows
    }

    /// Adds an item, with what it carries.
    pub fn push(&mut self, key: &[Value], carried: &[Value], item: Item) {
        let mut values = key.to_vec();
        let incoming = item.incoming;
        // A uuid is its 16 bytes, and is copied from where they are: an allocation an item would
        // stay until the update ends.
        let content = incoming.and_then(|i| i.content);
        let content = content.as_ref().map(|c| pg_sys::Datum::from(c.0.as_ptr()));
        values.extend([
            (self.items.len() as i32).into_datum(),
            item.action.letter().into_datum(),
            item.tracked.into_datum(),
            incoming.and_then(|i| i.ordinal).and_then(|o| o.0.into_datum()),
            content,
            item.process_ordinal.0.into_datum(),
        ]);
        values.extend(carried);
        self.rows.push(&values);
        self.items.push(item);
    }

    /// The key of the row just read, and what it carries.
    fn read(&self) -> (Vec<Value>, Vec<Value>) {
        let datums = |range: std::ops::Range<usize>| range.map(|c| self.rows.datum(c)).collect();
        (datums(0..self.keys), datums(self.head..self.columns.len()))
    }

    /// How many bytes the key of the first item has, of columns whose length varies.
    pub fn key_bytes(&mut self) -> usize {
        self.rows.rewind();
        match self.rows.advance() {
            true => (0..self.keys).map(|k| self.rows.varying_bytes(k)).sum(),
            false => 0,
        }
    }

    /// Adds its items to another batch of the same source.
    pub fn move_into(&mut self, other: &mut Batch) -> Result<()> {
        self.rows.rewind();
        for item in std::mem::take(&mut self.items) {
            self.rows.advance();
            let (key, carried) = self.read();
            other.push(&key, &carried, item);
        }
        Ok(())
    }

    /// The items that were only taken along.
    pub fn along(&self) -> BTreeSet<usize> {
        let numbers = self.items.iter().enumerate();
        numbers.filter(|(_, item)| item.along).map(|(n, _)| n).collect()
    }

    /// A batch of its own of the items but for these.
    pub fn without(&mut self, numbers: &BTreeSet<usize>) -> Result<Batch> {
        self.pick(|n| !numbers.contains(&n))
    }

    /// A batch of its own of a range of items.
    pub fn slice(&mut self, range: std::ops::Range<usize>) -> Result<Batch> {
        self.pick(|n| range.contains(&n))
    }

    /// A batch of its own of these items.
    pub fn only(&mut self, numbers: &BTreeSet<usize>) -> Result<Batch> {
        self.pick(|n| numbers.contains(&n))
    }

    fn pick(&mut self, takes: impl Fn(usize) -> bool) -> Result<Batch> {
        let mut picked = Batch {
            columns: self.columns.clone(),
            keys: self.keys,
            head: self.head,
            carries: self.carries,
            rows: TupleStore::new(&self.columns)?,
            items: vec![],
        };
        self.rows.rewind();
        for n in 0..self.items.len() {
            self.rows.advance();
            if takes(n) {
                let (key, carried) = self.read();
                picked.push(&key, &carried, self.items[n]);
            }
        }
        Ok(picked)
    }
}
