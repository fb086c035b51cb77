//! Pending keys: the keys that a scan found and that one transaction is too short for. coco
//! processes them in slices.
//!
//! While a source has pending keys, its stored cursor has a logic that no flow has. The cursor
//! therefore prevents coco from emptying the change log, and a process without the pending keys
//! scans again. Such a scan would not find an item that was due for a reason that has passed, or
//! that the scan does not see. coco marks these items in the tracking rows
//! ([`tracking_rows::forget_content`]).

use pgrx::pg_sys;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};

use crate::capture::cursor::{self, Cursor};
use crate::catalog::model::Source;
use crate::pg::error::Result;
use crate::pg::tuplestore::rows::{self, TupleStore};
use crate::update::candidate_rows::{Candidates, key_columns};
use crate::update::initial_load::RowSinks;
use crate::update::tracking_rows;
use coco_core::version::LogicId;

/// The logic of a cursor whose pending keys are not processed yet.
pub const UNFINISHED: LogicId = LogicId(0);

/// The pending keys of a flow's sources, which a process keeps between its transactions. If one of
/// these transactions fails, the caller must discard the value.
#[derive(Default)]
pub struct PendingKeys {
    sets: RefCell<HashMap<i32, PendingSet>>,
    /// The sources that this update has finished; `None` if every transaction looks at all sources.
    done: Option<RefCell<HashSet<i32>>>,
    /// Whether a processed item listed target keys whose text no longer names a value, so that coco
    /// does not know which rows the item had.
    pub lost_keys: Cell<bool>,
    /// When the update began: microseconds since 1970.
    pub began: i64,
    /// Set if this process delivers the rows of an initial load to external targets itself.
    pub sends: Option<RowSinks>,
}

struct PendingSet {
    /// The revision of the source that was scanned.
    revision: i32,
    keys: TupleStore,
    left: usize,
    /// The cursor to store when no key is left.
    cursor: Cursor,
    fresh: Vec<i32>,
    part: ScanProgress,
    /// Whether the source has lookups.
    lookups: bool,
}

/// What the pending keys contain: existing items, how many of these are new, and items that no
/// longer exist.
#[derive(Clone, Copy, Debug, Default)]
pub struct SavedKeys {
    pub present: i64,
    pub new: i64,
    pub gone: i64,
}

/// How far the items that a scan found are processed.
#[derive(Clone, Copy, Debug)]
pub struct ScanProgress {
    /// The number of processed items, and of all items that the scan found.
    pub done: i64,
    pub total: i64,
    /// When the first item was processed: microseconds since 1970.
    pub began: i64,
}

/// A slice of the pending keys.
pub struct KeySlice {
    /// The progress before this slice.
    pub part: ScanProgress,
    /// The keys `k1…`, and whether coco forces their items.
    pub keys: TupleStore,
    /// The cursor to store with this slice, if it is the last one.
    pub last: Option<Cursor>,
    /// Targets that were empty when the scan began, and that only updates of the flow write to.
    pub fresh: Vec<i32>,
}

impl PendingKeys {
    /// Returns pending keys for an update that consists of several transactions and looks at each
    /// source once.
    pub fn once(sends: Option<RowSinks>) -> PendingKeys {
        let began = crate::pg::clock::now_micros();
        PendingKeys { done: Some(RefCell::default()), began, sends, ..PendingKeys::default() }
    }

    /// Reports whether the update looks at each source once.
    pub fn looks_once(&self) -> bool {
        self.done.is_some()
    }

    /// Reports whether there are no pending keys.
    pub fn is_empty(&self) -> bool {
        self.sets.borrow().is_empty()
    }

    /// Reports whether this update has finished a source.
    pub fn is_done(&self, source: &Source) -> bool {
        self.done.as_ref().is_some_and(|done| done.borrow().contains(&source.id))
    }

    /// Records that no key of the source is left.
    pub fn done(&self, source: &Source) {
        if let Some(done) = &self.done {
            done.borrow_mut().insert(source.id);
        }
    }

    /// Stores the remaining candidates of a scan under this cursor as pending keys. `all` forces
    /// all of them. If the source has `lookups`, coco counts these as followed from now on. It
    /// therefore also records on disk which tracked items it must evaluate.
    pub fn set(
        &self,
        source: &Source,
        candidates: &mut Candidates,
        cursor: Cursor,
        fresh: Vec<i32>,
        part: ScanProgress,
        (all, lookups): (bool, bool),
    ) -> Result<SavedKeys> {
        let mut keys = TupleStore::held(&key_columns(source), rows::work_mem())?;
        let mut unsettled = TupleStore::new(&key_columns(source))?;
        let mut found = SavedKeys::default();
        while let Some(item) = candidates.next() {
            found.present += i64::from(item.incoming.is_some());
            found.new += i64::from(item.incoming.is_some() && item.stored.is_none());
            found.gone += i64::from(item.incoming.is_none() && item.stored.is_some());
            let forced = all || item.forced;
            let mut values = candidates.key();
            values.push(Some(pg_sys::Datum::from(forced)));
            keys.push(&values);
            if lookups && item.stored.is_some() && (forced || !item.is_as_committed()) {
                unsettled.push(&values);
            }
        }
        tracking_rows::forget_content(source, &unsettled)?;
        let left = keys.len();
        let revision = source.revision;
        let set = PendingSet { revision, keys, left, cursor, fresh, part, lookups };
        self.sets.borrow_mut().insert(source.id, set);
        Ok(found)
    }

    /// Reports whether coco must scan the source again instead of using its pending keys. The first
    /// case: its lookups have `changed`, and no log tells which other items differ from their
    /// committed version. The second case: the source has gained or lost its lookups since the
    /// scan.
    pub fn is_outdated(&self, source: &Source, lookups: bool, changed: bool) -> bool {
        self.sets.borrow().get(&source.id).is_some_and(|set| {
            set.lookups != lookups || changed && set.cursor.signature == cursor::NOWHERE
        })
    }

    /// Reports whether a source has pending keys.
    pub fn has(&self, source: &Source) -> bool {
        self.sets.borrow().contains_key(&source.id)
    }

    /// Discards the pending keys of a source, which makes coco scan it again.
    pub fn forget(&self, source: &Source) {
        self.sets.borrow_mut().remove(&source.id);
    }

    /// Takes the next slice of a source's pending keys. Returns `None`, and discards the keys, if
    /// they were found under another logic, or before the source was altered.
    pub fn take(&self, source: &Source, logic: LogicId, most: usize) -> Result<Option<KeySlice>> {
        let mut sets = self.sets.borrow_mut();
        let is_current = |s: &PendingSet| s.cursor.logic == logic && s.revision == source.revision;
        let Some(set) = sets.get_mut(&source.id).filter(|s| is_current(s)) else {
            sets.remove(&source.id);
            return Ok(None);
        };
        let keys = set.keys.take(&key_columns(source), most)?;
        set.left = set.left.saturating_sub(keys.len());
        let part = set.part;
        set.part.done += keys.len() as i64;
        let fresh = set.fresh.clone();
        let last = (set.left == 0).then(|| set.cursor.clone());
        if last.is_some() {
            sets.remove(&source.id);
        }
        Ok(Some(KeySlice { part, keys, last, fresh }))
    }
}

/// Stores that a source was read under this cursor, and that pending keys are left.
pub fn unfinished(source: &Source, cursor: &Cursor) -> Result<()> {
    cursor::store_cursor(source, &Cursor { logic: UNFINISHED, ..cursor.clone() }, false)
}
