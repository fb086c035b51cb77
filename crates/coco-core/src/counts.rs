//! What an update counted.

use std::ops::AddAssign;

/// The counts of one update of one source. Items, except `upserted` and `deleted`: target rows.
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
