//! A batch of items that `update` evaluates and writes together, visible to SQL as the relation
//! `coco_batch`.

use pgrx::{IntoDatum, pg_sys};
use std::collections::BTreeSet;

use crate::catalog::model::Source;
use crate::pg::error::Result;
use crate::pg::tuplestore::rows::{self, RowColumn, TupleStore};
use crate::query::compose;
use coco_core::version::{ProcessOrdinal, SourceVersion};

/// A value, or NULL.
type Value = Option<pg_sys::Datum>;

/// What coco does with an item of a batch. `coco_batch.action` contains the corresponding letter.
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

    /// Returns an SQL condition: coco does this with the item of batch row `b`.
    pub fn is_sql(self) -> String {
        self.compare_sql("=")
    }

    /// Returns an SQL condition: coco does something else with the item of batch row `b`.
    pub fn is_not_sql(self) -> String {
        self.compare_sql("<>")
    }

    fn compare_sql(self, operator: &str) -> String {
        let letter = char::from(self.letter() as u8);
        format!("b.action operator(pg_catalog.{operator}) '{letter}'::pg_catalog.\"char\"")
    }
}

/// What a batch records about an item in addition to its key.
#[derive(Clone, Copy)]
pub struct Item {
    pub action: Action,
    /// Whether the item has a tracking row.
    pub tracked: bool,
    pub incoming: Option<SourceVersion>,
    pub process_ordinal: ProcessOrdinal,
    /// The number of earlier failures.
    pub attempts: i32,
    /// Whether the item failed before and is in the batch only because other items may need a
    /// target key that it owns. If the item fails again, coco leaves its state unchanged.
    pub along: bool,
}

impl Item {
    /// Returns an untracked item that no longer exists in the source.
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

/// The items of a batch, numbered from 0, with their keys, and the same as the relation
/// `coco_batch` for SQL.
pub struct Batch {
    columns: Vec<RowColumn>,
    keys: usize,
    /// The position of the first carried column.
    head: usize,
    /// Whether each item carries the columns that the query uses: [`compose::carried`].
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

    /// Adds an item, with the values that it carries.
    pub fn push(&mut self, key: &[Value], carried: &[Value], item: Item) {
        let mut values = key.to_vec();
        let incoming = item.incoming;
        // A uuid is a pointer to 16 bytes, which the tuplestore copies. An allocation per item
        // would stay until the update ends.
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

    /// Returns the key of the current row, and the values that it carries.
    fn read(&self) -> (Vec<Value>, Vec<Value>) {
        let datums = |range: std::ops::Range<usize>| range.map(|c| self.rows.datum(c)).collect();
        (datums(0..self.keys), datums(self.head..self.columns.len()))
    }

    /// Returns the size in bytes of the first item's key, counting only columns of variable length.
    pub fn key_bytes(&mut self) -> usize {
        self.rows.rewind();
        match self.rows.advance() {
            true => (0..self.keys).map(|k| self.rows.varying_bytes(k)).sum(),
            false => 0,
        }
    }

    /// Moves the items into another batch of the same source.
    pub fn move_into(&mut self, other: &mut Batch) -> Result<()> {
        self.rows.rewind();
        for item in std::mem::take(&mut self.items) {
            self.rows.advance();
            let (key, carried) = self.read();
            other.push(&key, &carried, item);
        }
        Ok(())
    }

    /// Returns the numbers of the items that are in the batch only for other items' sake.
    pub fn along(&self) -> BTreeSet<usize> {
        let numbers = self.items.iter().enumerate();
        numbers.filter(|(_, item)| item.along).map(|(n, _)| n).collect()
    }

    /// Returns a new batch of all items except these.
    pub fn without(&mut self, numbers: &BTreeSet<usize>) -> Result<Batch> {
        self.pick(|n| !numbers.contains(&n))
    }

    /// Returns a new batch of a range of items.
    pub fn slice(&mut self, range: std::ops::Range<usize>) -> Result<Batch> {
        self.pick(|n| range.contains(&n))
    }

    /// Returns a new batch of these items.
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
