//! How many workers a database has while turns take long: one flow is not to hold up the others.

use std::time::Duration;

/// A turn that waits (for a provider, a lock, a timer) for this long gets a stand-in: the processor is free.
pub const LONG_WAIT: Duration = Duration::from_millis(300);

/// A turn that computes for this long gets one, together with all others that do.
pub const LONG_COMPUTATION: Duration = Duration::from_secs(2);

/// What a worker of the database is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Since when it has been working on one flow.
    pub elapsed: Duration,
    /// Whether it waits just now.
    pub waits: bool,
}

/// The number of workers that a database may have: `max_workers`, one more for each turn that waits, and one more for
/// all turns that compute. There are never more than flows.
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
