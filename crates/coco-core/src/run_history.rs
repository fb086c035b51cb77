//! Records of the runs of flows, and the rule that merges a live flow's transactions into runs.

use std::time::{Duration, Instant};

use super::counts::Counts;
use super::decision::Mode;

/// The reason for a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Sources or lookups may have changed.
    #[default]
    Change,
    /// No item was tracked before.
    First,
    /// The query, or an object that it depends on, has changed.
    Logic,
    Retry,
    Full,
    Refresh,
    Reexport,
}

impl Reason {
    /// Returns the reason that a mode implies. `None`: the update determines the reason.
    pub fn of_mode(mode: Mode) -> Option<Reason> {
        match mode {
            Mode::Normal => None,
            Mode::Retry => Some(Reason::Retry),
            Mode::FullReprocess => Some(Reason::Full),
            Mode::Refresh => Some(Reason::Refresh),
            Mode::Reexport => Some(Reason::Reexport),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Reason::Change => "data_change",
            Reason::First => "initial",
            Reason::Logic => "logic_change",
            Reason::Retry => "retry",
            Reason::Full => "full_reprocess",
            Reason::Refresh => "refresh",
            Reason::Reexport => "reexport",
        }
    }
}

/// The process that started a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initiator {
    /// A session that called coco.update.
    Session,
    /// A worker that follows a live flow.
    Worker,
}

impl Initiator {
    pub fn name(self) -> &'static str {
        match self {
            Initiator::Session => "session",
            Initiator::Worker => "worker",
        }
    }
}

/// A run. For a live flow, a run consists of several transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunEntry {
    /// Microseconds since 1970.
    pub started: i64,
    /// Time spent on the run.
    pub elapsed: Duration,
    pub reason: Reason,
    pub initiator: Initiator,
    pub counts: Counts,
    /// The error that ended the run as a whole.
    pub error: Option<String>,
}

impl RunEntry {
    /// Reports whether the run evaluated, wrote or failed anything.
    fn has_effect(&self) -> bool {
        let c = &self.counts;
        c.evaluated + c.upserted + c.deleted + c.failed > 0 || self.error.is_some()
    }
}

/// A run of a live flow takes at most this long.
const MAX_RUN: Duration = Duration::from_secs(60);

/// A run of a live flow also ends after this time without an effect, if no run was recorded during
/// the last [`MAX_RUN`].
const IDLE_GAP: Duration = Duration::from_secs(5);

/// Merges the transactions of a live flow into runs, and holds the runs that are not recorded yet.
#[derive(Default)]
pub struct RunAccumulator {
    /// Ended runs, which are to be recorded.
    ended: Vec<RunEntry>,
    open: Option<(RunEntry, Instant)>,
    /// When a transaction last had an effect, and when a run was last recorded.
    last_effect: Option<Instant>,
    recorded: Option<Instant>,
    /// The error of the last transaction. It is recorded once, however often the transaction is
    /// retried.
    last_error: Option<String>,
    /// The reason of a scan whose pending keys several transactions process.
    reason: Reason,
}

impl RunAccumulator {
    /// Adds a transaction. `reason` is `None` if the transaction continues the scan of an earlier
    /// one.
    pub fn add_transaction(&mut self, transaction: RunEntry, reason: Option<Reason>, now: Instant) {
        self.reason = reason.unwrap_or(self.reason);
        if transaction.error.is_some() {
            if self.last_error != transaction.error {
                self.close_run();
                self.last_error.clone_from(&transaction.error);
                self.ended.push(RunEntry { reason: self.reason, ..transaction });
            }
            return;
        }
        self.last_error = None;
        if self.open.as_ref().is_some_and(|(open, _)| open.reason != self.reason) {
            self.close_run();
        }
        match &mut self.open {
            Some((open, _)) => {
                if transaction.has_effect() {
                    self.last_effect = Some(now);
                }
                open.elapsed += transaction.elapsed;
                open.counts += transaction.counts;
            }
            None if transaction.has_effect() => {
                self.last_effect = Some(now);
                self.open = Some((RunEntry { reason: self.reason, ..transaction }, now));
            }
            None => {}
        }
    }

    /// Ends the current run.
    pub fn close_run(&mut self) {
        self.ended.extend(self.open.take().map(|(open, _)| open));
    }

