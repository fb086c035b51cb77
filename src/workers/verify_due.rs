//! Verifies the targets of a live flow from time to time, in a process of its own, and records what
//! differs. Called by `update_worker`; `verification_starter` starts the process.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::flows::verification::{self, VerificationResult};
use crate::flows::{cache, live_rows};
use crate::inspect::verify::{self, ComparedTargets};
use crate::pg::error::Error;
use crate::update::catch_up::FlowWait;
use crate::workers::delivery::resolved_target::external_targets;
use crate::workers::process::{set_activity, wait, wait_shortly};
use crate::workers::transaction::{TransactionError, log_failure, transaction};
use crate::workers::verify_worker::{MOST, WantedRows, compare_target};
use crate::workers::wait_event::WaitEvent;

/// How long to wait for processes that deliver to a target, and for a flow that is behind. Other
/// flows wait for their verification meanwhile.
const PATIENCE: Duration = Duration::from_secs(120);

/// Interval at which the process checks whether the flow has caught up.
const LOOK: Duration = Duration::from_millis(200);

/// How often tables are compared before a difference counts. While sources change, a comparison
/// finds rows that the flow has not followed yet, but not the same rows each time.
const PASSES: u32 = 3;

/// The pause between two comparisons of tables.
const PAUSE: Duration = Duration::from_secs(1);

/// Verifies a flow, and records the result.
pub fn verify_flow(flow: i32) {
    // A lock of a session must not keep the verifications of other flows waiting.
    wait_shortly();
    let noted = match transaction(|| live_rows::flow_name(flow)) {
        Ok(None) => return,
        Ok(Some(name)) => {
            set_activity(&format!("coco: verification of flow {name}"));
            match compare(&name) {
                Ok(found) => {
                    report(&name, &found);
                    transaction(|| verification::note_result(flow, &found))
                }
                Err(failed) => {
                    log_failure(&format!("flow \"{name}\": could not verify targets"), &failed);
                    transaction(|| verification::note_error(flow, &failed.error.message))
                }
            }
        }
        Err(failed) => Err(failed),
    };
    if let Err(failed) = noted {
        log_failure("could not record a verification", &failed);
    }
}

/// Logs what a verification has found, unless nothing differs.
fn report(flow: &str, found: &VerificationResult) {
    if found.differing > 0 {
        tracing::warn!(
            hint = "Call coco.verify to see the rows, and with repair => true to mend them.",
            "flow \"{flow}\": {}{} rows differ in the targets",
            if found.is_cut { "more than " } else { "" },
            found.differing
        );
    }
}

/// Compares all targets of a flow.
fn compare(flow: &str) -> Result<VerificationResult, TransactionError> {
    let mut found = VerificationResult::default();
    for target in external_targets(flow)? {
        let compared = compare_target(flow, target, WantedRows::All, Some(PATIENCE))?;
        let Some(compared) = compared else { continue };
        match compared.unreadable {
            Some(error) => found.error = found.error.or(Some(error.message)),
            None => found.add(compared.differences.rows.len(), compared.differences.is_cut),
        }
    }
    let has_tables = transaction(|| {
        Ok(cache::runnable_flow(flow)?.flow.targets.iter().any(|t| t.external.is_none()))
    })?;
    if has_tables {
        let differing = compare_tables(flow)?;
        found.add(differing.count(), differing == DifferingRows::Many);
    }
    Ok(found)
}

/// The rows of tables in this database that differ.
#[derive(Debug, PartialEq, Eq)]
enum DifferingRows {
    /// More than [`MOST`].
    Many,
    /// The target, the kind of the difference and the key of each.
    Known(HashSet<(Option<String>, String, String)>),
}

impl DifferingRows {
    fn count(&self) -> usize {
        match self {
            DifferingRows::Many => MOST,
            DifferingRows::Known(rows) => rows.len(),
        }
    }

    /// Returns the rows that differ in both comparisons.
    fn and(self, other: DifferingRows) -> DifferingRows {
        match (self, other) {
            (DifferingRows::Many, rows) | (rows, DifferingRows::Many) => rows,
            (DifferingRows::Known(mut rows), DifferingRows::Known(others)) => {
                rows.retain(|row| others.contains(row));
                DifferingRows::Known(rows)
            }
        }
    }
}

/// Compares the tables of this database. A row counts if it differs in each comparison.
fn compare_tables(flow: &str) -> Result<DifferingRows, TransactionError> {
    let mut differing = DifferingRows::Many;
    for pass in 0..PASSES {
        if pass > 0 {
            wait(PAUSE, WaitEvent::CatchUp);
        }
        wait_until_followed(flow)?;
        let found =
            transaction(|| verify::find_differences(flow, ComparedTargets::Tables, MOST + 1))?;
        let found = match found.len() > MOST {
            true => DifferingRows::Many,
            false => DifferingRows::Known(
                found
                    .into_iter()
                    .map(|row| (row.target, row.difference, row.key.text().to_owned()))
                    .collect(),
            ),
        };
        differing = differing.and(found);
        if differing.count() == 0 {
            break;
        }
    }
    Ok(differing)
}

/// Waits until the flow has followed everything that is committed now.
fn wait_until_followed(flow: &str) -> Result<(), TransactionError> {
    let began = Instant::now();
    let waiting = transaction(|| FlowWait::begin(flow))?;
    while !transaction(|| waiting.has_ended())? {
        if began.elapsed() > PATIENCE {
            return Err(TransactionError::from(Error::new(
                pgrx::PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("flow \"{flow}\" has not followed all changes yet"),
            )));
        }
        wait(LOOK, WaitEvent::CatchUp);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(keys: &[&str]) -> DifferingRows {
        let row = |key: &&str| (None, "extra".to_owned(), (*key).to_owned());
        DifferingRows::Known(keys.iter().map(row).collect())
    }

    #[test]
    fn a_row_counts_if_it_differs_each_time() {
        let first = DifferingRows::Many.and(rows(&["1", "2", "3"]));
        assert_eq!(first, rows(&["1", "2", "3"]));
        assert_eq!(first.and(rows(&["3", "4"])).and(DifferingRows::Many), rows(&["3"]));
        assert_eq!(DifferingRows::Many.and(DifferingRows::Many).count(), MOST);
    }
}
