//! The number of workers of a database while turns are slow, so that one flow does not delay others.

use std::time::Duration;

/// A turn that waits (for a provider, a lock or a timer) gets a stand-in after this time, because it
/// leaves its processor idle.
pub const LONG_WAIT: Duration = Duration::from_millis(300);

/// All turns that compute for longer than this time share one stand-in.
pub const LONG_COMPUTATION: Duration = Duration::from_secs(2);

/// The state of a worker that runs a transaction of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The time since the worker turned to the flow.
    pub elapsed: Duration,
    /// Whether the worker waits at this moment.
    pub waits: bool,
}

/// Returns the number of workers that a database may have: `max_workers`, one more for each turn that waits, and one more for
/// all turns that compute. Stand-ins never make it exceed the number of live flows.
pub fn allowed_workers(max_workers: u16, live_flows: u32, turns: &[Turn]) -> u16 {
    let waiting = turns.iter().filter(|t| t.waits && t.elapsed >= LONG_WAIT).count();
    let computing = turns.iter().any(|t| !t.waits && t.elapsed >= LONG_COMPUTATION);
    let stand_ins = u16::try_from(waiting).unwrap_or(u16::MAX).saturating_add(computing.into());
    let flows = u16::try_from(live_flows).unwrap_or(u16::MAX);
    max_workers.saturating_add(stand_ins).min(flows).max(max_workers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(waits: bool, millis: u64) -> Turn {
        Turn { elapsed: Duration::from_millis(millis), waits }
    }

    #[test]
    fn each_long_wait_gets_a_stand_in_and_computations_share_one() {
        let allowed = |turns: &[Turn]| allowed_workers(1, 10, turns);
        assert_eq!(allowed(&[]), 1);
        assert_eq!(allowed(&[turn(true, 299), turn(false, 1999)]), 1);
        assert_eq!(allowed(&[turn(true, 300)]), 2);
        assert_eq!(allowed(&[turn(true, 300), turn(true, 9000)]), 3);
        assert_eq!(allowed(&[turn(false, 2000), turn(false, 9000)]), 2);
        assert_eq!(allowed(&[turn(false, 2000), turn(true, 300)]), 3);
    }

    #[test]
    fn there_are_no_more_stand_ins_than_flows_for_them() {
        let slow = [turn(true, 1000); 5];
        assert_eq!(allowed_workers(1, 1, &slow), 1);
        assert_eq!(allowed_workers(2, 4, &slow), 4);
        // The limit is the user's: it is not lowered here.
        assert_eq!(allowed_workers(8, 3, &slow), 8);
        assert_eq!(allowed_workers(u16::MAX, u32::MAX, &slow), u16::MAX);
    }
}