    /// Returns the runs that are to be recorded now.
    pub fn due_entries(&mut self, now: Instant) -> &[RunEntry] {
        let since = |then: Option<Instant>| then.map_or(MAX_RUN, |then| now.duration_since(then));
        let quiet = since(self.last_effect) >= IDLE_GAP && since(self.recorded) >= MAX_RUN;
        if self.open.as_ref().is_some_and(|(_, began)| quiet || since(Some(*began)) >= MAX_RUN) {
            self.close_run();
        }
        &self.ended
    }

    /// Forgets the returned runs after they were recorded.
    pub fn mark_recorded(&mut self, now: Instant) {
        self.ended.clear();
        self.recorded = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transaction(evaluated: i64) -> RunEntry {
        RunEntry {
            started: 0,
            elapsed: Duration::from_millis(1),
            reason: Reason::Change,
            initiator: Initiator::Worker,
            counts: Counts { seen: 1, evaluated, ..Counts::default() },
            error: None,
        }
    }

    fn after(began: Instant, seconds: u64) -> Instant {
        began + Duration::from_secs(seconds)
    }

    #[test]
    fn turns_of_a_minute_are_one_entry() {
        let (mut runs, began) = (RunAccumulator::default(), Instant::now());
        runs.mark_recorded(began);
        for second in 0..59 {
            runs.add_transaction(transaction(1), Some(Reason::Change), after(began, second));
            assert!(runs.due_entries(after(began, second)).is_empty(), "after {second} s");
        }
        let due = runs.due_entries(after(began, 60)).to_vec();
        assert_eq!(due.len(), 1);
        assert_eq!((due[0].counts.evaluated, due[0].elapsed.as_millis()), (59, 59));
        runs.mark_recorded(after(began, 60));
        assert!(runs.due_entries(after(began, 200)).is_empty());
    }

    #[test]
    fn what_is_done_after_a_pause_is_noted_soon_and_then_once_a_minute() {
        let (mut runs, began) = (RunAccumulator::default(), Instant::now());
        runs.add_transaction(transaction(1), Some(Reason::Change), began);
        assert!(runs.due_entries(after(began, 4)).is_empty());
        assert_eq!(runs.due_entries(after(began, 5)).len(), 1);
        runs.mark_recorded(after(began, 5));
        runs.add_transaction(transaction(1), Some(Reason::Change), after(began, 6));
        assert!(runs.due_entries(after(began, 30)).is_empty());
        assert_eq!(runs.due_entries(after(began, 66)).len(), 1);
    }

    #[test]
    fn turns_that_do_nothing_are_no_entry() {
        let (mut runs, began) = (RunAccumulator::default(), Instant::now());
        runs.add_transaction(transaction(0), Some(Reason::Change), began);
        assert!(runs.due_entries(after(began, 1000)).is_empty());
    }

    #[test]
    fn another_reason_is_another_entry_and_slices_keep_that_of_their_scan() {
        let (mut runs, began) = (RunAccumulator::default(), Instant::now());
        runs.add_transaction(transaction(10), Some(Reason::First), began);
        runs.add_transaction(transaction(10), None, began);
        runs.add_transaction(transaction(1), Some(Reason::Change), began);
        let due = runs.due_entries(began).to_vec();
        assert_eq!(due.len(), 1);
        assert_eq!((due[0].reason, due[0].counts.evaluated), (Reason::First, 20));
        runs.mark_recorded(began);
        let next = runs.due_entries(after(began, 60)).to_vec();
        assert_eq!((next[0].reason, next[0].counts.evaluated), (Reason::Change, 1));
    }

    #[test]
    fn an_error_that_comes_again_and_again_is_noted_once() {
        let (mut runs, began) = (RunAccumulator::default(), Instant::now());
        let failed = |why: &str| RunEntry { error: Some(why.to_owned()), ..transaction(0) };
        runs.add_transaction(transaction(1), Some(Reason::Change), began);
        for _ in 0..3 {
            runs.add_transaction(failed("a"), None, began);
        }
        let due = runs.due_entries(began).to_vec();
        assert_eq!(due.iter().map(|e| e.error.as_deref()).collect::<Vec<_>>(), [None, Some("a")]);
        runs.mark_recorded(began);
        runs.add_transaction(failed("a"), None, began);
        assert!(runs.due_entries(began).is_empty());
        runs.add_transaction(transaction(0), Some(Reason::Change), began);
        runs.add_transaction(failed("a"), None, began);
        assert_eq!(runs.due_entries(began).len(), 1);
    }
}
