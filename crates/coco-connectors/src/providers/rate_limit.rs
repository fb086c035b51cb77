//! Limits the number of requests and tokens per minute.

use std::time::{Duration, Instant};

/// A token bucket. It holds one second's worth, so that a process never uses a minute's worth at
/// once. A request that takes more causes a debt, and the next request waits for it, too.
pub struct TokenBucket {
    level: f64,
    at: Instant,
}

impl TokenBucket {
    /// Creates a full bucket.
    pub fn new(now: Instant) -> TokenBucket {
        TokenBucket { level: f64::INFINITY, at: now }
    }

    /// Takes an amount at a rate per minute. Returns how long to wait before using it.
    pub fn take(&mut self, amount: f64, per_minute: f64, now: Instant) -> Duration {
        let per_second = per_minute / 60.0;
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.level = (self.level + since * per_second).min(per_second.max(1.0)) - amount;
        Duration::try_from_secs_f64(-self.level / per_second).unwrap_or(Duration::ZERO)
    }

    /// Corrects an amount that was taken by an estimate: `more` is the difference.
    pub fn correct(&mut self, more: f64) {
        self.level -= more;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_a_second_is_waited_for() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(start);
        let mut take = |amount, at: u64| {
            bucket.take(amount, 120.0, start + Duration::from_secs(at)).as_millis()
        };
        // Two per second.
        assert_eq!([take(1.0, 0), take(1.0, 0), take(1.0, 0), take(1.0, 0)], [0, 0, 500, 1000]);
        assert_eq!(take(1.0, 2), 0);
        assert_eq!(take(1.0, 60), 0, "it does not fill up further than a second's worth");
        assert_eq!([take(1.0, 60), take(1.0, 60)], [0, 500]);
        assert_eq!(take(20.0, 120), 9000, "also what is more than it can hold");
    }

    #[test]
    fn a_slow_rate_still_lets_one_pass() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(start);
        assert_eq!(bucket.take(1.0, 1.0, start), Duration::ZERO);
        assert_eq!(bucket.take(1.0, 1.0, start), Duration::from_secs(60));
    }

    #[test]
    fn corrections_count() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(start);
        bucket.take(60.0, 3600.0, start);
        bucket.correct(-30.0);
        assert_eq!(bucket.take(60.0, 3600.0, start), Duration::from_millis(500));
    }
}
