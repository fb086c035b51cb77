//! Finds the rows in which two sides differ, by comparing digests of ranges of keys.
//!
//! The search says what to compare or read next; the caller asks both sides. Ranges whose digests
//! are equal are done. Other ranges are divided until they have few rows, which are then read and
//! compared one by one. Equal sides cost one comparison. `f` different rows among `n` cost about
//! `log n` comparisons, each of about `f` ranges.

use std::collections::{HashMap, HashSet};

use crate::key_range::{DIGITS, Digest, HeldRow, KeyRange, PartDigests};

/// The number of rows up to which a range is read instead of divided.
const FEW: u64 = 32;

/// The number of rows that one step reads, except for the rows of its last range.
const READ: u64 = 4096;

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SearchStep {
    /// Compute the digests of the parts of these ranges on both sides, and pass them to
    /// [`RangeSearch::compared`]. All ranges have the same number of digits; a part has `digits`.
    Compare {
        ranges: Vec<KeyRange>,
        digits: u32,
    },
    /// Read the rows of these ranges on both sides, and compare them with [`compare_rows`]. All
    /// ranges have the same number of digits.
    Read {
        ranges: Vec<KeyRange>,
    },
    Done,
}

/// A range whose digests differ, with the number of rows on both sides together.
#[derive(Clone, Copy, Debug)]
struct Differing {
    range: KeyRange,
    rows: u64,
}

/// A search for differences. Its memory is bounded by the number of parts of a comparison.
pub struct RangeSearch {
    /// The largest number of parts in one comparison.
    parts: u64,
    /// How much the second half of a row's digest may differ.
    tolerance: u64,
    /// Ranges to divide.
    large: Vec<Differing>,
    /// Ranges to read.
    small: Vec<Differing>,
}

impl RangeSearch {
    /// Creates a search among this many rows. One comparison has at most `parts` parts, or 16.
    pub fn new(rows: u64, parts: usize) -> RangeSearch {
        let all = Differing { range: KeyRange::ALL, rows };
        RangeSearch { parts: (parts as u64).max(16), tolerance: 0, large: vec![all], small: vec![] }
    }

    /// Lets digests of a row differ by a tolerance: see [`Digest::is_within`].
    pub fn with_tolerance(self, tolerance: u64) -> RangeSearch {
        RangeSearch { tolerance, ..self }
    }

    /// Returns the next step, and removes its ranges from the search.
    pub fn next_step(&mut self) -> SearchStep {
        let waiting: u64 = self.small.iter().map(|differing| differing.rows).sum();
        if !self.small.is_empty() && (self.large.is_empty() || waiting >= READ) {
            return SearchStep::Read { ranges: self.take_small() };
        }
        match self.large.is_empty() {
            true => SearchStep::Done,
            false => self.divide(),
        }
    }

    /// Takes small ranges of the same number of digits.
    fn take_small(&mut self) -> Vec<KeyRange> {
        let mut ranges: Vec<KeyRange> = vec![];
        let mut rows = 0;
        while let Some(last) = self.small.last()
            && rows < READ
            && ranges.first().is_none_or(|first| first.digits() == last.range.digits())
        {
            rows += last.rows.max(1);
            ranges.push(last.range);
            self.small.pop();
        }
        ranges
    }

    /// Takes large ranges of the same number of digits, and divides each into as many parts as
    /// their rows and the limit allow.
    fn divide(&mut self) -> SearchStep {
        let mut ranges: Vec<KeyRange> = vec![];
        let mut rows = 0;
        while let Some(last) = self.large.last()
            && (ranges.len() as u64 + 1) * 16 <= self.parts
            && ranges.first().is_none_or(|first| first.digits() == last.range.digits())
        {
            rows += last.rows;
            ranges.push(last.range);
            self.large.pop();
        }
        let from = ranges.first().map_or(0, KeyRange::digits);
        let (mut more, mut parts) = (1, ranges.len() as u64 * 16);
        while parts * 16 <= self.parts && rows / (parts * 16) >= FEW / 4 {
            more += 1;
            parts *= 16;
        }
        SearchStep::Compare { ranges, digits: (from + more).min(DIGITS) }
    }

    /// Adds the parts whose digests differ to the search.
    pub fn compared(&mut self, ours: &PartDigests, theirs: &PartDigests) {
        for (range, here) in ours {
            let there = theirs.get(range).copied().unwrap_or_default();
            if !here.is_within(&there, self.tolerance) {
                self.add(*range, here.rows.saturating_add(there.rows));
            }
        }
        for (range, there) in theirs.iter().filter(|(range, _)| !ours.contains_key(range)) {
            self.add(*range, there.rows);
        }
    }

    fn add(&mut self, range: KeyRange, rows: u64) {
        let to = match rows <= FEW || range.digits() >= DIGITS {
            true => &mut self.small,
            false => &mut self.large,
        };
        to.push(Differing { range, rows });
    }
}

/// What is known of a row that the target should hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedRow {
    /// The row's digest.
    Known(Digest),
    /// The target should have the key, but the row's content is not known here.
    KeyOnly,
    /// A change of the key is not delivered yet, or was rejected: the target may hold anything.
    Unsettled,
}

/// A difference between the row that a target should hold and the row that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowDifference {
    Missing,
    Extra,
    Different,
}

impl RowDifference {
    /// Returns the name that `coco.verify` shows.
    pub fn name(self) -> &'static str {
        match self {
            RowDifference::Missing => "missing",
            RowDifference::Extra => "extra",
            RowDifference::Different => "different",
        }
    }
}

/// Compares the rows of some ranges, whose digests may differ by a tolerance. Returns the keys that differ: first those that the target
/// should hold, in the order of their digests, then the extra ones.
pub fn compare_rows(
    expected: &HashMap<Digest, ExpectedRow>,
    held: &[HeldRow],
    tolerance: u64,
) -> Vec<(Digest, RowDifference)> {
    let rows: HashMap<Digest, Digest> = held.iter().map(|held| (held.key, held.row)).collect();
    let mut keys: Vec<Digest> = expected.keys().copied().collect();
    keys.sort_unstable();
    let mut found = Vec::new();
    for key in keys {
        let difference = match (expected.get(&key), rows.get(&key)) {
            (None | Some(ExpectedRow::Unsettled), _) => None,
            (Some(_), None) => Some(RowDifference::Missing),
            (Some(ExpectedRow::KeyOnly), Some(_)) => None,
            (Some(ExpectedRow::Known(here)), Some(there)) => {
                (!here.is_within(*there, tolerance)).then_some(RowDifference::Different)
            }
        };
        found.extend(difference.map(|difference| (key, difference)));
    }
    let mut seen = HashSet::new();
    let extra = held.iter().map(|held| held.key).filter(|key| !expected.contains_key(key));
    found.extend(extra.filter(|key| seen.insert(*key)).map(|key| (key, RowDifference::Extra)));
    found
}

#[cfg(test)]
#[path = "range_search_tests.rs"]
mod tests;
