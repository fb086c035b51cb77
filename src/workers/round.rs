//! One round of a worker: how long it may wait until the next one.

use std::time::Duration;

use crate::workers::followed_flow::FinishedTurn;

/// What a round has found so far.
pub struct Round {
    /// How long to wait after the round; `None` if there is more to do.
    pub pause: Option<Duration>,
    /// Whether the worker runs transactions of flows, and does not only deliver.
    pub takes_turns: bool,
    /// Whether every flow gets a turn, also one that has nothing to do as far as is known.
    pub polls_all: bool,
    /// Whether only one flow is live.
    pub is_alone: bool,
    /// Whether the rest of the round must wait until the worker has read the catalog again.
    pub is_over: bool,
}

impl Round {
    /// Takes the result of a flow's turn into account.
    pub fn note(&mut self, done: &FinishedTurn) {
        match done.has_more {
            true => self.pause = None,
            false => self.look_again(done.next),
        }
    }

    /// Ends the round, so that the next one begins at once.
    pub fn end(&mut self) {
        self.pause = None;
        self.is_over = true;
    }

    /// Makes the next round begin after this time at the latest.
    pub fn look_again_in(&mut self, time: Duration) {
        self.look_again(Some(time));
    }

    /// Makes the next round begin after this time at the latest, if a time is known. No pause means
    /// that there is work now, so it stays none.
    pub fn look_again(&mut self, time: Option<Duration>) {
        self.pause = self.pause.map(|pause| time.map_or(pause, |time| pause.min(time)));
    }
}
