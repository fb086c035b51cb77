//! Ranges of keys, and digests of the rows in them, by which coco compares the rows of an external
//! target with the ledger.
//!
//! A range holds the keys whose digest begins with certain hexadecimal digits. Digests are spread
//! evenly, whatever the keys are, and their order does not depend on a collation. Both sides
//! therefore form the same ranges.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

/// The number of hexadecimal digits of a [`Digest`].
pub const DIGITS: u32 = 32;

/// 128 bits that stand for a key, or for a row with its key: the first half of a SHA-256.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub u128);

impl Digest {
    /// Returns the digest of these bytes, one after the other.
    pub fn of(parts: &[&[u8]]) -> Digest {
        let mut hasher = Sha256::new();
        parts.iter().for_each(|part| hasher.update(part));
        let hash: [u8; 32] = hasher.finalize().into();
        let half = hash.first_chunk::<16>().copied().unwrap_or_default();
        Digest(u128::from_be_bytes(half))
    }

    /// Returns the digest that hexadecimal digits begin with; `None` if they are not a digest.
    pub fn from_hex(text: &str) -> Option<Digest> {
        let digits = text.get(..DIGITS as usize)?;
        digits
            .bytes()
            .all(|b| b.is_ascii_hexdigit())
            .then(|| u128::from_str_radix(digits, 16).ok().map(Digest))
            .flatten()
    }

    /// Returns the first and the second half, as the whole numbers that a database can store.
    pub fn halves(self) -> (i64, i64) {
        ((self.0 >> 64) as u64 as i64, self.0 as u64 as i64)
    }

    /// Reports whether the first halves are equal, and the second ones, as whole numbers, differ by
    /// at most the tolerance. A target may return a value that is rounded; a connector then puts a
    /// number that stands for such values in the second half.
    pub fn is_within(self, other: Digest, tolerance: u64) -> bool {
        let ((high, low), (other_high, other_low)) = (self.halves(), other.halves());
        high == other_high && low.wrapping_sub(other_low).unsigned_abs() <= tolerance
    }

    /// Returns the digest with these halves.
    pub fn from_halves(high: i64, low: i64) -> Digest {
        Digest((u128::from(high as u64) << 64) | u128::from(low as u64))
    }
}

/// The keys whose digest begins with these digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyRange {
    /// The smallest digest of the range.
    first: u128,
    digits: u32,
}

impl KeyRange {
    /// The range of all keys.
    pub const ALL: KeyRange = KeyRange { first: 0, digits: 0 };

    /// Returns the range of this many digits that a key belongs to.
    pub fn holding(key: Digest, digits: u32) -> KeyRange {
        let digits = digits.min(DIGITS);
        let mask = u128::MAX.checked_shl(4 * (DIGITS - digits)).unwrap_or(0);
        KeyRange { first: key.0 & mask, digits }
    }

    /// Returns the range whose keys begin with these hexadecimal digits.
    pub fn from_prefix(prefix: &str) -> Option<KeyRange> {
        let digits = u32::try_from(prefix.len()).ok().filter(|digits| *digits <= DIGITS)?;
        let padded = format!("{prefix:0<width$}", width = DIGITS as usize);
        Some(KeyRange { first: Digest::from_hex(&padded)?.0, digits })
    }

    /// Returns the digits that the keys of the range begin with.
    pub fn prefix(&self) -> String {
        let mut digits = format!("{:032x}", self.first);
        digits.truncate(self.digits as usize);
        digits
    }

    pub fn digits(&self) -> u32 {
        self.digits
    }

    /// Returns the smallest digest of the range.
    pub fn first_key(&self) -> Digest {
        Digest(self.first)
    }

    pub fn contains(&self, key: Digest) -> bool {
        KeyRange::holding(key, self.digits) == *self
    }
}

/// The number of rows in a range, and their combined digest: the sums of both halves of their
/// digests. A sum does not depend on the order of the rows, and a server can compute it in one
/// pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RangeDigest {
    pub rows: u64,
    pub high: u64,
    pub low: u64,
}

impl RangeDigest {
    pub fn add(&mut self, row: Digest) {
        let (high, low) = row.halves();
        self.rows += 1;
        self.high = self.high.wrapping_add(high as u64);
        self.low = self.low.wrapping_add(low as u64);
    }

    /// Reports whether the ranges have equally many rows, whose digests can be equal within a
    /// tolerance: see [`Digest::is_within`]. Errors of rounding add up like the square root of the
    /// number of rows.
    pub fn is_within(&self, other: &RangeDigest, tolerance: u64) -> bool {
        let difference = self.low.wrapping_sub(other.low) as i64;
        self.rows == other.rows
            && self.high == other.high
            && difference.unsigned_abs() <= tolerance.saturating_mul(self.rows.isqrt() + 1)
    }
}

