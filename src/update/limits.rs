//! How much an update does in one transaction, from the settings and the flow.

use pgrx::guc::GucSetting;

use crate::catalog::model::Flow;

/// How much is done at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Items evaluated and written by the same statements.
    pub batch: usize,
    /// Changes taken from a log, where the rest is left for another update; `None`: all.
    pub changes: Option<usize>,
    /// Bytes of a log's segment, after which the next is begun.
    pub segment_bytes: i64,
}

/// Items of a batch, at most.
pub const LARGEST_BATCH: i32 = 1_000_000;

impl Limits {
    /// The same for a flow that has a batch size of its own.
    pub fn of(self, flow: &Flow) -> Limits {
        let Some(own) = flow.batch_size.and_then(|size| usize::try_from(size).ok()) else {
            return self;
        };
        let scaled = |changes: usize| (changes / self.batch.max(1)).max(1).saturating_mul(own);
        Limits { batch: own, changes: self.changes.map(scaled), ..self }
    }
}

/// `coco.batch_size`, in items, and `coco.log_segment_size`, in kB.
pub static BATCH_SIZE: GucSetting<i32> = GucSetting::<i32>::new(10_000);

pub static SEGMENT_SIZE: GucSetting<i32> = GucSetting::<i32>::new(16 * 1024);

/// What the settings say an update does at once.
pub fn configured_limits() -> Limits {
    Limits {
        batch: BATCH_SIZE.get().max(1) as usize,
        changes: None,
        segment_bytes: i64::from(SEGMENT_SIZE.get()) * 1024,
    }
}
