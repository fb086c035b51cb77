//! Tests of the search with two sides in memory.

use std::collections::BTreeMap;

use super::*;
use crate::key_range::{PartSums, RangeSet};

/// One side: rows by their keys.
type Side = BTreeMap<Digest, Digest>;

fn key(n: u64) -> Digest {
    Digest::of(&[b"key", &n.to_be_bytes()])
}

fn row(n: u64, version: u8) -> Digest {
    Digest::of(&[b"row", &n.to_be_bytes(), &[version]])
}

fn side(rows: std::ops::Range<u64>) -> Side {
    rows.map(|n| (key(n), row(n, 0))).collect()
}

fn parts(side: &Side, ranges: &[KeyRange], digits: u32) -> PartDigests {
    let mut sums = PartSums::new(ranges, digits);
    side.iter().for_each(|(key, row)| sums.add(*key, *row));
    sums.finish()
}

/// The result of a search, and what it cost.
#[derive(Debug, Default)]
struct Outcome {
    found: Vec<(Digest, RowDifference)>,
    comparisons: usize,
    /// How many digests of parts the other side has sent.
    parts: usize,
    /// How many rows the other side has sent.
    rows: usize,
}

fn search(ours: &Side, theirs: &Side, most: usize) -> Outcome {
    let mut search = RangeSearch::new(ours.len() as u64, most);
    let mut outcome = Outcome::default();
    loop {
        match search.next_step() {
            SearchStep::Done => break,
            SearchStep::Compare { ranges, digits } => {
                assert!(!ranges.is_empty());
                assert!(ranges.iter().all(|range| range.digits() == ranges[0].digits()));
                assert!(digits > ranges[0].digits());
                let there = parts(theirs, &ranges, digits);
                assert!(there.len() <= most.max(16), "{}", there.len());
                search.compared(&parts(ours, &ranges, digits), &there);
                outcome.comparisons += 1;
                outcome.parts += there.len();
            }
            SearchStep::Read { ranges } => {
                assert!(!ranges.is_empty());
                assert!(ranges.iter().all(|range| range.digits() == ranges[0].digits()));
                let set = RangeSet::new(&ranges);
                let inside = |side: &Side| -> Vec<(Digest, Digest)> {
                    let rows = side.iter().filter(|(key, _)| set.contains(**key));
                    rows.map(|(key, row)| (*key, *row)).collect()
                };
                let expected: HashMap<Digest, ExpectedRow> =
                    inside(ours).into_iter().map(|(k, r)| (k, ExpectedRow::Known(r))).collect();
                let held: Vec<HeldRow> = inside(theirs)
                    .into_iter()
                    .map(|(key, row)| HeldRow { key, row, json: String::new() })
                    .collect();
                assert!(held.len() as u64 <= READ + FEW, "{}", held.len());
                outcome.rows += held.len();
                outcome.found.extend(compare_rows(&expected, &held, 0));
            }
        }
    }
    outcome.found.sort_by_key(|(key, _)| *key);
    outcome
}

/// The differences, by reading everything.
fn really(ours: &Side, theirs: &Side) -> Vec<(Digest, RowDifference)> {
    let mut all: Vec<(Digest, RowDifference)> = Vec::new();
    for (key, row) in ours {
        match theirs.get(key) {
            None => all.push((*key, RowDifference::Missing)),
            Some(there) if there != row => all.push((*key, RowDifference::Different)),
            Some(_) => {}
        }
    }
    let extra = theirs.keys().filter(|key| !ours.contains_key(key));
    all.extend(extra.map(|key| (*key, RowDifference::Extra)));
    all.sort_by_key(|(key, _)| *key);
    all
}

#[test]
fn equal_sides_cost_one_comparison() {
    for rows in [0, 1, 100, 50_000] {
        let outcome = search(&side(0..rows), &side(0..rows), 4096);
        assert_eq!((outcome.found.len(), outcome.comparisons, outcome.rows), (0, 1, 0), "{rows}");
    }
}

#[test]
fn few_differences_cost_little() {
    let ours = side(0..100_000);
    let mut theirs = ours.clone();
    for n in 0..10 {
        theirs.insert(key(n), row(n, 1));
        theirs.remove(&key(1000 + n));
        theirs.insert(key(200_000 + n), row(n, 0));
    }
    let outcome = search(&ours, &theirs, 4096);
    assert_eq!(outcome.found, really(&ours, &theirs));
    assert_eq!(outcome.found.len(), 30);
    assert!(outcome.comparisons <= 3, "{outcome:?}");
    assert!(outcome.parts + outcome.rows < 10_000, "{} {}", outcome.parts, outcome.rows);
}

