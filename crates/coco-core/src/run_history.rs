//! What is noted of the runs of a flow.

use std::time::{Duration, Instant};

use super::counts::Counts;
use super::decision::Mode;

/// Why a run looked at what it looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Sources or lookups may have changed.
    #[default]
    Change,
    /// Nothing was tracked yet.
    First,
    /// The query, or what it reaches, is another.
    Logic,
    Retry,
    Full,
    Reexport,
}

impl Reason {
    /// The reason that the caller has given; `None`: it is found out.
    pub fn of_mode(mode: Mode) -> Option<Reason> {
        match mode {
            Mode::Normal => None,
            Mode::Retry => Some(Reason::Retry),
            Mode::FullReprocess => Some(Reason::Full),
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
            Reason::Reexport => "reexport",
        }
    }
}

/// Who asked for a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initiator {
    /// A session, by coco.update.
    Session,
    /// Nobody: a worker follows a live flow.
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

/// A run; of a live flow, the turns that are taken together as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunEntry {
    /// Microseconds since 1970.
    pub started: i64,
    /// Time that was spent on it.
    pub elapsed: Duration,
    pub reason: Reason,
    pub initiator: Initiator,
    pub counts: Counts,
    /// Why it failed as a whole.
    pub error: Option<String>,
}

impl RunEntry {
    /// Whether anything was evaluated or written, or went wrong.
    fn has_effect(&self) -> bool {
        let c = &self.counts;
        c.evaluated + c.upserted + c.deleted + c.failed > 0 || self.error.is_some()
    }
}

/// A live flow's turns are taken together for so long, at most.
const MAX_RUN: Duration = Duration::from_secs(60);

/// After so much time without anything done they are one, if none was noted for as long as above.
const IDLE_GAP: Duration = Duration::from_secs(5);

/// What a worker has done for a live flow and has not noted yet.
#[derive(Default)]
pub struct RunAccumulator {
    /// What is to be noted now.
    ended: Vec<RunEntry>,
    open: Option<(RunEntry, Instant)>,
    /// When a turn last did something, and when something was last noted.
    last_effect: Option<Instant>,
    recorded: Option<Instant>,
    /// Why the last turn failed: it is noted once, however often it is tried.
    last_error: Option<String>,
    /// Of a scan whose findings are worked off turn by turn.
    reason: Reason,
}

impl RunAccumulator {
    /// Adds a turn. `reason`: `None` where it goes on with what an earlier one has found.
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

    /// Takes what was done so far for one run.
    pub fn close_run(&mut self) {
        self.ended.extend(self.open.take().map(|(open, _)| open));
    }

    /// What is to be noted now.
    pub fn due_entries(&mut self, now: Instant) -> &[RunEntry] {
        let since = |then: Option<Instant>| then.map_or(MAX_RUN, |then| now.duration_since(then));
        let quiet = since(self.last_effect) >= IDLE_GAP && since(self.recorded) >= MAX_RUN;
        if self.open.as_ref().is_some_and(|(_, began)| quiet || since(Some(*began)) >= MAX_RUN) {
            self.close_run();
        }
        &self.ended
    }

    /// What was due is noted.
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
