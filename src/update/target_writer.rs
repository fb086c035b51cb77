//! How rows are written to a target: what a writer needs, and what it reports.

use std::cell::Cell;
use std::collections::BTreeMap;

use crate::catalog::model::{Source, Target};
use coco_core::counts::Counts;
use coco_core::decide::Mode;
use coco_core::memo::{FunctionId, Place};
use coco_core::version::LogicId;

/// How a batch is written.
#[derive(Clone, Copy)]
pub struct WriteOptions {
    pub mode: Mode,
    pub logic: LogicId,
}

/// How rows that differ from those there come to be as they are produced.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum WriteOrder {
    /// They are updated where they are.
    InPlace,
    /// Those that change what another unique or exclusion constraint of the target tells apart are deleted first and
    /// inserted last: so rows can swap such a value.
    Displacing,
}

/// What becomes of a row that no item has, and one produces.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum UnownedRows {
    /// The item is refused its key, as if it were another's.
    Refused,
    /// It is the item's from now on. To know that no item has it, all that is tracked is read.
    TakenOver,
}

/// How a batch is attempted.
#[derive(Clone, Copy)]
pub struct WriteMode<'a> {
    pub order: WriteOrder,
    pub unowned: UnownedRows,
    /// Set where items have target keys of which it cannot be told any more which rows they were.
    pub lost_keys: &'a Cell<bool>,
}

/// A target as the statements of one update see it.
#[derive(Clone, Copy)]
pub struct TargetWriter<'a> {
    pub target: &'a Target,
    /// It was empty when the update began: nothing of an untracked item can be there, so that
    /// looking for it can be saved, where rows are found by the source key.
    pub fresh: bool,
}

/// What came of a batch.
pub struct WriteCounts {
    pub counts: Counts,
    /// What it added to the store of memoised results.
    pub stored: Vec<(Place, i64)>,
    /// Memoised results that its items rest on.
    pub calls: BTreeMap<FunctionId, i64>,
}

/// What a NULL in the key of a lookup leads to: which items it affects is not known.
pub fn null_key(lookup: &Source) -> crate::pg::error::Error {
    crate::pg::error::Error::new(
        pgrx::PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
        format!("lookup \"{}\" has a row whose key is NULL", lookup.name),
    )
    .hint(crate::catalog::item_failure::NULL_KEY_HINT)
}
