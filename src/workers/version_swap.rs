//! The attempts of a live flow's new version to replace the flow, in transactions of a worker.

use std::time::{Duration, Instant};

use crate::catalog::relation_locks::PATIENCE;
use crate::catalog::version_rows;
use crate::declare::gapless::swap::{self, SwapCaller, SwapOutcome};
use crate::flows::cache;
use crate::flows::live_rows::{self, LiveFlow};
use crate::memo::settle;
use crate::pg::error::Error;
use crate::update;
use crate::update::limits;
use crate::workers::transaction::{TransactionError, log_failure, transaction};
use crate::workers::turn_limit::YIELD;
use crate::workers::{crash_notes, shared_memory, turn_limit};
use coco_core::decision::Mode;

/// The time between two attempts, if another session worked on the flow or read its target.
const SWAP_AGAIN: Duration = Duration::from_millis(200);

/// What a worker remembers of the attempts of one new version.
#[derive(Default)]
pub struct SwapAttempts {
    /// Number of attempts in a row that failed.
    failed: i32,
    /// When the worker may try again.
    next: Option<Instant>,
    /// The last error that was logged.
    logged: Option<String>,
}

impl SwapAttempts {
    /// Lets a new version that has caught up replace its flow, in a transaction of its own. Returns
    /// whether it did. `roll_back` is called after a transaction that failed.
    pub fn try_swap(&mut self, flow: &LiveFlow, roll_back: impl FnOnce()) -> bool {
        if !flow.swaps || self.next.is_some_and(|at| Instant::now() < at) {
            return false;
        }
        let caller =
            SwapCaller { update: &update_version, announce: shared_memory::announce_cancel };
        crash_notes::note(flow.id);
        let result = turn_limit::turn(|| transaction(|| swap::swap_in_turn(flow.id, &caller)))
            .inspect(|_| settle::committed());
        crash_notes::note(0);
        let wait = match &result {
            Ok(SwapOutcome::Swapped) => {
                *self = SwapAttempts::default();
                return true;
            }
            Ok(SwapOutcome::NotNow) => SWAP_AGAIN,
            Ok(SwapOutcome::Failing) => {
                self.failed = self.failed.saturating_add(1);
                live_rows::retry_delay(self.failed)
            }
            Err(failed) => {
                roll_back();
                match turn_limit::is_canceled(failed) && shared_memory::cancel_was_announced() {
                    true => YIELD,
                    false => self.swap_failed(flow, failed),
                }
            }
        };
        self.next = Some(Instant::now() + wait);
        false
    }

    /// Records why a swap failed, and logs each message once. Returns when to try again.
    fn swap_failed(&mut self, flow: &LiveFlow, failed: &TransactionError) -> Duration {
        self.failed = self.failed.saturating_add(1);
        let noted = transaction(|| version_rows::note_reason(flow.id, Some(&failed.error)));
        if self.logged.as_ref() != Some(&failed.error.message) {
            self.logged = Some(failed.error.message.clone());
            log_failure(&format!("flow \"{}\": could not swap", flow.name), failed);
        }
        if let Err(again) = noted {
            let what = format!("flow \"{}\": could not record a failed swap", flow.name);
            log_failure(&what, &again);
        }
        match live_rows::is_lock_error(&failed.sqlstate) {
            true => SWAP_AGAIN,
            false => live_rows::retry_delay(self.failed),
        }
    }

    /// Returns when a new version may try again to replace its flow.
    pub fn next_in(&self, flow: &LiveFlow) -> Option<Duration> {
        let next = self.next.filter(|_| flow.swaps)?;
        Some(next.saturating_duration_since(Instant::now()))
    }
}

/// Brings a version up to date in one transaction, whatever it takes. Returns the number of failed
/// items.
fn update_version(name: &str) -> Result<i64, Error> {
    // Takes the locks on relations as a turn does: without making other sessions wait behind it.
    cache::runnable_to_read_if_free(name, Some(PATIENCE))?;
    let sources = update::update(name, Mode::Normal, limits::configured_limits())?;
    Ok(sources.iter().map(|source| source.counts.failed).sum())
}
