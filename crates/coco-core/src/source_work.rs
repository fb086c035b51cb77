//! What an update does with one source, once the plan of the source and the changes of its lookups
//! are known. The decision only; `update/source_pass` in the extension carries it out.

/// The items that an update must evaluate whatever their content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForcedItems {
    None,
    Some,
    All,
}

/// What the plan of a source reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlannedRead {
    /// Nothing: the source has no usable change log, and its next scan is not due.
    Nothing,
    /// The items of the keys in the change log.
    Keys,
    /// All items. `forced` are those that the change log forces, because the cursor was behind.
    All { forced: ForcedItems },
}

/// Who forces items of a scan that compares the content of all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanForce {
    /// The lookups, possibly none.
    Lookups,
    /// The change log and the lookups.
    LogAndLookups,
}

/// What an update does with one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkChoice {
    Nothing,
    /// Process the planned keys.
    PlannedKeys,
    /// Process the planned keys and the keys that the lookups force.
    PlannedAndForcedKeys,
    /// Scan the source for changed items.
    ScanForChanges(ScanForce),
    /// Scan the source and evaluate every item. If a change of a lookup affects every item, coco
    /// must process them `at_once`: the next change would make it discard pending keys.
    ScanEverything {
        at_once: bool,
    },
}

/// Decides what an update does with one source.
pub fn choose_work(planned: PlannedRead, by_lookups: ForcedItems) -> WorkChoice {
    match (planned, by_lookups) {
        (_, ForcedItems::All) => WorkChoice::ScanEverything { at_once: true },
        (PlannedRead::All { forced: ForcedItems::All }, _) => {
            WorkChoice::ScanEverything { at_once: false }
        }
        (PlannedRead::All { forced: ForcedItems::Some }, _) => {
            WorkChoice::ScanForChanges(ScanForce::LogAndLookups)
        }
        (PlannedRead::All { forced: ForcedItems::None }, _) => {
            WorkChoice::ScanForChanges(ScanForce::Lookups)
        }
        (PlannedRead::Keys, ForcedItems::Some) => WorkChoice::PlannedAndForcedKeys,
        (PlannedRead::Keys, ForcedItems::None) => WorkChoice::PlannedKeys,
        // A plan that reads nothing means that no lookup has changed.
        (PlannedRead::Nothing, ForcedItems::Some | ForcedItems::None) => WorkChoice::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_has_its_work() {
        const NOTHING: WorkChoice = WorkChoice::Nothing;
        const KEYS: WorkChoice = WorkChoice::PlannedKeys;
        const MORE_KEYS: WorkChoice = WorkChoice::PlannedAndForcedKeys;
        const SCAN: WorkChoice = WorkChoice::ScanForChanges(ScanForce::Lookups);
        const LOG_SCAN: WorkChoice = WorkChoice::ScanForChanges(ScanForce::LogAndLookups);
        const EVERYTHING: WorkChoice = WorkChoice::ScanEverything { at_once: false };
        const AT_ONCE: WorkChoice = WorkChoice::ScanEverything { at_once: true };
        let all = |forced| PlannedRead::All { forced };
        //                            the lookups force: none      some       all items
        let table = [
            (PlannedRead::Nothing, [NOTHING, NOTHING, AT_ONCE]),
            (PlannedRead::Keys, [KEYS, MORE_KEYS, AT_ONCE]),
            (all(ForcedItems::None), [SCAN, SCAN, AT_ONCE]),
            (all(ForcedItems::Some), [LOG_SCAN, LOG_SCAN, AT_ONCE]),
            (all(ForcedItems::All), [EVERYTHING, EVERYTHING, AT_ONCE]),
        ];
        for (planned, expected) in table {
            let lookups = [ForcedItems::None, ForcedItems::Some, ForcedItems::All];
            for (by_lookups, expected) in lookups.into_iter().zip(expected) {
                let chosen = choose_work(planned, by_lookups);
                assert_eq!(chosen, expected, "{planned:?}, lookups force {by_lookups:?}");
            }
        }
    }
}
