//! How much an update does in one transaction, as the settings and the flow determine.

use pgrx::guc::GucSetting;

use crate::catalog::model::Flow;

/// The limits of one transaction.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The number of items that coco evaluates and writes with the same statements.
    pub batch: usize,
    /// The number of changes to take from a log, if another update can take the rest; `None`: all.
    pub changes: Option<usize>,
    /// The size in bytes after which a change log continues in its next segment.
    pub segment_bytes: i64,
}

/// The largest allowed number of items in a batch.
pub const LARGEST_BATCH: i32 = 1_000_000;

impl Limits {
    /// Returns the limits for a flow, which may have a batch size of its own.
    pub fn of(self, flow: &Flow) -> Limits {
        let Some(own) = flow.batch_size.and_then(|size| usize::try_from(size).ok()) else {
            return self;
        };
        let scaled = |changes: usize| (changes / self.batch.max(1)).max(1).saturating_mul(own);
        Limits { batch: own, changes: self.changes.map(scaled), ..self }
    }
}

/// The setting `coco.batch_size`, in items.
pub static BATCH_SIZE: GucSetting<i32> = GucSetting::<i32>::new(10_000);

/// The setting `coco.log_segment_size`, in kB.
pub static SEGMENT_SIZE: GucSetting<i32> = GucSetting::<i32>::new(16 * 1024);

/// Returns the limits that the settings determine.
pub fn configured_limits() -> Limits {
    Limits {
        batch: BATCH_SIZE.get().max(1) as usize,
        changes: None,
        segment_bytes: i64::from(SEGMENT_SIZE.get()) * 1024,
    }
}
