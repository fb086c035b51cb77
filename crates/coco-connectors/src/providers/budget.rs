//! The cost of requests, and the limit on it.

pub use coco_core::provider::estimate_tokens;

/// Prices of a server per million tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Prices {
    pub tokens_in: f64,
    pub tokens_out: f64,
}

impl Prices {
    pub fn cost(&self, tokens_in: u64, tokens_out: u64) -> f64 {
        (tokens_in as f64 * self.tokens_in + tokens_out as f64 * self.tokens_out) / 1e6
    }
}

/// The amount that may still be spent.
#[derive(Debug)]
pub struct Budget(f64);

impl Budget {
    /// Creates a budget. `None` means no limit.
    pub fn new(left: Option<f64>) -> Budget {
        Budget(left.unwrap_or(f64::INFINITY))
    }

    /// Reserves an amount, and returns whether the budget allows it. A request that costs nothing
    /// is always allowed.
    pub fn reserve(&mut self, cost: f64) -> bool {
        let fits = cost <= 0.0 || cost <= self.0;
        if fits {
            self.0 -= cost;
        }
        fits
    }

    /// Replaces a reserved amount by the actual cost.
    pub fn settle(&mut self, reserved: f64, cost: f64) {
        self.0 += reserved - cost;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_by_the_million() {
        let prices = Prices { tokens_in: 2.0, tokens_out: 10.0 };
        assert_eq!(prices.cost(500_000, 100_000), 2.0);
    }

    #[test]
    fn no_more_is_set_aside_than_there_is() {
        let mut budget = Budget::new(Some(1.0));
        assert!(budget.reserve(0.75));
        assert!(!budget.reserve(0.5));
        budget.settle(0.75, 0.25);
        assert!(budget.reserve(0.5) && budget.reserve(0.25));
        assert!(!budget.reserve(0.01));
        assert!(budget.reserve(0.0));
        budget.settle(0.25, 1.0);
        assert!(budget.reserve(0.0), "what is free is free also where too much was spent");
        assert!(Budget::new(None).reserve(1e300));
    }

    #[test]
    fn tokens_are_a_quarter_of_the_bytes() {
        assert_eq!(
            [
                estimate_tokens(""),
                estimate_tokens("a"),
                estimate_tokens("abcd"),
                estimate_tokens("日本")
            ],
            [0, 1, 1, 2]
        );
    }
}
