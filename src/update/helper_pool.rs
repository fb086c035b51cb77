//! The interface to processes that do a part of an update: implemented by the workers.

use crate::pg::error::Result;
use coco_core::counts::Counts;

/// Other processes that take care of portions.
pub trait HelperPool {
    /// How many there can be.
    fn count(&self) -> usize;
    /// Has one begin; `None` where none is to be had.
    fn ask(&self, portion: &[u8]) -> Result<Option<Box<dyn HelperTask>>>;
}

/// A portion that another process takes care of.
pub trait HelperTask {
    /// Waits until it is done. `None`: the other process has ended, and may have committed it or not.
    fn done(self: Box<Self>) -> Result<Option<HelperResult>>;
}

/// What came of a portion.
#[derive(Clone, Copy, Debug, Default)]
pub struct HelperResult {
    pub counts: Counts,
    /// Items that are there.
    pub present: i64,
}
