//! Finds the items that fail, by bisecting a failed batch.

use std::ops::Range;

/// The outcome of an attempt at a range of items.
pub enum Attempt<F> {
    /// All items succeeded.
    Done,
    /// At least one item failed, and nothing of the range was kept.
    Failed(F),
}

/// Attempts `items` as one range. If the attempt fails, halves the range until each failing item is
/// alone, and reports it. A batch without failures costs one attempt; `f` failing items among `n`
/// cost about `2 f log2 n` attempts. An `Err`, which is an error of the flow or the server and not
/// of an item, ends the search.
pub fn bisect<F, E>(
    items: Range<usize>,
    attempt: &mut impl FnMut(Range<usize>) -> Result<Attempt<F>, E>,
    report: &mut impl FnMut(usize, F) -> Result<(), E>,
) -> Result<(), E> {
    if items.is_empty() {
        return Ok(());
    }
    match attempt(items.clone())? {
        Attempt::Done => Ok(()),
        Attempt::Failed(failure) => bisect_failed(items, failure, attempt, report),
    }
}

/// Like [`bisect`], for a range whose attempt has already failed.
pub fn bisect_failed<F, E>(
    items: Range<usize>,
    failure: F,
    attempt: &mut impl FnMut(Range<usize>) -> Result<Attempt<F>, E>,
    report: &mut impl FnMut(usize, F) -> Result<(), E>,
) -> Result<(), E> {
    if items.len() == 1 {
        return report(items.start, failure);
    }
    let middle = items.start + items.len() / 2;
    bisect(items.start..middle, attempt, report)?;
    bisect(middle..items.end, attempt, report)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(n: usize, bad: &[usize]) -> (Vec<usize>, Vec<usize>, usize) {
        let (mut done, mut failed, mut attempts) = (vec![], vec![], 0);
        bisect(
            0..n,
            &mut |r| {
                attempts += 1;
                if r.clone().any(|i| bad.contains(&i)) {
                    return Ok::<_, ()>(Attempt::Failed(()));
                }
                done.extend(r);
                Ok(Attempt::Done)
            },
            &mut |i, ()| {
                failed.push(i);
                Ok(())
            },
        )
        .expect("no flow error");
        (done, failed, attempts)
    }

    #[test]
    fn a_healthy_batch_is_one_attempt() {
        assert_eq!(run(1000, &[]).2, 1);
        assert_eq!(run(0, &[]).2, 0);
    }

    #[test]
    fn every_healthy_item_is_done_and_every_bad_one_reported_once() {
        let bad = [0, 7, 8, 999];
        let (done, failed, attempts) = run(1000, &bad);
        assert_eq!(failed, bad);
        assert_eq!(done.len(), 996);
        assert!(attempts <= 4 * 2 * 11, "{attempts} attempts");
    }

    #[test]
    fn an_error_that_is_no_items_fault_ends_it() {
        let mut attempts = 0;
        let r = bisect(
            0..10,
            &mut |_| {
                attempts += 1;
                Err::<Attempt<()>, _>("canceled")
            },
            &mut |_, _| Ok(()),
        );
        assert_eq!((r, attempts), (Err("canceled"), 1));
    }
}
