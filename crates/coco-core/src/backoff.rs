//! Retry delays of failed items, flows and targets.

use std::time::Duration;

const FIRST_DELAY: Duration = Duration::from_secs(1);
const MAX_DELAY: Duration = Duration::from_secs(3600);

/// Returns the delay after this number of attempts (1 is the first). The delay doubles from a
/// second up to an hour.
pub fn retry_delay(attempts: u32) -> Duration {
    let doublings = attempts.saturating_sub(1).min(31);
    FIRST_DELAY.saturating_mul(1 << doublings).min(MAX_DELAY)
}

/// Returns a wait that was computed from a wall-clock time, or zero if it is longer than any wait
/// that coco sets. A clock that was ahead for a while leaves such times.
pub fn plausible_wait(wait: Duration, longest: Duration) -> Duration {
    if wait > longest { Duration::ZERO } else { wait }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_from_a_second_to_an_hour() {
        let seconds: Vec<u64> = [1, 2, 3, 12, 13, 4000].map(|n| retry_delay(n).as_secs()).to_vec();
        assert_eq!(seconds, [1, 2, 4, 2048, 3600, 3600]);
    }

    #[test]
    fn a_wait_that_nobody_would_have_set_is_over() {
        let minute = Duration::from_secs(60);
        assert_eq!(plausible_wait(minute, minute), minute);
        assert_eq!(plausible_wait(Duration::from_secs(61), minute), Duration::ZERO);
    }
}
