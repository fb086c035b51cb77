//! Work of a worker for its database in addition to updating flows.

use pgrx::pg_sys;
use std::time::{Duration, Instant};

use crate::capture::triggers;
use crate::catalog::version_rows;
use crate::declare::gapless::{partitions, swap};
use crate::flows::live_rows;
use crate::memo::kept;
use crate::workers::transaction::{log_failure, transaction};
use crate::workers::{crash_notes, shared_memory};

/// Interval at which a worker looks for triggers that no flow needs, and for expired results.
const SWEEP: Duration = Duration::from_secs(10);

/// Records the processes that crashed while they worked on a flow. coco sets a flow aside if its
/// processes keep crashing.
pub fn set_aside(database: pg_sys::Oid) {
    for flow in crash_notes::died(database) {
        match transaction(|| live_rows::record_process_death(flow)) {
            Ok(None) => {}
            Ok(Some(died)) => tracing::warn!(
                hint = died.hint.as_deref(),
                "flow \"{}\": {}",
                died.flow,
                died.message
            ),
            Err(failed) => log_failure("could not record the crash of a process", &failed),
        }
    }
}

/// Work that a worker does from time to time.
#[derive(Default)]
pub struct Upkeep {
    swept: Option<Instant>,
}

impl Upkeep {
    /// Sweeps once more before the process ends: the database may have no worker for a while.
    pub fn sweep_at_last(&mut self) {
        self.swept = None;
        self.sweep();
    }

    /// Drops triggers that dropped flows have left on tables, and old versions of flows that are no
    /// longer kept, in one transaction per table or version, and expired results of dropped flows.
    /// Adds partitions to the tables of old versions.
    pub fn sweep(&mut self) {
        if self.swept.is_some_and(|at| at.elapsed() < SWEEP) {
            return;
        }
        self.swept = Some(Instant::now());
        let dropped = transaction(triggers::left_behind).and_then(|all| {
            all.into_iter().try_for_each(|table| transaction(|| triggers::drop_from(table)))
        });
        if let Err(failed) = dropped {
            log_failure("could not drop unneeded triggers", &failed);
        }
        if let Err(failed) = transaction(|| kept::drop_expired(None)) {
            log_failure("could not drop expired results of memoized functions", &failed);
        }
        let drop_version =
            |version| transaction(|| swap::drop_expired(version, shared_memory::announce_cancel));
        let dropped = transaction(version_rows::expired_versions)
            .and_then(|all| all.into_iter().try_for_each(drop_version));
        if let Err(failed) = dropped {
            log_failure("could not drop an old version of a flow", &failed);
        }
        match transaction(version_rows::partitioned_old_versions) {
            Ok(all) => all.into_iter().for_each(follow_partitions),
            Err(failed) => log_failure("could not look for partitions of old versions", &failed),
        }
    }
}

/// Adds partitions to the tables of an old version. A failure is recorded with the version, and
/// logged only if that is not possible, because it lasts until a user removes its cause.
fn follow_partitions(version: i32) {
    let Err(failed) = transaction(|| partitions::follow_partitions_if_free(version)) else {
        return;
    };
    let reason = &failed.error;
    if let Err(again) = transaction(|| version_rows::note_reason(version, Some(reason))) {
        log_failure("could not add partitions to an old version of a flow", &failed);
        log_failure("could not record why", &again);
    }
}
