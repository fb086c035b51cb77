//! Reports the progress of an update to a listener.

use std::cell::Cell;

use crate::catalog::model::Source;
use crate::update::backlog::ScanProgress;

/// The progress of an update of one source.
#[derive(Clone, Copy, Debug)]
pub struct ProgressListener {
    pub source: i32,
    /// The number of processed items, and of all items to process.
    pub done: i64,
    pub total: i64,
    /// When the first item was processed: microseconds since 1970.
    pub began: i64,
}

thread_local! {
    static WATCHER: Cell<Option<fn(ProgressListener)>> = const { Cell::new(None) };
}

/// Registers a function of this process that receives the progress of its updates after each batch.
pub fn set_progress_listener(watcher: fn(ProgressListener)) {
    WATCHER.set(Some(watcher));
}

/// Reports that this many further items of a scan are processed.
pub fn report_progress(source: &Source, of: ScanProgress, more: i64) {
    if let Some(watcher) = WATCHER.get() {
        let ScanProgress { done, total, began } = of;
        watcher(ProgressListener { source: source.id, done: done + more, total, began });
    }
}
