//! Which version of an item: ordinals, fingerprints, logic.

/// Which version of an item a source reported: larger is newer. Its unit is the source's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ordinal(pub i64);

/// A 128-bit BLAKE3 fingerprint of an item's content or of a row's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 16]);

/// A recorded logic: the id under which the catalog keeps a logic fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogicId(pub i32);

/// Which attempt at an item: grows with every attempt, and orders concurrent or crashed ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProcessOrdinal(pub i64);

impl ProcessOrdinal {
    /// The next attempt's ordinal: the clock in microseconds since the Unix epoch, and always
    /// past the stored one, so that a clock that goes back cannot make an attempt look old.
    pub fn next(stored: Option<ProcessOrdinal>, now_micros: i64) -> ProcessOrdinal {
        let after_stored = stored.map_or(i64::MIN, |p| p.0.saturating_add(1));
        ProcessOrdinal(after_stored.max(now_micros))
    }
}

/// An item as its source shows it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceVersion {
    /// `None` where the source has no ordinal: then nothing is skipped by version.
    pub ordinal: Option<Ordinal>,
    pub content: Option<Fingerprint>,
}

/// An item as it was last committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommittedVersion {
    pub ordinal: Option<Ordinal>,
    pub content: Option<Fingerprint>,
    /// `None` where no evaluation was ever committed.
    pub logic: Option<LogicId>,
}

/// An attempt that failed and was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What was evaluated when it failed.
    pub content: Option<Fingerprint>,
    pub logic: Option<LogicId>,
    /// Its next retry has come.
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
