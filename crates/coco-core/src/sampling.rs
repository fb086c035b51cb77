//! What a sample of items says about all items: estimates of sums and counts with bounds.
//!
//! The items of a sample are a simple random sample without replacement, split into random groups.
//! The formulas come from W. G. Cochran, *Sampling Techniques* (1977), chapter 2 (totals, and the
//! correction for a finite population), K. M. Wolter, *Introduction to Variance Estimation* (2007),
//! chapter 2 (random groups), E. B. Wilson, JASA 22 (1927) (shares), and P. J. Haas and L. Stokes,
//! JASA 93 (1998) (distinct values: Duj1, which PostgreSQL's ANALYZE uses, too).

/// The number of groups of a sample that is only a part of the items.
pub const GROUPS: usize = 20;

/// The 97.5 % quantile of Student's t distribution with `GROUPS - 1` degrees of freedom.
const T: f64 = 2.093;

/// The 97.5 % quantile of the normal distribution.
const Z: f64 = 1.96;

/// An estimate with its bounds: in 95 of 100 samples, the true value lies between them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bounds {
    pub estimate: f64,
    pub low: f64,
    pub high: f64,
}

impl Bounds {
    pub fn exact(value: f64) -> Bounds {
        Bounds { estimate: value, low: value, high: value }
    }

    /// Returns the bounds of a value that is proportional to this one.
    pub fn scaled(self, factor: f64) -> Bounds {
        self.map(|value| value * factor)
    }

    /// Returns the bounds of a value that grows with this one.
    pub fn map(self, of: impl Fn(f64) -> f64) -> Bounds {
        Bounds { estimate: of(self.estimate), low: of(self.low), high: of(self.high) }
    }
}

impl std::ops::AddAssign for Bounds {
    /// Adds a value that may deviate in the same direction.
    fn add_assign(&mut self, more: Bounds) {
        self.estimate += more.estimate;
        self.low += more.low;
        self.high += more.high;
    }
}

/// A group of the items of a sample: their number, and the sum of a quantity over them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SampleGroup {
    pub items: u64,
    pub sum: f64,
}

/// Returns the number of items that a sample of `n` of `population` items counts as, because the
/// items that are not in the sample are fewer than infinitely many.
fn effective(population: u64, n: u64) -> f64 {
    n as f64 * (population.max(2) - 1) as f64 / (population - n).max(1) as f64
}

/// Estimates the sum of a quantity over all items: `N` times the mean, plus and minus
/// `t · N · sqrt((1 - n/N) · Σ(mean of a group - mean)² / (G · (G - 1)))`. The bounds are never
/// closer than the share of items of which a sample may have none allows.
pub fn total(population: u64, groups: &[SampleGroup]) -> Bounds {
    let n: u64 = groups.iter().map(|group| group.items).sum();
    let sum: f64 = groups.iter().map(|group| group.sum).sum();
    if n == 0 || n >= population {
        return Bounds::exact(sum);
    }
    let (all, mean) = (population as f64, sum / n as f64);
    let filled: Vec<&SampleGroup> = groups.iter().filter(|group| group.items > 0).collect();
    let count = filled.len() as f64;
    let deviation: f64 =
        filled.iter().map(|group| (group.sum / group.items as f64 - mean).powi(2)).sum();
    let variance = match filled.len() {
        0 | 1 => 0.0,
        _ => deviation / (count * (count - 1.0)) * (1.0 - n as f64 / all),
    };
    let unseen = Z * Z / (effective(population, n) + Z * Z);
    let estimate = all * mean;
    let half = (T * all * variance.sqrt()).max(estimate * unseen);
    match sum == 0.0 {
        true => Bounds { estimate: 0.0, low: 0.0, high: all * unseen },
        false => Bounds { estimate, low: (estimate - half).max(sum), high: estimate + half },
    }
}

