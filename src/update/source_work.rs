//! The work of an update on one source, from the plan of the source and from the changes of its
//! lookups. `source_pass` does the work; `estimate` only counts it.

use crate::catalog::model::Source;
use crate::pg::error::{Error, Result};
use crate::pg::tuplestore::rows::TupleStore;
use crate::update::detect::Scan;
use crate::update::lookups;
use crate::update::source_plan::{ForcedKeys, SourcePlan};
use crate::update::target_writer::WriteOptions;
use coco_core::source_work::{ScanForce, WorkChoice, choose_work};

/// What an update does with one source.
pub enum SourceWork {
    Nothing,
    Keys(TupleStore),
    FullScan(FullScan),
}

/// A scan of a whole source.
pub struct FullScan {
    pub scan: Scan,
    /// The keys that coco forces, `k1…` first; `None`: it evaluates every item.
    pub forced: Option<TupleStore>,
    /// Whether to process all items in this transaction.
    pub at_once: bool,
}

/// Determines the work from the plan of the source and from the changes of its lookups.
pub fn choose_source_work(
    writing: WriteOptions,
    source: &Source,
    looking: SourcePlan,
    by_lookups: ForcedKeys,
) -> Result<SourceWork> {
    let WriteOptions { mode, logic } = writing;
    let choice = choose_work(looking.kind(), by_lookups.kind());
    let everything = |at_once| FullScan {
        scan: Scan { mode: mode.evaluating_all(), logic },
        forced: None,
        at_once,
    };
    let changes =
        |forced| FullScan { scan: Scan { mode, logic }, forced: Some(forced), at_once: false };
    Ok(match (choice, looking, by_lookups) {
        (WorkChoice::ScanEverything { at_once }, ..) => SourceWork::FullScan(everything(at_once)),
        (WorkChoice::PlannedKeys, SourcePlan::Keys(keys), _) => SourceWork::Keys(keys),
        (WorkChoice::PlannedAndForcedKeys, SourcePlan::Keys(keys), ForcedKeys::Keys(forced)) => {
            SourceWork::Keys(lookups::with_forced_keys(source, Some(&keys), &forced)?)
        }
        (WorkChoice::ScanForChanges(ScanForce::Lookups), _, ForcedKeys::Keys(forced)) => {
            SourceWork::FullScan(changes(forced))
        }
        (
            WorkChoice::ScanForChanges(ScanForce::LogAndLookups),
            SourcePlan::All { forced: ForcedKeys::Keys(by_log) },
            ForcedKeys::Keys(forced),
        ) => SourceWork::FullScan(changes(lookups::with_forced_keys(
            source,
            Some(&by_log),
            &forced,
        )?)),
        (WorkChoice::Nothing, ..) => SourceWork::Nothing,
        _ => return Err(Error::internal("the work on a source does not fit its plan")),
    })
}
