//! How coco writes a batch to one target: which target rows it deletes, and how it writes the new
//! ones. The decisions only; `update/apply_batch` in the extension runs the statements.

/// What the decisions need to know about a batch and one target.
#[derive(Clone, Copy, Debug)]
pub struct BatchShape {
    /// Whether coco finds an item's rows by the item's key, not by a list in its tracking row.
    pub is_owned_by_key: bool,
    /// Whether the target was empty when the update began.
    pub is_target_fresh: bool,
    /// Whether the target's key has as many columns as the source's key. An item of a target that
    /// is owned by key then has at most one row.
    pub has_one_row_per_key: bool,
    /// Whether an item of the batch has a tracking row.
    pub has_tracked: bool,
    /// Whether an item of the batch no longer exists in the source.
    pub has_removed: bool,
    /// The number of items that coco evaluated.
    pub evaluated: usize,
    /// The number of rows that these items produced.
    pub output_rows: usize,
}

impl BatchShape {
    /// Reports whether the target cannot contain a row of an item of the batch.
    fn has_no_earlier_rows(&self) -> bool {
        self.is_target_fresh && self.is_owned_by_key && !self.has_tracked
    }

    /// Reports whether each evaluated item produced the one row that it can have. Only rows of
    /// removed items can be stale then.
    fn has_row_of_each_item(&self) -> bool {
        self.is_owned_by_key && self.has_one_row_per_key && self.output_rows == self.evaluated
    }
}

/// Which target rows coco deletes before it writes the new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeletePlan {
    Nothing,
    /// The rows of items that no longer exist.
    RemovedItems,
    /// The rows of the batch's items that no item of the batch produces any more.
    StaleRows,
}

/// Decides which target rows coco deletes.
pub fn plan_deletes(batch: &BatchShape) -> DeletePlan {
    if batch.has_no_earlier_rows() {
        return DeletePlan::Nothing;
    }
    match (batch.has_row_of_each_item(), batch.has_removed) {
        (true, false) => DeletePlan::Nothing,
        (true, true) => DeletePlan::RemovedItems,
        (false, _) => DeletePlan::StaleRows,
    }
}

/// Where, and in which order, coco writes rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WritePath {
    /// To the ledger and the outbox of an external target.
    Ledger,
    /// To a table, in which coco updates rows that differ.
    InPlace,
    /// To a table, from which coco deletes the rows that change a value of another constraint
    /// first, and inserts them last.
    Displacing,
}

/// How coco writes the new rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertPlan {
    /// There are no new rows.
    Nothing,
    /// Update and insert rows of the ledger, and append the changes to the outbox.
    Ledger,
    /// Displace rows, then update, then insert.
    Displacing,
    /// Insert all rows: the target has no row of these items.
    IntoEmpty,
    /// Update rows that differ, then insert rows that do not exist. A rule of the table may do
    /// something else instead, so coco does not learn which rows it has updated.
    ThroughRules,
    /// Update rows that differ, then insert rows that do not exist. coco looks for the latter only
    /// among the rows that it did not update.
    UpdateThenInsert,
}

