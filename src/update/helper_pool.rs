//! The interface to helpers: processes that do a part of an update. The workers implement it.

use crate::pg::error::Result;
use coco_core::counts::Counts;

/// Processes that can run helper tasks.
pub trait HelperPool {
    /// Returns how many helpers there can be.
    fn count(&self) -> usize;
    /// Starts a helper with this partition; `None` if no helper is available.
    fn ask(&self, portion: &[u8]) -> Result<Option<Box<dyn HelperTask>>>;
}

/// A task that a helper runs.
pub trait HelperTask {
    /// Waits until the helper has finished. Returns `None` if the helper's process has ended
    /// without a result: it may have committed the task or not.
    fn done(self: Box<Self>) -> Result<Option<HelperResult>>;
}

/// The result of a helper task.
#[derive(Clone, Copy, Debug, Default)]
pub struct HelperResult {
    pub counts: Counts,
    /// Items that exist.
    pub present: i64,
}

/// No helpers: the transaction does all of its work itself, and commits it together.
pub struct NoHelpers;

impl HelperPool for NoHelpers {
    fn count(&self) -> usize {
        0
    }

    fn ask(&self, _portion: &[u8]) -> Result<Option<Box<dyn HelperTask>>> {
        Ok(None)
    }
}