#[test]
fn a_side_without_rows_differs_in_all() {
    let (full, empty) = (side(0..5000), Side::new());
    let missing = search(&full, &empty, 256);
    assert_eq!(missing.found, really(&full, &empty));
    let extra = search(&empty, &full, 256);
    assert_eq!(extra.found, really(&empty, &full));
}

#[test]
fn whatever_differs_is_found() {
    for seed in 0..60 {
        let mut random = fastrand::Rng::with_seed(seed);
        let ours = side(0..random.u64(0..4000));
        let mut theirs = ours.clone();
        for _ in 0..random.usize(0..400) {
            let n = random.u64(0..6000);
            match random.u8(0..3) {
                0 => drop(theirs.remove(&key(n))),
                version => drop(theirs.insert(key(n), row(n, version))),
            }
        }
        let most = [1, 16, 100, 4096, 65_536][random.usize(0..5)];
        let outcome = search(&ours, &theirs, most);
        assert_eq!(outcome.found, really(&ours, &theirs), "seed {seed}");
    }
}

#[test]
fn a_row_of_unknown_content_is_only_looked_for() {
    let held = |n: u64| HeldRow { key: key(n), row: row(n, 0), json: String::new() };
    let expected: HashMap<Digest, ExpectedRow> = [
        (key(1), ExpectedRow::KeyOnly),
        (key(2), ExpectedRow::KeyOnly),
        (key(3), ExpectedRow::Unsettled),
        (key(4), ExpectedRow::Unsettled),
        (key(5), ExpectedRow::Known(row(5, 0))),
        (key(6), ExpectedRow::Known(row(6, 1))),
    ]
    .into();
    let mut found = compare_rows(&expected, &[held(1), held(3), held(5), held(6), held(7)], 0);
    found.sort_by_key(|(key, _)| *key);
    let mut wanted = vec![
        (key(2), RowDifference::Missing),
        (key(6), RowDifference::Different),
        (key(7), RowDifference::Extra),
    ];
    wanted.sort_by_key(|(key, _)| *key);
    assert_eq!(found, wanted);
}

#[test]
fn rounded_values_are_equal_within_the_tolerance() {
    // The first half says what must be equal, the second half is a number.
    let near = |n: u64, number: i64| Digest::from_halves(row(n, 0).halves().0, number);
    let ours: Side = (0..5000).map(|n| (key(n), near(n, -(n as i64) << 40))).collect();
    let mut theirs: Side =
        (0..5000).map(|n| (key(n), near(n, (-(n as i64) << 40) + n as i64 % 101 - 50))).collect();
    let all = |theirs: &Side, tolerance: u64| {
        let mut search = RangeSearch::new(5000, 65_536).with_tolerance(tolerance);
        let mut found = Vec::new();
        loop {
            match search.next_step() {
                SearchStep::Done => break found,
                SearchStep::Compare { ranges, digits } => {
                    search
                        .compared(&parts(&ours, &ranges, digits), &parts(theirs, &ranges, digits));
                }
                SearchStep::Read { ranges } => {
                    let set = RangeSet::new(&ranges);
                    let inside = |side: &Side| -> Vec<(Digest, Digest)> {
                        let rows = side.iter().filter(|(key, _)| set.contains(**key));
                        rows.map(|(key, row)| (*key, *row)).collect()
                    };
                    let known = |(k, r)| (k, ExpectedRow::Known(r));
                    let expected = inside(&ours).into_iter().map(known).collect();
                    let held: Vec<HeldRow> = inside(theirs)
                        .into_iter()
                        .map(|(key, row)| HeldRow { key, row, json: String::new() })
                        .collect();
                    found.extend(compare_rows(&expected, &held, tolerance));
                }
            }
        }
    };
    assert_eq!(all(&theirs, 50).len(), 0);
    assert!(all(&theirs, 0).len() > 4000);
    theirs.insert(key(42), near(42, (-42 << 40) + 10_000));
    theirs.insert(key(43), near(44, -43 << 40));
    let mut found = all(&theirs, 50);
    found.sort_by_key(|(key, _)| *key);
    let mut wanted = vec![(key(42), RowDifference::Different), (key(43), RowDifference::Different)];
    wanted.sort_by_key(|(key, _)| *key);
    assert_eq!(found, wanted);
}