/// Decides how coco writes the new rows. Calls `has_rules` only if the answer matters: it locks
/// the target's table.
pub fn plan_inserts(
    batch: &BatchShape,
    path: WritePath,
    has_rules: impl FnOnce() -> bool,
) -> InsertPlan {
    if batch.output_rows == 0 {
        return InsertPlan::Nothing;
    }
    match path {
        WritePath::Ledger => InsertPlan::Ledger,
        WritePath::Displacing => InsertPlan::Displacing,
        WritePath::InPlace if batch.has_no_earlier_rows() => InsertPlan::IntoEmpty,
        WritePath::InPlace if has_rules() => InsertPlan::ThroughRules,
        WritePath::InPlace => InsertPlan::UpdateThenInsert,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A batch of tracked items that exist, each of which produced the one row that it can have.
    const ONE_ROW_EACH: BatchShape = BatchShape {
        is_owned_by_key: true,
        is_target_fresh: false,
        has_one_row_per_key: true,
        has_tracked: true,
        has_removed: false,
        evaluated: 3,
        output_rows: 3,
    };

    fn insert(batch: &BatchShape, path: WritePath) -> InsertPlan {
        plan_inserts(batch, path, || false)
    }

    #[test]
    fn nothing_is_stale_if_each_item_produced_its_one_row() {
        assert_eq!(plan_deletes(&ONE_ROW_EACH), DeletePlan::Nothing);
    }

    #[test]
    fn only_rows_of_removed_items_are_stale_if_each_other_item_produced_its_row() {
        let batch = BatchShape { has_removed: true, ..ONE_ROW_EACH };
        assert_eq!(plan_deletes(&batch), DeletePlan::RemovedItems);
    }

    #[test]
    fn any_row_can_be_stale_if_items_produced_fewer_or_more_rows_than_items() {
        for output_rows in [0, 2, 4] {
            for has_removed in [false, true] {
                let batch = BatchShape { output_rows, has_removed, ..ONE_ROW_EACH };
                assert_eq!(plan_deletes(&batch), DeletePlan::StaleRows);
            }
        }
    }

    #[test]
    fn any_row_can_be_stale_if_an_item_can_have_several_rows() {
        let batch = BatchShape { has_one_row_per_key: false, ..ONE_ROW_EACH };
        assert_eq!(plan_deletes(&batch), DeletePlan::StaleRows);
    }

    #[test]
    fn any_listed_row_can_be_stale() {
        for is_target_fresh in [false, true] {
            let batch = BatchShape { is_owned_by_key: false, is_target_fresh, ..ONE_ROW_EACH };
            assert_eq!(plan_deletes(&batch), DeletePlan::StaleRows);
        }
    }

    #[test]
    fn untracked_items_have_no_rows_in_a_fresh_target_that_is_owned_by_key() {
        let fresh = BatchShape { is_target_fresh: true, output_rows: 9, ..ONE_ROW_EACH };
        let untracked = BatchShape { has_tracked: false, ..fresh };
        assert_eq!(plan_deletes(&untracked), DeletePlan::Nothing);
        assert_eq!(insert(&untracked, WritePath::InPlace), InsertPlan::IntoEmpty);
        let listed = BatchShape { is_owned_by_key: false, ..untracked };
        for batch in [fresh, listed] {
            assert_eq!(plan_deletes(&batch), DeletePlan::StaleRows);
            assert_eq!(insert(&batch, WritePath::InPlace), InsertPlan::UpdateThenInsert);
        }
    }

    #[test]
    fn no_output_means_no_insert() {
        let batch = BatchShape { output_rows: 0, ..ONE_ROW_EACH };
        for path in [WritePath::Ledger, WritePath::InPlace, WritePath::Displacing] {
            assert_eq!(insert(&batch, path), InsertPlan::Nothing);
        }
    }

    #[test]
    fn a_ledger_and_displaced_rows_have_statements_of_their_own() {
        let fresh = BatchShape { is_target_fresh: true, has_tracked: false, ..ONE_ROW_EACH };
        for batch in [ONE_ROW_EACH, fresh] {
            assert_eq!(insert(&batch, WritePath::Ledger), InsertPlan::Ledger);
            assert_eq!(insert(&batch, WritePath::Displacing), InsertPlan::Displacing);
        }
    }

    #[test]
    fn rules_matter_only_to_rows_that_are_updated_in_place() {
        let rules = |batch: &BatchShape, path| plan_inserts(batch, path, || true);
        assert_eq!(rules(&ONE_ROW_EACH, WritePath::InPlace), InsertPlan::ThroughRules);
        let fresh = BatchShape { is_target_fresh: true, has_tracked: false, ..ONE_ROW_EACH };
        let none = BatchShape { output_rows: 0, ..ONE_ROW_EACH };
        for (batch, path) in [
            (fresh, WritePath::InPlace),
            (none, WritePath::InPlace),
            (ONE_ROW_EACH, WritePath::Ledger),
            (ONE_ROW_EACH, WritePath::Displacing),
        ] {
            plan_inserts(&batch, path, || panic!("has_rules locks the table"));
        }
    }
}
