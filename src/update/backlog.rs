//! What a scan has found, where that is more than one transaction is to take on: the keys are set aside,
//! and taken up a slice at a time.
//!
//! Until all are, the source's cursor is stored with a logic that none has: it keeps the change log from
//! being emptied, and whoever comes with nothing set aside scans again. What such a scan would not find again, since
//! something else was the reason, or has passed, is marked in the tracking rows ([`track::unsettle`]).

use pgrx::pg_sys;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};

use crate::capture::cursor::{self, Cursor};
use crate::catalog::model::Source;
use crate::pg::error::Result;
use crate::pg::tuplestore::rows::{self, TupleStore};
use crate::update::detect::Candidates;
use crate::update::initial_load::RowSinks;
use crate::update::source_plan::key_columns;
use crate::update::tracking_rows;
use coco_core::version::LogicId;

/// The logic of a cursor whose scan is not worked off yet.
pub const UNFINISHED: LogicId = LogicId(0);

/// What is set aside of the sources of a flow, between the transactions of one process. An error in
/// one of them makes it worthless: it is to be dropped then.
#[derive(Default)]
pub struct PendingKeys {
    sets: RefCell<HashMap<i32, PendingSet>>,
    /// Sources that are not to be looked at again; `None`: each is, in each transaction.
    done: Option<RefCell<HashSet<i32>>>,
    /// Items that were worked off had target keys of which it cannot be told any more which rows they were.
    pub lost_keys: Cell<bool>,
    /// When it was begun: microseconds since 1970.
    pub began: i64,
    /// What is found is sent by this process, to targets outside this database.
    pub sends: Option<RowSinks>,
}

struct PendingSet {
    keys: TupleStore,
    left: usize,
    /// What is to be stored when nothing is left.
    cursor: Cursor,
    fresh: Vec<i32>,
    part: ScanProgress,
    /// The source has lookups.
    lookups: bool,
}

/// What was set aside: items that are there, of these those that are new, and those that are gone.
#[derive(Clone, Copy, Debug, Default)]
pub struct SavedKeys {
    pub present: i64,
    pub new: i64,
    pub gone: i64,
}

/// How far a scan's findings are worked off.
#[derive(Clone, Copy, Debug)]
pub struct ScanProgress {
    /// Items that are done, of all that it has found.
    pub done: i64,
    pub total: i64,
    /// When the first was: microseconds since 1970.
    pub began: i64,
}

/// A part of what was set aside.
pub struct KeySlice {
    /// How far it is without this one.
    pub part: ScanProgress,
    /// `k1…`, and whether it is evaluated whatever its content.
    pub keys: TupleStore,
    /// What is to be stored with it: it is the last one.
    pub last: Option<Cursor>,
    /// Targets that were empty when it was set aside, and that only updates of the flow write to.
    pub fresh: Vec<i32>,
}

impl PendingKeys {
    /// For an update that takes several transactions, and looks at each source once.
    pub fn once(sends: Option<RowSinks>) -> PendingKeys {
        let began = crate::pg::clock::now_micros();
        PendingKeys { done: Some(RefCell::default()), began, sends, ..PendingKeys::default() }
    }

    /// Whether nothing is set aside.
    pub fn is_empty(&self) -> bool {
        self.sets.borrow().is_empty()
    }

    pub fn is_done(&self, source: &Source) -> bool {
        self.done.as_ref().is_some_and(|done| done.borrow().contains(&source.id))
    }

    /// Nothing of the source is left.
    pub fn done(&self, source: &Source) {
        if let Some(done) = &self.done {
            done.borrow_mut().insert(source.id);
        }
    }

    /// Sets the candidates aside that are left of those that a scan under this cursor has found: to be evaluated
    /// whatever their content, where that is so of `all`. Of a source with `lookups`, which count as followed from
    /// now on, it is noted on disk, too.
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
        let set = PendingSet { keys, left, cursor, fresh, part, lookups };
        self.sets.borrow_mut().insert(source.id, set);
        Ok(found)
    }

    /// Whether what is set aside of a source is to be found again: its lookups have `changed`, and it has no log
    /// that tells which other items are not as they were committed; or it had none when that was set aside.
    pub fn is_outdated(&self, source: &Source, lookups: bool, changed: bool) -> bool {
        self.sets.borrow().get(&source.id).is_some_and(|set| {
            set.lookups != lookups || changed && set.cursor.signature == cursor::NOWHERE
        })
    }

    /// Whether something of a source is set aside.
    pub fn has(&self, source: &Source) -> bool {
        self.sets.borrow().contains_key(&source.id)
    }

    /// Forgets what was set aside of a source: it is found again.
    pub fn forget(&self, source: &Source) {
        self.sets.borrow_mut().remove(&source.id);
    }

    /// Takes up the next keys of a source, if some were set aside under this logic.
    pub fn take(&self, source: &Source, logic: LogicId, most: usize) -> Result<Option<KeySlice>> {
        let mut sets = self.sets.borrow_mut();
        let Some(set) = sets.get_mut(&source.id).filter(|s| s.cursor.logic == logic) else {
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

/// Stores that a source was read under this cursor, and that what was found is not worked off yet.
pub fn unfinished(source: &Source, cursor: &Cursor) -> Result<()> {
    cursor::store_cursor(source, &Cursor { logic: UNFINISHED, ..cursor.clone() }, false)
}
