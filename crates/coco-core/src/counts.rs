//! Counts of an update.

use std::ops::AddAssign;

/// The counts of one update of one source. They count items, except `upserted` and `deleted`, which
/// count target rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub seen: i64,
    pub skipped: i64,
    pub unchanged: i64,
    pub evaluated: i64,
    pub upserted: i64,
    pub deleted: i64,
    pub failed: i64,
}

impl Counts {
    /// Counts items that coco did not evaluate. If the source has an ordinal, coco skipped them by
    /// version; otherwise it found their content unchanged.
    pub fn count_left_out(&mut self, has_ordinal: bool, items: i64) {
        match has_ordinal {
            true => self.skipped += items,
            false => self.unchanged += items,
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, o: Counts) {
        self.seen += o.seen;
        self.skipped += o.skipped;
        self.unchanged += o.unchanged;
        self.evaluated += o.evaluated;
        self.upserted += o.upserted;
        self.deleted += o.deleted;
        self.failed += o.failed;
    }
}
