//! The cursors that a worker keeps in memory, which are newer than the stored ones. If they are
//! lost with the worker, the next worker only looks at some items again.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::capture::cursor::Cursor;
use crate::catalog::model::Source;

/// The shortest time between two writes of a live flow's cursor. Each write leaves a dead row
/// version, which a long transaction keeps from being vacuumed.
const STORE_EVERY: Duration = Duration::from_millis(50);

/// The cursors of a flow's sources and lookups.
#[derive(Default)]
pub struct CursorCache(HashMap<i32, CachedCursor>);

struct CachedCursor {
    /// The revision of the source that the cursor belongs to.
    revision: i32,
    cursor: Cursor,
    stored_at: Instant,
    unsaved: bool,
}

/// A cursor to put into the cache once the transaction has committed.
pub struct CursorUpdate {
    source: i32,
    revision: i32,
    cursor: Cursor,
    stored: bool,
}

impl CursorUpdate {
    /// Returns a cursor that the transaction stores.
    pub fn stored(source: &Source, cursor: Cursor) -> CursorUpdate {
        CursorUpdate { source: source.id, revision: source.revision, cursor, stored: true }
    }

    /// Returns a cursor that only the cache keeps.
    pub fn unsaved(source: &Source, cursor: Cursor) -> CursorUpdate {
        CursorUpdate { source: source.id, revision: source.revision, cursor, stored: false }
    }
}

impl CursorCache {
    /// Keeps the cursors of a committed transaction.
    pub fn keep(&mut self, kept: Vec<CursorUpdate>) {
        for k in kept {
            let before = self.0.get(&k.source).map(|m| m.stored_at);
            let stored_at = match k.stored {
                true => Instant::now(),
                false => before.unwrap_or_else(Instant::now),
            };
            let CursorUpdate { source, revision, cursor, stored } = k;
            self.0.insert(source, CachedCursor { revision, cursor, stored_at, unsaved: !stored });
        }
    }

    /// Returns the time until the first unsaved cursor should be stored; `None` if all are stored.
    pub fn unsaved_for(&self) -> Option<Duration> {
        let unsaved = self.0.values().filter(|m| m.unsaved);
        unsaved.map(|m| STORE_EVERY.saturating_sub(m.stored_at.elapsed())).min()
    }

    /// Returns the cursor of a source.
    pub fn get(&self, source: &Source) -> Option<&Cursor> {
        self.of_revision(source).map(|m| &m.cursor)
    }

    /// Reports whether the cursor of a source is not stored yet.
    pub fn is_unsaved(&self, source: &Source) -> bool {
        self.of_revision(source).is_some_and(|m| m.unsaved)
    }

    /// Reports whether the cursor of a source was stored too recently to be stored again.
    pub fn is_stored_recently(&self, source: &Source) -> bool {
        self.of_revision(source).is_some_and(|m| m.stored_at.elapsed() < STORE_EVERY)
    }

    /// Returns what is known of a source, unless the source was altered since.
    fn of_revision(&self, source: &Source) -> Option<&CachedCursor> {
        self.0.get(&source.id).filter(|m| m.revision == source.revision)
    }
}
