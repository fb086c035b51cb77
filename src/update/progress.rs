//! Telling a listener how far an update is.

use std::cell::Cell;

use crate::catalog::model::Source;
use crate::update::backlog::ScanProgress;

/// How far an update of a source is.
#[derive(Clone, Copy, Debug)]
pub struct ProgressListener {
    pub source: i32,
    /// Items looked at, of those there are to look at.
    pub done: i64,
    pub total: i64,
    /// When the first of them was: microseconds since 1970.
    pub began: i64,
}

thread_local! {
    static WATCHER: Cell<Option<fn(ProgressListener)>> = const { Cell::new(None) };
}

/// Lets a function of this process know how far its updates are, a batch at a time.
pub fn set_progress_listener(watcher: fn(ProgressListener)) {
    WATCHER.set(Some(watcher));
}

/// Tells that so many items more are done of a part.
pub fn report_progress(source: &Source, of: ScanProgress, more: i64) {
    if let Some(watcher) = WATCHER.get() {
        let ScanProgress { done, total, began } = of;
        watcher(ProgressListener { source: source.id, done: done + more, total, began });
    }
}