/// Ranges without a common key.
#[derive(Clone, Debug)]
pub struct RangeSet(Vec<KeyRange>);

impl RangeSet {
    pub fn new(ranges: &[KeyRange]) -> RangeSet {
        let mut ranges = ranges.to_vec();
        ranges.sort_unstable();
        RangeSet(ranges)
    }

    pub fn contains(&self, key: Digest) -> bool {
        let after = self.0.partition_point(|range| range.first <= key.0);
        after.checked_sub(1).and_then(|n| self.0.get(n)).is_some_and(|range| range.contains(key))
    }
}

/// The digests of the parts of some ranges. A part without rows is left out.
pub type PartDigests = BTreeMap<KeyRange, RangeDigest>;

/// Computes the digests of the parts of some ranges from rows in any order, for a side that cannot
/// compute them itself.
pub struct PartSums {
    ranges: RangeSet,
    digits: u32,
    parts: PartDigests,
}

impl PartSums {
    /// Creates empty sums. A part has this many digits.
    pub fn new(ranges: &[KeyRange], digits: u32) -> PartSums {
        PartSums { ranges: RangeSet::new(ranges), digits, parts: PartDigests::new() }
    }

    /// Adds a row if its key is in one of the ranges.
    pub fn add(&mut self, key: Digest, row: Digest) {
        if self.ranges.contains(key) {
            self.parts.entry(KeyRange::holding(key, self.digits)).or_default().add(row);
        }
    }

    pub fn finish(self) -> PartDigests {
        self.parts
    }
}

/// The digests of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangeDigests {
    pub key: Digest,
    /// The digest of the row with its key; `None` if the change deletes the row.
    pub row: Option<Digest>,
}

/// A row that a target holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldRow {
    pub key: Digest,
    pub row: Digest,
    /// The key columns as a JSON object.
    pub json: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_the_first_half_of_a_sha_256() {
        let abc =
            Digest::from_hex("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(Some(Digest::of(&[b"a", b"bc"])), abc);
        assert_eq!(Digest::from_hex("ba78"), None);
        assert_eq!(Digest::from_hex("+a7816bf8f01cfea414140de5dae2223"), None);
        for digest in [Digest(0), Digest(u128::MAX), Digest::of(&[b"x"])] {
            let (high, low) = digest.halves();
            assert_eq!(Digest::from_halves(high, low), digest);
        }
    }

    #[test]
    fn a_range_holds_the_keys_with_its_digits() {
        let key = Digest::of(&[b"abc"]);
        for digits in 0..=DIGITS {
            let range = KeyRange::holding(key, digits);
            assert_eq!(range.digits(), digits);
            assert!(range.contains(key));
            assert_eq!(KeyRange::from_prefix(&range.prefix()), Some(range));
            assert!("ba7816bf8f01cfea414140de5dae2223".starts_with(&range.prefix()));
        }
        assert_eq!(KeyRange::holding(key, 0), KeyRange::ALL);
        let other = KeyRange::from_prefix("ba79").expect("a range");
        assert!(!other.contains(key));
        assert_eq!(KeyRange::from_prefix("xy"), None);
        assert_eq!(KeyRange::from_prefix(&"0".repeat(33)), None);
    }

    #[test]
    fn a_set_of_ranges_holds_the_keys_of_each() {
        let ranges = ["b", "00", "fff"].map(|p| KeyRange::from_prefix(p).expect("a range"));
        let set = RangeSet::new(&ranges);
        for n in 0..2000u32 {
            let key = Digest::of(&[&n.to_be_bytes()]);
            assert_eq!(set.contains(key), ranges.iter().any(|range| range.contains(key)), "{n}");
        }
        assert!(!RangeSet::new(&[]).contains(Digest(0)));
        assert!(RangeSet::new(&[KeyRange::ALL]).contains(Digest(u128::MAX)));
    }

    #[test]
    fn the_order_of_rows_does_not_matter_and_their_number_does() {
        let rows = [1u8, 2, 3].map(|n| Digest::of(&[&[n]]));
        let sum = |rows: &[Digest]| {
            let mut sum = RangeDigest::default();
            rows.iter().for_each(|row| sum.add(*row));
            sum
        };
        let reversed = [rows[2], rows[1], rows[0]];
        assert_eq!(sum(&rows), sum(&reversed));
        assert_ne!(sum(&rows), sum(&rows[..2]));
        assert_ne!(sum(&rows[..1]), sum(&[rows[0], rows[0]]));
    }
}