/// Estimates how many of all items have a property that `hits` of the `n` items of a sample have:
/// Wilson's score interval.
pub fn share(population: u64, n: u64, hits: u64) -> Bounds {
    if n == 0 || n >= population {
        return Bounds::exact(hits as f64);
    }
    let all = population as f64;
    let p = hits as f64 / n as f64;
    let n_effective = effective(population, n);
    let scale = 1.0 + Z * Z / n_effective;
    let center = (p + Z * Z / (2.0 * n_effective)) / scale;
    let half = Z / scale * (p * (1.0 - p) / n_effective + (Z / (2.0 * n_effective)).powi(2)).sqrt();
    let others = (n - hits) as f64;
    Bounds {
        estimate: all * p,
        low: (all * (center - half)).max(hits as f64).min(all * p),
        high: (all * (center + half)).min(all - others).max(all * p),
    }
}

/// The values in a sample of which coco counts the distinct ones.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SampledValues {
    /// The number of values.
    pub seen: u64,
    /// The number of distinct values.
    pub distinct: u64,
    /// The number of values that occur once.
    pub once: u64,
}

/// Estimates how many distinct values there are in all, from the number of all values:
/// `n · d / (n - f1 + f1 · n/N)`.
pub fn distinct(all: Bounds, sampled: SampledValues) -> Bounds {
    let SampledValues { seen, distinct, once } = sampled;
    let (n, d, f1) = (seen as f64, distinct as f64, once as f64);
    let of = |all: f64| match all <= n || seen == 0 {
        true => d,
        false => n * d / (n - f1 + f1 * n / all),
    };
    all.map(of)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(sums: &[f64], items: u64) -> Vec<SampleGroup> {
        sums.iter().map(|sum| SampleGroup { items, sum: *sum }).collect()
    }

    #[test]
    fn a_sample_of_everything_is_exact() {
        assert_eq!(total(6, &groups(&[3.0, 4.0, 0.0], 2)), Bounds::exact(7.0));
        assert_eq!(share(6, 6, 2), Bounds::exact(2.0));
        let sampled = SampledValues { seen: 6, distinct: 4, once: 3 };
        assert_eq!(distinct(Bounds::exact(6.0), sampled), Bounds::exact(4.0));
        assert_eq!(total(0, &[]), Bounds::exact(0.0));
    }

    #[test]
    fn totals_are_as_cochran_computes_them() {
        // Two groups of 10 of 100 items with the means 1 and 3: variance 2 / 2 * 0.8.
        let found = total(100, &groups(&[10.0, 30.0], 10));
        assert_eq!(found.estimate, 200.0);
        let half = T * 100.0 * (0.8_f64).sqrt();
        assert!((found.high - (200.0 + half)).abs() < 1e-9, "{found:?}");
        assert_eq!(found.low, 40.0, "no less than the sample has");
    }

    #[test]
    fn what_a_sample_lacks_may_still_exist() {
        let none = total(20_000, &groups(&[0.0; 20], 50));
        assert_eq!((none.estimate, none.low), (0.0, 0.0));
        assert!(none.high > 60.0 && none.high < 80.0, "{none:?}");
        let one_each = total(20_000, &groups(&[50.0; 20], 50));
        assert_eq!(one_each.estimate, 20_000.0);
        assert!(one_each.low < 20_000.0 && one_each.high > 20_000.0, "{one_each:?}");
    }

    #[test]
    fn shares_stay_between_what_was_seen_and_what_is_left() {
        let half = share(1000, 100, 50);
        assert_eq!(half.estimate, 500.0);
        assert!(half.low > 400.0 && half.low < 420.0, "{half:?}");
        assert!(half.high > 580.0 && half.high < 600.0, "{half:?}");
        let all = share(1000, 100, 100);
        assert_eq!((all.estimate, all.high), (1000.0, 1000.0));
        let none = share(1000, 100, 0);
        assert_eq!((none.estimate, none.low), (0.0, 0.0));
        assert!(none.high > 20.0, "{none:?}");
    }

    #[test]
    fn values_that_repeat_are_not_multiplied() {
        let repeated = SampledValues { seen: 1000, distinct: 100, once: 0 };
        assert_eq!(distinct(Bounds::exact(20_000.0), repeated), Bounds::exact(100.0));
        let unique = SampledValues { seen: 1000, distinct: 1000, once: 1000 };
        assert_eq!(distinct(Bounds::exact(20_000.0), unique), Bounds::exact(20_000.0));
    }
}
