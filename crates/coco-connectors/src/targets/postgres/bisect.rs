//! Finds the changes that a server rejects, if a statement accepts all of its rows or none.

use std::ops::Range;

/// The ranges of changes that are still to be attempted, in order. A range that fails is halved
/// until the failing change is alone: `f` of `n` changes cost about `2 f log2 n` attempts.
///
/// `coco_core::bisect` does the same for attempts that are not async.
pub struct Bisection {
    open: Vec<Range<usize>>,
}

impl Bisection {
    pub fn new(changes: Range<usize>) -> Bisection {
        Bisection { open: vec![changes] }
    }

    /// Returns the next range to attempt, which is never empty.
    pub fn next(&mut self) -> Option<Range<usize>> {
        loop {
            let range = self.open.pop()?;
            if !range.is_empty() {
                return Some(range);
            }
        }
    }

    /// Records that the attempt at a range failed. Returns the failing change if the range contains
    /// only one.
    pub fn failed(&mut self, range: Range<usize>) -> Option<usize> {
        if range.len() <= 1 {
            return range.into_iter().next();
        }
        let middle = range.start + range.len() / 2;
        self.open.push(middle..range.end);
        self.open.push(range.start..middle);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(n: usize, bad: &[usize]) -> (Vec<usize>, Vec<usize>, usize) {
        let (mut done, mut failed, mut attempts) = (Vec::new(), Vec::new(), 0);
        let mut bisection = Bisection::new(0..n);
        while let Some(range) = bisection.next() {
            attempts += 1;
            match bad.iter().any(|b| range.contains(b)) {
                true => failed.extend(bisection.failed(range)),
                false => done.extend(range),
            }
        }
        (done, failed, attempts)
    }

    #[test]
    fn what_is_healthy_is_one_attempt() {
        assert_eq!(run(1000, &[]), ((0..1000).collect(), vec![], 1));
        assert_eq!(run(0, &[]), (vec![], vec![], 0));
    }

    #[test]
    fn every_failing_change_is_found_and_every_other_done_once_in_order() {
        let bad = [0, 7, 8, 999];
        let (done, failed, attempts) = run(1000, &bad);
        assert_eq!(failed, bad);
        assert_eq!(done, (0..1000).filter(|n| !bad.contains(n)).collect::<Vec<_>>());
        assert!(attempts <= 4 * 2 * 11, "{attempts} attempts");
    }

    #[test]
    fn all_may_fail() {
        assert_eq!(run(5, &[0, 1, 2, 3, 4]), (vec![], vec![0, 1, 2, 3, 4], 9));
    }
}
