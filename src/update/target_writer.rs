//! The inputs and the result of writing rows to a target.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::catalog::model::{Flow, Source, Target};
use crate::memo::session::MemoSession;
use coco_core::counts::Counts;
use coco_core::decision::Mode;
use coco_core::expectation::RowTally;
use coco_core::memo_batch::{EntryIndex, FunctionId};
use coco_core::version::LogicId;

/// The mode and the logic of a write.
#[derive(Clone, Copy)]
pub struct WriteOptions {
    pub mode: Mode,
    pub logic: LogicId,
}

/// How coco changes target rows that differ from the output rows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum WriteOrder {
    /// coco updates differing rows in place.
    InPlace,
    /// coco deletes rows that change a value of another unique or exclusion constraint first, and
    /// inserts them last. Rows can then swap such a value.
    Displacing,
}

/// What happens to an existing target row that no item owns, if an item produces it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum UnownedRows {
    /// The item fails, as if the row belonged to another item.
    Refused,
    /// The row belongs to the item from now on. To be sure that no item owns the row, coco reads
    /// all tracking rows.
    TakenOver,
}

/// How coco attempts a batch.
#[derive(Clone, Copy)]
pub struct WriteMode<'a> {
    pub order: WriteOrder,
    pub unowned: UnownedRows,
    /// Set to true if the text of an item's listed target keys no longer names a value. coco then
    /// does not know which rows the item had.
    pub lost_keys: &'a Cell<bool>,
}

/// A target as the statements of one update use it.
#[derive(Clone, Copy)]
pub struct TargetWriter<'a> {
    pub target: &'a Target,
    /// Whether the target was empty when the update began. An untracked item then has no rows in
    /// it. If coco finds rows by the source key, it need not look for them.
    pub fresh: bool,
}

/// What all steps of writing a batch share.
#[derive(Clone, Copy)]
pub struct BatchContext<'a> {
    pub flow: &'a Flow,
    pub source: &'a Source,
    /// The targets, in the order of the flow.
    pub writers: &'a [TargetWriter<'a>],
    pub writing: WriteOptions,
    pub how: WriteMode<'a>,
    /// The memoized results of the update, if the flow has memoized functions.
    pub recalling: Option<&'a Rc<MemoSession>>,
}

/// The result of writing a batch.
pub struct WriteCounts {
    pub counts: Counts,
    /// New entries of the store of memoized results.
    pub stored: Vec<(EntryIndex, i64)>,
    /// How many memoized results of each function the items use.
    pub calls: BTreeMap<FunctionId, i64>,
    /// The rows that were checked against expectations.
    pub tally: RowTally,
}

/// Returns the error for a lookup row with a NULL in its key. coco cannot determine which items
/// such a row affects.
pub fn null_key(lookup: &Source) -> crate::pg::error::Error {
    crate::pg::error::Error::new(
        pgrx::PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
        format!("lookup \"{}\" has a row whose key is NULL", lookup.name),
    )
    .hint(crate::catalog::item_failure::NULL_KEY_HINT)
}
