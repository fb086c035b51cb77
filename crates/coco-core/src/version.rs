//! Versions of items: ordinals, fingerprints and logic.

/// The version of an item that a source reports. A larger ordinal is newer. The source defines the
/// unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ordinal(pub i64);

/// A 128-bit BLAKE3 fingerprint of an item's content or of a row's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 16]);

/// The id under which the catalog stores a logic fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogicId(pub i32);

/// The number of an attempt at an item. It grows with each attempt, so it orders concurrent and
/// interrupted attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProcessOrdinal(pub i64);

impl ProcessOrdinal {
    /// Returns the ordinal of the next attempt: the clock in microseconds since the Unix epoch, but
    /// always larger than the stored ordinal. A clock that goes back therefore cannot make an
    /// attempt look old.
    pub fn next(stored: Option<ProcessOrdinal>, now_micros: i64) -> ProcessOrdinal {
        let after_stored = stored.map_or(i64::MIN, |p| p.0.saturating_add(1));
        ProcessOrdinal(after_stored.max(now_micros))
    }
}

/// The version of an item that its source shows now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceVersion {
    /// `None` if the source has no ordinal. coco then skips no item by its version.
    pub ordinal: Option<Ordinal>,
    pub content: Option<Fingerprint>,
}

/// The version of an item that was committed last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommittedVersion {
    pub ordinal: Option<Ordinal>,
    pub content: Option<Fingerprint>,
    /// `None` if no evaluation was ever committed.
    pub logic: Option<LogicId>,
}

/// A recorded failed attempt at an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Fingerprint of the content whose evaluation failed.
    pub content: Option<Fingerprint>,
    pub logic: Option<LogicId>,
    /// Whether the time of the next retry has come.
    pub is_due: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_ordinal_is_the_clock_or_the_stored_one_and_one() {
        assert_eq!(ProcessOrdinal::next(None, 50), ProcessOrdinal(50));
        assert_eq!(ProcessOrdinal::next(Some(ProcessOrdinal(40)), 50), ProcessOrdinal(50));
        assert_eq!(ProcessOrdinal::next(Some(ProcessOrdinal(90)), 50), ProcessOrdinal(91));
    }
}
