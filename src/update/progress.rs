//! Telling a listener how far an update is.

use std::cell::Cell;

use crate::catalog::model::Source;
use crate::update::backlog::Part;

/// How far an update of a source is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    pub source: i32,
    /// Items looked at, of those there are to look at.
    pub done: i64,
    pub total: i64,
    /// When the first of them was: microseconds since 1970.
    pub began: i64,
}

thread_local! {
    static WATCHER: Cell<Option<fn(Progress)>> = const { Cell::new(None) };
}

/// Lets a function of this process know how far its updates are, a batch at a time.
pub fn watch(watcher: fn(Progress)) {
    WATCHER.set(Some(watcher));
}

/// Tells that so many items more are done of a part.
pub fn tell(source: &Source, of: Part, more: i64) {
    if let Some(watcher) = WATCHER.get() {
        let Part { done, total, began } = of;
        watcher(Progress { source: source.id, done: done + more, total, began });
    }
}
