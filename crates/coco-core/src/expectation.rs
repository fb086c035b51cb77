//! Expectations: what happens to a row that does not satisfy one, how many rows failed, and how
//! many may fail.

use std::collections::BTreeMap;

/// What coco does with a row that does not satisfy an expectation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnmetAction {
    /// coco does not write the row, and lists it as parked.
    Park,
    /// coco writes the row, and counts it.
    Warn,
    /// The row's item fails.
    Fail,
}

impl UnmetAction {
    pub fn from_name(name: &str) -> Option<UnmetAction> {
        match name {
            "park" => Some(UnmetAction::Park),
            "warn" => Some(UnmetAction::Warn),
            "fail" => Some(UnmetAction::Fail),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            UnmetAction::Park => "park",
            UnmetAction::Warn => "warn",
            UnmetAction::Fail => "fail",
        }
    }

    /// Reports whether the action decides which rows the target contains.
    pub fn is_logic(self) -> bool {
        self != UnmetAction::Warn
    }
}

/// The number of rows below which an update counts as an update of this many rows. One bad row in
/// an update of one row must not stop the flow.
const SMALL_UPDATE: i64 = 100;

/// The rows that an update has checked against one expectation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckedRows {
    pub checked: i64,
    pub failed: i64,
}

impl CheckedRows {
    /// Returns how many rows may fail if at most this share of all rows may.
    pub fn allowed(&self, max_share: f64) -> i64 {
        let rows = self.checked.max(SMALL_UPDATE) as f64;
        // Without the small addition, 0.29 of 100 rows would be 28 rows.
        (max_share * rows + 1e-6).floor() as i64
    }

    /// Reports whether more than this share of the rows failed.
    pub fn exceeds(&self, max_share: f64) -> bool {
        self.failed > self.allowed(max_share)
    }
}

/// The checked rows by the ids of the expectations.
pub type RowTally = BTreeMap<i32, CheckedRows>;

/// Adds a tally to another one.
pub fn add_tally(to: &mut RowTally, more: &RowTally) {
    for (id, rows) in more {
        let sum = to.entry(*id).or_default();
        sum.checked += rows.checked;
        sum.failed += rows.failed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_actions_are_read_back() {
        for action in [UnmetAction::Park, UnmetAction::Warn, UnmetAction::Fail] {
            assert_eq!(UnmetAction::from_name(action.name()), Some(action));
        }
        assert_eq!(UnmetAction::from_name("drop"), None);
        assert!(UnmetAction::Park.is_logic() && !UnmetAction::Warn.is_logic());
    }

    #[test]
    fn an_update_may_have_a_share_of_failing_rows() {
        let rows = |checked, failed| CheckedRows { checked, failed };
        assert!(!rows(1000, 10).exceeds(0.01));
        assert!(rows(1000, 11).exceeds(0.01));
        assert!(!rows(100, 29).exceeds(0.29));
        assert!(rows(5, 1).exceeds(0.0));
        assert!(!rows(5, 5).exceeds(1.0));
    }

    #[test]
    fn a_small_update_counts_as_one_of_a_hundred_rows() {
        let one = CheckedRows { checked: 1, failed: 1 };
        assert!(!one.exceeds(0.01));
        assert!(one.exceeds(0.001));
    }

    #[test]
    fn tallies_add_up() {
        let mut all = RowTally::new();
        let part = RowTally::from([(7, CheckedRows { checked: 3, failed: 1 })]);
        add_tally(&mut all, &part);
        add_tally(&mut all, &part);
        assert_eq!(all[&7], CheckedRows { checked: 6, failed: 2 });
    }
}
