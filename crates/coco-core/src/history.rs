//! What is noted of the runs of a flow.

use std::time::{Duration, Instant};

use super::counts::Counts;
use super::decide::Mode;

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
    pub fn asked(mode: Mode) -> Option<Reason> {
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
pub enum By {
    /// A session, by coco.update.
    Session,
    /// Nobody: a worker follows a live flow.
    Worker,
}

impl By {
    pub fn name(self) -> &'static str {
        match self {
            By::Session => "session",
            By::Worker => "worker",
        }
    }
}

/// A run; of a live flow, the turns that are taken together as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Microseconds since 1970.
    pub started: i64,
    /// Time that was spent on it.
    pub elapsed: Duration,
    pub reason: Reason,
    pub by: By,
    pub counts: Counts,
    /// Why it failed as a whole.
    pub error: Option<String>,
}

impl Entry {
    /// Whether anything was evaluated or written, or went wrong.
    fn did_something(&self) -> bool {
        let c = &self.counts;
        c.evaluated + c.upserted + c.deleted + c.failed > 0 || self.error.is_some()
    }
}

/// A live flow's turns are taken together for so long, at most.
const LONGEST: Duration = Duration::from_secs(60);

/// After so much time without anything done they are one, if none was noted for as long as above.
const QUIET: Duration = Duration::from_secs(5);

/// What a worker has done for a live flow and has not noted yet.
#[derive(Default)]
pub struct Stretch {
    /// What is to be noted now.
    ended: Vec<Entry>,
    open: Option<(Entry, Instant)>,
    /// When a turn last did something, and when something was last noted.
    did: Option<Instant>,
    noted: Option<Instant>,
    /// Why the last turn failed: it is noted once, however often it is tried.
    failing: Option<String>,
    /// Of a scan whose findings are worked off turn by turn.
    reason: Reason,
}

impl Stretch {
    /// Adds a turn. `reason`: `None` where it goes on with what an earlier one has found.
    pub fn add(&mut self, turn: Entry, reason: Option<Reason>, now: Instant) {
        self.reason = reason.unwrap_or(self.reason);
        if turn.error.is_some() {
            if self.failing != turn.error {
                self.close();
                self.failing.clone_from(&turn.error);
                self.ended.push(Entry { reason: self.reason, ..turn });
            }
            return;
        }
        self.failing = None;
        if self.open.as_ref().is_some_and(|(open, _)| open.reason != self.reason) {
            self.close();
        }
        match &mut self.open {
            Some((open, _)) => {
                if turn.did_something() {
                    self.did = Some(now);
                }
                open.elapsed += turn.elapsed;
                open.counts += turn.counts;
            }
            None if turn.did_something() => {
                self.did = Some(now);
                self.open = Some((Entry { reason: self.reason, ..turn }, now));
            }
            None => {}
        }
    }

    /// Takes what was done so far for one run.
    pub fn close(&mut self) {
        self.ended.extend(self.open.take().map(|(open, _)| open));
    }

    /// What is to be noted now.
    pub fn due(&mut self, now: Instant) -> &[Entry] {
        let since = |then: Option<Instant>| then.map_or(LONGEST, |then| now.duration_since(then));
        let quiet = since(self.did) >= QUIET && since(self.noted) >= LONGEST;
        if self.open.as_ref().is_some_and(|(_, began)| quiet || since(Some(*began)) >= LONGEST) {
            self.close();
        }
        &self.ended
    }

    /// What was due is noted.
    pub fn noted(&mut self, now: Instant) {
        self.ended.clear();
        self.noted = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(evaluated: i64) -> Entry {
        Entry {
            started: 0,
            elapsed: Duration::from_millis(1),
            reason: Reason::Change,
            by: By::Worker,
            counts: Counts { seen: 1, evaluated, ..Counts::default() },
            error: None,
        }
    }

    fn after(began: Instant, seconds: u64) -> Instant {
        began + Duration::from_secs(seconds)
    }

    #[test]
    fn turns_of_a_minute_are_one_entry() {
        let (mut stretch, began) = (Stretch::default(), Instant::now());
        stretch.noted(began);
        for second in 0..59 {
            stretch.add(turn(1), Some(Reason::Change), after(began, second));
            assert!(stretch.due(after(began, second)).is_empty(), "after {second} s");
        }
        let due = stretch.due(after(began, 60)).to_vec();
        assert_eq!(due.len(), 1);
        assert_eq!((due[0].counts.evaluated, due[0].elapsed.as_millis()), (59, 59));
        stretch.noted(after(began, 60));
        assert!(stretch.due(after(began, 200)).is_empty());
    }

    #[test]
    fn what_is_done_after_a_pause_is_noted_soon_and_then_once_a_minute() {
        let (mut stretch, began) = (Stretch::default(), Instant::now());
        stretch.add(turn(1), Some(Reason::Change), began);
        assert!(stretch.due(after(began, 4)).is_empty());
        assert_eq!(stretch.due(after(began, 5)).len(), 1);
        stretch.noted(after(began, 5));
        stretch.add(turn(1), Some(Reason::Change), after(began, 6));
        assert!(stretch.due(after(began, 30)).is_empty());
        assert_eq!(stretch.due(after(began, 66)).len(), 1);
    }

    #[test]
    fn turns_that_do_nothing_are_no_entry() {
        let (mut stretch, began) = (Stretch::default(), Instant::now());
        stretch.add(turn(0), Some(Reason::Change), began);
        assert!(stretch.due(after(began, 1000)).is_empty());
    }

    #[test]
    fn another_reason_is_another_entry_and_slices_keep_that_of_their_scan() {
        let (mut stretch, began) = (Stretch::default(), Instant::now());
        stretch.add(turn(10), Some(Reason::First), began);
        stretch.add(turn(10), None, began);
        stretch.add(turn(1), Some(Reason::Change), began);
        let due = stretch.due(began).to_vec();
        assert_eq!(due.len(), 1);
        assert_eq!((due[0].reason, due[0].counts.evaluated), (Reason::First, 20));
        stretch.noted(began);
        let next = stretch.due(after(began, 60)).to_vec();
        assert_eq!((next[0].reason, next[0].counts.evaluated), (Reason::Change, 1));
    }

    #[test]
    fn an_error_that_comes_again_and_again_is_noted_once() {
        let (mut stretch, began) = (Stretch::default(), Instant::now());
        let failed = |why: &str| Entry { error: Some(why.to_owned()), ..turn(0) };
        stretch.add(turn(1), Some(Reason::Change), began);
        for _ in 0..3 {
            stretch.add(failed("a"), None, began);
        }
        let due = stretch.due(began).to_vec();
        assert_eq!(due.iter().map(|e| e.error.as_deref()).collect::<Vec<_>>(), [None, Some("a")]);
        stretch.noted(began);
        stretch.add(failed("a"), None, began);
        assert!(stretch.due(began).is_empty());
        stretch.add(turn(0), Some(Reason::Change), began);
        stretch.add(failed("a"), None, began);
        assert_eq!(stretch.due(began).len(), 1);
    }
}
